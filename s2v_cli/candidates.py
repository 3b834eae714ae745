"""Candidates become pictures: the best of each, its contrast, its size."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from s2v_cli.options import GenerateOptions
from s2v_cli.picture import resize, stretch_contrast, to_image

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


def keep_best(
    images: Tensor,
    conditions: Tensor,
    options: GenerateOptions,
    compare: Callable[[Tensor, Tensor], Tensor],
) -> list[tuple[Image, float | None]]:
    """One picture for each condition, and how near it is to it.

    Args:
        images: [P * C, 3, R, R] in [-1, 1]: C candidates (`options.best_of`) of each picture.
        conditions: [P, D].
        options: `best_of`, `contrast` and `size` are read.
        compare: scores [C] of candidates [C, 3, R, R] against a condition [D].

    Returns:
        P pictures, with the score of each; None where there was nothing to choose from.
    """
    kept: list[tuple[Image, float | None]] = []
    for condition, candidates in zip(conditions, images.split(options.best_of), strict=True):
        best, score = 0, None
        if options.best_of > 1:
            scores = compare(candidates, condition)
            best = int(scores.argmax())
            score = float(scores[best])
        image = candidates[best]
        if options.contrast == "stretch":
            image = stretch_contrast(image)
        picture = to_image(image.cpu())
        kept.append((picture if options.size is None else resize(picture, options.size), score))
    return kept
