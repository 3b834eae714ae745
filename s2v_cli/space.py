"""Embedding spaces: the contract between encoders and generators.

Every encoder states the space that it writes and every generator the space that it reads.
Sounds, images and speech meet only in one space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from s2v_cli.errors import SpaceError


@dataclass(frozen=True)
class EmbeddingSpace:
    """A named space of embeddings [B, dimension].

    Attributes:
        name: what tells two spaces apart, for example `mini-2`.
        dimension: size of one embedding.
        scale: `unit` for L2-normalised embeddings, `raw` for embeddings used as they are.
    """

    name: str
    dimension: int
    scale: Literal["unit", "raw"]

    @property
    def family(self) -> str:
        """The name without the version of its weights: `mini` of `mini-2` and `mini-1f3a09bc`."""
        return "mini" if self.name.startswith("mini-") else self.name

    def __str__(self) -> str:
        return f"{self.name}-{self.dimension} ({self.scale})"


SWAV_SPACE = EmbeddingSpace(name="swav", dimension=2048, scale="unit")
# Un-normalised image embeddings of OpenCLIP ViT-H/14; their norm carries meaning for unCLIP.
CLIP_H_SPACE = EmbeddingSpace(name="openclip-vit-h", dimension=1024, scale="raw")


def require_same_space(first: EmbeddingSpace, second: EmbeddingSpace, what: str) -> None:
    """Refuse to let embeddings of two spaces meet.

    Raises:
        SpaceError: names both spaces and `what` was attempted.
    """
    if first != second:
        raise SpaceError(
            f"Cannot {what}: {first} and {second} are different embedding spaces. "
            "Use encoders and a generator of one preset."
        )
