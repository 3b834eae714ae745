"""Prepared datasets: what `s2v prepare` writes and everything after it reads.

A folder with

- `dataset.json`: format, options, counts and the shards with their hashes;
- `manifest.jsonl`: one example a line, sorted by key;
- `report.csv`: what was skipped, and why;
- `shards/SPLIT-NNNNNN.tar`: WebDataset tars of KEY.jpg, KEY.flac and KEY.json.

An example has a picture, a sound or both. Where a dataset is paired by `file`, the picture and the
sound of an example are a pair; where it is paired by `class`, each sound goes with any picture of
its class in its split.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from s2v_cli.errors import TrainingError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Pairing = Literal["file", "class"]

FORMAT = "s2v-pairs"
VERSION = 1
DATASET_FILE = "dataset.json"
MANIFEST_FILE = "manifest.jsonl"
REPORT_FILE = "report.csv"
SHARDS = "shards"
SAMPLE_RATE = 16_000  # of every sound in a shard, Hz, mono


@dataclass(frozen=True)
class Part:
    """Where a file lies in a shard, without the tar's header, and what it is.

    Attributes:
        offset: of its first byte in the tar.
        size: in bytes.
        sha256: of its bytes.
    """

    offset: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Example:
    """One line of a manifest.

    Attributes:
        key: of its files in the shard: small letters, digits, `_` and `-`, unique.
        source: the video or recording that it is from; all examples of one are in one split.
        split: train, validation or test.
        shard: path of the tar, relative to the dataset.
        image: the picture, JPEG.
        sound: the sound, FLAC, 16 kHz mono, at its own level.
        name: class, where there is one.
        origin: path of the original, relative to what was prepared.
        frame_s: when in the video the picture was taken, seconds.
        start_s: when in the original the sound begins, seconds.
        duration_s: how long it is, seconds.
        score: audio-visual correlation C[t] of the moment (§3.3).
        rank: of the moment within its video by that score, 0 is the best.
    """

    key: str
    source: str
    split: Split
    shard: str
    image: Part | None = None
    sound: Part | None = None
    name: str | None = None
    origin: str = ""
    frame_s: float | None = None
    start_s: float | None = None
    duration_s: float | None = None
    score: float | None = None
    rank: int | None = None

    def to_line(self) -> str:
        """As a line of JSON, without its end; what is None is left out."""
        row = {key: value for key, value in asdict(self).items() if value is not None}
        return json.dumps(row, ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_line(cls, line: str) -> Example:
        """Read a line of JSON.

        Raises:
            ValueError: it is not an example.
        """
        row: dict[str, Any] = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError("not an object")
        unknown = set(row) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"unknown key {sorted(unknown)[0]!r}")
        for part in ("image", "sound"):
            if row.get(part) is not None:
                row[part] = Part(**row[part])
        if row.get("split") not in SPLITS:
            raise ValueError(f"split {row.get('split')!r}")
        try:
            return cls(**row)
        except TypeError as error:
            raise ValueError(str(error)) from None


@dataclass(frozen=True)
class Shard:
    """One tar of a dataset: path relative to the dataset, split, examples, size and hash."""

    file: str
    split: Split
    examples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Dataset:
    """The contents of `dataset.json`.

    Attributes:
        pairing: what makes a picture and a sound a pair.
        shards: the tars.
        counts: examples of each split.
        options: how it was prepared.
    """

    pairing: Pairing
    shards: tuple[Shard, ...]
    counts: dict[str, int]
    options: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Write `dataset.json`.

        Raises:
            OutputError: the folder cannot be written.
        """
        from s2v_cli.picture import write_file

        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        write_file(text.encode(), folder / DATASET_FILE, overwrite=True)


def is_prepared(folder: Path) -> bool:
    """Whether a folder holds a prepared dataset."""
    return (folder / DATASET_FILE).is_file()


def read_dataset(folder: Path) -> Dataset:
    """Read `dataset.json`.

    Raises:
        TrainingError: there is none, or it is of another format or version.
    """
    path = folder / DATASET_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("format") != FORMAT or content.get("version") != VERSION:
            raise TrainingError(
                f"{path} is of format {content.get('format')!r}, version "
                f"{content.get('version')!r}; allowed: {FORMAT!r}, version {VERSION}. "
                "Run 's2v prepare' again."
            )
        return Dataset(
            content["pairing"],
            tuple(Shard(**shard) for shard in content["shards"]),
            dict(content["counts"]),
            dict(content["options"]),
        )
    except FileNotFoundError:
        raise TrainingError(
            f"{folder} is not a prepared dataset: it has no {DATASET_FILE}. "
            f"Run: s2v prepare SOURCE {folder}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(f"Cannot read {path}: {error}. Run 's2v prepare' again.") from None


def read_manifest(folder: Path) -> Iterator[Example]:
    """The examples of a prepared dataset, in the order of their keys.

    Raises:
        TrainingError: no manifest, or a line that is not an example.
    """
    path = folder / MANIFEST_FILE
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield Example.from_line(line)
                except (ValueError, TypeError) as error:
                    raise TrainingError(
                        f"Line {number} of {path} is not an example: {error}. "
                        "Run 's2v prepare' again."
                    ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TrainingError(f"Cannot read {path}: {reason}. Run 's2v prepare' again.") from None


def write_manifest(folder: Path, examples: Iterable[Example]) -> None:
    """Write `manifest.jsonl`, whole or not at all.

    Raises:
        OutputError: the folder cannot be written.
    """
    from s2v_cli.picture import whole_file

    with (
        whole_file(folder / MANIFEST_FILE, overwrite=True) as temporary,
        temporary.open("w", encoding="utf-8") as file,
    ):
        for example in sorted(examples, key=lambda example: example.key):
            file.write(example.to_line() + "\n")
