"""Reading a sound: decode, mix down, choose windows, resample. Nothing is ever normalised.

The encoders hear volume only through fixed thresholds, so integer samples are scaled by
exactly 1 / 2**(bits - 1) and nothing else changes the level but the gain that was asked for.
"""

from __future__ import annotations

import hashlib
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from s2v_cli.audio.decode import Decoder, cannot_read, open_decoder
from s2v_cli.audio.mix import Wave, apply_gain
from s2v_cli.audio.window import RateChange, loudest_window, window_starts
from s2v_cli.errors import OptionError, SoundError
from s2v_cli.options import SoundOptions

STDIN = "-"
# fmt: off
SOUND_SUFFIXES = frozenset({
    ".aac", ".aif", ".aifc", ".aiff", ".amr", ".au", ".avi", ".caf", ".flac", ".m4a", ".m4v",
    ".mka", ".mkv", ".mov", ".mp2", ".mp3", ".mp4", ".mpeg", ".mpg", ".oga", ".ogg", ".ogv",
    ".opus", ".w64", ".wav", ".wave", ".webm", ".wma", ".wmv"
})
# fmt: on


@dataclass(frozen=True)
class Sound:
    """What an encoder hears of a sound.

    Attributes:
        windows: float32 [W, T], W >= 1: mono, at `sample_rate`; nominally in [-1, 1], but float
            files and gain may exceed that. T is the encoder's window, or less where the sound is
            shorter: nothing is padded.
        sample_rate: samples per second.
        segments: start and duration in the file of each window, seconds.
        source: the path, or `-` for standard input and streams.
        sha256: of all bytes of the file.
        silent: whether all samples of all windows are zero.
    """

    windows: Wave
    sample_rate: int
    segments: tuple[tuple[float, float], ...]
    source: str
    sha256: str
    silent: bool

    @property
    def stem(self) -> str:
        """Name for results: the file's without its suffix, or `stdin`."""
        return "stdin" if self.source == STDIN else Path(self.source).stem


def read_sound(
    source: str | Path | BinaryIO,
    *,
    sample_rate: int,
    window_s: float,
    options: SoundOptions = SoundOptions(),  # noqa: B008 (frozen)
) -> Sound:
    """Read the part of a sound that an encoder hears; constant memory however long the file.

    Args:
        source: a file; `-` for standard input; or a binary stream.
        sample_rate: of the encoder, samples per second.
        window_s: how much the encoder hears at once, seconds.
        options: which part, which windows and how loud.

    Returns:
        One window, or for `average` up to 64. A sound that is not longer than a window is
        returned whole.

    Raises:
        SoundError: missing, empty, cut short, damaged, or not a sound.
        OptionError: the part asked for lies beyond the end or holds less than two samples.
        DependencyError: the format needs an optional package or program.
    """
    with local_file(source) as (path, name, shown):
        with closing(open_decoder(path, shown)) as decoder:
            windows, segments = read_windows(decoder, sample_rate, window_s, options)
        sha256 = sound_sha256(path)
    with np.errstate(over="ignore"):
        windows = apply_gain(windows, options.gain_db)
    if not np.isfinite(windows).all():
        raise cannot_read(shown, "its samples are too large", "Export it with samples in [-1, 1].")
    return Sound(windows, sample_rate, segments, name, sha256, silent=not windows.any())


def find_sounds(folder: Path) -> list[Path]:
    """The sound files of a folder, sorted by name; hidden files and subfolders are left out.

    Raises:
        SoundError: the folder cannot be read or holds no sound.
    """
    try:
        found = [
            path
            for path in sorted(folder.iterdir())
            if path.suffix.lower() in SOUND_SUFFIXES and path.name[0] != "." and path.is_file()
        ]
    except OSError as error:
        raise cannot_read(
            str(folder), _reason(error), "Give a folder that holds sounds."
        ) from error
    if not found:
        raise SoundError(
            f"No sound in {folder}. Give a folder that holds files such as "
            "wav, flac, ogg, mp3 or m4a."
        )
    return found


def read_windows(
    decoder: Decoder, sample_rate: int, window_s: float, options: SoundOptions
) -> tuple[Wave, tuple[tuple[float, float], ...]]:
    """The windows [W, T] that an encoder hears of a decoder's sound, and their segments.

    Raises:
        SoundError: the decoder holds less than two samples, ends early or is damaged.
        OptionError: the part asked for lies beyond the end or holds less than one sample.
    """
    if decoder.length < 2:
        raise cannot_read(
            decoder.name,
            "it holds one sample" if decoder.length else "it holds no sound (zero samples)",
            "Record or export it again.",
        )
    change = RateChange.between(decoder.rate, sample_rate)
    length_s = decoder.length / decoder.rate
    if options.start_s >= length_s:
        raise OptionError(
            f"start is {options.start_s:g} s, but {decoder.name} is {length_s:.4g} s long; "
            f"allowed: 0 to less than {length_s:.4g} s."
        )
    end = change.resampled(decoder.length)
    start = round(options.start_s * sample_rate)
    if options.duration_s is not None:
        end = min(end, round((options.start_s + options.duration_s) * sample_rate))
    if end - start < 1:
        raise OptionError(
            f"start {options.start_s:g} s and duration {options.duration_s} leave no sample of "
            f"{decoder.name} ({length_s:.4g} s); allowed: a part of at least 1/{sample_rate} s."
        )
    length = min(round(window_s * sample_rate), end - start)
    starts = [start]
    if length < end - start and options.window == "average":
        starts = window_starts(start, end, length)
    elif length < end - start and options.window == "loudest":
        starts = [_loudest_start(decoder, change, start, end, length)]
    windows = np.stack([change.read(decoder, first, length) for first in starts])
    return windows, tuple((first / sample_rate, length / sample_rate) for first in starts)


def _loudest_start(decoder: Decoder, change: RateChange, start: int, end: int, length: int) -> int:
    """The loudest window, searched in samples of the file and returned in resampled ones."""
    first = start * change.step_in // change.step_out
    last = min(decoder.length, -(-end * change.step_in // change.step_out))
    window = length * change.step_in // change.step_out
    found = loudest_window(decoder, first, last, window) - first
    return min(start + round(found * change.step_out / change.step_in), end - length)


@contextmanager
def local_file(source: str | Path | BinaryIO) -> Iterator[tuple[Path, str, str]]:
    """A regular file for any source, its name, and what messages call it."""
    if not isinstance(source, (str, Path)) or str(source) == STDIN:
        stream = sys.stdin.buffer if isinstance(source, (str, Path)) else source
        shown = "standard input" if isinstance(source, (str, Path)) else "the stream"
        with _spooled(stream, shown) as path:
            yield path, STDIN, shown
        return
    path, name = Path(source), str(source)
    try:
        mode = path.stat().st_mode
        if stat.S_ISFIFO(mode):  # such as a shell's <(command)
            with path.open("rb") as stream, _spooled(stream, name) as copy:
                yield copy, name, name
            return
        if stat.S_ISREG(mode):
            with path.open("rb") as file:
                empty = not file.read(1)
    except OSError as error:
        raise cannot_read(name, _reason(error), "Check the path.") from error
    if stat.S_ISDIR(mode):
        raise cannot_read(name, "it is a folder", "Give a sound file.")
    if not stat.S_ISREG(mode):
        raise cannot_read(name, "it is not a regular file", "Give a sound file.")
    if empty:
        raise cannot_read(name, "it is empty (0 bytes)", "Record or download it again.")
    yield path, name, name


@contextmanager
def _spooled(stream: BinaryIO, shown: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="s2v-") as folder:
        path = Path(folder) / "sound"
        with path.open("wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
        if not path.stat().st_size:
            raise cannot_read(shown, "it is empty (0 bytes)", "Pipe a sound file into it.")
        yield path


def sound_sha256(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
