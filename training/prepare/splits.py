"""Splits by source, duplicates across splits, and the order of a dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from s2v_cli.errors import TrainingError
from s2v_cli.training.manifest import SPLITS, Split
from s2v_cli.training.prepare.options import PrepareOptions
from s2v_cli.training.prepare.sources import Item

ORDER: tuple[Split, ...] = ("test", "validation", "train")  # of two alike the earlier is kept


def share_of(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8]) / (
        1 << 64
    )


def split_of(source: str, options: PrepareOptions) -> Split:
    """The split of a source: by its name and the seed alone, so that added data moves nothing."""
    place = share_of(f"split/{options.seed}/{source}")
    if place < options.test:
        return "test"
    return "validation" if place < options.test + options.validation else "train"


def assign_splits(items: Iterable[Item], options: PrepareOptions) -> dict[str, Split]:
    """The split of each source. Where one item of a source has a split, it holds for all.

    Raises:
        TrainingError: items of one source are given to different splits.
    """
    given: dict[str, tuple[Split, str]] = {}
    names: dict[str, None] = {}
    for item in items:
        names[item.source] = None
        if item.split is None:
            continue
        if item.split not in SPLITS:
            raise TrainingError(
                f"{item.where} gives the split {item.split!r}; allowed: {', '.join(SPLITS)}."
            )
        before = given.setdefault(item.source, (item.split, item.where))
        if before[0] != item.split:
            raise TrainingError(
                f"The splits leak: source {item.source!r} is in {before[0]} ({before[1]}) and in "
                f"{item.split} ({item.where}). Give all examples of one source one split."
            )
    return {
        name: given[name][0] if name in given else split_of(name, options) for name in sorted(names)
    }


def in_order(
    items: Iterable[Item], splits: dict[str, Split], seed: int
) -> dict[Split, list[tuple[int, Item]]]:
    """Items of each split, shuffled by their keys alone, each with its place in the whole.

    So a shard holds examples of many sources and classes, and a place means the same in every
    part of a dataset.
    """
    by_split: dict[Split, list[Item]] = {split: [] for split in ORDER}
    for item in items:
        by_split[splits[item.source]].append(item)
    place, placed = 0, {}
    for split in ORDER:
        by_split[split].sort(key=lambda item: (share_of(f"order/{seed}/{item.key}"), item.key))
        placed[split] = list(enumerate(by_split[split], start=place))
        place += len(by_split[split])
    return placed


@dataclass(frozen=True)
class Prints:
    """Fingerprints of an example.

    Attributes:
        whole: of all that it holds: two examples with the same are one.
        parts: of its files and what came of them: none may be in two splits.
    """

    whole: str
    parts: tuple[str, ...] = ()


@dataclass
class Duplicates:
    """Finds examples that were there before; they have to come in the order of their places.

    An example counts as there whether it was kept or not. So what is found does not depend on
    which examples were looked at together, and parts of a dataset can be merged.
    """

    _whole: dict[bytes, str] = field(default_factory=dict)
    _parts: dict[bytes, tuple[Split, str]] = field(default_factory=dict)

    def check(self, key: str, split: Split, prints: Prints) -> str | None:
        """What an example repeats, in words, or None; it is remembered."""
        repeated = self._whole.setdefault(_short(prints.whole), key)
        found = None if repeated == key else f"the same as {repeated}"
        for part in prints.parts:
            first, first_key = self._parts.setdefault(_short(part), (split, key))
            if first != split:
                found = found or f"shares a picture or sound with {first_key} in {first}"
        return found


def _short(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=12).digest()
