"""Photos of every kind that people have: read as they look, or refused in one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from s2v_cli.errors import PictureError
from s2v_cli.picture import read_picture

if TYPE_CHECKING:
    from conftest import RunHere, WriteTone

RAMP = np.linspace(0, 1, 32 * 32).reshape(32, 32)  # from black to white


def pixels(name: str) -> np.ndarray:
    image = read_picture(name)
    assert image.mode == "RGB"
    return np.asarray(image, dtype=np.float64)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("sixteen.png", (RAMP * 65535).astype(np.uint16)),
        ("sixteen.tif", (RAMP * 65535).astype(np.uint16)),
        ("integers.tif", (RAMP * 65535).astype(np.int32)),
        ("bytes.tif", (RAMP * 255).astype(np.int32)),
        ("huge_values.tif", (RAMP * 1e9).astype(np.int32)),
        ("floats.tif", RAMP.astype(np.float32)),
        ("bright_floats.tif", (RAMP * 255).astype(np.float32)),
    ],
)
def test_more_than_eight_bits_are_scaled_not_clipped(
    folder: Path, name: str, values: np.ndarray
) -> None:
    Image.fromarray(values).save(name)
    seen = pixels(name)
    assert np.abs(seen - 255 * RAMP[:, :, None]).max() <= 1


def test_a_dark_picture_of_sixteen_bits_stays_dark(folder: Path) -> None:
    Image.fromarray(np.full((4, 4), 6554, np.uint16)).save("dark.png")
    assert set(pixels("dark.png").flat) == {26}


def test_floats_that_are_no_numbers(folder: Path) -> None:
    values = RAMP.astype(np.float32)
    values[0, 0], values[1, 1] = np.nan, -5
    Image.fromarray(values).save("odd.tif")
    assert pixels("odd.tif")[0, 0, 0] == pixels("odd.tif")[1, 1, 0] == 0


@pytest.mark.parametrize("name", ["print.jpg", "print.tif"])
def test_cmyk(folder: Path, name: str) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(name)
    red, green, blue = pixels(name).mean(axis=(0, 1))
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("name", ["moving.gif", "moving.webp", "moving.png", "pages.tif"])
def test_of_animated_pictures_the_first_is_seen_and_told(folder: Path, name: str) -> None:
    frames = [Image.new("RGB", (8, 8), (60 * number, 0, 0)) for number in range(1, 4)]
    frames[0].save(name, save_all=True, append_images=frames[1:], lossless=True)
    notes: list[str] = []
    image = read_picture(name, notes.append)
    assert image.getpixel((4, 4)) == (60, 0, 0)
    assert notes == [f"{name} holds 3 pictures; the first is seen."]


def test_nothing_is_told_of_plain_pictures(folder: Path) -> None:
    Image.new("RGB", (8, 8)).save("a.png")
    notes: list[str] = []
    read_picture("a.png", notes.append)
    assert notes == []


def test_transparency_is_white(folder: Path) -> None:
    Image.new("LA", (4, 4), (0, 0)).save("grey.png")
    palette = Image.new("P", (4, 4))
    palette.putpalette([9, 9, 9] * 256)
    palette.save("palette.png", transparency=0)
    Image.new("RGBA", (4, 4), (0, 0, 0, 128)).save("half.png")
    assert set(pixels("grey.png").flat) == set(pixels("palette.png").flat) == {255}
    assert set(pixels("half.png").flat) == {127}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_and_mirrors(folder: Path, orientation: int) -> None:
    upright = Image.new("RGB", (32, 16), (0, 0, 255))
    upright.paste((255, 0, 0), (0, 0, 8, 8))  # a red corner, top left
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save("turned.png", exif=exif)
    assert read_picture("turned.png").tobytes() == upright.tobytes()


def text(path: Path) -> None:
    path.write_text("Dear all, this is no photo.\n" * 50)


def truncated(path: Path) -> None:
    Image.effect_noise((64, 64), 90).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def bomb(path: Path) -> None:
    Image.new("1", (14_000, 14_000)).save(path, "PNG")


def damaged(path: Path) -> None:
    Image.effect_noise((64, 64), 90).convert("RGB").save(path, "PNG")
    content = bytearray(path.read_bytes())
    content[60:400] = bytes(340)
    path.write_bytes(content)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (text, "is not a picture that s2v can read"),
    "empty": (lambda path: path.touch(), "is not a picture that s2v can read"),
    "truncated": (truncated, "truncated"),
    "damaged": (damaged, "Cannot read the picture"),
    "bomb": (bomb, "is too large; allowed: up to 178 million pixels"),
    "missing": (lambda path: None, "No picture at"),
    "folder": (lambda path: path.mkdir(), "Is a directory"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_photos_end_in_one_line(s2v: RunHere, write_tone: WriteTone, kind: str) -> None:
    make, said = BAD[kind]
    write_tone("a.wav")
    make(Path("bad.jpg"))
    with pytest.raises(PictureError, match=said):
        read_picture("bad.jpg")
    before = sorted(os.listdir())
    ran = s2v("interp", "bad.jpg", "a.wav", "-o", "out/x.png")
    assert (ran.status, ran.out) == (1, "")
    assert len(ran.complaints) == 1, ran.err
    assert said in ran.err
    assert "'bad.jpg'" in ran.err
    assert sorted(os.listdir()) == before


def test_a_photo_below_the_limit_raises_no_doubt(folder: Path) -> None:
    """Pillow warns from half of its limit on, and warnings are errors here."""
    Image.new("1", (9_500, 9_500)).save("large.png")
    assert read_picture("large.png").size == (9_500, 9_500)


def test_unusual_photos_make_pictures(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone("a.wav")
    Image.fromarray((RAMP * 65535).astype(np.uint16)).save("p.png")
    Image.new("CMYK", (40, 20)).save("p.jpg")
    frames = [Image.new("RGB", (16, 16), (60 * n, 0, 0)) for n in range(2)]
    frames[0].save("p.gif", save_all=True, append_images=frames[1:])
    for photo in ("p.png", "p.jpg", "p.gif"):
        ran = s2v("interp", photo, "a.wav", "--json", "--force")
        assert ran.status == 0, ran.err
        assert json.loads(ran.out)[0]["pictures"][0]["source"] == photo
    assert "p.gif holds 2 pictures; the first is seen." in ran.err
