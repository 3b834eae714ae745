"""FID, KID and Inception Score of features, with intervals (§4.1).

FID (Heusel et al., 2017) and the Inception Score (Salimans et al., 2016) are computed by
torchmetrics. KID (Bińkowski et al., 2018) is the unbiased estimate over all pictures at once, which
equals torchmetrics' with one subset that holds them all; it is summed here by recording, for its
interval.

Intervals are jackknifed: recordings are left out one by one. Drawing recordings again, as for R@k,
lets pictures occur twice, which moves both figures; leaving out does not.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from s2v_cli.errors import DependencyError

DEGREE = 3  # of KID's polynomial kernel (x . y / F + 1)^3
ROWS = 1024  # of the kernel matrix at once
MOST_SOURCES = 2000  # told apart, of all classes together
NORMAL_95 = 1.959964  # standard deviations to either side


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95% interval.

    Attributes:
        value: of all pictures.
        low: end of the interval.
        high: the other end.
    """

    value: float
    low: float
    high: float


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """FID of features [N, F] against those of real pictures [M, F]; N and M are 2 or more.

    Biased upwards, the more the fewer pictures: compare figures of equal counts only.

    Raises:
        DependencyError: torchmetrics is missing.
    """
    metric = _torchmetrics("fid").FrechetInceptionDistance(feature=_given(features.shape[1]))
    metric.update(reference.double(), real=True)
    metric.update(features.double(), real=False)
    # Rounding can push the distance of equal sets a little below zero.
    return max(0.0, float(metric.compute()))


def inception_score(logits: Tensor, classes: Sequence[str], sources: Sequence[str]) -> Estimate:
    """Inception Score of logits [N, C]: all pictures in one split, 1 to C.

    Args:
        logits: of the classifier.
        classes: of each picture; sources are left out within them.
        sources: the recording of each picture.

    Raises:
        DependencyError: torchmetrics is missing.
    """
    module = _torchmetrics("inception")
    with _quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # it shuffles, which one split feels in the last digit only
        metric = module.InceptionScore(feature=_given(logits.shape[1]), splits=1)
        metric.update(logits.double())
        value = float(metric.compute()[0])
    index, strata = number_sources(classes, sources)
    log_p = logits.double().log_softmax(dim=1)
    p = log_p.exp()
    sharpness = _sums((p * log_p).sum(dim=1, keepdim=True), index)[:, 0]  # [S]
    by_source, count = _sums(p, index), index.bincount().double()

    def score(weights: Tensor) -> Tensor:
        total = weights @ count
        mean = weights @ by_source / total[:, None]  # p(y), [R, C]
        entropy = -torch.special.xlogy(mean, mean).sum(dim=1)
        found: Tensor = (weights @ sharpness / total + entropy).exp()
        return found

    return _estimate(value, jackknife_variance(score, strata))


def kernel_distance(
    features: Tensor,
    reference: Tensor,
    classes: Sequence[str],
    sources: Sequence[str],
    reference_classes: Sequence[str],
    reference_sources: Sequence[str],
) -> Estimate:
    """KID of features [N, F] against those of real pictures [M, F]; N and M are 2 or more.

    Figures of different counts can be compared; it may be a little below zero.

    Args:
        features: of the pictures.
        reference: of the real ones.
        classes: of each picture; sources are left out within them.
        sources: the recording of each picture.
        reference_classes: of each real picture.
        reference_sources: the source of each real picture.
    """
    mine, strata = number_sources(classes, sources)
    real, real_strata = number_sources(reference_classes, reference_sources)
    blocks = (
        _kernel_sums(features, features, mine, mine, itself=True),
        _kernel_sums(reference, reference, real, real, itself=True),
        _kernel_sums(features, reference, mine, real),
    )
    counts = (mine.bincount().double(), real.bincount().double())
    once = torch.ones(1, len(strata), dtype=torch.float64)
    real_once = torch.ones(1, len(real_strata), dtype=torch.float64)
    value = _discrepancy(blocks, counts, once, real_once)
    variance = jackknife_variance(lambda w: _discrepancy(blocks, counts, w, real_once), strata)
    variance += jackknife_variance(lambda w: _discrepancy(blocks, counts, once, w), real_strata)
    return _estimate(float(value), variance)


def pool_lone(classes: Sequence[str], sources: Sequence[str]) -> list[str]:
    """Class of each picture, where those of one source are one class together, if there are two.

    Alone they would have no spread. Together they have too much, for classes differ too: intervals
    are then rather too wide (collapsed strata; Cochran, Sampling Techniques, 1977, §5A.12).
    """
    members: dict[str, set[str]] = {}
    for name, source in zip(classes, sources, strict=True):
        members.setdefault(name, set()).add(source)
    lone = [name for name, found in members.items() if len(found) == 1]
    return [lone[0] if len(members[name]) == 1 else name for name in classes]


def number_sources(classes: Sequence[str], sources: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Number the sources of each class; of very many, several of a class share a number.

    Returns:
        The number of each picture's source, int64 [N]; and of each number its class, int64 [S],
        where classes of one source are one together.
    """
    classes = pool_lone(classes, sources)
    by_class: dict[str, dict[str, int]] = {}
    for name, source in zip(classes, sources, strict=True):
        members = by_class.setdefault(name, {})
        members.setdefault(source, len(members))
    most = max(2, MOST_SOURCES // len(by_class))
    first: dict[str, int] = {}
    strata: list[int] = []
    for place, (name, members) in enumerate(by_class.items()):
        first[name] = len(strata)
        strata += [place] * min(most, len(members))
    numbers = [
        first[name] + by_class[name][source] % most
        for name, source in zip(classes, sources, strict=True)
    ]
    return torch.tensor(numbers), torch.tensor(strata)


def jackknife_variance(figure: Callable[[Tensor], Tensor], strata: Tensor) -> float:
    """Variance of a figure by leaving out sources, one at a time, within their classes.

    The other sources of a class then weigh more, so that the classes keep their shares. A class
    with one source adds nothing.

    Args:
        figure: takes weights [R, S] of the sources, and returns it for each row [R].
        strata: class of each source, int64 [S].
    """
    sizes = strata.bincount()
    left_out = torch.arange(len(strata))[sizes[strata] > 1]
    found = []
    for some in left_out.split(ROWS):
        same = strata[some, None] == strata[None]  # [R, S]
        size = sizes[strata[some]][:, None].double()
        weights = torch.where(same, size / (size - 1), 1.0)
        weights[torch.arange(len(some)), some] = 0
        found.append(figure(weights))
    values = torch.cat(found) if found else torch.empty(0, dtype=torch.float64)
    variance = 0.0
    for place in strata[left_out].unique():
        own = values[strata[left_out] == place]
        variance += float((own - own.mean()).square().sum() * (len(own) - 1) / len(own))
    return variance


def _kernel_sums(
    one: Tensor, other: Tensor, of_one: Tensor, of_other: Tensor, *, itself: bool = False
) -> Tensor:
    """The kernel between all pictures, summed by source: float64 [S, S']; in constant memory.

    Args:
        one: features [N, F].
        other: features [M, F].
        of_one: source of each row [N].
        of_other: source of each row [M].
        itself: `other` is `one`; a picture is then not compared with itself.
    """
    one, other = one.double(), other.double()
    table = torch.zeros(int(of_one.max()) + 1, int(of_other.max()) + 1, dtype=torch.float64)
    for first in range(0, len(one), ROWS):
        rows = slice(first, first + ROWS)
        kernel = (one[rows] @ other.T / one.shape[1] + 1) ** DEGREE  # [rows, M]
        if itself:
            kernel[torch.arange(len(kernel)), torch.arange(first, first + len(kernel))] = 0
        table.index_add_(0, of_one[rows], _sums(kernel.T, of_other, table.shape[1]).T)
    return table


def _discrepancy(
    blocks: tuple[Tensor, Tensor, Tensor],
    counts: tuple[Tensor, Tensor],
    weights: Tensor,
    other_weights: Tensor,
) -> Tensor:
    """Unbiased squared MMD [R] of pictures whose sources weigh [R, S] and [R, S'].

    Args:
        blocks: kernels summed by source: among the pictures, among the others, between them.
        counts: pictures of each source, [S] and [S'].
        weights: of the sources; one row serves for all rows of the other.
        other_weights: of the others' sources.
    """
    within = torch.zeros((), dtype=torch.float64)
    for block, count, weight in zip(blocks, counts, (weights, other_weights), strict=False):
        pairs = (weight @ count).square() - weight.square() @ count  # of two different pictures
        within = within + ((weight @ block) * weight).sum(dim=1) / pairs
    across = ((weights @ blocks[2]) * other_weights).sum(dim=1)
    return within - 2 * across / ((weights @ counts[0]) * (other_weights @ counts[1]))


def _sums(values: Tensor, index: Tensor, count: int | None = None) -> Tensor:
    """Sums [S, F] of the rows of values [N, F] with the same index [N]."""
    rows = int(index.max()) + 1 if count is None else count
    return torch.zeros(rows, values.shape[1], dtype=values.dtype).index_add_(0, index, values)


def _estimate(value: float, variance: float) -> Estimate:
    width = NORMAL_95 * math.sqrt(variance)
    return Estimate(value, value - width, value + width)


def _given(size: int) -> nn.Module:
    """What torchmetrics takes for a network: the features are computed already."""
    network = nn.Identity()
    network.num_features = size  # type: ignore[assignment]
    return network


def _torchmetrics(name: str) -> ModuleType:
    import importlib

    try:
        with _quiet():
            return importlib.import_module(f"torchmetrics.image.{name}")
    except ImportError:
        raise DependencyError(
            "FID and the Inception Score need torchmetrics: pip install 's2v-cli[eval]'"
        ) from None


def _quiet() -> Any:
    """Keep torchmetrics' warnings (of memory, and of one split's deviation) off stderr."""
    return warnings.catch_warnings(action="ignore")
