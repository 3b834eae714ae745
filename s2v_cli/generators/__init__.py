"""Generators: noise and an embedding into a picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor

from s2v_cli.options import GenerateOptions
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


@runtime_checkable
class Truncates(Protocol):
    """A generator with its own way to make noise more typical."""

    def truncate(self, noise: Tensor, truncation: float | None) -> Tensor:
        """Noise [B, N] of the spread asked for; None is the model's own."""
        ...


@runtime_checkable
class DrawsWithOptions(Protocol):
    """A generator that reads options of its own, such as steps."""

    def draw(
        self,
        noise: Tensor,
        embedding: Tensor,
        options: GenerateOptions,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Make image [B, 3, R, R] in [-1, 1] from noise [B, N] and embedding [B, D].

        `progress` hears the steps that are done, and all.
        """
        ...
