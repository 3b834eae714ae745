"""FID, KID, IS and their intervals on features whose values are known."""

from __future__ import annotations

import sys
import warnings

import pytest
import torch
from torch import Tensor

from s2v_cli.errors import DependencyError
from s2v_cli.training.evaluation import distances
from s2v_cli.training.evaluation.distances import (
    frechet_distance,
    inception_score,
    jackknife_variance,
    kernel_distance,
    number_sources,
    pool_lone,
)


def gaussian(count: int, mean: Tensor, covariance: Tensor, seed: int) -> Tensor:
    """Features [N, F] whose sample mean and covariance are exactly those asked for."""
    draw = torch.randn(
        count, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    draw = draw - draw.mean(dim=0)
    whitened = draw @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(draw.T))).T
    return whitened @ torch.linalg.cholesky(covariance).T + mean


def one_each(count: int) -> tuple[list[str], list[str]]:
    """One class, and a source of its own for each picture."""
    return ["a"] * count, [str(i) for i in range(count)]


def test_fid_of_gaussians_is_the_closed_form() -> None:
    """Of commuting covariances: |m1 - m2|^2 + sum (s1 - s2)^2."""
    first = torch.tensor([1.0, 4.0, 9.0, 0.25], dtype=torch.float64)
    second = torch.tensor([4.0, 1.0, 9.0, 1.0], dtype=torch.float64)
    rotation, _ = torch.linalg.qr(
        torch.randn(4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    )
    mean = torch.tensor([3.0, 0.0, -4.0, 0.0], dtype=torch.float64)
    one = gaussian(60, mean, rotation @ first.diag() @ rotation.T, 0)
    other = gaussian(80, 0 * mean, rotation @ second.diag() @ rotation.T, 1)
    expected = 25 + float((first.sqrt() - second.sqrt()).square().sum())
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(other, one) == pytest.approx(expected, rel=1e-9)


def test_fid_of_covariances_that_do_not_commute() -> None:
    """In two dimensions the trace of the root is sqrt(tr(AB) + 2 sqrt(det(AB)))."""
    a = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, -0.5], [-0.5, 2.0]], dtype=torch.float64)
    mean = torch.zeros(2, dtype=torch.float64)
    root = ((a @ b).trace() + 2 * torch.linalg.det(a @ b).sqrt()).sqrt()
    expected = float(a.trace() + b.trace() - 2 * root)
    found = frechet_distance(gaussian(50, mean, a, 0), gaussian(50, mean, b, 1))
    assert found == pytest.approx(expected, rel=1e-9)


def test_fid_of_equal_sets_is_nothing_and_never_below() -> None:
    features = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    assert 0 <= frechet_distance(features, features) < 1e-6
    few = torch.randn(5, 30, generator=torch.Generator().manual_seed(1))  # fewer than features
    assert 0 <= frechet_distance(few, few) < 1e-6
    assert frechet_distance(features + 2, features) == pytest.approx(32, rel=1e-5)


def test_the_inception_score_of_known_predictions() -> None:
    classes, sources = one_each(60)
    sharp = 200 * torch.eye(6).repeat(10, 1)  # each class as often: the number of classes
    assert inception_score(sharp, classes, sources).value == pytest.approx(6)
    assert inception_score(torch.zeros(60, 6), classes, sources).value == pytest.approx(1)
    same = sharp[:1].expand(60, 6)  # sharp, but always the same
    assert inception_score(same, classes, sources).value == pytest.approx(1)
    uneven = torch.cat([sharp[:1].expand(45, 6), sharp[1:2].expand(15, 6)])
    entropy = -(0.75 * torch.tensor(0.75).log() + 0.25 * torch.tensor(0.25).log())
    assert inception_score(uneven, classes, sources).value == pytest.approx(float(entropy.exp()))


def test_the_inception_score_leaves_the_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    inception_score(torch.randn(10, 3, generator=torch.Generator().manual_seed(0)), *one_each(10))
    assert torch.equal(torch.rand(3), expected)


def test_kid_of_constant_features_is_the_closed_form() -> None:
    """k(a, a) + k(b, b) - 2 k(a, b) with k(x, y) = (x y + 1)^3."""
    found = kernel_distance(
        torch.full((5, 1), 2.0), torch.full((3, 1), -1.0), *one_each(5), *one_each(3)
    )
    assert found.value == pytest.approx(5**3 + 2**3 - 2 * (-1) ** 3)
    assert found.low == pytest.approx(found.value) and found.high == pytest.approx(found.value)


def test_kid_equals_torchmetrics_with_one_subset_of_all() -> None:
    from torchmetrics.image.kid import KernelInceptionDistance

    random = torch.Generator().manual_seed(0)
    one = torch.randn(30, 7, generator=random, dtype=torch.float64)
    other = torch.randn(30, 7, generator=random, dtype=torch.float64) + 0.5
    with warnings.catch_warnings(action="ignore"):
        network = torch.nn.Identity()
        metric = KernelInceptionDistance(feature=network, subsets=1, subset_size=30)
        metric.update(one, real=False)
        metric.update(other, real=True)
        expected, _ = metric.compute()
    found = kernel_distance(one, other, *one_each(30), *one_each(30))
    assert found.value == pytest.approx(float(expected), rel=1e-9)
    # How sources are numbered, and in which pieces the kernel is summed, changes nothing.
    grouped = kernel_distance(
        one, other, ["x", "y"] * 15, [str(i // 5) for i in range(30)], *one_each(30)
    )
    assert grouped.value == pytest.approx(found.value, rel=1e-9)


def test_kid_is_summed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(2)
    one, other = torch.randn(23, 5, generator=random), torch.randn(17, 5, generator=random)
    names = (["a", "b"] * 12)[:23], [str(i // 2) for i in range(23)]
    whole = kernel_distance(one, other, *names, *one_each(17))
    monkeypatch.setattr(distances, "ROWS", 4)
    pieces = kernel_distance(one, other, *names, *one_each(17))
    assert pieces.value == pytest.approx(whole.value, rel=1e-9)
    assert pieces.low == pytest.approx(whole.low, rel=1e-9)


def test_kid_of_two_draws_of_one_distribution_is_about_nothing() -> None:
    """It has no bias: over many draws its mean is 0, and its interval holds that mostly."""
    random = torch.Generator().manual_seed(7)
    found = [
        kernel_distance(
            torch.randn(40, 4, generator=random),
            torch.randn(60, 4, generator=random),
            *one_each(40),
            *one_each(60),
        )
        for _ in range(40)
    ]
    mean = sum(one.value for one in found) / 40
    spread = (sum((one.value - mean) ** 2 for one in found) / 39) ** 0.5
    assert abs(mean) < 3 * spread / 40**0.5
    assert sum(one.low <= 0 <= one.high for one in found) >= 35


def test_kid_s_interval_holds_the_true_distance_of_correlated_pictures() -> None:
    """Four pictures of each recording: intervals that took them for independent would miss."""
    random = torch.Generator().manual_seed(8)
    sources = [str(i // 4) for i in range(80)]
    found = []
    for _ in range(40):
        centres = torch.randn(20, 6, generator=random).repeat_interleave(4, dim=0)
        pictures = centres + 0.2 * torch.randn(80, 6, generator=random) + 0.7
        real = torch.randn(60, 6, generator=random)
        found.append(kernel_distance(pictures, real, ["a"] * 80, sources, *one_each(60)))
    mean = sum(one.value for one in found) / 40
    assert sum(one.low <= mean <= one.high for one in found) >= 33


def test_the_jackknife_of_a_mean_is_its_textbook_variance() -> None:
    values = torch.tensor([1.0, 4.0, 2.0, 9.0, 4.5], dtype=torch.float64)
    variance = jackknife_variance(
        lambda weights: weights @ values / weights.sum(dim=1), torch.zeros(5, dtype=torch.int64)
    )
    assert variance == pytest.approx(float(values.var() / 5))


def test_the_jackknife_goes_class_by_class() -> None:
    """The variance of a mean of class means adds up; a class of one source adds nothing."""
    values = torch.tensor([1.0, 3.0, 10.0, 11.0, 15.0, 7.0], dtype=torch.float64)
    strata = torch.tensor([0, 0, 1, 1, 1, 2])
    variance = jackknife_variance(lambda weights: weights @ values / 6, strata)
    expected = (2 / 6) ** 2 * values[:2].var() / 2 + (3 / 6) ** 2 * values[2:5].var() / 3
    assert variance == pytest.approx(float(expected))
    assert jackknife_variance(lambda weights: weights @ values, torch.arange(6)) == 0


def test_classes_of_one_source_are_pooled() -> None:
    classes, sources = list("aabcdd"), list("xyzwvv")
    assert pool_lone(classes, sources) == list("aabbbb")
    assert pool_lone(list("aab"), list("xyz")) == list("aab")  # one of them stays alone
    numbers, strata = number_sources(classes, sources)
    assert numbers.tolist() == [0, 1, 2, 3, 4, 4] and strata.tolist() == [0, 0, 1, 1, 1]


def test_scores_of_lone_classes_have_the_interval_of_one_class() -> None:
    logits = torch.randn(30, 4, generator=torch.Generator().manual_seed(4))
    names = [str(i) for i in range(30)]
    one = inception_score(logits, *one_each(30))
    assert one.low < one.value < one.high
    lone = inception_score(logits, names, names)
    assert lone.value == pytest.approx(one.value)
    assert lone.low == pytest.approx(one.low) and lone.high == pytest.approx(one.high)


def test_sources_are_numbered_within_their_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers, strata = number_sources(["b", "a", "b", "b"], ["x", "x", "y", "x"])
    assert numbers.tolist() == [0, 2, 1, 0] and strata.tolist() == [0, 0, 1]
    monkeypatch.setattr(distances, "MOST_SOURCES", 6)
    numbers, strata = number_sources(["a"] * 7 + ["b"], [str(i) for i in range(8)])
    assert numbers.tolist() == [0, 1, 2, 0, 1, 2, 0, 3] and strata.tolist() == [0, 0, 0, 1]


def test_without_torchmetrics_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    with pytest.raises(DependencyError, match=r"pip install 's2v-cli\[eval\]'"):
        frechet_distance(torch.zeros(3, 2), torch.zeros(3, 2))
