"""The modality gap of embeddings whose geometry is known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from s2v_cli.training.evaluation import gap

PAIRS, DIMENSIONS = 40, 8


def features(rows: int = PAIRS, seed: int = 0) -> Tensor:
    """Random features whose last dimension is 0."""
    drawn = torch.randn(rows, DIMENSIONS, generator=torch.Generator().manual_seed(seed)).double()
    drawn[:, -1] = 0
    return drawn


def last_axis(length: float) -> Tensor:
    vector = torch.zeros(DIMENSIONS).double()
    vector[-1] = length
    return vector


def test_a_constant_gap_out_of_the_features_span() -> None:
    image = features()
    found = gap.geometry(image, image - last_axis(0.7))
    assert torch.allclose(found.magnitude, torch.full((PAIRS,), 0.7).double())
    assert torch.allclose(found.direction, torch.ones(PAIRS).double())
    assert torch.allclose(found.mean_gap, last_axis(0.7))
    for turned in (found.orthogonality_image, found.orthogonality_sound):
        assert turned.abs().max() < 1e-12
    expected = image.mean(dim=0)
    assert torch.allclose(found.centre, expected)


def test_features_without_a_mean_have_their_centre_at_zero() -> None:
    image = features()
    image = image - image.mean(dim=0) + last_axis(3.0)
    found = gap.geometry(image, image - last_axis(0.7))
    assert found.centre.abs().max() < 1e-12


def test_a_gap_along_the_features_is_not_orthogonal() -> None:
    along = torch.linspace(-1, 1, PAIRS).double()[:, None] * last_axis(1.0)
    found = gap.geometry(along, along - last_axis(0.5))
    assert torch.allclose(found.orthogonality_image, along[:, -1].sign())
    assert torch.allclose(found.orthogonality_sound, along[:, -1].sign())


def test_the_centre_is_the_same_of_both_modalities() -> None:
    image, sound = features(seed=1) + 0.3, features(seed=2)
    found = gap.geometry(image, sound)
    assert torch.allclose(gap.centre(sound, found.mean_gap), found.centre)
    assert found.centre.abs().max() > 0.1
    assert abs(float(found.centre @ found.mean_gap)) < 1e-12


def test_no_gap_at_all() -> None:
    image = features()
    found = gap.geometry(image, image)
    assert found.magnitude.max() == 0
    assert found.direction.abs().max() == 0
    assert found.orthogonality_image.abs().max() == 0
    assert gap.alignment(image, image) == pytest.approx(1)


def test_alignment_is_the_mean_cosine() -> None:
    image = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
    sound = torch.tensor([[1.0, 0.0], [4.0, 0.0], [-5.0, 0.0]])
    assert gap.alignment(image, sound) == pytest.approx((1 + 0 - 1) / 3)
    assert gap.geometry(image, sound).alignment.tolist() == pytest.approx([1, 0, -1])


def test_alignment_and_the_published_loss_tell_the_same() -> None:
    image, sound = (torch.nn.functional.normalize(features(seed=s), dim=1) for s in (1, 2))
    loss = float((image - sound).square().sum(dim=1).mean())
    assert gap.alignment(image, sound) == pytest.approx(1 - loss / 2)


def test_unpaired_alignment_and_uniformity_leave_the_pairs_out() -> None:
    image, sound = features(7, seed=1), features(7, seed=2)
    cosines = [
        float(torch.cosine_similarity(image[j], sound[k], dim=0))
        for j in range(7)
        for k in range(7)
        if j != k
    ]
    assert gap.unpaired_alignment(image, sound) == pytest.approx(sum(cosines) / 42)
    kernels = [math.exp(-2 * (2 - 2 * cosine)) for cosine in cosines]
    assert gap.uniformity(image, sound) == pytest.approx(math.log(sum(kernels) / 42))


def test_uniformity_of_opposite_modalities() -> None:
    """All distances between the modalities are 2: exp(-2 * 4)."""
    image = torch.tensor([[1.0, 0.0]] * 5)
    assert gap.uniformity(image, -image) == pytest.approx(-8)


def test_uniformity_in_parts_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    image, sound = features(seed=1), features(seed=2)
    whole = gap.uniformity(image, sound)
    monkeypatch.setattr(gap, "_ROWS", 7)
    assert gap.uniformity(image, sound) == pytest.approx(whole)


def test_a_random_direction_spreads_as_told() -> None:
    directions = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
    cosines = torch.nn.functional.normalize(directions, dim=1)[:, 0]
    assert float(cosines.std()) == pytest.approx(gap.random_spread(64), rel=0.05)


def test_the_interval_of_equal_values_has_no_width() -> None:
    assert gap.mean_interval(torch.full((6,), 0.25), [*"aabbcc"]) == pytest.approx((0.25, 0.25))


def test_the_interval_is_that_of_a_mean_of_independent_recordings() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(0))
    low, high = gap.mean_interval(values, [str(i) for i in range(400)], resamples=4000)
    half = 1.96 * float(values.std()) / 20
    assert low == pytest.approx(float(values.mean()) - half, abs=0.01)
    assert high == pytest.approx(float(values.mean()) + half, abs=0.01)


def test_clips_of_one_recording_count_once() -> None:
    """A hundred copies of each value are no more certain than the values alone."""
    values = torch.randn(30, generator=torch.Generator().manual_seed(0))
    names = [str(i) for i in range(30)]
    alone = gap.mean_interval(values, names)
    repeated = gap.mean_interval(values.repeat(100), names * 100)
    assert repeated == pytest.approx(alone)
