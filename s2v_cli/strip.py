"""Film strips: pictures in a row, each with a label, drawn in the font that comes along."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from s2v_cli.errors import OptionError
from s2v_cli.outputs import MAX_SHEET_SIDE

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

Theme = Literal["light", "dark"]

# Pillow's own font has no accents, no Greek, no Cyrillic and no minus sign: file names need them.
FONT = Path(__file__).parent / "fonts" / "DejaVuSans.ttf"
GAP = 8  # pixels between pictures, and around all
LONGEST_ROW = 12  # pictures, where the number of columns is left open
_SMALLEST_CELL = 96  # pixels: below that no label can be read
_MORE = "…"


@dataclass(frozen=True)
class _Colours:
    ground: tuple[int, int, int]
    text: tuple[int, int, int]


_THEMES: dict[str, _Colours] = {
    "light": _Colours(ground=(255, 255, 255), text=(20, 22, 26)),
    "dark": _Colours(ground=(20, 22, 26), text=(236, 237, 240)),
}


def film_strip(
    images: Sequence[Image],
    labels: Sequence[str],
    *,
    caption: str | None = None,
    theme: Theme = "light",
    columns: int | None = None,
) -> Image:
    """Lay pictures out in rows, each with its label below, under one caption.

    Text that is too wide is shortened in its middle. Equal input gives equal pixels on every
    machine: the font comes along, and text is laid out without the system's help.

    Args:
        images: at least one; cells are as large as the largest.
        labels: one for each image; a line break starts a second line.
        caption: above the first row, in the middle.
        theme: dark text on `light` ground, or light text on `dark` ground.
        columns: pictures a row; None makes one row of up to `LONGEST_ROW`, then several of about
            the same length.

    Returns:
        RGB; its pictures are pixels of `images`, not resampled.

    Raises:
        OptionError: no image, another number of labels, an unknown theme, or a strip with a side
            longer than `MAX_SHEET_SIDE`.
    """
    if not images or len(images) != len(labels):
        raise OptionError(
            f"A film strip has {len(images)} pictures and {len(labels)} labels; needed: at least "
            "one picture, and a label for each."
        )
    if theme not in _THEMES:
        raise OptionError(f"theme is {theme!r}; allowed: {', '.join(get_args(Theme))}.")
    if columns is not None and columns < 1:
        raise OptionError(f"columns is {columns}; allowed: 1 or more.")
    return _Strip(images, labels, caption, _THEMES[theme], columns).draw()


def strip_columns(count: int) -> int:
    """Pictures a row of a strip of `count` pictures whose columns are left open."""
    rows = math.ceil(count / LONGEST_ROW)
    return math.ceil(count / rows)


def check_strip(count: int, side: int, columns: int | None = None) -> None:
    """Refuse, before anything is drawn, a strip that would be too large.

    Args:
        count: pictures, >= 1.
        side: of each, pixels.
        columns: pictures a row, as for `film_strip`.

    Raises:
        OptionError: the strip has a side longer than `MAX_SHEET_SIDE` pixels.
    """
    columns = min(columns or strip_columns(count), count)
    rows = math.ceil(count / columns)
    font_size = _font_size(side)
    _check_size(
        columns * (max(side, _SMALLEST_CELL) + GAP) + GAP,
        rows * (side + 3 * _line_height(font_size) + GAP) + 2 * _line_height(font_size),
    )


def _check_size(width: int, height: int) -> None:
    if max(width, height) > MAX_SHEET_SIDE:
        raise OptionError(
            f"The sheet would be {width} x {height} pixels; allowed: {MAX_SHEET_SIDE} a side. "
            "Use fewer pictures or a lower --size."
        )


def _font_size(side: int) -> int:
    """Pixels of the font below pictures of a side: 15 at 128, 19 at 256, 28 at 512."""
    return 10 + round(side / 28)


def _line_height(font_size: int) -> int:
    return math.ceil(1.3 * font_size)


class _Strip:
    """The measures of one strip, and its drawing."""

    def __init__(
        self,
        images: Sequence[Image],
        labels: Sequence[str],
        caption: str | None,
        colours: _Colours,
        columns: int | None,
    ) -> None:
        self.images, self.colours = images, colours
        self.picture_width = max(image.width for image in images)
        self.picture_height = max(image.height for image in images)
        self.cell = max(self.picture_width, _SMALLEST_CELL)
        self.columns = min(columns or strip_columns(len(images)), len(images))
        self.rows = math.ceil(len(images) / self.columns)
        self.font_size = _font_size(min(self.picture_width, self.picture_height))
        self.line = _line_height(self.font_size)
        self.font = load_font(self.font_size)
        self.labels = [_lines(label, self.font, self.cell - GAP) for label in labels]
        self.label_height = self.line * max(len(lines) for lines in self.labels)
        self.width = self.columns * (self.cell + GAP) + GAP
        self.row = self.picture_height + GAP // 2 + self.label_height + GAP
        self.caption_font = load_font(round(1.15 * self.font_size))
        self.caption = _lines(caption or "", self.caption_font, self.width - 2 * GAP)
        self.caption_line = _line_height(round(1.15 * self.font_size))
        self.top = GAP + (len(self.caption) * self.caption_line + GAP if caption else 0)
        self.height = self.top + self.rows * self.row
        _check_size(self.width, self.height)

    def draw(self) -> Image:
        from PIL import Image as Images

        sheet = Images.new("RGB", (self.width, self.height), self.colours.ground)
        self._write(sheet, self.caption, self.caption_font, self.caption_line, self.width / 2, GAP)
        for number, (image, lines) in enumerate(zip(self.images, self.labels, strict=True)):
            row, column = divmod(number, self.columns)
            left = GAP + column * (self.cell + GAP)
            top = self.top + row * self.row
            sheet.paste(
                image.convert("RGB"),
                (
                    left + (self.cell - image.width) // 2,
                    top + (self.picture_height - image.height) // 2,
                ),
            )
            below = top + self.picture_height + GAP // 2
            self._write(sheet, lines, self.font, self.line, left + self.cell / 2, below)
        return sheet

    def _write(
        self,
        sheet: Image,
        lines: Sequence[str],
        font: FreeTypeFont,
        line_height: int,
        centre: float,
        top: int,
    ) -> None:
        """Write lines around a vertical axis; all share one baseline grid."""
        from PIL import ImageDraw

        pen = ImageDraw.Draw(sheet)
        for number, text in enumerate(lines):
            left = round(centre - font.getlength(text) / 2)  # whole pixels: stems stay sharp
            baseline = top + number * line_height + round(0.95 * font.size)
            pen.text((left, baseline), text, fill=self.colours.text, font=font, anchor="ls")


def load_font(size: int) -> FreeTypeFont:
    """The bundled font, `size` pixels high; laid out the same with and without libraqm."""
    from PIL import ImageFont

    return ImageFont.truetype(FONT, size, layout_engine=ImageFont.Layout.BASIC)


def fit_line(text: str, font: FreeTypeFont, width: int) -> str:
    """The first line of a text, not wider than `width` pixels; shortened in its middle."""
    return _lines(text, font, width)[0]


def _lines(text: str, font: FreeTypeFont, width: int) -> list[str]:
    """Lines of a label, none wider than `width` pixels.

    Accents are joined with their letters: without libraqm they would stand beside them. What is
    not printable is escaped, for file names may hold anything.
    """
    joined = unicodedata.normalize("NFC", text)
    return [_shortened(_printable(line), font, width) for line in joined.split("\n")]


def _printable(text: str) -> str:
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def _shortened(text: str, font: FreeTypeFont, width: int) -> str:
    """The text, or as much of its beginning and end as fits."""
    if font.getlength(text) <= width:
        return text
    fits, too_many = 0, len(text)
    while too_many - fits > 1:
        kept = (fits + too_many) // 2
        if font.getlength(_cut(text, kept)) <= width:
            fits = kept
        else:
            too_many = kept
    return _cut(text, fits)


def _cut(text: str, kept: int) -> str:
    """`kept` characters of a text, from both ends, the end first: numbers stand there."""
    head = kept // 2
    tail = kept - head
    return text[:head].rstrip() + _MORE + (text[-tail:] if tail else "")
