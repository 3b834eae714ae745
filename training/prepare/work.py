"""Preparing: items to examples, in parallel, into shards; stopped at any moment, it goes on.

The order of the examples, and so every byte of the dataset, depends on the source and the options
alone: not on the number of processes, and not on how often it was stopped.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
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
    Dataset,
    Example,
    Split,
    is_prepared,
    read_dataset,
    write_manifest,
)
from s2v_cli.training.prepare.examples import Made, Piece, make
from s2v_cli.training.prepare.executors import Executor, Here, Processes, can_spawn, default_workers
from s2v_cli.training.prepare.journal import FOLDER, Checkpoint, Journal, Record, read_records
from s2v_cli.training.prepare.options import PrepareOptions, differences
from s2v_cli.training.prepare.plan import Plan, Planned, make_plan
from s2v_cli.training.prepare.report import Skipped, counted, write_report
from s2v_cli.training.prepare.shards import ShardWriter
from s2v_cli.training.prepare.sources import Item
from s2v_cli.training.prepare.splits import Duplicates

Progress = Callable[[str, int, int, dict[str, float]], None]
MB = 1_000_000


@dataclass(frozen=True)
class Summary:
    """What came of preparing.

    Attributes:
        folder: of the dataset.
        layout: what the source was taken for.
        pairing: what makes a picture and a sound a pair.
        told: the same in words.
        counts: examples of each split; of a dry run, items.
        names: how many of each class, if there are classes.
        skipped: how many files for each reason.
        bytes: of all shards.
        state: `made`; `unchanged` where all was there already; `part` where other parts are
            missing; `planned` after a dry run.
        notes: lines that a person should read.
    """

    folder: Path
    layout: str
    pairing: str
    told: str
    counts: dict[str, int]
    names: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    state: str = "made"
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "folder": str(self.folder), "notes": list(self.notes)}


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

    Raises:
        OptionError: an option does not fit the layout.
        OutputError: the folder cannot be written, or holds something else.
        TrainingError: nothing there to prepare, splits that leak, or a dataset made otherwise.
        DependencyError: a package is missing that the files need.
    """
    if progress:
        progress("Listing", 0, 0, {})
    plan = make_plan(source, folder, options)
    if is_prepared(folder):
        stored = read_dataset(folder)
        if stored.options.get("digest") == plan.heading["digest"]:
            _remove(folder / FOLDER)
            return _summary_of(folder, plan, stored)
        if not overwrite:
            raise _made_otherwise(folder, stored.options, plan)
        _clear(folder)
    _claim(folder, plan, overwrite)
    work = plan.part(options.part)
    executor = executor or _executor(options, len(work))
    _make_shards(folder, plan, work, options, executor, progress)
    return finish(folder, plan, [folder], options)


def ensure_prepared(source: Path, folder: Path, progress: Progress | None = None) -> Path:
    """A prepared dataset: the source itself, if it is one, or what is made of it in the folder.

    Raises:
        S2VError: as in `prepare`.
    """
    if is_prepared(source):
        return source
    prepare(source, folder, progress=progress)
    return folder


def _executor(options: PrepareOptions, tasks: int) -> Executor:
    workers = min(options.workers or default_workers(), tasks)
    return Processes(workers) if workers > 1 and can_spawn() else Here()


def _made_otherwise(folder: Path, before: dict[str, Any], plan: Plan) -> TrainingError:
    how = differences(before, plan.heading["options"]) or "the files of the source have changed"
    return TrainingError(
        f"{folder} holds a dataset made otherwise ({how}). Give another folder, or --force to "
        "replace it."
    )


def _claim(folder: Path, plan: Plan, overwrite: bool) -> None:
    """Begin in a folder, or go on there with what a run of the same plan began."""
    begun = Journal.heading(folder)
    if begun is not None and begun != plan.heading:
        if not overwrite:
            how = differences(begun.get("options", {}), plan.heading["options"])
            raise TrainingError(
                f"{folder} holds an unfinished run made otherwise "
                f"({how or 'the files of the source have changed'}). Give another folder, or "
                "--force to start anew."
            )
        _clear(folder)
        begun = None
    try:
        strange = begun is None and folder.is_dir() and any(folder.iterdir())
    except OSError as error:
        raise OutputError(f"Cannot read {folder}: {error.strerror}.") from None
    if strange:
        raise OutputError(
            f"{folder} is not empty and holds no dataset; give another folder, or a new one."
        )


def _clear(folder: Path) -> None:
    """Remove a dataset, and nothing else."""
    for name in (DATASET_FILE, MANIFEST_FILE, REPORT_FILE):
        (folder / name).unlink(missing_ok=True)
    for name in (SHARDS, FOLDER):
        _remove(folder / name)


def _remove(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)


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
    except KeyboardInterrupt:
        shards.keep()
        raise
    finally:
        made.close() if hasattr(made, "close") else None
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


def finish(folder: Path, plan: Plan, bases: Sequence[Path], options: PrepareOptions) -> Summary:
    """Write manifest, report and `dataset.json` of a folder whose shards are whole."""
    journal = Journal(folder, plan.heading)
    shards = tuple(sorted(journal.closed, key=lambda shard: shard.file))
    journal.close()
    counts, names, kinds = Counter[str](), Counter[str](), Counter[tuple[str, str, bool]]()
    skipped, rows = Counter[str](), list(plan.skipped)
    for record in read_records(folder):
        if record.skipped is not None:
            rows.append(record.skipped)
        if record.example is not None and not record.repeats:
            example = record.example
            counts[example.split] += 1
            if example.name is not None:
                names[example.name] += 1
            kinds[example.split, example.name or "", example.image is not None] += 1
    skipped.update(row.reason for row in rows if not row.kept)
    write_report(folder, rows)
    if not counts:
        _remove(folder / FOLDER)
        _remove(folder / SHARDS)
        raise TrainingError(
            f"No example came of {plan.told} ({counted(skipped)}); {folder / REPORT_FILE} tells of "
            "each file."
        )
    write_manifest(
        folder,
        (
            record.example
            for record in read_records(folder)
            if record.example is not None and not record.repeats
        ),
    )
    ordered = {split: counts[split] for split in SPLITS}
    stored = {**plan.heading["options"], "digest": plan.heading["digest"]}
    Dataset(plan.pairing, shards, ordered, stored).write(folder)
    _remove(folder / FOLDER)
    return Summary(
        folder,
        plan.layout,
        plan.pairing,
        plan.told,
        ordered,
        dict(sorted(names.items())),
        dict(sorted(skipped.items())),
        sum(shard.bytes for shard in shards),
        notes=(*plan.notes, *_warnings(ordered, kinds, plan)),
    )


def _warnings(
    counts: dict[Split, int], kinds: Counter[tuple[str, str, bool]], plan: Plan
) -> Iterator[str]:
    """Lines about a dataset that is hard to train with."""
    total = sum(counts.values())
    if total == 1:
        yield "The dataset is a single example; training needs more."
    elif empty := [split for split in SPLITS if not counts[split]]:
        yield f"No example is in {' or '.join(empty)}; --splits sets the shares."
    if plan.pairing == "class":
        lonely = sorted(
            {
                f"{name} ({split})"
                for split, name, pictured in kinds
                if not pictured and not name.startswith("~") and not kinds[split, name, True]
            }
        )
        if lonely:
            more = f" and {len(lonely) - 5} more" if len(lonely) > 5 else ""
            listed = ", ".join(lonely[:5])
            yield f"Sounds without a picture of their class in their split: {listed}{more}."


def _summary_of(folder: Path, plan: Plan, stored: Dataset) -> Summary:
    return Summary(
        folder,
        plan.layout,
        plan.pairing,
        plan.told,
        stored.counts,
        bytes=sum(shard.bytes for shard in stored.shards),
        state="unchanged",
        notes=plan.notes,
    )
