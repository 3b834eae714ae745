"""Encoders: sound and image into one embedding space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

from s2v_cli.space import EmbeddingSpace

if TYPE_CHECKING:
    from PIL.Image import Image


@runtime_checkable
class SoundEncoder(Protocol):
    """Sound to embedding, f_A of the paper (§3.1).

    Attributes:
        space: the space that the embeddings lie in.
        sample_rate: of the wave that it reads, Hz.
        window_s: how much sound it hears at once, seconds; less is repeated, more is cut.
    """

    space: EmbeddingSpace
    sample_rate: int
    window_s: float

    def __call__(self, wave: Tensor) -> Tensor:
        """Encode wave [B, T] at `sample_rate` into z^A [B, D]."""
        ...


@runtime_checkable
class ImageEncoder(Protocol):
    """Image to embedding, f_V of the paper (§3.1).

    Attributes:
        space: the space that the embeddings lie in.
    """

    space: EmbeddingSpace

    def __call__(self, image: Tensor) -> Tensor:
        """Encode image [B, 3, H, W] in [-1, 1] into z^V [B, D]."""
        ...


@runtime_checkable
class KnowsKinds(Protocol):
    """A sound encoder that can tell how familiar a sound is."""

    @property
    def familiarity_threshold(self) -> float:
        """Familiarity below which a sound counts as unfamiliar."""
        ...

    def recognise(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """Encode wave [B, T] into z^A [B, D] and familiarity [B], 0 to 1."""
        ...


@runtime_checkable
class PreparesPictures(Protocol):
    """An image encoder with its own way to cut a user's picture."""

    def prepare(self, image: Image) -> Tensor:
        """A picture as float32 [3, H, W] in [-1, 1]."""
        ...
