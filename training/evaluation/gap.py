"""The modality gap between paired embeddings: its geometry and the alignment of pairs (§4.4).

Everything is a pure function of z^V and z^A, float [N, D], row j of both being pair j. The paper's
features have unit norm; what is not of unit norm comes out in its own scale.

After Zhang et al., 2023 ("Diagnosing and Rectifying Vision Models using Language"), a space lets
one modality stand in for the other where the gap g = z^V - z^A is about one constant vector,
orthogonal to the span of the features, whose centre is zero in the subspace orthogonal to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

RESAMPLES = 1000  # of the bootstrap
UNIFORMITY_SCALE = 2.0  # t of Wang & Isola, 2020
_ROWS = 1024  # of a matrix of distances that is held at once


@dataclass(frozen=True)
class Geometry:
    """The distributions of Fig. 6, and what the table of Fig. 7 is the mean of.

    Attributes:
        magnitude: ||g|| of each pair, [N].
        direction: cos(g, E[g]) of each pair, [N]; 1 where the gap is one constant vector. Not in
            the paper, whose magnitude alone cannot tell.
        orthogonality_image: cos(z^V - E[z^V], E[g]) of each pair, [N].
        orthogonality_sound: the same of z^A, [N].
        centre: E[z^V - (z^V . g')g'] of each dimension, [D], with g' = E[g] / ||E[g]||. That of
            z^A is the same, for the two differ by E[g], of which the subspace has no part.
        alignment: cos(z^V, z^A) of each pair, [N]; its mean is the alignment of Goel et al., 2022.
        mean_gap: E[g], [D].
    """

    magnitude: Tensor
    direction: Tensor
    orthogonality_image: Tensor
    orthogonality_sound: Tensor
    centre: Tensor
    alignment: Tensor
    mean_gap: Tensor


def geometry(image: Tensor, sound: Tensor) -> Geometry:
    """The distributions of §4.4 of paired embeddings [N, D], computed in float64."""
    image, sound = image.double(), sound.double()
    gap = image - sound
    mean_gap = gap.mean(dim=0)
    return Geometry(
        magnitude=gap.norm(dim=1),
        direction=_cosine(gap, mean_gap),
        orthogonality_image=orthogonality(image, mean_gap),
        orthogonality_sound=orthogonality(sound, mean_gap),
        centre=centre(image, mean_gap),
        alignment=F.cosine_similarity(image, sound, dim=1),
        mean_gap=mean_gap,
    )


def orthogonality(features: Tensor, mean_gap: Tensor) -> Tensor:
    """cos(z - E[z], E[g]) of features [N, D] and the mean gap [D] (§4.4): [N]; 0 for no vector."""
    return _cosine(features - features.mean(dim=0), mean_gap)


def centre(features: Tensor, mean_gap: Tensor) -> Tensor:
    """E[z - (z . g')g'], [D], of features [N, D], with g' the mean gap [D] of unit norm (§4.4)."""
    along = F.normalize(mean_gap, dim=0)
    return (features - (features @ along)[:, None] * along).mean(dim=0)


def alignment(image: Tensor, sound: Tensor) -> float:
    """Mean cosine of pairs [N, D], -1 to 1 (Goel et al., 2022, "CyCLIP").

    Their published code prints it as a loss, E||z^V - z^A||^2 of unit features, which is
    2 - 2 * alignment.
    """
    return float(F.cosine_similarity(image.double(), sound.double(), dim=1).mean())


def unpaired_alignment(image: Tensor, sound: Tensor) -> float:
    """Mean cosine of z^V_j and z^A_k over all j != k: what alignment is without any pairing."""
    image, sound = F.normalize(image.double(), dim=1), F.normalize(sound.double(), dim=1)
    count = len(image)
    together = image.sum(dim=0) @ sound.sum(dim=0) - (image * sound).sum()
    return float(together / (count * (count - 1)))


def uniformity(image: Tensor, sound: Tensor) -> float:
    """log E[exp(-2 ||z^V_j - z^A_k||^2)] over all j != k, of unit features; lower is more even.

    As in the published code of Goel et al., 2022 (after Wang & Isola, 2020), but for one thing:
    there k < j, here both of a pair of rows count.
    """
    image, sound = F.normalize(image.double(), dim=1), F.normalize(sound.double(), dim=1)
    total = 0.0
    for first in range(0, len(image), _ROWS):
        rows = image[first : first + _ROWS]
        kernel = torch.exp(-UNIFORMITY_SCALE * (2 - 2 * rows @ sound.T))
        total += float(kernel.sum() - kernel.diagonal(first).sum())
    return math.log(total / (len(image) * (len(image) - 1)))


def random_spread(dimension: int) -> float:
    """Standard deviation of the cosine of a fixed and a random direction in so many dimensions.

    What orthogonality cannot be narrower than, unless the features avoid the gap's direction.
    """
    return 1 / math.sqrt(dimension)


def mean_interval(
    values: Tensor, sources: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """95% interval of the mean of values [N]: recordings are drawn again, with all pairs of each.

    Clips of one recording are not independent. What the values were measured against, such as
    E[g], stays as it is.

    Args:
        values: one a pair.
        sources: the recording of each pair.
        resamples: draws.
        seed: of the draws.
    """
    place = {name: number for number, name in enumerate(sorted(set(sources)))}
    index = torch.tensor([place[name] for name in sources])
    sums = torch.zeros(len(place), 2, dtype=torch.float64)  # of values, and how many
    sums.index_add_(0, index, torch.stack([values.double(), torch.ones(len(values)).double()], 1))
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(place), (resamples, len(place)), generator=generator)
    totals = sums[drawn].sum(dim=1)  # [R, 2]
    edges = torch.tensor([0.025, 0.975], dtype=torch.float64)
    low, high = torch.quantile(totals[:, 0] / totals[:, 1], edges).tolist()
    return low, high


def _cosine(vectors: Tensor, other: Tensor) -> Tensor:
    """Cosines [N] of vectors [N, D] and one [D]; 0 where either has no length."""
    return F.normalize(vectors, dim=1) @ F.normalize(other, dim=0)
