"""Film strips: pictures stay as they are, labels are there, legible, and the same everywhere."""

from __future__ import annotations

import subprocess
import sys

import pytest
from PIL import Image, ImageChops

from s2v_cli.errors import OptionError
from s2v_cli.outputs import MAX_SHEET_SIDE
from s2v_cli.strip import FONT, GAP, check_strip, film_strip, load_font, strip_columns


def plain(number: int, size: tuple[int, int] = (128, 128)) -> Image.Image:
    return Image.new("RGB", size, (200, 40 + number, 90))


def strip(count: int = 3, **settings: object) -> Image.Image:
    images = [plain(number) for number in range(count)]
    return film_strip(images, [f"{n} dB" for n in range(count)], **settings)  # type: ignore[arg-type]


def below(sheet: Image.Image, column: int, top: int = GAP + 128) -> Image.Image:
    """The label under a picture of the first row."""
    left = GAP + column * (128 + GAP)
    return sheet.crop((left, top, left + 128, sheet.height))


def luminance(colour: object) -> float:
    """Relative luminance of an sRGB colour (WCAG 2)."""
    assert isinstance(colour, tuple)
    linear = [
        c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour[:3]
    ]
    return float(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])


def test_pictures_stay_as_they_are() -> None:
    images = [Image.effect_noise((128, 128), 60 + n).convert("RGB") for n in range(3)]
    sheet = film_strip(images, ["a", "b", "c"])
    assert sheet.width == 3 * 128 + 4 * GAP
    for number, image in enumerate(images):
        left = GAP + number * (128 + GAP)
        assert sheet.crop((left, GAP, left + 128, GAP + 128)).tobytes() == image.tobytes()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_labels_can_be_read(theme: str) -> None:
    """Contrast of text to ground is far above WCAG's 7 : 1, and letters are not tiny."""
    sheet = strip(theme=theme)
    ground = sheet.getpixel((0, 0))
    label = below(sheet, 0)
    colours = [colour for _, colour in label.getcolors(1 << 20) or []]
    light, dark = max(map(luminance, colours)), min(map(luminance, colours))
    assert (light + 0.05) / (dark + 0.05) > 12
    assert luminance(ground) == (light if theme == "light" else dark)
    box = ImageChops.difference(label, Image.new("RGB", label.size, ground)).getbbox()
    assert box is not None
    assert box[3] - box[1] >= 10  # pixels from the top of a "d" to the baseline
    assert abs((box[0] + box[2]) / 2 - 64) <= 2  # in the middle of its picture


def test_each_picture_has_its_own_label() -> None:
    sheet = film_strip([plain(0)] * 3, ["-20 dB", "0 dB", "0 dB"])
    assert below(sheet, 0).tobytes() != below(sheet, 1).tobytes()
    assert below(sheet, 1).tobytes() == below(sheet, 2).tobytes()


def test_a_caption_stands_above() -> None:
    without, with_one = strip(), strip(caption="dog → rain")
    added = with_one.height - without.height
    assert added > 15
    cut = with_one.crop((0, added, with_one.width, with_one.height))
    assert cut.tobytes() == without.tobytes()
    assert len(with_one.crop((0, 0, with_one.width, added)).getcolors(1 << 20) or []) > 1


def test_long_labels_keep_their_numbers_and_their_place() -> None:
    name = "a_recording_of_the_bells_of_a_church"
    sheet = film_strip([plain(0)] * 3, [f"{name} 0.25", f"{name} 0.75", "x"])
    assert below(sheet, 0).tobytes() != below(sheet, 1).tobytes()
    gap = sheet.crop((GAP + 128, 0, GAP + 128 + GAP, sheet.height))
    assert gap.getcolors(1 << 20) == [(gap.width * gap.height, (255, 255, 255))]


def test_a_label_of_two_lines() -> None:
    one, two = film_strip([plain(0)], ["a"]), film_strip([plain(0)], ["a\nb"])
    assert two.height - one.height > 12


@pytest.mark.parametrize(
    "text", ["é", "ł", "ž", "ß", "Ж", "я", "λ", "Ω", "\u2212", "→", "…", "·", "\u00d7"]
)
def test_the_font_knows_file_names_and_signs(text: str) -> None:
    font = load_font(20)
    assert bytes(font.getmask(text)) != bytes(font.getmask("\uffff"))


def test_accents_beside_their_letters_are_joined() -> None:
    """MacOS writes file names so."""
    assert film_strip([plain(0)], ["e\u0301te"]) == film_strip([plain(0)], ["\u00e9te"])


def test_labels_may_hold_anything() -> None:
    sheet = film_strip([plain(0)], ["a\x1b[31m\udcff\t"], caption="\0")
    assert sheet == film_strip([plain(0)], ["a\\x1b[31m\\udcff\\t"], caption="\\x00")


def test_small_pictures_leave_room_for_labels() -> None:
    sheet = film_strip([plain(0, (16, 16))] * 2, ["-20 dB", "+20 dB"])
    assert sheet.width > 2 * 90
    middle = GAP + 96 // 2
    assert sheet.getpixel((middle, GAP + 8)) == (200, 40, 90)


def test_pictures_of_several_sizes_are_centred() -> None:
    sheet = film_strip([plain(0), plain(1, (64, 32))], ["a", "b"])
    assert sheet.getpixel((GAP + 128 + GAP + 64, GAP + 64)) == (200, 41, 90)
    assert sheet.getpixel((GAP + 128 + GAP + 1, GAP + 1)) == (255, 255, 255)


def test_rows() -> None:
    assert [strip_columns(count) for count in (1, 7, 12, 13, 20, 30)] == [1, 7, 12, 7, 10, 10]
    two = strip(5, columns=3)
    assert two.width == 3 * 128 + 4 * GAP
    assert two.height > 2 * 128 + 2 * 15
    assert strip(2, columns=9).width == 2 * 128 + 3 * GAP


def test_the_same_in_another_process() -> None:
    script = (
        "import hashlib, sys; from PIL import Image; from s2v_cli.strip import film_strip;"
        "s = film_strip([Image.new('RGB', (128, 128), (200, 40 + n, 90)) for n in range(3)],"
        "['0 dB', '1 dB', '2 dB']);"
        "sys.stdout.write(hashlib.sha256(s.tobytes()).hexdigest());"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    import hashlib

    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == hashlib.sha256(strip().tobytes()).hexdigest()


def test_what_is_refused() -> None:
    with pytest.raises(OptionError, match="2 pictures and 1 labels"):
        film_strip([plain(0)] * 2, ["a"])
    with pytest.raises(OptionError, match="at least one picture"):
        film_strip([], [])
    with pytest.raises(OptionError, match="theme is 'pink'; allowed: light, dark"):
        strip(theme="pink")
    with pytest.raises(OptionError, match="columns is 0"):
        strip(columns=0)


def test_strips_that_would_be_too_large_are_refused_before_the_work() -> None:
    check_strip(12, 1300)
    with pytest.raises(OptionError, match=f"allowed: {MAX_SHEET_SIDE} a side"):
        check_strip(12, 1400)
    with pytest.raises(OptionError, match="Use fewer pictures"):
        check_strip(5000, 128)
    with pytest.raises(OptionError, match="would be"):
        film_strip([Image.new("1", (4096, 16))] * 5, ["a"] * 5)


def test_the_font_has_its_licence() -> None:
    licence = FONT.with_name("LICENSE-DejaVu").read_text(encoding="utf-8")
    assert "Bitstream Vera Fonts Copyright" in licence
    assert "Arev Fonts Copyright" in licence
