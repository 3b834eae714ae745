"""The layout `vggsound`: the published list of VGGSound (Chen et al. 2020) and a folder of clips.

`vggsound.csv` has a row a clip, without a header: YouTube id, start in seconds, class, train or
test. The `train.csv` and `test.csv` of its repository (file name, class) are read too. Clips are
found by id and start, in any folder, under the names that people have:

- ID_000030.mp4, of the authors' archives, which unpack to .../VGGSound_final/video/;
- ID_30.mp4, ID_30_40.mp4 and ID_000030_000040.mp4;
- ID_30000_40000.mp4, in milliseconds;
- ID.mp4, a clip or the whole video, told apart by its length;
- instead of a video, a sound and a picture of one such name, as in the samples of the paper's
  repository.

A YouTube id may have several rows. Should a list give one id to training and to tests, its clips
for training are left out.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from s2v_cli.errors import TrainingError
from s2v_cli.training.manifest import Split
from s2v_cli.training.prepare.options import PrepareOptions
from s2v_cli.training.prepare.published import (
    length_s,
    parse_clip,
    read_text,
    train_or_validation,
    wanted_classes,
    without_leaks,
)
from s2v_cli.training.prepare.published_moments import Moments, read_moments
from s2v_cli.training.prepare.report import Skipped
from s2v_cli.training.prepare.sources import Found, Item, Kind, Listed, counted, find_files, slug

INDEX = "vggsound.csv"
SPLIT_INDEX: dict[str, Split] = {"train.csv": "train", "test.csv": "test"}
INDEX_FOLDERS = (".", "annotations", "data", "metadata", "..")
CLIP_S = 10.0  # of every clip
WHOLE_S = 11.0  # a file of that length named by its id alone is a whole video, not a clip


@dataclass(frozen=True)
class Row:
    """A clip of the list; `start_s` is where in the video of that id it begins."""

    id: str
    start_s: float
    name: str
    split: Split
    where: str

    @property
    def stem(self) -> str:
        """Its name in the authors' archives, without suffix."""
        return f"{self.id}_{self.start_s:06.0f}"


def vggsound(path: Path, options: PrepareOptions) -> Listed:
    """VGGSound in a folder that has `vggsound.csv` in or above it, or that file itself.

    Raises:
        OptionError: unknown list of classes.
        TrainingError: no list, or one that cannot be read; the message names the line.
    """
    root = path if path.is_dir() else path.parent
    tables = _tables_of(path)
    listed = itertools.chain.from_iterable(map(read_rows, tables))
    by_clip = {
        (row.id, row.start_s): row for row in sorted(listed, key=lambda r: r.split == "test")
    }
    rows = list(by_clip.values())
    known = {row.name for row in rows}
    wanted = wanted_classes("vggsound", options.classes, known) or known
    moments = None if options.moments is None else read_moments(Path(options.moments))
    found, skipped = _match(rows, find_files(root))
    items, left = list[Item](), 0
    for row in rows:
        files = found.get(row, {})
        if row.name not in wanted:
            left += bool(files)
        elif not files:
            skipped.append(Skipped(f"{row.stem}.mp4", "missing", row.where))
        elif "video" not in files and len(files) < 2:
            (file,) = files.values()
            other = "picture" if file.kind == "sound" else "sound"
            detail = f"no video, and no {other} {file.path.stem}.*"
            skipped.append(Skipped(file.origin, "no partner", detail))
        else:
            items.append(_item_of(row, files, moments, options))
    items, leaking = without_leaks(items)
    classes = {item.name for item in items}
    told = (
        f"VGGSound: {len(items)} of {counted(sum(r.name in wanted for r in rows), 'listed clip')}, "
        f"{counted(len(classes), 'class', 'classes')}"
    )
    notes = list(_notes(items, left, wanted - known, options))
    return Listed("vggsound", "file", told, items, skipped + leaking, notes)


def _tables_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    for folder in (path / inner for inner in INDEX_FOLDERS):
        for names in ((INDEX,), tuple(SPLIT_INDEX)):
            tables = [folder / name for name in names if (folder / name).is_file()]
            if tables:
                return tables
    raise TrainingError(
        f"{path} has no {INDEX}. Get it from https://www.robots.ox.ac.uk/~vgg/data/vggsound/ or "
        "github.com/hche11/VGGSound (data/), and put it beside the clips."
    )


def read_rows(table: Path) -> Iterator[Row]:
    """The rows of `vggsound.csv`, or of `train.csv` and `test.csv`.

    Raises:
        TrainingError: it cannot be read, or a row is of another form; with the number of the line.
    """
    reader = csv.reader(io.StringIO(read_text(table), newline=""), strict=True)
    line, count = 1, 0
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                row = _row_of([cell.strip() for cell in cells], table, line)
                if row is not None:
                    count += 1
                    yield row
            line = reader.line_num + 1
    except csv.Error as error:
        raise TrainingError(f"Line {line} of {table} cannot be read: {error}.") from None
    if not count:
        raise TrainingError(f"{table} has no rows; each is: YouTube id, start, class, split.")


def _row_of(cells: Sequence[str], table: Path, line: int) -> Row | None:
    """A row; None where it is a header."""
    where = f"line {line} of {table.name}"
    if len(cells) == 2 and table.name in SPLIT_INDEX:
        clip = parse_clip(Path(cells[0]).stem)
        if clip is not None and clip.starts_s and cells[1]:
            return Row(clip.id, clip.starts_s[0], cells[1], SPLIT_INDEX[table.name], where)
    elif len(cells) == 4:
        clip, start, split = parse_clip(cells[0]), cells[1], cells[3].lower()
        name = cells[2]
        right = clip is not None and not clip.starts_s and start.isdecimal() and name
        if clip is not None and right and split in ("train", "test"):
            return Row(clip.id, float(start), name, "test" if split == "test" else "train", where)
        if line == 1 and not any(character.isdigit() for character in start):
            return None
    raise TrainingError(
        f"Line {line} of {table} is {','.join(cells)[:80]!r}; allowed: YouTube id, start in "
        "seconds, class, train or test, as in ---g-f_I2yQ,1,people marching,test."
    )


def _match(
    rows: Iterable[Row], files: Iterable[Found]
) -> tuple[dict[Row, dict[Kind, Found]], list[Skipped]]:
    """The files of each row, and rows of the report for the others."""
    listed: dict[str, dict[float, Row]] = defaultdict(dict)
    for row in rows:
        listed[row.id][row.start_s] = row
    found: dict[Row, dict[Kind, Found]] = defaultdict(dict)
    skipped, nameless = [], list[tuple[Found, dict[float, Row]]]()
    for file in files:
        clip = parse_clip(file.path.stem)
        starts = listed.get(clip.id) if clip is not None else None
        if clip is None or starts is None:
            skipped.append(Skipped(file.origin, "not listed", "its name has no YouTube id of it"))
        elif not clip.starts_s:
            nameless.append((file, starts))
        else:
            start_s = next((start_s for start_s in clip.starts_s if start_s in starts), None)
            if start_s is None:
                detail = f"no clip of {clip.id} begins at {clip.starts_s[0]:g} s"
                skipped.append(Skipped(file.origin, "not listed", detail))
            else:
                skipped += _take([found[starts[start_s]]], file)
    for file, starts in nameless:  # what is cut out already comes first
        if len(starts) == 1 or is_whole(file):
            skipped += _take([found[row] for row in starts.values()], file)
        else:
            detail = f"of {len(starts)} clips of that id it is not clear which; add the start"
            skipped.append(Skipped(file.origin, "not listed", detail))
    return found, skipped


def _take(places: Sequence[dict[Kind, Found]], file: Found) -> Iterator[Skipped]:
    """Put a file where none is yet; it is told where that is nowhere."""
    taken = [files.setdefault(file.kind, file) for files in places]
    if file not in taken:
        yield Skipped(file.origin, "duplicate name", f"{taken[0].origin} is taken")


@cache
def is_whole(file: Found) -> bool:
    """Whether a file that is named by the id alone is the whole video, and not a clip of it."""
    return file.kind == "video" and (length_s(file.path, file.origin) or 0.0) > WHOLE_S


def _item_of(
    row: Row, files: dict[Kind, Found], moments: Moments | None, options: PrepareOptions
) -> Item:
    video = files.get("video")
    main = video or files["sound"]
    clip = parse_clip(main.path.stem)
    assert clip is not None
    cut = bool(clip.starts_s) or not is_whole(main)
    return Item(
        key=slug(row.stem),
        source=row.id,
        origin=main.origin,
        where=row.where,
        name=row.name,
        split=train_or_validation(row.id, options) if row.split == "train" else row.split,
        video=None if video is None else video.path,
        image=files["image"].path if video is None else None,
        sound=files["sound"].path if video is None else None,
        start_s=0.0 if cut else row.start_s,
        duration_s=None if cut else CLIP_S,
        moments=(moments or {}).get((row.id, row.start_s), ()),
    )


def _notes(
    items: Sequence[Item], left: int, absent: Iterable[str], options: PrepareOptions
) -> Iterator[str]:
    if left:
        yield f"{counted(left, 'clip')} of other classes left out."
    if names := sorted(absent):
        yield f"Classes without a row: {', '.join(names[:5])}{' and others' * (len(names) > 5)}."
    if options.moments is not None:
        count = Counter(bool(item.moments) for item in items if item.video is not None)
        if count[False]:
            yield (
                f"{counted(count[True], 'clip')} take their moments from {options.moments}; "
                f"{count[False]} are not in it, and --select {options.select} chooses theirs."
            )
