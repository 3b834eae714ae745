"""What the latent flow is trained under: conditions between groups, with fair odds."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from s2v_cli.training import flow_stage
from s2v_cli.training.flow_stage import draw_conditions
from s2v_cli.training.latents import CropTable

CROPS = 50  # of each group


@pytest.fixture
def two_groups() -> CropTable:
    """Two groups whose embeddings are the first two axes, crops from zoom 1 to 2."""
    zoom = 2.0 ** torch.linspace(0, 1, CROPS)
    group = torch.arange(2).repeat_interleave(CROPS)
    return CropTable(
        latent=torch.zeros(2 * CROPS, 16, 8, 8),
        embedding=torch.eye(2, 256)[group],
        zoom=zoom.repeat(2),
        group=group,
        first=torch.tensor([0, CROPS]),
        count=torch.tensor([CROPS, CROPS]),
        names=["rain", "sea"],
    )


def draw(table: CropTable, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(len(table.group), (count,), generator=generator)
    return index, draw_conditions(table, index, generator, alone=0.4)


def test_conditions_have_unit_norm(two_groups: CropTable) -> None:
    _, condition = draw(two_groups, 500)
    assert condition.norm(dim=1).sub(1).abs().max() < 1e-5


def test_without_bridges_and_noise_a_condition_is_of_its_own_group(
    two_groups: CropTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_stage, "BRIDGED", 0.0)
    monkeypatch.setattr(flow_stage, "SPREAD", 0.0)
    index, condition = draw(two_groups, 500)
    assert torch.allclose(condition, two_groups.embedding[index], atol=1e-6)


def test_between_two_groups_the_odds_are_those_of_the_place(
    two_groups: CropTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_stage, "BRIDGED", 1.0)
    monkeypatch.setattr(flow_stage, "SPREAD", 0.0)
    index, condition = draw(two_groups, 40_000)
    place = condition[:, 1] / condition[:, :2].sum(dim=1)  # 0 at the first group, 1 at the second
    second = two_groups.group[index].float()
    for low in (0.1, 0.3, 0.5, 0.7):
        here = (place > low) & (place < low + 0.2)
        assert int(here.sum()) > 1000
        assert float(second[here].mean()) == pytest.approx(low + 0.1, abs=0.04)


def test_noise_moves_a_condition_by_up_to_its_spread(
    two_groups: CropTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_stage, "BRIDGED", 0.0)
    index, condition = draw(two_groups, 2000)
    cosine = F.cosine_similarity(condition, two_groups.embedding[index])
    assert float(cosine.max()) > 0.999
    # A noise vector of half the condition's length, at right angles to it.
    assert float(cosine.min()) == pytest.approx((1 + flow_stage.SPREAD**2) ** -0.5, abs=0.03)
