"""Folders of empty files, and what the layouts of published data sets make of them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from s2v_cli.training.prepare.options import PrepareOptions
from s2v_cli.training.prepare.plan import make_plan
from s2v_cli.training.prepare.sources import Item, Listed, open_source


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def listed(folder: Path, **options: object) -> Listed:
    source = open_source(folder, PrepareOptions(**options))  # type: ignore[arg-type]
    assert isinstance(source, Listed)
    return source


def by_origin(source: Listed) -> dict[str, Item]:
    return {item.origin: item for item in source.items()}


def reasons(source: Listed) -> dict[str, str]:
    """File -> why it became no item."""
    return {row.file: row.reason for row in source.skipped}


def planned_splits(folder: Path, **options: object) -> dict[str, set[str]]:
    """Source -> the splits that its items end in."""
    plan = make_plan(folder, folder / "data", PrepareOptions(**options))  # type: ignore[arg-type]
    splits = defaultdict(set)
    for planned in plan.work:
        splits[planned.item.source].add(planned.split)
    return dict(splits)
