"""The published top-10 moments of VGGSound, `top1_boxes_top10_moments.json`.

For each clip, named ID_START_END in milliseconds, ten frame numbers at 10 frames a second, best
first (README of the paper's repository). Two things the README leaves open:

- It shows one JSON object; public code that reads the file takes the second element of a list. Both
  forms are read.
- Whether frames count from 0 or from 1. They count from 1 here, as files that a frame extractor
  writes do, unless some number in the file is 0. The two differ by 0.1 s.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from s2v_cli.errors import TrainingError
from s2v_cli.training.prepare.published import parse_clip, read_text

FRAMES_PER_S = 10
Moments = dict[tuple[str, float], tuple[float, ...]]


def read_moments(path: Path) -> Moments:
    """The moments of each clip: (video id, start in s) -> seconds from its start, the best first.

    Raises:
        TrainingError: the file cannot be read, or is of another form.
    """
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        line = f"Line {error.lineno} of" if isinstance(error, json.JSONDecodeError) else "Cannot"
        raise TrainingError(f"{line} {path} is not JSON: {error}.") from None
    table = _table_of(content)
    if table is None:
        raise TrainingError(
            f"{path} has no list of moments; allowed: an object of clips and their frame numbers, "
            'as in {"9fhhMaXTraI_44000_54000": [47, 46, 45]}.'
        )
    first = 0 if any(0 in frames for frames in table.values()) else 1
    moments: Moments = {}
    for name, frames in table.items():
        clip = parse_clip(name.removesuffix(".mp4"))
        if clip is None or not clip.starts_s:
            raise TrainingError(
                f"{path} names a clip {name!r}; allowed: ID_START_END, as in "
                "9fhhMaXTraI_44000_54000."
            )
        times = tuple((frame - first) / FRAMES_PER_S for frame in frames)
        moments[clip.id, clip.starts_s[0]] = times
    return moments


def _table_of(content: Any) -> dict[str, list[int]] | None:
    """The last object in it whose values are all lists of frame numbers."""
    objects = content if isinstance(content, list) else [content]
    for table in reversed(objects):
        if isinstance(table, dict) and table and all(map(_are_frames, table.values())):
            return table
    return None


def _are_frames(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(type(number) is int and number >= 0 for number in value)
    )
