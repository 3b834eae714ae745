"""Generators: noise and an embedding into a picture."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from s2v_cli.space import EmbeddingSpace


@runtime_checkable
class Generator(Protocol):
    """Noise and embedding to image, G(z^N, z) of the paper (§3.1); differentiable in both.

    Attributes:
        space: the space of the embeddings that it reads.
        noise_size: size of one noise vector.
        resolution: side of the image, px.
    """

    space: EmbeddingSpace
    noise_size: int
    resolution: int

    def __call__(self, noise: Tensor, embedding: Tensor) -> Tensor:
        """Make image [B, 3, R, R] in [-1, 1] from noise [B, N] and embedding [B, D]."""
        ...
