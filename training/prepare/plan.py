"""What a dataset will consist of: items in order, their splits, and what decides the result."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2v_cli.errors import OutputError, TrainingError
from s2v_cli.training.manifest import Pairing, Split
from s2v_cli.training.prepare.options import PrepareOptions
from s2v_cli.training.prepare.report import Skipped, counted
from s2v_cli.training.prepare.sources import Item, distinct_keys, open_source
from s2v_cli.training.prepare.splits import assign_splits, in_order


@dataclass(frozen=True)
class Planned:
    """An item, its split, and its place in the whole dataset."""

    place: int
    split: Split
    item: Item


@dataclass(frozen=True)
class Plan:
    """All that is to be done for one dataset.

    Attributes:
        layout: of the source.
        pairing: what makes a picture and a sound a pair.
        told: what the source was taken for.
        notes: lines that a person should read.
        skipped: files that become no item.
        work: items in the order of their places.
        heading: options and a digest of the items: two plans of equal headings make one dataset.
    """

    layout: str
    pairing: Pairing
    told: str
    notes: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    work: tuple[Planned, ...]
    heading: dict[str, Any]

    @property
    def counts(self) -> dict[str, int]:
        """Items of each split."""
        return dict(Counter(planned.split for planned in self.work))

    @property
    def names(self) -> dict[str, int]:
        """Items of each class."""
        return dict(sorted(Counter(p.item.name for p in self.work if p.item.name).items()))

    def part(self, part: tuple[int, int] | None) -> Sequence[Planned]:
        """The items of one of several parts, or all."""
        if part is None:
            return self.work
        number, parts = part
        return [planned for planned in self.work if planned.place % parts == number - 1]


def make_plan(source: Path, folder: Path, options: PrepareOptions) -> Plan:
    """List a source, and decide splits and order; no sound, picture or video is opened.

    Args:
        source: what is to be prepared.
        folder: where the dataset goes.
        options: how.

    Raises:
        OptionError: an option does not fit the layout.
        OutputError: the dataset would go into its own source.
        TrainingError: nothing there, or splits that leak.
    """
    if source.resolve() == folder.resolve():
        raise OutputError(f"{folder} is the source itself; give another folder for the dataset.")
    opened = open_source(source, options)
    items = distinct_keys(list(opened.items()))
    skipped = tuple(sorted(opened.skipped, key=lambda row: (row.file, row.reason, row.detail)))
    if not items:
        why = counted(Counter(row.reason for row in skipped))
        raise TrainingError(
            f"Nothing to prepare in {source} ({opened.told})" + (f": {why}." if why else ".")
        )
    if opened.pairing == "class":
        _check_classes(source, items)
    splits = assign_splits(items, options)
    ordered = in_order(items, splits, options.seed)
    work = tuple(
        Planned(place, split, item) for split, placed in ordered.items() for place, item in placed
    )
    stored = {**options.stored(), "layout": opened.layout}
    heading = {"options": stored, "items": len(work), "digest": _digest(stored, work)}
    return Plan(
        opened.layout, opened.pairing, opened.told, tuple(opened.notes), skipped, work, heading
    )


def _check_classes(source: Path, items: Sequence[Item]) -> None:
    pictured = {item.name for item in items if item.image is not None}
    heard = {item.name for item in items if item.sound is not None}
    if not pictured & heard:
        listed = ", ".join(sorted(name for name in heard | pictured if name)[:5])
        raise TrainingError(
            f"Nothing to prepare in {source}: no class has both sounds and pictures ({listed}). "
            "Give the folders of a class the same name."
        )


def _digest(options: dict[str, Any], work: Sequence[Planned]) -> str:
    """Hash of what decides the result: options, items, and the sizes of their files."""
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    for planned in work:
        item = planned.item
        digest.update(
            repr(
                (
                    planned.split,
                    *(item.key, item.source, item.origin, item.name),
                    *(item.start_s, item.duration_s, item.moments, item.box),
                    *(_size(file) for file in item.files),
                )
            ).encode("utf-8", "surrogateescape")
        )
    return digest.hexdigest()


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1
