"""The layout `manifest`: a table of one's own that names files, classes, sources and splits."""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2v_cli.errors import TrainingError
from s2v_cli.training.manifest import Pairing, Split
from s2v_cli.training.prepare.options import PrepareOptions
from s2v_cli.training.prepare.report import Skipped
from s2v_cli.training.prepare.sources import (
    MANIFEST_NAMES,
    MANIFEST_SUFFIXES,
    SPLIT_FOLDERS,
    Item,
    Listed,
    counted,
    slug,
    with_partners,
)

FILE_COLUMNS = ("video", "image", "sound")
COLUMNS = (*FILE_COLUMNS, "class", "source", "split", "start", "duration")


@dataclass(frozen=True)
class Row:
    """A line of a table: its cells by column, without the empty ones, and its number."""

    line: int
    cells: dict[str, Any]


def manifest(path: Path, options: PrepareOptions) -> Listed:
    """A table of CSV, TSV or JSON lines, or a folder that holds one named manifest.*.

    Paths are relative to the table. A row names a video, or a picture and a sound, or one of the
    two and its class.

    Raises:
        TrainingError: the table cannot be read; the message names the line.
    """
    table = _table_of(path)
    rows = list(read_rows(table))
    items, skipped, seen = list[Item](), list[Skipped](), dict[tuple[Any, ...], int]()
    for row in rows:
        item = _item_of(row, table)
        files = (item.files, item.start_s, item.duration_s)
        if files in seen:
            skipped.append(Skipped(item.where, "duplicate name", f"the same as line {seen[files]}"))
            continue
        seen[files] = row.line
        if item.video is None and None in (item.image, item.sound) and item.name is None:
            missing = "picture" if item.image is None else "sound"
            skipped.append(Skipped(item.where, "no class", f"it has neither class nor {missing}"))
            continue
        items.append(item)
    alone = [item for item in items if item.video is None and None in (item.image, item.sound)]
    pairing: Pairing = "class" if alone else "file"
    if pairing == "class":
        items, dropped = with_partners(items, options)
        skipped += dropped
    told = f"a manifest of {counted(len(rows), 'row')}, paired by {pairing}"
    notes = []
    unknown = sorted({column for row in rows for column in row.cells} - set(COLUMNS))
    if unknown:
        notes.append(f"Columns that are not used: {', '.join(unknown)}.")
    return Listed("manifest", pairing, told, items, skipped, notes)


def _table_of(path: Path) -> Path:
    if path.is_file():
        return path
    found = [path / name for name in MANIFEST_NAMES if (path / name).is_file()]
    if len(found) != 1:
        listed = " and ".join(table.name for table in found) or "none"
        raise TrainingError(
            f"{path} should hold one of {', '.join(MANIFEST_NAMES)}, and holds {listed}. Name the "
            "file itself."
        )
    return found[0]


def read_rows(table: Path) -> Iterator[Row]:
    """The rows of a table.

    Raises:
        TrainingError: it cannot be read, with the number of the line; or it has no column of
            files.
    """
    if table.suffix.lower() not in MANIFEST_SUFFIXES:
        raise TrainingError(f"{table} is no manifest; allowed: {', '.join(MANIFEST_SUFFIXES)}.")
    try:
        content = table.read_bytes()
    except OSError as error:
        raise TrainingError(f"Cannot read {table}: {error.strerror}.") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TrainingError(f"Line {line} of {table} is not UTF-8; save it as UTF-8.") from None
    rows = list(_json_rows(text, table) if table.suffix == ".jsonl" else _csv_rows(text, table))
    if not rows:
        raise TrainingError(f"{table} has no rows. Write one a video or pair.")
    if not any(column in row.cells for row in rows for column in FILE_COLUMNS):
        columns = sorted({column for row in rows for column in row.cells})
        near = [difflib.get_close_matches(c.lower(), FILE_COLUMNS, 1, 0.7) for c in columns]
        hint = next((f" Did you mean {match[0]!r}?" for match in near if match), "")
        raise TrainingError(
            f"{table} has the columns {', '.join(columns)}, and none of {', '.join(FILE_COLUMNS)}, "
            f"which name files.{hint}"
        )
    yield from rows


def _json_rows(text: str, table: Path) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except ValueError as error:
            raise TrainingError(f"Line {number} of {table} is not JSON: {error}.") from None
        if not isinstance(cells, dict):
            raise TrainingError(f"Line {number} of {table} is not an object {{...}}.")
        yield Row(number, {name: cell for name, cell in cells.items() if cell not in (None, "")})


def _csv_rows(text: str, table: Path) -> Iterator[Row]:
    head = text.split("\n", 1)[0]
    delimiter = "\t" if table.suffix.lower() == ".tsv" else max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns, line = list[str](), 1
    try:
        for cells in reader:
            if not columns:
                columns = [cell.strip().lower() for cell in cells]
                twice = next((name for name in columns if name and columns.count(name) > 1), None)
                if twice:
                    raise TrainingError(f"Line 1 of {table} names the column {twice!r} twice.")
            elif any(cell.strip() for cell in cells):
                if len(cells) > len(columns):
                    raise TrainingError(
                        f"Line {line} of {table} has {len(cells)} cells, line 1 names "
                        f"{len(columns)} columns."
                    )
                named = zip(columns, (cell.strip() for cell in cells), strict=False)
                yield Row(line, {name: cell for name, cell in named if name and cell})
            line = reader.line_num + 1
    except csv.Error as error:
        raise TrainingError(f"Line {line} of {table} cannot be read: {error}.") from None


def _item_of(row: Row, table: Path) -> Item:
    where = f"line {row.line} of {table.name}"
    files = {name: _path(row, name, table) for name in FILE_COLUMNS}
    if files["video"] and (files["image"] or files["sound"]):
        raise _refusal(row, table, "names a video beside a picture or sound", "either")
    main = next((name for name in ("video", "sound", "image") if files[name]), None)
    if main is None:
        raise _refusal(row, table, "names no file", f"one of {', '.join(FILE_COLUMNS)}")
    origin = str(row.cells[main])
    start_s = _seconds(row, "start", table, 0.0)
    duration_s = _seconds(row, "duration", table, None)
    span = "" if start_s == 0 and duration_s is None else f"_{round((start_s or 0) * 1000)}"
    return Item(
        key=slug(str(Path(origin).with_suffix("")).lstrip("./") + span)
        if main == "video" or None not in (files["image"], files["sound"])
        else slug(origin + span),
        source=str(row.cells.get("source", origin)),
        origin=origin,
        where=where,
        name=None if "class" not in row.cells else str(row.cells["class"]),
        split=_split(row, table),
        video=files["video"],
        image=files["image"],
        sound=files["sound"],
        start_s=start_s or 0.0,
        duration_s=duration_s,
    )


def _path(row: Row, name: str, table: Path) -> Path | None:
    cell = row.cells.get(name)
    if cell is None:
        return None
    if not isinstance(cell, str) or "\0" in cell:
        raise _refusal(row, table, f"has the {name} {cell!r}", "a path")
    return table.parent / cell


def _split(row: Row, table: Path) -> Split | None:
    cell = row.cells.get("split")
    if cell is None:
        return None
    split = SPLIT_FOLDERS.get(str(cell).lower())
    if split is None:
        raise _refusal(row, table, f"has the split {cell!r}", "train, validation, test, or none")
    return split


def _seconds(row: Row, name: str, table: Path, default: float | None) -> float | None:
    cell = row.cells.get(name, default)
    if cell is None:
        return None
    try:
        seconds = float(cell)
    except (TypeError, ValueError):
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0 and (seconds > 0 or name == "start")):
        raise _refusal(row, table, f"has the {name} {cell!r}", "seconds, as in 12.5")
    return seconds


def _refusal(row: Row, table: Path, what: str, allowed: str) -> TrainingError:
    return TrainingError(f"Line {row.line} of {table} {what}; allowed: {allowed}.")
