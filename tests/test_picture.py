import errno
import io
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from s2v_cli import picture
from s2v_cli.errors import OutputError, PictureError
from s2v_cli.picture import (
    encode_picture,
    make_grid,
    read_picture,
    read_record,
    resize,
    save_picture,
    stretch_contrast,
    to_image,
)

RECORD: dict[str, Any] = {
    "command": "s2v gen räin.wav",
    "sounds": [{"source": "räin.wav"}],
    "generate_options": {"truncation": 0.7, "best_of": 1},
    "sound_options": {"gain_db": -6.0},
    "seed": 3,
    "size": [16, 16],
    "preset": "mini",
    "versions": {"s2v": "0.1.0"},
}


def plain(colour: tuple[int, int, int] = (200, 30, 90), size: int = 16) -> Image.Image:
    return Image.new("RGB", (size, size), colour)


def test_tensor_to_image() -> None:
    image = torch.tensor([-1.0, 0.0, 1.0, 7.0]).repeat(3, 1)[:, None]  # [3, 1, 4]
    image[1] = -1
    picture_ = to_image(image.half())
    assert picture_.size == (4, 1)
    assert [picture_.getpixel((x, 0)) for x in range(4)] == [
        (0, 0, 0),
        (128, 0, 128),
        (255, 0, 255),
        (255, 0, 255),
    ]


def test_contrast_is_stretched_over_all_channels() -> None:
    image = torch.tensor([-0.5, 0.0, 0.5])[:, None, None].expand(3, 2, 2)
    assert torch.allclose(stretch_contrast(image)[:, 0, 0], torch.tensor([-1.0, 0.0, 1.0]))
    flat = torch.full((3, 2, 2), 0.3)
    assert torch.equal(stretch_contrast(flat), flat)


@pytest.mark.parametrize("image", [torch.zeros(1, 3, 4, 4), torch.zeros(4, 4, 3)])
def test_other_shapes_are_refused(image: torch.Tensor) -> None:
    with pytest.raises(PictureError, match="shape"):
        to_image(image)


def test_nan_is_refused() -> None:
    with pytest.raises(PictureError, match="NaN"):
        to_image(torch.full((3, 4, 4), torch.nan))


def test_grid() -> None:
    colours = [(number, 0, 0) for number in range(1, 6)]
    sheet = make_grid([plain(colour, 8) for colour in colours], gap=2)
    assert sheet.size == (3 * 8 + 2 * 2, 2 * 8 + 2)
    assert sheet.getpixel((0, 0)) == (1, 0, 0)
    assert sheet.getpixel((10, 0)) == (2, 0, 0)
    assert sheet.getpixel((10, 10)) == (5, 0, 0)
    assert sheet.getpixel((8, 0)) == (255, 255, 255)
    assert make_grid([plain()] * 4, columns=4, gap=0).size == (64, 16)
    with pytest.raises(PictureError):
        make_grid([])


def test_resize() -> None:
    assert resize(plain(), 40).size == (40, 40)
    same = plain()
    assert resize(same, 16) is same


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.JPEG", "x.webp"])
def test_record_comes_back(folder: Path, name: str) -> None:
    path = save_picture(plain(), name, record=RECORD)
    assert read_record(path) == RECORD
    with Image.open(path) as file:
        kind = {"x.png": "PNG", "x.webp": "WEBP"}.get(name, "JPEG")
        assert (file.format, file.size, file.mode) == (kind, (16, 16), "RGB")
        line = file.info["parameters"] if kind == "PNG" else file.getexif()[0x010E]
    assert line.endswith(
        "Seed: 3, Size: 16x16, Model: mini, Gain: -6 dB, Truncation: 0.7, "
        "Best of: 1, Version: s2v 0.1.0"
    )
    pixel = read_picture(path).getpixel((8, 8))
    assert isinstance(pixel, tuple)
    assert max(abs(a - b) for a, b in zip(pixel, (200, 30, 90), strict=True)) <= 4


def test_a_png_keeps_its_pixels(folder: Path) -> None:
    image = Image.effect_noise((16, 16), 90).convert("RGB")
    save_picture(image, "x.png", record=RECORD)
    assert read_picture("x.png").tobytes() == image.tobytes()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_equal_input_gives_equal_bytes(suffix: str) -> None:
    assert encode_picture(plain(), suffix, RECORD) == encode_picture(plain(), suffix, RECORD)
    without = encode_picture(plain(), suffix)
    assert b"s2v" not in without
    with pytest.raises(PictureError, match="no record"):
        read_record(io.BytesIO(without))  # type: ignore[arg-type]


def test_unknown_suffix(folder: Path) -> None:
    with pytest.raises(OutputError, match=r"allowed: \.png"):
        save_picture(plain(), "x.tiff")
    assert not any(folder.iterdir())


def test_a_record_too_large_for_exif(folder: Path) -> None:
    with pytest.raises(OutputError, match="--no-metadata"):
        save_picture(plain(), "x.jpg", record={"x": "y" * 70_000})
    assert not any(folder.iterdir())


def test_nothing_is_replaced_without_overwrite(folder: Path) -> None:
    Path("x.png").write_text("mine")
    with pytest.raises(OutputError, match=r"x\.png exists; use --force"):
        save_picture(plain(), "x.png")
    assert Path("x.png").read_text() == "mine"
    save_picture(plain(), "x.png", overwrite=True)
    assert read_picture("x.png").size == (16, 16)
    assert os.listdir() == ["x.png"]


def test_of_many_writers_one_wins(folder: Path) -> None:
    barrier, won, lost = threading.Barrier(8), [], []

    def write(number: int) -> None:
        barrier.wait()
        try:
            save_picture(plain((number, 0, 0)), "x.png")
            won.append(number)
        except OutputError:
            lost.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    assert read_picture("x.png").getpixel((0, 0)) == (won[0], 0, 0)
    assert os.listdir() == ["x.png"]


def test_without_hard_links(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    save_picture(plain(), "x.png")
    with pytest.raises(OutputError, match="exists"):
        save_picture(plain((0, 0, 0)), "x.png")
    assert read_picture("x.png").getpixel((0, 0)) == (200, 30, 90)
    assert os.listdir() == ["x.png"]


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left")])
def test_a_fault_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fault: Any, overwrite: bool
) -> None:
    def interrupted(_: int) -> None:
        raise fault

    monkeypatch.setattr(picture.os, "fsync", interrupted)
    expected = KeyboardInterrupt if fault is KeyboardInterrupt else OutputError
    with pytest.raises(expected):
        save_picture(plain(), "x.png", overwrite=overwrite)
    assert not any(folder.iterdir())


def test_a_full_disk_is_one_line_and_leaves_nothing(folder: Path) -> None:
    """A process that may write 4 kB a file, and no more, meets the same error as on a full disk."""
    script = """
import resource, signal
from PIL import Image
from s2v_cli.errors import OutputError
from s2v_cli.picture import save_picture
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    save_picture(Image.effect_noise((256, 256), 90), "x.png")
except OutputError as error:
    print(error)
"""
    ran = subprocess.run(
        [sys.executable, "-B", "-c", script], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "Cannot write x.png: File too large.\n"
    assert not any(folder.iterdir())


def test_folders(folder: Path) -> None:
    save_picture(plain(), "new/deep/x.png")
    assert os.listdir("new/deep") == ["x.png"]
    Path("file").touch()
    with pytest.raises(OutputError, match="file is not a folder"):
        save_picture(plain(), "file/x.png")
    with pytest.raises(OutputError, match="Not a directory"):
        save_picture(plain(), "file/deep/x.png")
    Path("folder.png").mkdir()
    with pytest.raises(OutputError, match="Cannot write"):
        save_picture(plain(), "folder.png", overwrite=True)
    assert sorted(os.listdir()) == ["file", "folder.png", "new"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that refuses files")
def test_an_unwritable_folder() -> None:
    with pytest.raises(OutputError, match=r"^Cannot write /proc/x\.png: "):
        save_picture(plain(), "/proc/x.png")


def test_files_have_the_usual_mode(folder: Path) -> None:
    old = os.umask(0o027)
    try:
        save_picture(plain(), "x.png")
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat("x.png").st_mode) == 0o640


def test_pictures_that_cannot_be_read(folder: Path) -> None:
    Path("text.png").write_text("no picture")
    Path("cut.png").write_bytes(encode_picture(Image.effect_noise((64, 64), 90), ".png")[:500])
    Path("empty.png").touch()
    for name in ("text.png", "empty.png", "cut.png", "missing.png", "."):
        with pytest.raises(PictureError) as caught:
            read_picture(name)
        assert repr(name) in str(caught.value)
    with pytest.raises(PictureError, match="holds no record"):
        save_picture(plain(), "x.png")
        read_record("x.png")


def test_pictures_are_read_upright_and_opaque(folder: Path) -> None:
    image = Image.new("RGB", (4, 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save("turned.jpg", exif=exif)
    assert read_picture("turned.jpg").size == (2, 4)
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save("clear.png")
    assert read_picture("clear.png").getpixel((0, 0)) == (255, 255, 255)
    Image.new("L", (2, 2), 7).save("grey.png")
    assert read_picture("grey.png").getpixel((0, 0)) == (7, 7, 7)
