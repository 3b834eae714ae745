"""What the image encoder is shown: crops that grow, some mixed; in `refine` none of them mixed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from s2v_cli.encoders.mini_image import IMAGE_SIZE, MiniImageEncoder
from s2v_cli.training import image_stage
from s2v_cli.training.dataset import Photo
from s2v_cli.training.image_stage import SIZES, ImageStage
from s2v_cli.training.losses import group_contrastive
from s2v_cli.training.recipe import StageOptions

OPTIONS = StageOptions(
    steps=100, batch=6, learning_rate=1e-3, loss_weights=(("zoom", 0.5),), validate_every=100
)


@pytest.fixture
def photos() -> tuple[list[Photo], torch.Tensor]:
    """Twelve plain photos of two groups."""
    names = ["rain", "fire"] * 6
    held = [Photo(n, Path(f"{n}-{i}.jpg"), f"{n}/{i}", "train") for i, n in enumerate(names)]
    generator = torch.Generator().manual_seed(0)
    return held, torch.randint(0, 256, (12, 3, 160, 160), generator=generator, dtype=torch.uint8)


class Shown:
    """Records what a stage's encoder and its loss are given."""

    def __init__(self, stage: ImageStage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sides: list[int] = []
        self.shares: list[torch.Tensor] = []
        encoder = stage.modules["encoder"]
        assert isinstance(encoder, MiniImageEncoder)
        maps, contrast = encoder.maps, group_contrastive

        def look(image: torch.Tensor) -> list[torch.Tensor]:
            self.sides.append(image.shape[-1])
            return maps(image)

        def loss(*given: object) -> torch.Tensor:
            self.shares.append(given[-1])  # type: ignore[arg-type]
            return contrast(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(encoder, "maps", look)
        monkeypatch.setattr(image_stage, "group_contrastive", loss)


@pytest.mark.parametrize("name", ["image_encoder", "refine"])
def test_crops_grow(
    photos: tuple[list[Photo], torch.Tensor], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    start = ImageStage("image_encoder", *photos, OPTIONS).modules if name == "refine" else None
    stage = ImageStage(name, *photos, OPTIONS, start)
    assert stage.name == name
    shown = Shown(stage, monkeypatch)
    for step in (0, 50, 70, 99):
        stage.step(step, torch.Generator().manual_seed(step))
    expected = [
        next(side for until, side in SIZES[name] if s < 100 * until) for s in (0, 50, 70, 99)
    ]
    assert shown.sides == expected and expected[-1] == IMAGE_SIZE > expected[0]


def test_only_the_first_stage_mixes_photos(
    photos: tuple[list[Photo], torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ImageStage("image_encoder", *photos, OPTIONS)
    shown = Shown(first, monkeypatch)
    for step in range(4):
        first.step(step, torch.Generator().manual_seed(step))
    shares = torch.cat(shown.shares)
    assert 0 < float((shares > 0).float().mean()) < 0.7 and float(shares.max()) <= 0.5
    second = ImageStage("refine", *photos, OPTIONS, first.modules)
    shown = Shown(second, monkeypatch)
    second.step(0, torch.Generator().manual_seed(0))
    assert not shown.shares[-1].any()


def test_refine_goes_on_from_all_networks(photos: tuple[list[Photo], torch.Tensor]) -> None:
    first = ImageStage("image_encoder", *photos, OPTIONS)
    first.step(0, torch.Generator().manual_seed(0))
    second = ImageStage("refine", *photos, OPTIONS, first.modules)
    assert set(second.modules) == {"encoder", "centres", "zoom_head"}
    for name, module in first.modules.items():
        for key, value in module.state_dict().items():
            assert torch.equal(second.modules[name].state_dict()[key], value), (name, key)


def test_unknown_centres_begin_as_the_means_of_the_groups(
    photos: tuple[list[Photo], torch.Tensor],
) -> None:
    encoder = ImageStage("image_encoder", *photos, OPTIONS).modules["encoder"]
    stage = ImageStage("refine", *photos, OPTIONS, {"encoder": encoder})
    centres = stage.modules["centres"].weight.detach()  # type: ignore[union-attr,operator]
    assert torch.allclose(centres.norm(dim=1), torch.ones(2))
    embedding = image_stage.embed_crops(
        stage.modules["encoder"].eval(),  # type: ignore[arg-type]
        photos[1],
        torch.ones(12),
        torch.Generator().manual_seed(1),
    )
    own = F.normalize(torch.stack([embedding[stage.group == g].mean(0) for g in (0, 1)]), dim=1)
    assert float((own * centres).sum(dim=1).min()) > 0.95  # crops differ by being mirrored


def test_a_mixed_image_belongs_to_both_groups() -> None:
    centres = torch.eye(3, 8)
    between = F.normalize(torch.tensor([[0.6, 0.4, 0.0] + [0.0] * 5]), dim=1).repeat(2, 1)
    group, partner = torch.tensor([0, 0]), torch.tensor([1, 2])
    share = torch.tensor([0.4, 0.4])

    def loss(rows: slice) -> float:
        return float(
            group_contrastive(between[rows], group[rows], centres, 0.1, partner[rows], share[rows])
        )

    assert loss(slice(0, 1)) < loss(slice(1, 2))  # it lies towards the partner of the first
