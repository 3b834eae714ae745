"""Hours of sound are read in constant memory."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from s2v_cli.audio.read import read_sound
from s2v_cli.options import SoundOptions, WindowChoice

RATE = 8_000
HOURS = 1
LOUD_S = 2_405.6
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def long_wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An hour of silence (a sparse file of 58 MB) with one loud second."""
    path = tmp_path_factory.mktemp("long") / "hour.wav"
    size = HOURS * 3600 * RATE * 2
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16),
        *(b"data", size),
    )
    loud = np.random.default_rng(0).integers(-9000, 9000, RATE).astype("<i2")
    with path.open("wb") as file:
        file.write(header)
        file.seek(len(header) + round(LOUD_S * RATE) * 2)
        file.write(loud.tobytes())
        file.truncate(len(header) + size)
    return path


@contextmanager
def at_most(megabytes: float) -> Iterator[None]:
    """Refuse a higher peak of memory; numpy reports its arrays to tracemalloc."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1] / MEGABYTE
    finally:
        tracemalloc.stop()
    assert peak < megabytes, f"peak of {peak:.1f} MB"


def test_the_loudest_window_of_an_hour(long_wav: Path) -> None:
    with at_most(8):
        sound = read_sound(long_wav, sample_rate=RATE, window_s=1)
    assert sound.segments[0][0] == pytest.approx(LOUD_S, abs=0.051)
    assert not sound.silent


@pytest.mark.parametrize("window", ["first", "average"])
def test_other_windows_of_an_hour(long_wav: Path, window: WindowChoice) -> None:
    with at_most(24):
        sound = read_sound(
            long_wav, sample_rate=RATE, window_s=5, options=SoundOptions(window=window)
        )
    assert len(sound.windows) == (64 if window == "average" else 1)


def test_a_part_from_the_middle_of_an_hour(long_wav: Path) -> None:
    options = SoundOptions(LOUD_S + 0.25, 0.5)
    with at_most(8):
        sound = read_sound(long_wav, sample_rate=RATE, window_s=5, options=options)
    assert sound.windows.shape == (1, RATE // 2) and sound.windows.std() > 0.1
