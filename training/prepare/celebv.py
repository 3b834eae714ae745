"""The layout `celebv`: CelebV-HQ (Zhu et al. 2022), speech and faces (§6.3).

`celebvhq_info.json` has the object `clips`: name of the clip -> `ytb_id`, `duration` (`start_sec`,
`end_sec` in the YouTube video), `bbox` (`top`, `bottom`, `left`, `right`, shares of the picture)
and `attributes`. Found by name, in any folder:

- NAME.mp4, a clip that is cut out and cropped already, as the published script writes it into
  `processed/`; and NAME_0.mp4, one scene of it, as in a copy that people share;
- YTB_ID.mp4, a whole video, as the script writes it into `raw/`: the clip's seconds are taken, and
  its pictures are cropped to the box, 0.02 wider on each side as in the script.

The paper trains on 20,000 of the 35,666 clips, chosen arbitrarily, and tests with the others; no
list of them is published, nor any by the authors of the data. Here that share of the clips goes to
training by the hash of their YouTube ids, so that no video is in both. Where `train.txt` and
`test.txt` (and `val.txt`) with a name a line lie beside the JSON, they are followed.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2v_cli.errors import TrainingError
from s2v_cli.training.manifest import Split
from s2v_cli.training.prepare.options import PrepareOptions
from s2v_cli.training.prepare.published import (
    length_s,
    read_text,
    train_or_validation,
    without_leaks,
)
from s2v_cli.training.prepare.report import Skipped
from s2v_cli.training.prepare.sources import (
    SPLIT_FOLDERS,
    Box,
    Found,
    Item,
    Listed,
    counted,
    find_files,
    slug,
)
from s2v_cli.training.prepare.splits import share_of

INDEX = "celebvhq_info.json"
TRAINED, CLIPS = 20_000, 35_666  # §6.3
MARGIN = 0.02  # of the published script around the box
_SCENE = re.compile(r"(.+)_\d+")
_LONGER_S = 2.0  # a file that much longer than its clip is the whole video


@dataclass(frozen=True)
class Clip:
    """A clip of the JSON: start and end in its YouTube video, and the face's box."""

    name: str
    id: str
    start_s: float
    end_s: float
    box: Box


def celebv(path: Path, options: PrepareOptions) -> Listed:
    """CelebV-HQ in a folder that has `celebvhq_info.json` in or above it, or that file itself.

    Raises:
        TrainingError: no such file, or one that cannot be read.
    """
    index = _index_of(path)
    clips = read_clips(index)
    lists = _read_lists(index.parent, clips)
    splits = lists or _splits_by_id(clips.values(), options)
    found, skipped = _match(clips, find_files(path if path.is_dir() else path.parent))
    items, unlisted = list[Item](), 0
    for name, clip in clips.items():
        if name not in splits:
            unlisted += 1
        elif name not in found:
            detail = f"neither {name} nor the whole video {clip.id}"
            skipped.append(Skipped(f"{name}.mp4", "missing", detail))
        else:
            items.append(_item_of(clip, *found[name], splits[name], options))
    items, leaking = without_leaks(items)
    notes = []
    if unlisted:
        notes.append(f"{counted(unlisted, 'clip')} in no list of a split left out.")
    how = "by lists of names" if lists else "by YouTube id"
    told = f"CelebV-HQ: {len(items)} of {counted(len(clips), 'listed clip')}, split {how}"
    return Listed("celebv", "file", told, items, skipped + leaking, notes)


def _index_of(path: Path) -> Path:
    if path.is_file():
        return path
    for folder in (path, path / "..", path / "../.."):
        if (folder / INDEX).is_file():
            return folder / INDEX
    raise TrainingError(
        f"{path} has no {INDEX}. Get it from github.com/CelebV-HQ/CelebV-HQ, and put it beside the "
        "videos."
    )


def read_clips(index: Path) -> dict[str, Clip]:
    """The clips of `celebvhq_info.json`, by name.

    Raises:
        TrainingError: it is not JSON, with the number of the line; or has no clips, or one of
            another form, which is named.
    """
    try:
        content = json.loads(read_text(index))
    except json.JSONDecodeError as error:
        raise TrainingError(f"Line {error.lineno} of {index} is not JSON: {error.msg}.") from None
    table = content.get("clips") if isinstance(content, dict) else None
    if not isinstance(table, dict) or not table:
        raise TrainingError(f"{index} has no object of clips; get it anew.")
    return {name: _clip_of(name, value, index) for name, value in table.items()}


def _clip_of(name: str, value: Any, index: Path) -> Clip:
    try:
        span, box = value["duration"], value["bbox"]
        start_s, end_s = float(span["start_sec"]), float(span["end_sec"])
        left, top, right, bottom = (float(box[s]) for s in ("left", "top", "right", "bottom"))
        id = value["ytb_id"]
        right_form = isinstance(id, str) and id and math.isfinite(start_s + end_s)
        if right_form and 0 <= start_s < end_s and left < right and top < bottom:
            return Clip(name, id, start_s, end_s, (left, top, right, bottom))
    except (KeyError, TypeError, ValueError):
        pass
    raise TrainingError(
        f"The clip {name!r} of {index} is of another form; allowed: ytb_id, duration (start_sec, "
        "end_sec) and bbox (top, bottom, left, right)."
    )


def wider(box: Box, margin: float = MARGIN) -> Box:
    """A box with a margin around it, within the picture, in the proportions that it had.

    The published boxes are square in pixels; where the picture ends, the square is smaller, around
    the same centre as in the published script.

    Args:
        box: left, top, right, bottom, shares of the picture.
        margin: share of the height; of the width it is so much that the proportions stay.
    """
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    across = margin * width / height
    left, right = max(left - across, 0.0), min(right + across, 1.0)
    top, bottom = max(top - margin, 0.0), min(bottom + margin, 1.0)
    scale = min((right - left) / width, (bottom - top) / height)
    x, y = (left + right) / 2, (top + bottom) / 2
    half_width, half_height = scale * width / 2, scale * height / 2
    return x - half_width, y - half_height, x + half_width, y + half_height


def _read_lists(folder: Path, clips: Mapping[str, Clip]) -> dict[str, Split]:
    """Splits by lists of clip names; empty where there is no list.

    Raises:
        TrainingError: a list names a clip that there is not, or names one for two splits.
    """
    splits: dict[str, Split] = {}
    for stem, split in SPLIT_FOLDERS.items():
        path = folder / f"{stem}.txt"
        if not path.is_file():
            continue
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            name = line.strip().removesuffix(".mp4")
            if name and name not in clips:
                raise TrainingError(f"Line {number} of {path}: there is no clip {name!r}.")
            if name and splits.setdefault(name, split) != split:
                raise TrainingError(
                    f"Line {number} of {path}: the clip {name!r} is listed for {splits[name]} too."
                )
    return splits


def _splits_by_id(clips: Iterable[Clip], options: PrepareOptions) -> dict[str, Split]:
    """Splits by the hash of the YouTube ids: the paper's share of all clips is trained on."""
    by_id: dict[str, list[str]] = defaultdict(list)
    for clip in clips:
        by_id[clip.id].append(clip.name)
    total = sum(map(len, by_id.values()))
    room = round(total * TRAINED / CLIPS)
    splits: dict[str, Split] = {}
    for id in sorted(by_id, key=lambda id: (share_of(f"celebv/{options.seed}/{id}"), id)):
        split: Split = "test"
        if len(by_id[id]) <= room:
            room -= len(by_id[id])
            split = train_or_validation(id, options)
        splits |= dict.fromkeys(by_id[id], split)
    return splits


def _match(
    clips: Mapping[str, Clip], files: Iterable[Found]
) -> tuple[dict[str, tuple[Found, bool]], list[Skipped]]:
    """The file of each clip, and whether it is the whole video; rows for the others."""
    of_video: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips.values():
        of_video[clip.id].append(clip)
    found: dict[str, tuple[Found, bool]] = {}
    whole, skipped = list[Found](), list[Skipped]()
    for file in files:
        stem = file.path.stem
        scene = _SCENE.fullmatch(stem)
        name = stem if stem in clips or scene is None else scene[1]
        if file.kind != "video":
            detail = f"the layout celebv takes no {file.kind}s"
            skipped.append(Skipped(file.origin, "not used", detail))
        elif name in clips and not (stem in of_video and _is_longer(file, clips[name])):
            if found.setdefault(name, (file, False))[0] is not file:
                detail = f"{found[name][0].origin} is taken"
                skipped.append(Skipped(file.origin, "duplicate name", detail))
        elif stem in of_video:
            whole.append(file)
        else:
            skipped.append(Skipped(file.origin, "not listed", f"neither clip nor video of {INDEX}"))
    for file in whole:  # what is cut out already comes first
        taken = [found.setdefault(clip.name, (file, True))[0] for clip in of_video[file.path.stem]]
        if file not in taken:
            skipped.append(Skipped(file.origin, "duplicate name", f"{taken[0].origin} is taken"))
    return found, skipped


def _is_longer(file: Found, clip: Clip) -> bool:
    length = length_s(file.path, file.origin) or 0.0
    return length > clip.end_s - clip.start_s + _LONGER_S


def _item_of(clip: Clip, file: Found, whole: bool, split: Split, options: PrepareOptions) -> Item:
    return Item(
        key=slug(clip.name),
        source=clip.id,
        origin=file.origin,
        where=f"{clip.name} of {INDEX}",
        split=split,
        video=file.path,
        start_s=clip.start_s if whole else 0.0,
        duration_s=clip.end_s - clip.start_s if whole else None,
        box=wider(clip.box) if whole else None,
    )
