"""What the library returns: embeddings of sounds, and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from s2v_cli.space import EmbeddingSpace

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


@dataclass(frozen=True)
class SoundEmbedding:
    """What a sound encoder makes of a sound.

    Attributes:
        embedding: z^A, float32 [D], on the CPU.
        space: that it lies in.
        familiarity: how surely the sound is of a kind that the model was taught, 0 to 1; None
            for models that cannot tell.
        familiar: whether that is enough to expect a fitting picture; None likewise.
    """

    embedding: Tensor
    space: EmbeddingSpace
    familiarity: float | None = None
    familiar: bool | None = None


@dataclass(frozen=True)
class Picture:
    """One generated picture.

    Attributes:
        image: the picture, RGB.
        seed: that made it.
        similarity: cosine of its image embedding and the condition, where candidates were
            compared; else None.
    """

    image: Image
    seed: int
    similarity: float | None = None
