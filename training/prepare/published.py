"""What the layouts of published data sets share: class lists, names of clips, splits by source."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from s2v_cli.errors import OptionError, PictureError, TrainingError
from s2v_cli.training.manifest import Split
from s2v_cli.training.prepare.options import PrepareOptions
from s2v_cli.training.prepare.report import Skipped
from s2v_cli.training.prepare.sources import Item
from s2v_cli.training.prepare.splits import ORDER, share_of

LISTS = Path(__file__).with_name("class_lists.toml")
_STEM = re.compile(
    r"(?P<id>[A-Za-z0-9_-]{11})(?:[_-](?P<first>\d+(?:\.\d+)?)(?:[_-](?P<last>\d+(?:\.\d+)?))?)?"
)
_MS = 1000


@dataclass(frozen=True)
class ClipName:
    """What the name of a clip tells.

    Attributes:
        id: of the YouTube video, 11 characters.
        starts_s: when in the video it begins, seconds: what the number may mean, the likeliest
            first; none where the name holds the id alone.
    """

    id: str
    starts_s: tuple[float, ...]


def parse_clip(stem: str) -> ClipName | None:
    """Read ID, ID_30, ID_000030, ID_30_40, or, in milliseconds, ID_30000_40000 and ID_30000.

    An id may hold `_` and `-` itself, but always has 11 characters.
    """
    match = _STEM.fullmatch(stem)
    if match is None:
        return None
    first, last = match["first"], match["last"]
    if first is None:
        return ClipName(match["id"], ())
    start = float(first)
    if last is None:
        return ClipName(match["id"], (start, start / _MS))
    long = float(last) - start >= _MS  # no clip is cut longer than a quarter of an hour
    return ClipName(match["id"], (start / _MS if long else start,))


def class_lists(dataset: str) -> dict[str, tuple[str, ...]]:
    """The lists of class names of a published data set: name of the list -> names."""
    with LISTS.open("rb") as file:
        return {name: tuple(names) for name, names in tomllib.load(file)[dataset].items()}


def wanted_classes(
    dataset: str, choice: str | None, known: Collection[str]
) -> frozenset[str] | None:
    """The classes that `--classes` names; None takes all.

    Args:
        dataset: a table of `class_lists.toml`.
        choice: name of a list there, or path of a file of class names, one a line; lines that
            begin with `#` are comments.
        known: classes that the data set has.

    Raises:
        OptionError: neither a list nor a file.
        TrainingError: the file cannot be read, is empty, or names a class that there is not.
    """
    if choice is None:
        return None
    lists = class_lists(dataset)
    if choice in lists:
        return frozenset(lists[choice])
    path = Path(choice)
    if not path.is_file():
        raise OptionError(
            f"classes is {choice!r}; allowed: {', '.join(lists)}, or a file of class names, one a "
            "line."
        )
    names = set[str]()
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        if name not in known:
            near = difflib.get_close_matches(name.lower(), known, 3, 0.6)
            inside = [other for other in sorted(known) if name.lower() in other]
            listed = list(dict.fromkeys([*near, *inside]))[:3]
            hint = f" Did you mean {' or '.join(map(repr, listed))}?" if listed else ""
            raise TrainingError(f"Line {number} of {path}: there is no class {name!r}.{hint}")
        names.add(name)
    if not names:
        raise TrainingError(f"{path} names no class; write one a line.")
    return frozenset(names)


def read_text(path: Path) -> str:
    """A text file in UTF-8.

    Raises:
        TrainingError: it cannot be read; the message names the line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TrainingError(f"Cannot read {path}: {error.strerror}.") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TrainingError(f"Line {line} of {path} is not UTF-8.") from None


def train_or_validation(source: str, options: PrepareOptions) -> Split:
    """Where a source goes that a published split trains on: some are kept for validation.

    By its name and the seed alone, and by the shares of train and validation to each other.
    """
    whole = options.train + options.validation
    share = options.validation / whole if whole else 0.0
    return "validation" if share_of(f"split/{options.seed}/{source}") < share else "train"


def without_leaks(items: Iterable[Item]) -> tuple[list[Item], list[Skipped]]:
    """Items whose sources are each in one split: the most held out one of those given to them."""
    listed = list(items)
    splits: dict[str, Split] = {}
    for item in listed:
        if item.split is not None:
            before = splits.setdefault(item.source, item.split)
            splits[item.source] = min(before, item.split, key=ORDER.index)
    kept, skipped = [], []
    for item in listed:
        split = splits.get(item.source)
        if item.split in (None, split):
            kept.append(item)
        else:
            detail = f"given to {item.split}, but video {item.source} is in {split} too"
            skipped.append(Skipped(item.origin, "other split", detail))
    return kept, skipped


def length_s(path: Path, name: str) -> float | None:
    """How long a video is, seconds; None where it cannot be read.

    Raises:
        DependencyError: PyAV is missing.
    """
    from s2v_cli.training.prepare.video import Video

    try:
        with closing(Video(path, name)) as video:
            return max(
                (span[1] for span in (video.picture, video.sound) if span is not None),
                default=None,
            )
    except (OSError, PictureError):
        return None
