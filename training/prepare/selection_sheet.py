"""A contact sheet of chosen moments against middle frames (Fig. 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s2v_cli.errors import OptionError
from s2v_cli.strip import Theme, film_strip
from s2v_cli.training.prepare.selection import choose

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

CELL = (224, 160)  # px, what a frame is fitted into
VIDEOS_A_ROW = 3


@dataclass(frozen=True)
class Moment:
    """A frame, when it is shown, seconds, and its C[t]."""

    image: Image
    time_s: float
    score: float


@dataclass(frozen=True)
class Comparison:
    """The best and the middle moment of one video."""

    name: str
    chosen: Moment
    middle: Moment

    @classmethod
    def of(
        cls,
        name: str,
        frames: Sequence[Image],
        times_s: Sequence[float],
        scores: Sequence[float] | Tensor,
    ) -> Comparison:
        """Compare the moments of one video.

        Raises:
            OptionError: none of them can be used.
        """
        best, middle = choose(scores, times_s, "top1"), choose(scores, times_s, "mid")
        if not best:
            raise OptionError(f"No moment of {name} can be used: all its sound is silent.")
        chosen, central = (
            Moment(frames[index], times_s[index], float(scores[index]))
            for index in (best[0], middle[0])
        )
        return cls(name, chosen, central)


def selection_sheet(rows: Sequence[Comparison], *, theme: Theme = "light") -> Image:
    """Draw the chosen frame of each video beside its middle one, with times and scores.

    Args:
        rows: one a video, at least one.
        theme: dark text on `light` ground, or light text on `dark` ground.

    Raises:
        OptionError: no video, or so many that the sheet would be too large.
    """
    from PIL import ImageOps

    images, labels = [], []
    for row in rows:
        for what, moment in (("chosen", row.chosen), ("middle", row.middle)):
            images.append(ImageOps.contain(moment.image.convert("RGB"), CELL))
            told = f"{what} {moment.time_s:.2f} s, C {moment.score:.3f}"
            labels.append(f"{told}\n{row.name}")
    return film_strip(
        images,
        labels,
        caption="chosen moments against middle frames",
        theme=theme,
        columns=2 * min(VIDEOS_A_ROW, max(1, len(rows))),
    )
