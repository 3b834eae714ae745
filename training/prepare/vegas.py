"""The layout `vegas`: the ten class folders of VEGAS (Zhou et al. 2018), balanced (§4.1).

A class folder, such as `baby_cry`, holds `videos/video_00000.mp4` and so on, `audios/*.wav` and
`img/*.jpg` of the same stems, and `video_info.csv`, whose row n has the YouTube id of number n
(column YTID). So public code that reads the archive describes it; the archive itself was not at
hand. What is taken is any folder of such a name, wherever it lies: its videos, or where a clip has
no video its sound and picture.

Of each class 50 clips are for tests and 800 to train on, as in the paper, which does not say which
clips these are: they go by the hash of their YouTube ids here. Clips of one video are in one split
together. More are kept for validation, as the shares of the options say.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from s2v_cli.errors import TrainingError
from s2v_cli.training.manifest import SPLITS, Split
from s2v_cli.training.prepare.options import PrepareOptions
from s2v_cli.training.prepare.published import (
    class_lists,
    parse_clip,
    read_text,
    wanted_classes,
    without_leaks,
)
from s2v_cli.training.prepare.report import Skipped
from s2v_cli.training.prepare.sources import Found, Item, Kind, Listed, counted, find_files, slug
from s2v_cli.training.prepare.splits import ORDER, share_of

PER_CLASS = (800, 50)  # train and test, §4.1
INFO = "video_info.csv"
_NUMBERED = re.compile(r"video_(\d+)")
_ID_COLUMNS = ("ytid", "youtube_id", "video_id", "id")
_OTHER_NAMES = {"baby crying": "baby cry", "human snoring": "snoring", "drums": "drum"}


@dataclass(frozen=True)
class _Clip:
    """The files of one clip, and the folder of its class, relative to the source."""

    name: str
    folder: str
    stem: str
    files: dict[Kind, Found]


def vegas(path: Path, options: PrepareOptions) -> Listed:
    """VEGAS in a folder that has its class folders in it.

    Raises:
        OptionError: unknown list of classes.
        TrainingError: no class folder, or a `video_info.csv` that cannot be read.
    """
    known = class_lists("vegas")["10"]
    wanted = wanted_classes("vegas", options.classes, known) or frozenset(known)
    clips, skipped = _find_clips(path, wanted, known)
    if not clips:
        raise TrainingError(
            f"{path} has no clips of VEGAS; it should have folders such as baby_cry/videos and "
            f"dog/videos, of the classes {', '.join(sorted(wanted))}."
        )
    ids = {
        folder: _read_ids(path / folder / INFO)
        for folder in sorted({clip.folder for clip in clips})
        if (path / folder / INFO).is_file()
    }
    items = []
    for clip in clips:
        if "video" not in clip.files and len(clip.files) < 2:
            (file,) = clip.files.values()
            other = "picture" if file.kind == "sound" else "sound"
            detail = f"no video, and no {other} {clip.stem}.*"
            skipped.append(Skipped(file.origin, "no partner", detail))
        else:
            items.append(_item_of(clip, ids))
    items, leaking = without_leaks(items)
    kept, left = balanced(items, options)
    notes = list(_notes(kept, clips, ids, wanted, options))
    told = (
        f"VEGAS: {counted(len(kept), 'clip')} of "
        f"{counted(len({item.name for item in kept}), 'class', 'classes')}"
    )
    return Listed("vegas", "file", told, kept, skipped + leaking + left, notes)


def class_of(folder: str, known: Iterable[str]) -> str | None:
    """The class that a folder is of: `baby_cry`, `Baby cry`, `Rail-Transport`; or None."""
    name = re.sub(r"[\s_-]+", " ", folder).strip().lower()
    name = _OTHER_NAMES.get(name, name)
    return name if name in known else None


def _find_clips(
    path: Path, wanted: Iterable[str], known: Sequence[str]
) -> tuple[list[_Clip], list[Skipped]]:
    """All clips of the wanted classes; files of none are told of."""
    found: dict[tuple[str, str], _Clip] = {}
    skipped = []
    for file in find_files(path):
        parts = file.origin.split("/")[:-1]
        named = [(class_of(part, known), depth) for depth, part in enumerate(parts, start=1)]
        name, depth = next(((n, d) for n, d in reversed(named) if n is not None), (None, 0))
        if name is None:
            skipped.append(Skipped(file.origin, "no class", "it lies in no class folder of VEGAS"))
        elif name in wanted:
            folder, stem = "/".join(parts[:depth]), file.path.stem
            clip = found.setdefault((folder, stem), _Clip(name, folder, stem, {}))
            taken = clip.files.setdefault(file.kind, file)
            if taken is not file:
                skipped.append(Skipped(file.origin, "duplicate name", f"{taken.origin} is taken"))
    return list(found.values()), skipped


def _read_ids(table: Path) -> list[str]:
    """The YouTube id of each number.

    Raises:
        TrainingError: it cannot be read, or has no such column; with the number of the line.
    """
    reader = csv.reader(io.StringIO(read_text(table), newline=""), strict=True)
    ids, column, line = list[str](), -1, 1
    try:
        for cells in reader:
            if column < 0:
                names = [cell.strip().lower() for cell in cells]
                column = next((names.index(name) for name in _ID_COLUMNS if name in names), -1)
                if column < 0:
                    raise TrainingError(
                        f"Line 1 of {table} names the columns {', '.join(cells)}; it should name "
                        "YTID."
                    )
            elif cells:
                if len(cells) <= column or not cells[column].strip():
                    raise TrainingError(f"Line {line} of {table} has no YouTube id.")
                ids.append(cells[column].strip())
            line = reader.line_num + 1
    except csv.Error as error:
        raise TrainingError(f"Line {line} of {table} cannot be read: {error}.") from None
    return ids


def _item_of(clip: _Clip, ids: dict[str, list[str]]) -> Item:
    video = clip.files.get("video")
    main = video or clip.files["sound"]
    folder = re.sub(r"\s", "_", clip.name)
    return Item(
        key=slug(f"{folder}/{clip.stem}"),
        source=_source_of(clip, ids),
        origin=main.origin,
        where=main.origin,
        name=clip.name,
        split=main.split,
        video=None if video is None else video.path,
        image=clip.files["image"].path if video is None else None,
        sound=clip.files["sound"].path if video is None else None,
    )


def _source_of(clip: _Clip, ids: dict[str, list[str]]) -> str:
    """The YouTube video of a clip; where it is not known, the clip itself."""
    numbered = _NUMBERED.fullmatch(clip.stem)
    if numbered is not None:
        number, known = int(numbered[1]), ids.get(clip.folder, [])
        return known[number] if number < len(known) else f"{clip.name}/{clip.stem}"
    named = parse_clip(clip.stem)
    return f"{clip.name}/{clip.stem}" if named is None else named.id


def balanced(items: Sequence[Item], options: PrepareOptions) -> tuple[list[Item], list[Skipped]]:
    """So many clips of each class for each split; of one source all in one, the rest left out.

    A class with fewer clips gives all splits less, in proportion. Where folders tell training from
    tests, that holds, and only the numbers are limited.
    """
    train, test = options.per_class or PER_CLASS
    room = {
        name: _room([item.split for item in items if item.name == name], train, test, options)
        for name in {item.name for item in items}
    }
    by_source: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_source[item.source].append(item)
    kept, left = [], []
    for source in sorted(by_source, key=lambda s: (share_of(f"split/{options.seed}/{s}"), s)):
        clips = sorted(by_source[source], key=lambda item: item.key)
        given = clips[0].split
        allowed = [s for s in ORDER if given is None or (s == "test") == (given == "test")]
        split = next((s for s in allowed if any(room[c.name][s] for c in clips)), allowed[-1])
        for clip in clips:
            if room[clip.name][split] > 0:
                room[clip.name][split] -= 1
                kept.append(replace(clip, split=split))
            else:
                detail = f"more than --per-class {train},{test}"
                left.append(Skipped(clip.origin, "not used", detail))
    return kept, left


def _room(
    given: Sequence[Split | None], train: int, test: int, options: PrepareOptions
) -> dict[Split, int]:
    """How many clips of a class each split takes, where `given` are the splits that they have."""
    tests = sum(split == "test" for split in given)
    if not tests:
        tests = round(len(given) * test / (train + test))
    rest = len(given) - tests
    whole = options.train + options.validation
    share = options.validation / whole if whole else 0.0
    validation = min(rest - train, round(train * share)) if rest >= train else round(rest * share)
    return {
        "train": min(train, rest - validation),
        "validation": validation,
        "test": min(test, tests),
    }


def _notes(
    kept: Sequence[Item],
    clips: Sequence[_Clip],
    ids: dict[str, list[str]],
    wanted: Iterable[str],
    options: PrepareOptions,
) -> Iterable[str]:
    there = {clip.name for clip in clips}
    absent = sorted(set(wanted) - there)
    if absent:
        yield f"No folder of {', '.join(absent)}."
    numbered = {clip.folder for clip in clips if _NUMBERED.fullmatch(clip.stem)}
    unknown = sorted(numbered - set(ids))
    if unknown:
        yield (
            f"No {INFO} in {', '.join(unknown)}: clips of one video cannot be told there, and each "
            "counts as a video of its own."
        )
    train, _ = options.per_class or PER_CLASS
    counts = Counter((item.name, item.split) for item in kept)
    few = [name for name in sorted(there) if counts[name, "train"] < train]
    if few:
        listed = ", ".join(
            f"{name} {'/'.join(str(counts[name, split]) for split in SPLITS)}" for name in few
        )
        yield f"Fewer than {train} to train on (train/validation/test): {listed}."
