"""Writers of moving pictures, read back by other programs' libraries."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from s2v_cli.errors import DependencyError, OptionError
from s2v_cli.video import SoundTrack, check_format, open_writer, read_comment

av = pytest.importorskip("av")

COMMENT = '{"text": "a <b> & \\u00fc"}' + " " * 300  # longer than one block of a GIF


def frame(number: int, side: int = 32) -> Image.Image:
    """A bright column that walks, on a ramp from top to bottom."""
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[:, :, 2] = np.linspace(0, 200, side)[:, None]
    pixels[:, number % side, 0] = 255
    return Image.fromarray(pixels)


def write(path: Path, count: int, fps: int, sound: SoundTrack | None = None) -> Path:
    with open_writer(path, path.suffix, fps=fps, sound=sound, comment=COMMENT) as writer:
        for number in range(count):
            writer.add(frame(number))
    return path


def track(seconds: float, rate: int = 44_100, channels: int = 2, block: int = 5000) -> SoundTrack:
    samples = round(seconds * rate)

    def blocks() -> Iterator[npt.NDArray[np.float32]]:
        for start in range(0, samples, block):
            time = np.arange(start, min(start + block, samples), dtype=np.float32) / rate
            tones = [0.3 * np.sin(2 * np.pi * 440 * (1 + c) * time) for c in range(channels)]
            yield np.stack(tones, axis=1).astype(np.float32)

    return SoundTrack(blocks(), rate, channels, samples)


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_stills_are_animated(tmp_path: Path, suffix: str) -> None:
    """Every frame comes back at its place, for the time that its number says."""
    path = write(tmp_path / f"a{suffix}", 7, 24)
    with Image.open(path) as image:
        assert (image.n_frames, image.info["loop"], image.size) == (7, 0, (32, 32))
        shown = []
        for number in range(7):
            image.seek(number)
            image.load()
            shown.append(image.info["duration"])
            difference = np.abs(
                np.asarray(image.convert("RGB"), float) - np.asarray(frame(number), float)
            )
            assert difference.mean() < 12  # another column or row order is 15 and more
    assert sum(shown) == pytest.approx(7000 / 24, abs=5)
    assert max(shown) - min(shown) <= 10


def test_gif_keeps_its_comment(tmp_path: Path) -> None:
    with Image.open(write(tmp_path / "a.gif", 2, 10)) as image:
        assert image.info["comment"].decode() == COMMENT


def test_webp_keeps_its_comment(tmp_path: Path) -> None:
    with Image.open(write(tmp_path / "a.webp", 2, 10)) as image:
        assert image.getexif().get_ifd(0x8769)[0x9286] == b"ASCII\0\0\0" + COMMENT.encode()


def test_mp4_keeps_its_comment(tmp_path: Path) -> None:
    assert read_comment(write(tmp_path / "a.mp4", 3, 12)) == COMMENT
    (tmp_path / "text.mp4").write_text("no video")
    assert read_comment(tmp_path / "text.mp4") is None


@pytest.mark.parametrize(
    ("rate", "channels"), [(44_100, 2), (16_000, 1), (44_101, 1), (192_000, 2)]
)
def test_mp4_pictures_and_sound_are_equally_long(tmp_path: Path, rate: int, channels: int) -> None:
    fps, count = 24, 61
    path = write(tmp_path / "a.mp4", count, fps, track(count / fps, rate, channels))
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (container.streams[0].type, audio.channels) == ("video", channels)
        assert float(video.duration * video.time_base) == pytest.approx(count / fps)
        assert float(audio.duration * audio.time_base) == pytest.approx(count / fps, abs=1 / fps)
        assert (video.frames, float(video.average_rate)) == (count, fps)
    with av.open(str(path)) as container:
        blocks = [block.to_ndarray() for block in container.decode(audio=0)]
    wave = np.concatenate(blocks, axis=1)
    assert np.sqrt(np.square(wave[0]).mean()) == pytest.approx(0.3 / np.sqrt(2), rel=0.1)


def test_mp4_pictures_come_back(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", 5, 12)
    with av.open(str(path)) as container:
        frames = [picture.to_image() for picture in container.decode(video=0)]
    assert len(frames) == 5
    for number, image in enumerate(frames):
        red = np.asarray(image, float)[:, :, 0].mean(axis=0)
        assert abs(int(red.argmax()) - number) <= 1


def test_equal_frames_give_equal_files(tmp_path: Path) -> None:
    for suffix in (".mp4", ".gif", ".webp"):
        one, other = (
            write(tmp_path / f"{name}{suffix}", 9, 12, track(0.75) if suffix == ".mp4" else None)
            for name in ("a", "b")
        )
        assert one.read_bytes() == other.read_bytes()


def test_an_error_between_frames_is_passed_on(tmp_path: Path) -> None:
    for suffix in (".mp4", ".gif", ".webp"):
        path = tmp_path / f"a{suffix}"
        with (
            pytest.raises(KeyboardInterrupt),
            open_writer(path, suffix, fps=12, sound=None, comment=None) as writer,
        ):
            writer.add(frame(0))
            raise KeyboardInterrupt


def test_what_a_format_cannot_hold_is_refused() -> None:
    with pytest.raises(OptionError, match=r"fps is 60; of a \.gif allowed: 1 to 50"):
        check_format(".gif", 60, 128)
    with pytest.raises(OptionError, match=r"size is 129; a \.mp4 takes even sides: 128 or 130"):
        check_format(".mp4", 24, 129)
    check_format(".webp", 60, 129)


def test_mp4_without_pyav_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DependencyError, match=r"pip install 's2v-cli\[video\]'"):
        check_format(".mp4", 24, 128)
    check_format(".gif", 24, 128)
