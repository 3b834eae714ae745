"""Arithmetic on embeddings, as pure functions (§5.2)."""

from __future__ import annotations

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
