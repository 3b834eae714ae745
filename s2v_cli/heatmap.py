"""The figure of `s2v explain`: heat over a spectrogram, with axes, and the picture beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from s2v_cli.errors import OptionError
from s2v_cli.strip import Theme, fit_line, load_font

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

    Map = npt.NDArray[np.float32]

# Perceptually uniform: equal steps of lightness (0.28 to 0.90) and hue (280 to 100 degrees) in
# OKLab (Ottosson, 2020), with as much chroma as sRGB holds, at most 0.2.
HEAT_COLOURS = (
    (35, 1, 119), (72, 1, 136), (111, 0, 142), (149, 14, 134), (185, 31, 119), (216, 52, 98),
    (241, 79, 68), (254, 116, 31), (255, 155, 32), (255, 190, 40), (251, 223, 10),
)  # fmt: skip
SMALLEST_SIDE, LARGEST_SIDE = 256, 512  # px of the picture, where it is left open
_COVER = 0.85  # how much of the spectrogram the strongest heat covers
_PX_PER_S = 110
_NARROWEST, _WIDEST = 440, 1400  # px of the spectrogram
_MARGIN, _TICK, _CURVE = 16, 5, 56  # px
_FONT_SIZE = 14
_QUIET, _LOUD = 0.05, 0.995  # quantiles of the spectrogram that become ground and full ink
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)  # s between ticks
_HERTZ = (50, 100, 200, 500, 1000, 2000, 3000, 4000, 5000, 6000, 8000, 10_000, 15_000, 20_000)


@dataclass(frozen=True)
class _Colours:
    ground: tuple[int, int, int]
    text: tuple[int, int, int]
    faint: tuple[int, int, int]


_THEMES = {
    "light": _Colours(ground=(255, 255, 255), text=(20, 22, 26), faint=(150, 154, 162)),
    "dark": _Colours(ground=(20, 22, 26), text=(236, 237, 240), faint=(104, 108, 118)),
}


@dataclass(frozen=True)
class Panel:
    """What is shown of a stretch of sound.

    Attributes:
        start_s: where it lies in the file.
        duration_s: how long it is.
        spectrogram: float32 [F, T], low frequencies first.
        heat: float32 [F, T], 0 to 1.
    """

    start_s: float
    duration_s: float
    spectrogram: Map
    heat: Map


def draw_figure(
    panels: Sequence[Panel],
    frequencies_hz: Map,
    curve: Map,
    image: Image,
    *,
    titles: tuple[str, str],
    theme: Theme = "light",
) -> Image:
    """Draw heat over a spectrogram, its course over time below, and the picture beside both.

    Args:
        panels: stretches of the sound in their order; what lies between them stays empty.
        frequencies_hz: of the spectrogram's rows, rising, float32 [F].
        curve: heat over time, float32 [N], 0 to 1, evenly from the first panel to the last's end.
        image: the picture; its height is that of the spectrogram.
        titles: above the spectrogram, and above the picture.
        theme: dark on `light` ground, or light on `dark` ground.

    Raises:
        OptionError: an unknown theme.
    """
    if theme not in _THEMES:
        raise OptionError(f"theme is {theme!r}; allowed: {', '.join(_THEMES)}.")
    return _Figure(panels, frequencies_hz, curve, image, titles, _THEMES[theme]).draw()


def heat_colours(heat: Map) -> Map:
    """Colours [..., 3], 0 to 255, of heat [...] in 0 to 1."""
    import numpy as np

    places = np.linspace(0, 1, len(HEAT_COLOURS))
    table = np.asarray(HEAT_COLOURS, np.float32)
    return np.stack([np.interp(heat, places, table[:, c]) for c in range(3)], -1, dtype=np.float32)


class _Figure:
    """The measures of one figure, and its drawing."""

    def __init__(
        self,
        panels: Sequence[Panel],
        frequencies_hz: Map,
        curve: Map,
        image: Image,
        titles: tuple[str, str],
        colours: _Colours,
    ) -> None:
        self.panels, self.frequencies_hz, self.curve = panels, frequencies_hz, curve
        self.image, self.titles, self.colours = image, titles, colours
        self.font = load_font(_FONT_SIZE)
        self.start_s = panels[0].start_s
        self.end_s = panels[-1].start_s + panels[-1].duration_s
        wanted = round(_PX_PER_S * (self.end_s - self.start_s))
        self.width = max(_NARROWEST, min(_WIDEST, wanted))
        self.height = image.height
        line = math.ceil(1.3 * _FONT_SIZE)
        self.line = line
        self.left = _MARGIN + line + 8 + math.ceil(self.font.getlength("10000")) + _TICK + 4
        self.top = _MARGIN + line + 6
        self.curve_top = self.top + self.height + 10
        self.axis = self.curve_top + _CURVE
        self.picture_left = self.left + self.width + 28
        right = self.picture_left + max(image.width, 160) + _MARGIN
        self.size = (right, self.axis + _TICK + 4 + 2 * line + _MARGIN)

    def draw(self) -> Image:
        from PIL import Image as Images
        from PIL import ImageDraw

        sheet = Images.new("RGB", self.size, self.colours.ground)
        pen = ImageDraw.Draw(sheet)
        for panel in self.panels:
            self._paste(sheet, panel)
        box = (self.left - 1, self.top - 1, self.left + self.width, self.top + self.height)
        pen.rectangle(box, outline=self.colours.faint)
        sheet.paste(self.image, (self.picture_left, self.top))
        self._draw_curve(sheet, pen)
        self._draw_times(pen)
        self._draw_frequencies(sheet, pen)
        self._draw_legend(sheet, pen)
        above = self.top - 6
        for title, left, width in (
            (self.titles[0], self.left, self.width),
            (self.titles[1], self.picture_left, self.size[0] - self.picture_left - _MARGIN),
        ):
            text = fit_line(title, self.font, width)
            pen.text((left, above), text, fill=self.colours.text, font=self.font, anchor="ls")
        return sheet

    def _x(self, second: float) -> float:
        return self.left + (second - self.start_s) / (self.end_s - self.start_s) * self.width

    def _paste(self, sheet: Image, panel: Panel) -> None:
        import numpy as np
        from PIL import Image as Images

        left = round(self._x(panel.start_s))
        right = max(left + 1, round(self._x(panel.start_s + panel.duration_s)))
        size = (right - left, self.height)

        def stretched(rows: Map) -> Map:
            up = Images.fromarray(np.ascontiguousarray(rows[::-1], np.float32))
            return np.asarray(up.resize(size, Images.Resampling.BILINEAR))

        every = np.concatenate([one.spectrogram.ravel() for one in self.panels])
        quiet, loud = np.quantile(every, (_QUIET, _LOUD))
        ink = ((stretched(panel.spectrogram) - quiet) / max(loud - quiet, 1e-6)).clip(0, 1)
        ground, text = (np.asarray(c, np.float32) for c in (self.colours.ground, self.colours.text))
        grey = ground + 0.8 * ink[..., None] * (text - ground)
        heat = stretched(panel.heat).clip(0, 1)
        cover = _COVER * np.sqrt(heat)[..., None] * (0.35 + 0.65 * ink[..., None])
        mixed = grey + cover * (heat_colours(heat) - grey)
        sheet.paste(Images.fromarray(mixed.round().astype(np.uint8)), (left, self.top))

    def _draw_curve(self, sheet: Image, pen: ImageDraw) -> None:
        """Heat over time: columns in the colours of their height."""
        import numpy as np

        places = np.linspace(0, 1, len(self.curve))
        columns = np.interp((np.arange(self.width) + 0.5) / self.width, places, self.curve)
        colours = heat_colours(columns.astype(np.float32)).round().astype(int)
        for x, (value, colour) in enumerate(zip(columns, colours, strict=True)):
            top = self.axis - 1 - round(float(value) * (_CURVE - 2))
            place = self.left + x
            pen.line((place, top, place, self.axis - 1), fill=(*map(int, colour),))
        right = self.left + self.width
        pen.line((self.left - 1, self.axis, right, self.axis), fill=self.colours.faint)

    def _draw_times(self, pen: ImageDraw) -> None:
        span = self.end_s - self.start_s
        most = max(2, self.width // 70)
        step = next((s for s in _STEPS if span / s <= most), _STEPS[-1])
        number = math.ceil(self.start_s / step - 1e-6)
        while (second := number * step) <= self.end_s + 1e-6:
            x = round(self._x(second))
            pen.line((x, self.axis, x, self.axis + _TICK), fill=self.colours.faint)
            self._text(
                pen, x, self.axis + _TICK + 4, f"{second:.1f}" if step < 1 else f"{second:g}"
            )
            number += 1
        below = self.axis + _TICK + 4 + self.line
        self._text(pen, self.left + self.width / 2, below, "time (s)")

    def _draw_frequencies(self, sheet: Image, pen: ImageDraw) -> None:
        import numpy as np
        from PIL import Image as Images
        from PIL import ImageDraw

        rows = np.arange(len(self.frequencies_hz))
        free = float("inf")
        for hertz in _HERTZ:
            if not self.frequencies_hz[0] <= hertz <= self.frequencies_hz[-1]:
                continue
            row = float(np.interp(hertz, self.frequencies_hz, rows))
            y = round(self.top + self.height * (1 - (row + 0.5) / len(rows)))
            if free - y < 22:
                continue
            free = y
            pen.line((self.left - 1 - _TICK, y, self.left - 1, y), fill=self.colours.faint)
            place = (self.left - _TICK - 5, y)
            pen.text(place, str(hertz), fill=self.colours.text, font=self.font, anchor="rm")
        label = "frequency (Hz)"
        size = (math.ceil(self.font.getlength(label)), self.line)
        turned = Images.new("RGB", size, self.colours.ground)
        ImageDraw.Draw(turned).text((0, 0), label, fill=self.colours.text, font=self.font)
        turned = turned.transpose(Images.Transpose.ROTATE_90)
        sheet.paste(turned, (_MARGIN, self.top + (self.height - turned.height) // 2))

    def _draw_legend(self, sheet: Image, pen: ImageDraw) -> None:
        """The scale of heat, below the picture."""
        import numpy as np

        left, top = self.picture_left, self.curve_top + 6
        for x, colour in enumerate(heat_colours(np.linspace(0, 1, 160, dtype=np.float32))):
            pen.line((left + x, top, left + x, top + 10), fill=(*map(int, colour),))
        for x, text in ((left, "0"), (left + 159, "1")):
            anchor: Any = "la" if text == "0" else "ra"
            place = (x, top + 14)
            pen.text(place, text, fill=self.colours.text, font=self.font, anchor=anchor)
        self._text(pen, left + 80, top + 14, "importance")

    def _text(self, pen: ImageDraw, centre: float, top: float, text: str) -> None:
        left = round(centre - self.font.getlength(text) / 2)  # whole pixels: stems stay sharp
        pen.text((left, round(top)), text, fill=self.colours.text, font=self.font, anchor="la")
