"""The paper's losses against direct, slow formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from s2v_cli.errors import OptionError
from s2v_cli.training.losses import (
    LOSSES,
    AlignmentLoss,
    audio_visual_loss,
    group_contrastive,
    info_nce,
)


def draw(rows: int, size: int, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, size, generator=random, dtype=torch.float64), dim=1)


def slow_info_nce(a: np.ndarray, b: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Eq. 1, term by term: -log(exp(-d(a_j, b_j)) / sum_k exp(-d(a_j, b_k)))."""
    losses = []
    for j in range(len(a)):
        shares = [np.exp(-np.sqrt(((a[j] - other) ** 2).sum()) / temperature) for other in b]
        losses.append(-np.log(shares[j] / sum(shares)))
    return np.array(losses)


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_info_nce_is_equation_1(temperature: float) -> None:
    a, b = draw(5, 7, 0), draw(8, 7, 1)  # three rows of b are negatives only
    expected = slow_info_nce(a.numpy(), b.numpy(), temperature)
    np.testing.assert_allclose(info_nce(a, b, temperature).numpy(), expected, rtol=1e-6)


def test_the_temperature_is_1_as_in_the_paper() -> None:
    a, b = draw(5, 7, 0), draw(5, 7, 1)
    np.testing.assert_allclose(info_nce(a, b).numpy(), slow_info_nce(a.numpy(), b.numpy()))


def test_audio_visual_loss_is_equation_2() -> None:
    sound, image = draw(6, 9, 2), draw(6, 9, 3)
    expected = (
        slow_info_nce(sound.numpy(), image.numpy()) + slow_info_nce(image.numpy(), sound.numpy())
    ).mean() / 2
    assert float(audio_visual_loss(sound, image)) == pytest.approx(expected, rel=1e-6)


def test_audio_visual_loss_is_symmetric_and_brings_rows_to_unit_norm() -> None:
    sound, image = draw(6, 9, 2), draw(6, 9, 3)
    loss = float(audio_visual_loss(sound, image))
    assert float(audio_visual_loss(image, sound)) == pytest.approx(loss)
    assert float(audio_visual_loss(3 * sound, 0.5 * image)) == pytest.approx(loss)
    assert float(audio_visual_loss(sound, image.flip(0))) != pytest.approx(loss)


def test_a_lower_temperature_is_harder_on_wrong_pairs_and_softer_on_right_ones() -> None:
    sound = draw(6, 9, 2)
    right = [float(audio_visual_loss(sound, sound, t)) for t in (1.0, 0.1)]
    wrong = [float(audio_visual_loss(sound, sound.roll(1, 0), t)) for t in (1.0, 0.1)]
    assert right[1] < right[0]
    assert wrong[1] > wrong[0]


def test_unpaired_sounds_are_negatives_of_the_images_only() -> None:
    sound, image, strange = draw(6, 9, 2), draw(6, 9, 3), draw(4, 9, 4)
    others = np.concatenate([sound.numpy(), strange.numpy()])
    expected = (
        slow_info_nce(sound.numpy(), image.numpy()) + slow_info_nce(image.numpy(), others)
    ).mean() / 2
    loss = float(audio_visual_loss(sound, image, unpaired=strange))
    assert loss == pytest.approx(expected, rel=1e-6)
    assert loss > float(audio_visual_loss(sound, image))


def test_pairs_that_are_not_mixed_have_the_loss_of_the_paper() -> None:
    sound, image, strange = draw(6, 9, 2), draw(6, 9, 3), draw(4, 9, 4)
    plain = float(audio_visual_loss(sound, image, 0.3, strange))
    shares = torch.eye(6, dtype=torch.float64)
    assert float(audio_visual_loss(sound, image, 0.3, strange, shares)) == pytest.approx(plain)


def test_a_mixture_belongs_to_both_images_in_proportion() -> None:
    sound, image = draw(3, 9, 2), draw(3, 9, 3)
    # Sound 0 is three quarters of pair 0 and a quarter of pair 1; the others are not mixed.
    shares = torch.tensor([[0.75, 0.25, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)

    def log_shares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        similar = np.exp(-np.linalg.norm(a[:, None] - b[None], axis=2))
        return np.asarray(np.log(similar / similar.sum(axis=1, keepdims=True)))

    of_sounds = log_shares(sound.numpy(), image.numpy())
    of_images = log_shares(image.numpy(), sound.numpy())
    expected = -(
        0.75 * of_sounds[0, 0] + 0.25 * of_sounds[0, 1] + of_sounds[1, 1] + of_sounds[2, 2]
    )
    # Image 1 is heard in sound 0 with 0.25 and in sound 1 with 1: 0.2 and 0.8 of its positives.
    expected -= of_images[0, 0] + 0.2 * of_images[1, 0] + 0.8 * of_images[1, 1] + of_images[2, 2]
    loss = float(audio_visual_loss(sound, image, shares=shares))
    assert loss == pytest.approx(expected / 6, rel=1e-6)


def test_the_gradient_is_finite_at_distance_zero() -> None:
    sound = draw(4, 9, 2).float().requires_grad_()
    image = sound.detach().clone().requires_grad_()
    audio_visual_loss(sound, image).backward()
    for tensor in (sound, image):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


def slow_group_contrastive(
    embedding: np.ndarray, group: list[int], centres: np.ndarray, temperature: float
) -> float:
    """Khosla et al., Eq. 2, and a softmax over the centres, row by row; the mean of both."""
    centres = centres / np.linalg.norm(centres, axis=1, keepdims=True)
    among, to_centres = [], []
    for i, row in enumerate(embedding):
        share = np.exp(embedding @ row / temperature)
        rest = share.sum() - share[i]
        own = [j for j in range(len(group)) if group[j] == group[i] and j != i]
        if own:
            among.append(-np.mean([np.log(share[j] / rest) for j in own]))
        share = np.exp(centres @ row / temperature)
        to_centres.append(-np.log(share[group[i]] / share.sum()))
    return float((np.mean(among) + np.mean(to_centres)) / 2)


def test_group_contrastive_is_its_formula_though_one_group_has_one_member() -> None:
    embedding, centres = draw(7, 9, 5), draw(3, 9, 6) * 2
    group = [0, 0, 1, 1, 1, 0, 2]
    loss = group_contrastive(embedding, torch.tensor(group), centres, 0.2)
    expected = slow_group_contrastive(embedding.numpy(), group, centres.numpy(), 0.2)
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_group_contrastive_is_lower_where_groups_lie_apart() -> None:
    group = torch.tensor([0, 0, 1, 1])
    centres = torch.eye(2, 4)
    apart, mixed = centres[group], centres[torch.tensor([0, 1, 0, 1])]
    assert float(group_contrastive(apart, group, centres)) < 0.1
    assert float(group_contrastive(mixed, group, centres)) > 2


def test_group_contrastive_has_a_finite_gradient_on_equal_rows() -> None:
    embedding = draw(1, 9, 7).float().repeat(4, 1).requires_grad_()
    centres = draw(2, 9, 8).float().requires_grad_()
    group_contrastive(embedding, torch.tensor([0, 0, 1, 1]), centres).backward()
    for tensor in (embedding, centres):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


# AlignmentLoss: the losses of §3.1 and Table 2


def lengthened(rows: torch.Tensor, seed: int) -> torch.Tensor:
    """The same directions at lengths of 0.5 to 3."""
    random = torch.Generator().manual_seed(seed)
    return rows * (0.5 + 2.5 * torch.rand(len(rows), 1, generator=random, dtype=rows.dtype))


def pairs(rows: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    return lengthened(draw(rows, 9, 2), 4), lengthened(draw(rows, 9, 3), 5)


def slow_cosine_info_nce(a: np.ndarray, b: np.ndarray, temperature: float) -> np.ndarray:
    """L_nce, term by term: -log(exp(a_j . b_j) / sum_k exp(a_j . b_k)), on unit vectors."""
    losses = []
    for j in range(len(a)):
        shares = [
            np.exp(a[j] @ other / np.linalg.norm(a[j]) / np.linalg.norm(other) / temperature)
            for other in b
        ]
        losses.append(-np.log(shares[j] / sum(shares)))
    return np.array(losses)


def unit(rows: torch.Tensor) -> np.ndarray:
    return F.normalize(rows, dim=1).numpy()


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_the_losses_of_table_2_are_their_formulas(temperature: float) -> None:
    sound, image = pairs()
    a, v = sound.numpy(), image.numpy()
    expected = {
        "l2-infonce": slow_info_nce(unit(sound), unit(image), temperature).mean() / 2
        + slow_info_nce(unit(image), unit(sound), temperature).mean() / 2,
        "raw-infonce": slow_info_nce(a, v, temperature).mean() / 2
        + slow_info_nce(v, a, temperature).mean() / 2,
        "cosine-infonce": slow_cosine_info_nce(a, v, temperature).mean() / 2
        + slow_cosine_info_nce(v, a, temperature).mean() / 2,
        "l2": np.linalg.norm(unit(image) - unit(sound), axis=1).mean(),
    }
    assert set(expected) == set(LOSSES)
    for kind, value in expected.items():
        loss = AlignmentLoss(kind, temperature).double()
        assert float(loss(sound, image)) == pytest.approx(value, rel=1e-6), kind
    raw = float(AlignmentLoss("l2", unit=False)(sound, image))
    assert raw == pytest.approx(np.linalg.norm(v - a, axis=1).mean())


def test_the_default_loss_is_that_of_the_mini_recipe() -> None:
    sound, image = pairs()
    expected = float(audio_visual_loss(sound, image))
    assert float(AlignmentLoss("l2-infonce")(sound, image)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", LOSSES)
def test_gradients_are_those_of_differences(kind: str) -> None:
    sound, image = (rows.requires_grad_() for rows in pairs(4))
    loss = AlignmentLoss(kind, 0.7, learn=True).double()

    def of(sound: torch.Tensor, image: torch.Tensor, logarithm: torch.Tensor) -> torch.Tensor:
        found = torch.func.functional_call(loss, {"log_temperature": logarithm}, (sound, image))
        return torch.as_tensor(found)

    logarithm = loss.log_temperature.detach().clone().requires_grad_()
    if kind == "l2":  # which has no temperature
        assert torch.autograd.gradcheck(lambda a, v: of(a, v, logarithm), (sound, image))
    else:
        assert torch.autograd.gradcheck(of, (sound, image, logarithm))


@pytest.mark.parametrize("kind", LOSSES)
def test_parts_of_a_batch_make_the_loss_and_gradients_of_the_whole(kind: str) -> None:
    loss = AlignmentLoss(kind, 0.3).double()
    whole = [rows.requires_grad_() for rows in pairs(8)]
    expected = loss(*whole)
    expected.backward()
    parts = [rows.detach().clone().requires_grad_() for rows in whole]
    sound, image = parts
    shares = [
        loss(sound[first : first + 2], image[first : first + 2], sound, image, first)
        for first in (0, 2, 4, 6)
    ]
    mean = torch.stack(shares).mean()
    mean.backward()
    assert float(mean.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    for part, rows in zip(parts, whole, strict=True):
        assert part.grad is not None and rows.grad is not None
        assert torch.allclose(part.grad, rows.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("kind", LOSSES)
def test_equal_pairs_have_finite_gradients(kind: str) -> None:
    sound = draw(4, 9, 2).float().requires_grad_()
    AlignmentLoss(kind)(sound, sound.detach().clone()).backward()
    assert sound.grad is not None and sound.grad.isfinite().all()


def test_a_fixed_temperature_is_exact_and_no_weight() -> None:
    sound, image = pairs()
    loss = AlignmentLoss("cosine-infonce", 500.0)
    assert not [weight for weight in loss.parameters() if weight.requires_grad]
    assert float(loss.temperature) == pytest.approx(500.0, rel=1e-5)
    assert float(AlignmentLoss("l2-infonce").temperature) == 1.0
    expected = float(np.log(6))  # all are alike so hot
    assert float(loss(sound, image)) == pytest.approx(expected, abs=1e-2)


@pytest.mark.parametrize(("start", "bound", "turn"), [(1e-9, 0.01, 1), (1e9, 100.0, 0)])
def test_a_learnt_temperature_stays_inside_and_comes_back(
    start: float, bound: float, turn: int
) -> None:
    sound = draw(6, 9, 2).float()
    loss = AlignmentLoss("cosine-infonce", start, learn=True)
    loss(sound, sound.roll(turn, 0)).backward()  # wrong pairs warm it, right ones cool it
    assert float(loss.temperature.detach()) == pytest.approx(bound, rel=1e-5)
    gradient = loss.log_temperature.grad
    assert gradient is not None
    assert gradient < 0 if turn else gradient > 0


def test_other_losses_are_refused() -> None:
    with pytest.raises(OptionError, match=r"loss is 'triplet'; allowed: l2-infonce, "):
        AlignmentLoss("triplet")
