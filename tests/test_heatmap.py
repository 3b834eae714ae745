from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from s2v_cli.errors import OptionError
from s2v_cli.heatmap import HEAT_COLOURS, Panel, draw_figure, heat_colours

ROWS = np.linspace(0, 8000, 81, dtype=np.float32)
BLUE = (0, 0, 200)


def lightness(colour: tuple[int, int, int]) -> float:
    """L of OKLab (Ottosson, 2020), 0 to 1."""
    linear = [
        v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in np.array(colour) / 255
    ]
    matrix = [[0.41222, 0.53633, 0.05145], [0.21190, 0.68070, 0.10740], [0.08830, 0.28172, 0.62998]]
    return float(np.cbrt(np.array(matrix) @ linear) @ [0.21045, 0.79362, -0.00407])


def figure(theme: str = "light", start_s: float = 0.0, hot: float | None = 2.0) -> Image.Image:
    """Five seconds of noise with one hot second."""
    spectrogram = np.random.default_rng(0).normal(size=(81, 500)).astype(np.float32)
    heat, curve = np.zeros((81, 500), np.float32), np.zeros(250, np.float32)
    if hot is not None:
        first = int(100 * hot)
        heat[20:40, first : first + 100] = 1
        curve[first // 2 : first // 2 + 50] = 1
    panel = Panel(start_s, 5.0, spectrogram, heat)
    picture = Image.new("RGB", (256, 256), BLUE)
    return draw_figure([panel], ROWS, curve, picture, titles=("a", "b"), theme=theme)  # type: ignore[arg-type]


def colourful(image: Image.Image) -> np.ndarray:
    """How far each pixel is from grey."""
    pixels = np.asarray(image, float)
    return np.asarray(pixels.max(axis=2) - pixels.min(axis=2))


def test_colours_rise_evenly_in_lightness() -> None:
    steps = [lightness(b) - lightness(a) for a, b in pairwise(HEAT_COLOURS)]
    assert min(steps) > 0.05
    assert max(steps) < 0.075
    ends = heat_colours(np.array([0, 1], np.float32))
    assert ends.tolist() == [list(HEAT_COLOURS[0]), list(HEAT_COLOURS[-1])]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_heat_is_drawn_at_its_time_and_frequency(theme: str) -> None:
    """Within the frame, colours are where the heat is: 2 to 3 of 5 s, 2 to 4 of 8 kHz."""
    with_heat, without = figure(theme), figure(theme, hot=None)
    changed = np.abs(np.asarray(with_heat, float) - np.asarray(without, float)).sum(axis=2) > 60
    left, width, top, height = 97, 550, 41, 256  # of the spectrogram
    inside = changed[top : top + height, left : left + width]
    rows, columns = np.nonzero(inside)
    assert columns.min() / width == pytest.approx(2 / 5, abs=0.02)
    assert columns.max() / width == pytest.approx(3 / 5, abs=0.02)
    assert 1 - rows.max() / height == pytest.approx(20 / 81, abs=0.03)
    assert 1 - rows.min() / height == pytest.approx(40 / 81, abs=0.03)
    assert not changed[:top].any()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_picture_is_beside_it_unchanged(theme: str) -> None:
    image = figure(theme)
    pixels = np.asarray(image)
    blue = (pixels == BLUE).all(axis=2)
    rows, columns = np.nonzero(blue)
    assert blue.sum() == 256 * 256
    assert (np.ptp(rows), np.ptp(columns)) == (255, 255)
    assert columns.min() > 97 + 550


def test_themes_have_ink_on_their_ground() -> None:
    for theme, ground in (("light", 255), ("dark", 22)):
        pixels = np.asarray(figure(theme, hot=None).convert("L"))
        assert pixels[0, 0] == ground
        below = pixels[-60:-16]  # the time axis
        assert np.abs(below.astype(int) - ground).max() > 200
    with pytest.raises(OptionError, match="theme is 'blue'; allowed: light, dark"):
        figure("blue")


def test_equal_input_gives_equal_pixels_and_time_is_the_files() -> None:
    assert figure().tobytes() == figure().tobytes()
    assert figure().tobytes() != figure(start_s=60.0).tobytes()  # other numbers on the axis


def test_long_and_short_sounds_fit() -> None:
    for seconds in (0.05, 0.7, 5.0, 320.0):
        panel = Panel(0.0, seconds, np.zeros((81, 9), np.float32), np.zeros((81, 9), np.float32))
        picture = Image.new("RGB", (256, 256))
        drawn = draw_figure([panel], ROWS, np.zeros(3, np.float32), picture, titles=("a", "b"))
        assert 700 < drawn.width < 1900
