"""Contact sheets of an evaluation: a row a class, the rows of the table side by side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from s2v_cli.picture import resize
from s2v_cli.strip import film_strip
from s2v_cli.training.evaluation.baselines import Drawn, real_picture
from s2v_cli.training.evaluation.held_out import HeldOut, class_of
from s2v_cli.training.evaluation.options import RowName

if TYPE_CHECKING:
    from PIL.Image import Image

CELL = 128  # px
CLASSES_A_SHEET = 40
SHOWN: dict[RowName, int] = {"A": 2, "B": 4, "C": 1}  # pictures of a sound
LABELS: dict[RowName, str] = {"A": "A: image", "B": "B: sound", "C": "C: retrieved"}


class Sheet:
    """Gathers the pictures of each class's first sound.

    Args:
        data: that is measured on.
        side: of drawn pictures, px.
    """

    def __init__(self, data: HeldOut, side: int) -> None:
        self._data, self._side = data, side
        self._first: dict[int, str] = {}
        for place, example in enumerate(data.sounds):
            if class_of(example) not in self._first.values():
                self._first[place] = class_of(example)
        self._cells: dict[str, dict[RowName, list[Image]]] = {}

    def add(self, row: RowName, drawn: Drawn) -> None:
        """Keep the pictures, if they are of a class's first sound."""
        name = self._first.get(drawn.place)
        if name is not None:
            kept = [_small(image) for image in drawn.images[: SHOWN.get(row, 0)]]
            self._cells.setdefault(name, {})[row] = kept

    def draw(self, caption: str) -> Iterator[Image]:
        """The sheets, of `CLASSES_A_SHEET` classes each; none where nothing was added."""
        rows = [row for row in SHOWN if any(row in cells for cells in self._cells.values())]
        widths = {
            row: max(len(cells.get(row, [])) for cells in self._cells.values()) for row in rows
        }
        places = {name: place for place, name in self._first.items()}
        names = sorted(self._cells)
        for first in range(0, len(names), CLASSES_A_SHEET):
            images, labels = [], []
            for name in names[first : first + CLASSES_A_SHEET]:
                partner = self._data.partners[places[name]]
                images.append(
                    _blank()
                    if partner is None
                    else _small(real_picture(self._data, partner, self._side))
                )
                labels.append(f"{name}\nD: real" if partner is not None else name)
                for row in rows:
                    found = self._cells[name].get(row, [])
                    images += found + [_blank()] * (widths[row] - len(found))
                    labels += [LABELS[row]] * len(found) + [""] * (widths[row] - len(found))
            yield film_strip(images, labels, caption=caption, columns=1 + sum(widths.values()))


def _small(image: Image) -> Image:
    """A square picture, reduced to a cell."""
    return resize(image, CELL) if image.width > CELL else image


def _blank() -> Image:
    from PIL import Image as Images

    return Images.new("RGB", (CELL, CELL), (255, 255, 255))
