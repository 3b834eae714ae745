"""Figures of merit as pure functions: ranks, class means with intervals, distances, near-copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from s2v_cli.training.judge import BATCH

RESAMPLES = 2000  # of the bootstrap
COPY_QUANTILE = 0.01  # of the held-out photos' own distances to the training photos


def rank_of(logits: Tensor, target: Tensor) -> Tensor:
    """Rank [N] from 1 of the target [N] among logits [N, G]; ties count against it."""
    own = logits.gather(1, target[:, None])
    return (logits >= own).sum(dim=1)


def class_mean(values: Sequence[float], classes: Sequence[str]) -> float:
    """Mean over classes of the mean of each class's values."""
    means = class_means(values, classes).values()
    return sum(means) / max(1, len(means))


def class_means(values: Sequence[float], classes: Sequence[str]) -> dict[str, float]:
    """Mean of each class's values, by class."""
    grouped: dict[str, list[float]] = {}
    for value, name in zip(values, classes, strict=True):
        grouped.setdefault(name, []).append(value)
    return {name: sum(found) / len(found) for name, found in sorted(grouped.items())}


def bootstrap(
    values: Sequence[float],
    classes: Sequence[str],
    recordings: Sequence[str],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """95% interval of the class mean: recordings are drawn again within each class.

    Clips of one recording are not independent, so they are drawn together. A class with one
    recording adds no width.
    """
    random = np.random.default_rng(seed)
    means = []
    for name in sorted(set(classes)):
        sums: dict[str, tuple[float, int]] = {}
        for value, own, recording in zip(values, classes, recordings, strict=True):
            if own == name:
                total, count = sums.get(recording, (0.0, 0))
                sums[recording] = (total + value, count + 1)
        table = np.array([sums[recording] for recording in sorted(sums)])  # [R, 2]
        drawn = table[random.integers(len(table), size=(resamples, len(table)))].sum(axis=1)
        means.append(drawn[:, 0] / drawn[:, 1])
    low, high = np.quantile(np.mean(means, axis=0), [0.025, 0.975])
    return float(low), float(high)


def spread(classes: Sequence[str], count: int) -> list[int]:
    """Indices of up to `count` items: one of each class in turn, in the items' order."""
    by_class: dict[str, list[int]] = {}
    for index, name in enumerate(classes):
        by_class.setdefault(name, []).append(index)
    turns = [(turn, i) for members in by_class.values() for turn, i in enumerate(members)]
    return sorted(i for _, i in sorted(turns)[:count])


def pairwise_distance(features: Tensor) -> float:
    """Mean Euclidean distance over all pairs of features [N, F]; N is 2 or more."""
    return float(F.pdist(features.double()).mean())


def near_copies(distance: Tensor, reference: Tensor) -> tuple[Tensor, float]:
    """Which pictures lie suspiciously near to a training photo.

    Args:
        distance: of each picture to its nearest training photo, [N].
        reference: the same of real photos that were held out, [M].

    Returns:
        bool [N], true below the 1st percentile of `reference`; and that percentile. One in a
        hundred real photos is below it.
    """
    limit = float(torch.quantile(reference.double(), COPY_QUANTILE))
    return distance.double() < limit, limit


def nearest(
    queries: Tensor, galleries: Iterator[Tensor] | Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Distance to the nearest row and its index, each [N], of queries [N, F].

    Args:
        queries: what is looked for.
        galleries: several versions [M, F] of one gallery; row j is the same item in each.
    """
    distance = torch.full((len(queries),), float("inf"))
    index = torch.zeros(len(queries), dtype=torch.long)
    for gallery in galleries:
        for start in range(0, len(queries), BATCH):
            rows = slice(start, start + BATCH)
            found, where = torch.cdist(queries[rows], gallery).min(dim=1)
            better = found < distance[rows]
            distance[rows] = torch.where(better, found, distance[rows])
            index[rows] = torch.where(better, where, index[rows])
    return distance, index
