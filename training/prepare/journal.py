"""What a run has done so far, on the disk, so that a kill at any moment loses seconds.

One JSON object a line. What stands after the last checkpoint does not count: the bytes of the
shard that it speaks of may not be on the disk.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from s2v_cli.errors import OutputError, TrainingError
from s2v_cli.training.manifest import Example, Shard, Split
from s2v_cli.training.prepare.report import Skipped
from s2v_cli.training.prepare.splits import Prints

FOLDER = ".prepare"
CHECKPOINT_S = 2.0
_FILE = "journal.jsonl"
_FORMAT = 1


@dataclass(frozen=True)
class Record:
    """What came of an item: an example, or a row of the report.

    Attributes:
        place: of the item in the whole dataset.
        example: where it lies; of one that repeats another, what it would have been.
        prints: of the example.
        skipped: why there is no example, or what is to be told all the same.
        repeats: whether the example was left out since it repeats another.
    """

    place: int
    example: Example | None = None
    prints: Prints | None = None
    skipped: Skipped | None = None
    repeats: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """How far a run came.

    Attributes:
        done: items that are finished.
        split: of the shard that is open; None where none is.
        number: of that shard within its split.
        examples: in that shard.
        bytes: of that shard.
    """

    done: int = 0
    split: Split | None = None
    number: int = 0
    examples: int = 0
    bytes: int = 0


class Journal:
    """The journal of one folder; it goes on after its last checkpoint.

    Args:
        folder: where shards go.
        heading: what decides the result, written first.

    Attributes:
        checkpoint: the last one.
        closed: shards that are whole.

    Raises:
        OutputError: it cannot be written.
    """

    def __init__(self, folder: Path, heading: dict[str, Any]) -> None:
        self.path = folder / FOLDER / _FILE
        self.checkpoint, self.closed = Checkpoint(), list[Shard]()
        self._kept_at = time.monotonic()
        end = self._replay()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.path.open("r+b" if end else "wb")
            self._stream.truncate(end)
            self._stream.seek(end)
        except OSError as error:
            raise self._refusal(error) from error
        if not end:
            self._write({"format": _FORMAT, "heading": heading})
            self.keep(Checkpoint())

    def _replay(self) -> int:
        """Find the last checkpoint; returns where its line ends."""
        end = position = 0
        closed = list[Shard]()
        for row, length in _rows(self.path):
            position += length
            if "closed" in row:
                closed.append(Shard(**row["closed"]))
            if "checkpoint" in row:
                self.checkpoint = Checkpoint(**row["checkpoint"])
                self.closed, end = list(closed), position
        return end

    @staticmethod
    def heading(folder: Path) -> dict[str, Any] | None:
        """What an earlier run in this folder was about; None where there is none to go on with."""
        for row, _ in _rows(folder / FOLDER / _FILE):
            return dict(row["heading"]) if row.get("format") == _FORMAT else {}
        return None

    @staticmethod
    def state(folder: Path) -> tuple[Checkpoint, list[Shard]]:
        """The last checkpoint of an earlier run in this folder, and its whole shards."""
        checkpoint, closed, kept = Checkpoint(), list[Shard](), list[Shard]()
        for row, _ in _rows(folder / FOLDER / _FILE):
            if "closed" in row:
                closed.append(Shard(**row["closed"]))
            if "checkpoint" in row:
                checkpoint, kept = Checkpoint(**row["checkpoint"]), list(closed)
        return checkpoint, kept

    def add(self, record: Record) -> None:
        """Append a record."""
        row: dict[str, Any] = {"place": record.place, "repeats": record.repeats}
        for name in ("example", "prints", "skipped"):
            value = getattr(record, name)
            if value is not None:
                row[name] = asdict(value)
        self._write(row)

    def add_closed(self, shard: Shard) -> None:
        """Append that a shard is whole."""
        self.closed.append(shard)
        self._write({"closed": asdict(shard)})

    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return time.monotonic() - self._kept_at > CHECKPOINT_S

    def keep(self, checkpoint: Checkpoint) -> None:
        """Append a checkpoint, and see to it that all is on the disk."""
        self._write({"checkpoint": asdict(checkpoint)})
        try:
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise self._refusal(error) from error
        self.checkpoint, self._kept_at = checkpoint, time.monotonic()

    def close(self) -> None:
        """Close the file; what was appended since the last checkpoint does not count."""
        try:
            self._stream.close()
        except OSError:
            self._stream.close()  # what was buffered did not fit; now it is dropped

    def _write(self, row: dict[str, Any]) -> None:
        try:
            self._stream.write(json.dumps(row).encode() + b"\n")
        except OSError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> OutputError:
        reason = os.strerror(error.errno) if error.errno else str(error)
        return OutputError(
            f"Cannot write {self.path}: {reason}. What is done is kept; run the same command again "
            "to go on."
        )


def read_records(folder: Path) -> Iterator[Record]:
    """The records of a journal up to its last checkpoint, in the order of their places.

    Raises:
        TrainingError: one that this version did not write.
    """
    path = folder / FOLDER / _FILE
    waiting = list[dict[str, Any]]()
    for row, _ in _rows(path):
        if "place" in row:
            waiting.append(row)
        elif "checkpoint" in row:
            for ready in waiting:
                yield _record(ready, path)
            waiting.clear()


def _record(row: dict[str, Any], path: Path) -> Record:
    try:
        example = row.get("example")
        prints, skipped = row.get("prints"), row.get("skipped")
        return Record(
            row["place"],
            None if example is None else Example.from_line(json.dumps(example)),
            None if prints is None else Prints(prints["whole"], tuple(prints["parts"])),
            None if skipped is None else Skipped(**skipped),
            row["repeats"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{path} is damaged ({error}). Prepare again with --force.") from None


def _rows(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Lines of a journal and their lengths in bytes, up to one that is not whole."""
    try:
        with path.open("rb") as stream:
            for line in stream:
                try:
                    row = json.loads(line)
                except ValueError:
                    return
                if not line.endswith(b"\n") or not isinstance(row, dict):
                    return
                yield row, len(line)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise TrainingError(f"Cannot read {path}: {error.strerror}.") from None
