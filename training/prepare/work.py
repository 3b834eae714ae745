"""Preparing: items to examples, in parallel, into shards; stopped at any moment, it goes on.

The order of the examples, and so every byte of the dataset, depends on the source and the options
alone: not on the number of processes, and not on how often it was stopped.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from s2v_cli.errors import OutputError, TrainingError
from s2v_cli.training.manifest import (
    DATASET_FILE,
    MANIFEST_FILE,
    REPORT_FILE,
    SHARDS,
    SPLITS,
    Example,
    Split,
    is_prepared,
    read_dataset,
)
from s2v_cli.training.prepare.assembly import (
    PARTS,
    PARTS_LOCK,
    Summary,
    Tally,
    clean,
    find_parts,
    finish,
    merge,
    missing_parts,
    part_folder,
    remove,
    summary_of,
    whole_shards,
)
from s2v_cli.training.prepare.examples import Made, Piece, make
from s2v_cli.training.prepare.executors import (
    Executor,
    Here,
    Processes,
    can_spawn,
    default_workers,
)
from s2v_cli.training.prepare.journal import FOLDER, Checkpoint, Journal, Record, read_records
from s2v_cli.training.prepare.options import PrepareOptions, differences
from s2v_cli.training.prepare.plan import Plan, Planned, make_plan
from s2v_cli.training.prepare.report import Skipped
from s2v_cli.training.prepare.shards import ShardWriter
from s2v_cli.training.prepare.sources import Item
from s2v_cli.training.prepare.splits import Duplicates

Progress = Callable[[str, int, int, dict[str, float]], None]
MB = 1_000_000
_LOCK = "lock"


def run_items(
    items: Iterable[Item], worker: Callable[[Item], Made], executor: Executor
) -> Iterator[Made]:
    """What becomes of each item, in order; an item that ends its process becomes a row."""
    return executor.map(worker, items, _lost)


def _lost(item: Item) -> Made:
    return Made(skipped=(Skipped(item.origin, "crashed", "its decoder ended the process"),))


def prepare(
    source: Path,
    folder: Path,
    options: PrepareOptions = PrepareOptions(),  # noqa: B008 (frozen)
    progress: Progress | None = None,
    *,
    executor: Executor | None = None,
    overwrite: bool = False,
    note: Callable[[str], None] | None = None,
) -> Summary:
    """Turn videos, or sounds and pictures, into a prepared dataset.

    Broken files are skipped and listed in `report.csv`. A run that was stopped goes on; one that
    is done is left as it is.

    Args:
        source: a folder, a video or a manifest.
        folder: where the dataset goes.
        options: how.
        progress: called with stage, step, steps and figures.
        executor: where the work is done; None takes processes of this machine.
        overwrite: whether a dataset made otherwise is replaced.
        note: told, in one line, what the source was taken for, before the work begins.

    Raises:
        OptionError: an option does not fit the layout.
        OutputError: the folder cannot be written, or holds something else.
        TrainingError: nothing there to prepare, splits that leak, or a dataset made otherwise.
        DependencyError: a package is missing that the files need.
    """
    if progress:
        progress("Listing", 0, 0, {})
    plan = make_plan(source, folder, options)
    if note:
        note(f"{source} is {plan.told}.")
    there = _there_already(folder, plan, overwrite)
    if there is not None:
        return there
    base = folder if options.part is None else part_folder(folder, options.part)
    _claim(folder, base, plan, options.part, overwrite)
    work = plan.part(options.part)
    with _alone(base):
        _make_shards(base, plan, work, options, executor or _executor(options, work), progress)
        if options.part is None:
            return finish(folder, plan)
    return _end_part(folder, base, plan, options.part[1])


def _end_part(folder: Path, base: Path, plan: Plan, parts: int) -> Summary:
    """Merge all parts, if this one was the last."""
    from filelock import FileLock

    with FileLock(folder / PARTS_LOCK):  # jobs may end together
        there = _there_already(folder, plan, overwrite=False)
        if there is not None:
            return there
        missing = missing_parts(folder, plan, parts)
        if not missing:
            return merge(folder, plan)
        tally = Tally.of(base, replace(plan, skipped=()))
        left = f"{len(missing)} of {parts} parts are missing; the last one makes the whole."
        return tally.summary(folder, plan, whole_shards(base), "part", left)


def merge_parts(source: Path, folder: Path, options: PrepareOptions) -> Summary:
    """Make one dataset of the parts that `prepare` made with `options.part`.

    Raises:
        TrainingError: parts are missing or were made otherwise.
        OutputError: the folder cannot be written.
    """
    from filelock import FileLock

    plan = make_plan(source, folder, options)
    if not is_prepared(folder) and not (folder / PARTS).is_dir():
        raise TrainingError(f"{folder} holds no parts; make them with --shard 1/n to n/n.")
    with FileLock(folder / PARTS_LOCK):
        return _there_already(folder, plan, overwrite=False) or merge(folder, plan)


def plan_dataset(source: Path, folder: Path, options: PrepareOptions) -> Summary:
    """What `prepare` would do, counted in items; nothing is opened or written.

    Raises:
        S2VError: as in `prepare`.
    """
    plan = make_plan(source, folder, options)
    return Summary(
        folder,
        plan.layout,
        plan.pairing,
        plan.told,
        {split: plan.counts.get(split, 0) for split in SPLITS},
        plan.names,
        dict(Counter(row.reason for row in plan.skipped)),
        state="planned",
        notes=plan.notes,
    )


def ensure_prepared(source: Path, folder: Path, progress: Progress | None = None) -> Path:
    """A prepared dataset: the source itself, if it is one, or what is made of it in the folder.

    Raises:
        S2VError: as in `prepare`.
    """
    if is_prepared(source):
        return source
    prepare(source, folder, progress=progress)
    return folder


def _executor(options: PrepareOptions, work: Sequence[Planned]) -> Executor:
    if options.select == "top1" and any(_to_score(planned.item) for planned in work):
        from s2v_cli.training.prepare.selection import preset_scorer

        preset_scorer(options.scorer, options.device)  # what is wrong with it shows here
    workers = min(options.workers or default_workers(), len(work))
    return Processes(workers) if workers > 1 and can_spawn() else Here()


def _to_score(item: Item) -> bool:
    return item.video is not None and not item.moments


def _there_already(folder: Path, plan: Plan, overwrite: bool) -> Summary | None:
    """What is known of a dataset of the same plan; one of another plan makes room or is refused."""
    if not is_prepared(folder):
        return None
    stored = read_dataset(folder)
    if stored.options.get("digest") == plan.heading["digest"]:
        clean(folder)
        return summary_of(folder, plan, stored)
    if not overwrite:
        raise TrainingError(
            f"{folder} holds a dataset made otherwise ({_change(stored.options, plan)}). Give "
            "another folder, or --force to replace it."
        )
    _clear(folder)
    return None


def _change(before: dict[str, Any], plan: Plan) -> str:
    return differences(before, plan.heading["options"]) or "the files of the source have changed"


def _claim(
    folder: Path, base: Path, plan: Plan, part: tuple[int, int] | None, overwrite: bool
) -> None:
    """Begin in a folder, or go on there with what a run of the same plan began.

    Raises:
        TrainingError: a run of another plan began there.
        OutputError: something else is there.
    """
    for other, path in find_parts(folder).items():
        if part is not None and other[1] == part[1]:
            continue
        if not overwrite:
            raise TrainingError(
                f"{folder} holds a part {other[0]}/{other[1]} of a dataset. Make the others with "
                "--shard, give another folder, or --force to start anew."
            )
        remove(path)
    begun = Journal.heading(base)
    if begun is not None and begun != plan.heading:
        if not overwrite:
            raise TrainingError(
                f"{base} holds an unfinished run made otherwise "
                f"({_change(begun.get('options', {}), plan)}). Give another folder, or --force to "
                "start anew."
            )
        _clear(base)
    try:
        there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    except OSError as error:
        raise OutputError(f"Cannot read {folder}: {error.strerror}.") from None
    if begun is None and there - {PARTS, PARTS_LOCK, FOLDER, REPORT_FILE}:
        raise OutputError(
            f"{folder} is not empty and holds no dataset; give another folder, or a new one."
        )


@contextlib.contextmanager
def _alone(base: Path) -> Iterator[None]:
    """Keep other runs out of a folder.

    Raises:
        OutputError: one is there, or the folder cannot be made.
    """
    from filelock import FileLock, Timeout

    try:
        (base / FOLDER).mkdir(parents=True, exist_ok=True)
        lock = FileLock(base / FOLDER / _LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        raise OutputError(f"Another run is at work in {base}; wait for it, or stop it.") from None
    except OSError as error:
        raise OutputError(f"Cannot make the folder {base}: {error.strerror}.") from None
    try:
        yield
    finally:
        lock.release()


def _clear(folder: Path) -> None:
    """Remove a dataset, and nothing else."""
    for name in (DATASET_FILE, MANIFEST_FILE, REPORT_FILE):
        (folder / name).unlink(missing_ok=True)
    for name in (SHARDS, FOLDER):
        remove(folder / name)


def _make_shards(
    base: Path,
    plan: Plan,
    work: Sequence[Planned],
    options: PrepareOptions,
    executor: Executor,
    progress: Progress | None,
) -> None:
    """Make the shards of some items in a folder, and its journal."""
    journal = Journal(base, plan.heading)
    shards = _Shards(base, journal, round(options.shard_mb * MB))
    duplicates, kept, skipped = Duplicates(), 0, 0
    for record in read_records(base):
        if record.example is not None and record.prints is not None:
            duplicates.check(record.example.key, record.example.split, record.prints)
        kept += record.example is not None and not record.repeats
        skipped += record.skipped is not None
    done = journal.checkpoint.done
    left = work[done:]
    began, first = time.monotonic(), done
    made = run_items((p.item for p in left), partial(make, options=options), executor)
    try:
        for planned, result in zip(left, made, strict=True):
            for row in result.skipped:
                journal.add(Record(planned.place, skipped=row))
            for piece in result.pieces:
                example = _example_of(planned, piece)
                repeated = duplicates.check(piece.key, planned.split, piece.prints)
                if repeated is not None:
                    row = Skipped(planned.item.origin, "duplicate content", repeated)
                    journal.add(Record(planned.place, example, piece.prints, row, True))
                    skipped += 1
                    continue
                journal.add(Record(planned.place, shards.add(example, piece), piece.prints))
                kept += 1
            done, skipped = done + 1, skipped + len(result.skipped)
            shards.done = done
            if shards.full() or done == len(work):
                shards.close()
            elif journal.due():
                shards.keep()
            if progress:
                rate = (done - first) / max(time.monotonic() - began, 1e-6)
                figures = {"items_per_s": rate, "examples": float(kept), "skipped": float(skipped)}
                progress("Preparing", done, len(work), figures)
    finally:
        if isinstance(made, Generator):
            made.close()
        shards.abandon()
        journal.close()


def _example_of(planned: Planned, piece: Piece) -> Example:
    item = planned.item
    return Example(
        key=piece.key,
        source=item.source,
        split=planned.split,
        shard="",
        name=item.name,
        origin=item.origin,
        frame_s=_rounded(piece.frame_s),
        start_s=_rounded(piece.start_s),
        duration_s=_rounded(piece.duration_s),
        score=_rounded(piece.score),
        rank=piece.rank,
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


class _Shards:
    """The shards of a folder, one open at a time."""

    def __init__(self, base: Path, journal: Journal, limit: int) -> None:
        self._base, self._journal, self._limit = base, journal, limit
        self._numbers = Counter[Split](shard.split for shard in journal.closed)
        self.done = journal.checkpoint.done
        self._writer: ShardWriter | None = None
        last = journal.checkpoint
        if last.split is not None:
            self._writer = ShardWriter(
                base, last.split, last.number, examples=last.examples, bytes=last.bytes
            )

    def add(self, example: Example, piece: Piece) -> Example:
        """Append an example to the shard of its split."""
        if self._writer is not None and self._writer.split != example.split:
            self._end()
        if self._writer is None:
            self._writer = ShardWriter(self._base, example.split, self._numbers[example.split])
        return self._writer.add(example, piece.image, piece.sound)

    def full(self) -> bool:
        """Whether the open shard is as large as it may be."""
        return self._writer is not None and self._writer.bytes >= self._limit

    def keep(self) -> None:
        """A checkpoint in the middle of a shard."""
        writer = self._writer
        if writer is None:
            self._journal.keep(Checkpoint(self.done))
            return
        writer.sync()
        self._journal.keep(
            Checkpoint(self.done, writer.split, writer.number, writer.examples, writer.bytes)
        )

    def close(self) -> None:
        """End the open shard, and a checkpoint."""
        self._end()
        self._journal.keep(Checkpoint(self.done))

    def _end(self) -> None:
        if self._writer is not None:
            self._journal.add_closed(self._writer.close())
            self._numbers[self._writer.split] += 1
            self._writer = None

    def abandon(self) -> None:
        """Close the open shard as it is."""
        if self._writer is not None:
            self._writer.abandon()
