"""Arithmetic on embeddings, as pure functions (§5.2)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F


def unit_norm(embedding: Tensor) -> Tensor:
    """Divide embeddings [..., D] by their L2 norm; zero stays zero."""
    return F.normalize(embedding, dim=-1)


def mean_embedding(embeddings: Tensor, *, unit: bool) -> Tensor:
    """One embedding [D] for several [N, D]: their mean, brought back to unit norm if `unit`."""
    mean = embeddings.mean(dim=0)
    return unit_norm(mean) if unit else mean


def similarity(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of embeddings [..., D], in -1 to 1, [...]."""
    return torch.cosine_similarity(first.float(), second.float(), dim=-1)


def interpolate(
    first: Tensor,
    second: Tensor,
    weights: Tensor,
    *,
    unit: bool,
    path: Literal["linear", "spherical"] = "linear",
) -> Tensor:
    """Embeddings on the way between two: weight 1 keeps the first, 0 the second (§5.2).

    The first is the image's where an image takes part, so that z^new = w z^V + (1 - w) z^A. In a
    space of unit norm the result is brought back to it, which the paper does not say: a generator
    of such a space has seen no others. At weights 1 and 0 the embeddings come back bit by bit.

    Args:
        first: embedding [D].
        second: embedding [D].
        weights: [F], 0 to 1.
        unit: whether the space has unit norm.
        path: `linear`, or `spherical`: the angle between the two is divided (slerp; Shoemake,
            1985), and the norm apart from it, so that midway embeddings are as long as the ends.

    Returns:
        [F, D].
    """
    shares = weights.to(first)[:, None]  # [F, 1]
    blend = shares * first + (1 - shares) * second
    if path == "spherical":
        one, other = unit_norm(first), unit_norm(second)
        angle = torch.arccos((one @ other).clamp(-1, 1))
        if bool(angle.sin() > 1e-4):  # of parallel ones the straight line is the arc
            arc = torch.sin(shares * angle) * one + torch.sin((1 - shares) * angle) * other
            norms = shares * first.norm() + (1 - shares) * second.norm()
            blend = norms * arc / angle.sin()
    if unit:
        blend = unit_norm(blend)
    blend = torch.where(shares == 1, first, blend)
    return torch.where(shares == 0, second, blend)
