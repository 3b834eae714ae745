"""What is no sound ends in one line that names the file, with status 1, and leaves nothing."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

if TYPE_CHECKING:
    from conftest import RunHere, WriteTone


def cut_wav(path: Path) -> None:
    soundfile.write(path, np.zeros(16_000), 16_000)
    path.write_bytes(path.read_bytes()[:9000])


def cut_flac(path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 48_000)
    soundfile.write(path, noise, 16_000, format="FLAC")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def not_finite(path: Path) -> None:
    wave = np.zeros(16_000, np.float32)
    wave[100] = np.nan
    soundfile.write(path, wave, 16_000, subtype="FLOAT")


def no_samples(path: Path) -> None:
    soundfile.write(path, np.zeros(0), 16_000)


def lying_header(path: Path) -> None:
    """A header that promises a megabyte."""
    soundfile.write(path, np.zeros(100), 16_000)
    content = bytearray(path.read_bytes())
    where = content.index(b"data") + 4
    content[where : where + 4] = struct.pack("<I", 1_000_000)
    path.write_bytes(content)


BAD: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("Dear all, this is no sound.\n" * 50),
    "empty": lambda path: path.touch(),
    "noise": lambda path: path.write_bytes(bytes(range(1, 256)) * 40),
    "picture": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200)),
    "cut_wav": cut_wav,
    "cut_flac": cut_flac,
    "not_finite": not_finite,
    "no_samples": no_samples,
    "lying_header": lying_header,
    "folder": lambda path: path.mkdir(),
    "link_to_nothing": lambda path: path.symlink_to("nothing"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_sounds(s2v: RunHere, folder: Path, kind: str) -> None:
    BAD[kind](Path("bad.wav"))
    ran = s2v("gen", "bad.wav", "-o", "out/x.png")
    assert (ran.status, ran.out) == (1, "")
    assert len(ran.complaints) == 1, ran.err
    assert ran.err.startswith("s2v: error: ")
    assert "bad.wav" in ran.err
    assert "Traceback" not in ran.err
    assert os.listdir() == ["bad.wav"]


def test_missing_sounds_are_told_before_any_work(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone("a.wav")
    ran = s2v("gen", "a.wav", "b.wav", "no/c.wav")
    assert (ran.status, ran.out) == (1, "")
    assert ran.complaints == ["s2v: error: No sound at 'b.wav', 'no/c.wav'."]
    assert os.listdir() == ["a.wav"]


def test_nothing_on_stdin(s2v: RunHere, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        ran = s2v("gen", "-")
    assert (ran.status, ran.out) == (1, "")
    assert len(ran.complaints) == 1
    assert not any(folder.iterdir())


@pytest.mark.parametrize(
    ("sample_rate", "channels", "seconds"), [(96_000, 6, 0.5), (8_000, 1, 0.1), (44_100, 2, 12)]
)
def test_unusual_sounds_are_fine(
    s2v: RunHere, write_tone: WriteTone, sample_rate: int, channels: int, seconds: float
) -> None:
    write_tone(sample_rate=sample_rate, channels=channels, seconds=seconds)
    ran = s2v("gen", "tone.wav", "--quiet")
    assert (ran.status, ran.out, ran.err) == (0, "tone.png\n", "")
