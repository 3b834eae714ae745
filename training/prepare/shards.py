"""Shards: WebDataset tars with the same bytes for the same examples, written by appending.

A shard grows as `.NAME.part` and takes its name when it is whole. What was appended up to a known
length can be gone on with after a kill.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from s2v_cli.errors import OutputError, TrainingError
from s2v_cli.training.manifest import SHARDS, Example, Part, Shard, Split

IMAGE, SOUND, FIELDS = "jpg", "flac", "json"
_END = b"\0" * 2 * tarfile.BLOCKSIZE  # two empty blocks end a tar (POSIX)
_BLOCK = 1 << 20
_NOT_IN_TAR = ("key", "shard", "image", "sound")


def shard_name(split: Split, number: int) -> str:
    """Path of a shard, relative to its dataset."""
    return f"{SHARDS}/{split}-{number:06d}.tar"


class ShardWriter:
    """Appends examples to one shard.

    Args:
        folder: of the dataset.
        split: of its examples.
        number: of the shard within its split, from 0.
        examples: how many are in it already.
        bytes: how long it is already; what lies behind is cut off.

    Raises:
        OutputError: it cannot be written.
        TrainingError: fewer bytes are there than should be.
    """

    def __init__(
        self, folder: Path, split: Split, number: int, *, examples: int = 0, bytes: int = 0
    ) -> None:
        self.split, self.number = split, number
        self.file = shard_name(split, number)
        self.examples, self.bytes = examples, bytes
        self._path = folder / self.file
        self._partial = self._path.with_name(f".{self._path.name}.part")
        self._digest = hashlib.sha256()
        with _telling(self._path):
            self._stream = self._open()

    def _open(self) -> BinaryIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if not self.bytes:
            return self._partial.open("wb")
        if not self._partial.exists() and self._path.exists():  # killed just after it was closed
            self._path.replace(self._partial)
        try:
            stream = self._partial.open("r+b")
        except FileNotFoundError:
            raise _vanished(self._path) from None
        left = self.bytes
        while left:
            block = stream.read(min(left, _BLOCK))
            if not block:
                stream.close()
                raise _vanished(self._path)
            self._digest.update(block)
            left -= len(block)
        stream.truncate(self.bytes)
        return stream

    def add(self, example: Example, image: bytes | None, sound: bytes | None) -> Example:
        """Append an example; returns it with its shard and the places of its files.

        Raises:
            OutputError: the disk is full, or the shard cannot be written.
        """
        fields = {
            name: value
            for name, value in json.loads(example.to_line()).items()
            if name not in _NOT_IN_TAR
        }
        text = json.dumps(fields, ensure_ascii=False, sort_keys=True).encode(
            "utf-8", "surrogatepass"
        )
        parts = {}
        for suffix, content in ((IMAGE, image), (SOUND, sound), (FIELDS, text)):
            if content is not None:
                parts[suffix] = self._append(f"{example.key}.{suffix}", content)
        self.examples += 1
        return replace(example, shard=self.file, image=parts.get(IMAGE), sound=parts.get(SOUND))

    def _append(self, name: str, content: bytes) -> Part:
        header = tarfile.TarInfo(name)
        header.size = len(content)  # all else is fixed: no time, no owner
        self._write(header.tobuf(tarfile.USTAR_FORMAT))
        part = Part(self.bytes, len(content), sha256(content))
        self._write(content)
        self._write(b"\0" * (-len(content) % tarfile.BLOCKSIZE))
        return part

    def _write(self, content: bytes) -> None:
        with _telling(self._path):
            self._stream.write(content)
        self._digest.update(content)
        self.bytes += len(content)

    def sync(self) -> None:
        """See to it that all that was appended is on the disk."""
        with _telling(self._path):
            self._stream.flush()
            os.fsync(self._stream.fileno())

    def close(self) -> Shard:
        """End the tar and give it its name."""
        self._write(_END)
        self._write(b"\0" * (-self.bytes % tarfile.RECORDSIZE))
        self.sync()
        with _telling(self._path):
            self._stream.close()
            self._partial.replace(self._path)
        return Shard(self.file, self.split, self.examples, self.bytes, self._digest.hexdigest())

    def abandon(self) -> None:
        """Close the file as it is, for a later run to go on with."""
        try:
            self._stream.close()
        except OSError:
            self._stream.close()  # what was buffered did not fit; now it is dropped


def read_part(stream: BinaryIO, part: Part) -> bytes:
    """The bytes of a file in an open shard."""
    stream.seek(part.offset)
    return stream.read(part.size)


def sha256(content: bytes) -> str:
    """Hash of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def encode_sound(wave: Any) -> bytes:
    """A wave as FLAC, 16 bits, 16 kHz: float32 [T] in [-1, 1], scaled by 32768; beyond is cut.

    So 16-bit samples come back as they were.
    """
    import numpy as np
    import soundfile

    from s2v_cli.training.manifest import SAMPLE_RATE

    samples = np.clip(np.rint(wave.astype(np.float64) * 32768), -32768, 32767).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


class _telling:
    """Says in one line why a shard cannot be written."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise OutputError(
                f"Cannot write {self._path}: {reason}. What is done is kept; run the same command "
                "again to go on."
            ) from error


def _vanished(path: Path) -> TrainingError:
    return TrainingError(
        f"{path} is shorter than the journal says, or gone. Prepare again with --force."
    )
