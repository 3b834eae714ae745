"""Decoders: one interface over wav, flac, ogg, mp3 and the containers of phones and video."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
import soundfile

from s2v_cli.audio.framing import (
    CutShort,
    Mp3Frames,
    announce,
    check_framing,
    state_length,
)
from s2v_cli.audio.mix import Wave
from s2v_cli.errors import SoundError

Block = npt.NDArray[np.float32]  # [n, channels]

BLOCK = 1 << 16  # samples decoded at once
_UNKNOWN_LENGTH = 1 << 62  # libsndfile says 2**63 - 1 where the header does not tell the length


class Decoder(Protocol):
    """A sound file that can be read from any sample on, a block at a time.

    Attributes:
        name: what to call the file in messages.
        rate: samples per second.
        length: samples in the file, exactly.
    """

    name: str
    rate: int
    length: int

    def blocks(self, start: int, stop: int) -> Iterator[Wave]:
        """Samples start to stop (within the length): float32 [n] blocks, mean of the channels."""
        ...

    def channels(self, start: int, stop: int) -> Iterator[Block]:
        """Samples start to stop (within the length): float32 [n, channels] blocks."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def cannot_read(name: str, cause: str, remedy: str) -> SoundError:
    """The one line that says which file, why not, and what to do."""
    return SoundError(f"Cannot read {name}: {cause}. {remedy}")


def cut_short(name: str, detail: str) -> SoundError:
    """The refusal of a file that ends before its own header says."""
    return cannot_read(name, f"it is cut short ({detail})", "Copy or download it again.")


def read_span(decoder: Decoder, start: int, stop: int) -> Wave:
    """Samples start to stop: float32 [stop - start], all finite.

    Raises:
        SoundError: the decoder ends early or a sample is not a finite number.
    """
    blocks = list(checked_blocks(decoder, start, stop))
    return np.concatenate(blocks) if blocks else np.empty(0, np.float32)


def checked_blocks(decoder: Decoder, start: int, stop: int) -> Iterator[Wave]:
    """Samples start to stop in blocks, refusing what is missing or not finite.

    Raises:
        SoundError: the decoder ends early or a sample is not a finite number.
    """
    position = start
    for block in decoder.blocks(start, stop):
        if not np.isfinite(block).all():
            second = (position + int(np.argmin(np.isfinite(block)))) / decoder.rate
            raise cannot_read(
                decoder.name,
                f"it holds samples that are not finite numbers (NaN or infinite) at {second:.3f} s",
                "Export it again from its source.",
            )
        position += len(block)
        yield block
    if position < stop:
        raise cut_short(
            decoder.name,
            f"the sound ends at {position / decoder.rate:.3f} s, "
            f"its header says {decoder.length / decoder.rate:.3f} s",
        )


def mono(block: Block) -> Wave:
    """Mean of the channels: float32 [n, channels] to float32 [n]; NaN where one is not finite."""
    if block.shape[1] == 1:
        return block[:, 0]
    with np.errstate(invalid="ignore"):  # inf - inf; refused by `checked_blocks`
        return np.asarray(block.mean(axis=1, dtype=np.float64), np.float32)


def open_decoder(path: Path, name: str) -> Decoder:
    """The decoder for a file, chosen by its content.

    Args:
        path: a regular file with at least one byte.
        name: what to call it in messages.

    Raises:
        SoundError: cut short, damaged, or not a sound.
        DependencyError: a format that needs an optional package or program.
    """
    with path.open("rb") as file:
        head = file.read(4096)
        try:
            mp3 = check_framing(file)
        except CutShort as error:
            raise cut_short(name, str(error)) from error
    if looks_like_text(head):
        raise cannot_read(
            name,
            "it is a text file, not a sound",
            "Give a sound file such as wav, flac, ogg, mp3 or m4a.",
        )
    try:
        return SoundFileDecoder(path, name, mp3)
    except soundfile.LibsndfileError as error:
        from s2v_cli.audio.container import open_container

        return open_container(path, name, head, error.error_string)


def looks_like_text(head: bytes) -> bool:
    """Whether the first bytes of a file are plain text."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # may end inside a character
    except UnicodeDecodeError:
        return False
    return "\0" not in text


class SoundFileDecoder:
    """wav, flac, ogg, opus, mp3, aiff and more, by libsndfile.

    libsndfile scales integer samples by exactly 1 / 2**(bits - 1).
    """

    def __init__(self, path: Path, name: str, mp3: Mp3Frames | None) -> None:
        self.name = name
        self._hush = hushed if mp3 is not None else contextlib.nullcontext
        self._raw: BinaryIO | io.RawIOBase = _open_nameless(path)
        try:
            if mp3 is not None and not mp3.announced:
                self._raw = announce(self._raw, mp3)
            self._file = soundfile.SoundFile(self._raw)
            if self._file.frames >= _UNKNOWN_LENGTH:  # a flac whose encoder wrote to a pipe
                self._file.close()
                self._raw.close()
                samples = _count_samples(path)
                self._raw = state_length(_open_nameless(path), samples)
                self._file = soundfile.SoundFile(self._raw)
            self.rate = int(self._file.samplerate)
            self.length = int(self._file.frames)
            if self._file.format == "FLAC" and self.length:
                read_span(self, self.length - 1, self.length)  # is the last sample there?
        except BaseException:
            self._raw.close()
            raise

    def blocks(self, start: int, stop: int) -> Iterator[Wave]:
        """Samples start to stop: float32 [n] blocks."""
        return map(mono, self.channels(start, stop))

    def channels(self, start: int, stop: int) -> Iterator[Block]:
        """Samples start to stop: float32 [n, channels] blocks."""
        position = start
        try:
            with self._hush():
                self._file.seek(start)
            while position < stop:
                count = min(BLOCK, stop - position)
                with self._hush():
                    block = self._file.read(count, dtype="float32", always_2d=True)
                if not len(block):
                    return
                position += len(block)
                yield block
        except soundfile.LibsndfileError as error:
            raise cannot_read(
                self.name,
                f"it is cut short or damaged at about {position / self.rate:.1f} s",
                "Copy or download it again.",
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._raw.close()


class _Hush:
    """Sends what native code writes to the process's stderr nowhere, for all threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._stderr = -1

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            self._depth += 1
            if self._depth == 1:
                self._stderr = _redirect_stderr()
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                if self._depth == 0 and self._stderr >= 0:
                    os.dup2(self._stderr, 2)
                    os.close(self._stderr)


def _redirect_stderr() -> int:
    """Point descriptor 2 at nothing; returns a copy of what it was, or -1 if it is closed."""
    try:
        before = os.dup(2)
    except OSError:
        return -1
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    os.close(nothing)
    return before


# libmpg123 complains about the first frame of sound mp3 files; what matters raises an error.
hushed = _Hush()


def _open_nameless(path: Path) -> BinaryIO:
    """Open a file so that soundfile does not see its name: only the content tells the format."""
    return open(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), "rb")


def _count_samples(path: Path) -> int:
    """Samples of a flac of unknown length, which fails when it is read beyond its end."""
    samples = 0
    for block in (BLOCK, 1024, 32, 1):
        with (
            _open_nameless(path) as raw,
            soundfile.SoundFile(raw) as file,
            contextlib.suppress(soundfile.LibsndfileError),
        ):
            near = max(0, samples - 2 * BLOCK)  # a seek fails within the last frame
            file.seek(near)
            file.read(samples - near)
            while read := len(file.read(block, dtype="float32", always_2d=True)):
                samples += read
    with (
        _open_nameless(path) as raw,
        soundfile.SoundFile(state_length(raw, samples + 1)) as file,
        contextlib.suppress(soundfile.LibsndfileError),
    ):
        file.seek(samples)  # the last sample can be read only where its place is known
        samples += len(file.read(1, always_2d=True))
    return samples
