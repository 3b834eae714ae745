"""From shards and a journal to a dataset; from the parts of several jobs to one."""

from __future__ import annotations

import contextlib
import heapq
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from s2v_cli.errors import OutputError, TrainingError
from s2v_cli.training.manifest import (
    REPORT_FILE,
    SHARDS,
    SPLITS,
    Dataset,
    Example,
    Shard,
    Split,
    write_manifest,
)
from s2v_cli.training.prepare.journal import FOLDER, Checkpoint, Journal, Record, read_records
from s2v_cli.training.prepare.options import differences
from s2v_cli.training.prepare.plan import Plan
from s2v_cli.training.prepare.report import Skipped, counted, write_report
from s2v_cli.training.prepare.shards import ShardWriter, read_part, shard_name
from s2v_cli.training.prepare.splits import Duplicates

PARTS = "parts"
PARTS_LOCK = "parts.lock"  # beside the parts, since they are removed while it is held
State = Literal["made", "unchanged", "part", "planned"]
_PART_NAME = re.compile(r"(\d+)-of-(\d+)")


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
    state: State = "made"
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "folder": str(self.folder), "notes": list(self.notes)}


@dataclass
class Tally:
    """What the records of a journal add up to.

    Attributes:
        counts: examples of each split.
        names: examples of each class.
        kinds: examples by split, class, and whether they have a picture.
        rows: of the report, in the order of the places.
    """

    counts: Counter[Split] = field(default_factory=Counter)
    names: Counter[str] = field(default_factory=Counter)
    kinds: Counter[tuple[str, str, bool]] = field(default_factory=Counter)
    rows: list[Skipped] = field(default_factory=list)

    @classmethod
    def of(cls, base: Path, plan: Plan) -> Tally:
        """Count the records of a folder; what the plan skipped comes first."""
        tally = cls(rows=list(plan.skipped))
        for record in read_records(base):
            if record.skipped is not None:
                tally.rows.append(record.skipped)
            example = record.example
            if example is not None and not record.repeats:
                tally.counts[example.split] += 1
                if example.name is not None:
                    tally.names[example.name] += 1
                tally.kinds[example.split, example.name or "", example.image is not None] += 1
        return tally

    @property
    def skipped(self) -> Counter[str]:
        """Skipped files for each reason."""
        return Counter(row.reason for row in self.rows if not row.kept)

    def summary(
        self, folder: Path, plan: Plan, shards: Sequence[Shard], state: State, *notes: str
    ) -> Summary:
        """The same for people."""
        return Summary(
            folder=folder,
            layout=plan.layout,
            pairing=plan.pairing,
            told=plan.told,
            counts={split: self.counts[split] for split in SPLITS},
            names=dict(sorted(self.names.items())),
            skipped=dict(sorted(self.skipped.items())),
            bytes=sum(shard.bytes for shard in shards),
            state=state,
            notes=(*plan.notes, *notes),
        )


def finish(folder: Path, plan: Plan) -> Summary:
    """Write manifest, report and `dataset.json` of a folder whose shards and journal are whole.

    Raises:
        TrainingError: there is not one example, or a shard has vanished.
        OutputError: the folder cannot be written.
    """
    shards = tuple(sorted(whole_shards(folder), key=lambda shard: shard.file))
    tally = Tally.of(folder, plan)
    write_report(folder, tally.rows)
    if not tally.counts:
        remove(folder / FOLDER)
        remove(folder / SHARDS)
        raise TrainingError(
            f"No example came of {plan.told} ({counted(tally.skipped)}); "
            f"{folder / REPORT_FILE} tells of each file."
        )
    write_manifest(
        folder,
        (
            record.example
            for record in read_records(folder)
            if record.example is not None and not record.repeats
        ),
    )
    stored = {**plan.heading["options"], "digest": plan.heading["digest"]}
    counts: dict[str, int] = {split: tally.counts[split] for split in SPLITS}
    Dataset(plan.pairing, shards, counts, stored).write(folder)
    clean(folder)
    return tally.summary(folder, plan, shards, "made", *_warnings(tally, plan))


def clean(folder: Path) -> None:
    """Remove what only an unfinished dataset needs."""
    remove(folder / FOLDER)
    remove(folder / PARTS)
    (folder / PARTS_LOCK).unlink(missing_ok=True)


def whole_shards(base: Path) -> list[Shard]:
    """The shards of a folder that are whole.

    Raises:
        TrainingError: one has vanished.
    """
    _, shards = Journal.state(base)
    for shard in shards:
        path = base / shard.file
        if not path.is_file() or path.stat().st_size != shard.bytes:
            raise TrainingError(f"{path} has changed or is gone. Prepare again with --force.")
    return shards


def _warnings(tally: Tally, plan: Plan) -> Iterator[str]:
    """Lines about a dataset that is hard to train with."""
    kinds = tally.kinds
    if tally.counts.total() == 1:
        yield "The dataset is a single example; training needs more."
    elif empty := [split for split in SPLITS if not tally.counts[split]]:
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


def part_folder(folder: Path, part: tuple[int, int]) -> Path:
    """Where the i-th of n parts of a dataset is made."""
    width = max(3, len(str(part[1])))
    return folder / PARTS / f"{part[0]:0{width}d}-of-{part[1]:0{width}d}"


def find_parts(folder: Path) -> dict[tuple[int, int], Path]:
    """The parts in a folder, finished or not."""
    if not (folder / PARTS).is_dir():
        return {}
    found = {}
    for path in (folder / PARTS).iterdir():
        name = _PART_NAME.fullmatch(path.name)
        if name and path.is_dir():
            found[int(name[1]), int(name[2])] = path
    return found


def missing_parts(folder: Path, plan: Plan, parts: int) -> list[int]:
    """Which of n parts are not finished.

    Raises:
        TrainingError: one was made otherwise.
    """
    missing = []
    for number in range(1, parts + 1):
        base = part_folder(folder, (number, parts))
        heading = Journal.heading(base)
        if heading is not None and heading != plan.heading:
            how = differences(heading.get("options", {}), plan.heading["options"])
            raise TrainingError(
                f"Part {number} of {parts} in {folder} was made otherwise "
                f"({how or 'the files of the source differ'}). Make it again with --force."
            )
        if heading is None:
            missing.append(number)
            continue
        checkpoint, _ = Journal.state(base)
        if checkpoint.done < len(plan.part((number, parts))):
            missing.append(number)
    return missing


def merge(folder: Path, plan: Plan) -> Summary:
    """Make one dataset of all parts: as examples, the one that a single job makes.

    The parts stay until all is done, so that a merge which was stopped can begin anew.

    Raises:
        TrainingError: parts are missing or were made otherwise.
        OutputError: the folder cannot be written.
    """
    counts = sorted({parts for _, parts in find_parts(folder)})
    if len(counts) != 1:
        found = f"parts of {' and of '.join(map(str, counts))}" if counts else "no parts"
        raise TrainingError(
            f"{folder} holds {found}; make all of one number first, with --shard 1/n to n/n."
        )
    missing = missing_parts(folder, plan, counts[0])
    if missing:
        listed = ", ".join(f"{number}/{counts[0]}" for number in missing[:10])
        raise TrainingError(
            f"Parts are missing in {folder}: {listed}{', ...' if missing[10:] else ''}. Make them "
            "with --shard."
        )
    remove(folder / FOLDER)
    remove(folder / SHARDS)
    bases = [part_folder(folder, (number, counts[0])) for number in range(1, counts[0] + 1)]
    _gather(folder, bases, plan)
    return finish(folder, plan)


def _gather(folder: Path, bases: Sequence[Path], plan: Plan) -> None:
    """Bring the shards of the parts together, and write the journal of the whole."""
    repeated = {
        record.example.key
        for record, detail in _in_order(bases)
        if detail is not None and record.example is not None and not record.repeats
    }
    journal = Journal(folder, plan.heading)
    numbers, names, moved = Counter[Split](), dict[tuple[int, str], str](), dict[str, Example]()
    for part, base in enumerate(bases):
        closed = sorted(whole_shards(base), key=lambda shard: shard.file)
        inside = _examples_by_shard(base, repeated)
        for shard in closed:
            number = numbers[shard.split]
            if shard.file in inside:
                if not inside[shard.file]:
                    continue  # nothing of it is left
                whole = _rewrite(folder, base, shard, number, inside[shard.file], moved)
            else:
                whole = replace(shard, file=shard_name(shard.split, number))
                _link(base / shard.file, folder / whole.file)
            names[part, shard.file] = whole.file
            numbers[shard.split] += 1
            journal.add_closed(whole)
    parts = {base: part for part, base in enumerate(bases)}
    for record, detail in _in_order(bases):
        example = record.example
        if example is not None and detail is not None:
            row = Skipped(example.origin, "duplicate content", detail)
            record = replace(record, skipped=row, repeats=True)
        elif example is not None:
            base = bases[record.place % len(bases)]
            name = names[parts[base], example.shard]
            record = replace(record, example=moved.get(example.key, replace(example, shard=name)))
        journal.add(record)
    journal.keep(Checkpoint(len(plan.work)))
    journal.close()


def _in_order(bases: Sequence[Path]) -> Iterator[tuple[Record, str | None]]:
    """The records of all parts, and what each example repeats, if it does."""
    duplicates = Duplicates()
    streams = [read_records(base) for base in bases]
    for record in heapq.merge(*streams, key=lambda record: record.place):
        detail = None
        if record.example is not None and record.prints is not None:
            detail = duplicates.check(record.example.key, record.example.split, record.prints)
        yield record, detail


def _examples_by_shard(base: Path, repeated: set[str]) -> dict[str, list[Example]]:
    """What is left of the shards of a part that hold examples which another part has too."""
    kept = [
        record.example
        for record in read_records(base)
        if record.example is not None and not record.repeats
    ]
    touched = {example.shard for example in kept if example.key in repeated}
    return {
        name: [e for e in kept if e.shard == name and e.key not in repeated] for name in touched
    }


def _rewrite(
    folder: Path,
    base: Path,
    shard: Shard,
    number: int,
    examples: Sequence[Example],
    moved: dict[str, Example],
) -> Shard:
    """Write a shard anew with some of its examples."""
    writer = ShardWriter(folder, shard.split, number)
    with (base / shard.file).open("rb") as stream:
        for example in examples:
            image = None if example.image is None else read_part(stream, example.image)
            sound = None if example.sound is None else read_part(stream, example.sound)
            moved[example.key] = writer.add(example, image, sound)
    return writer.close()


def _link(path: Path, target: Path) -> None:
    """Give a file a second name, or copy it where that cannot be."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, target)
        except OSError:
            shutil.copyfile(path, target)
    except OSError as error:
        raise OutputError(f"Cannot write {target}: {error.strerror}.") from error


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it, though another job may be removing it too."""
    while folder.is_dir():
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)


def summary_of(folder: Path, plan: Plan, stored: Dataset) -> Summary:
    """The summary of a dataset that was there already."""
    return Summary(
        folder,
        plan.layout,
        plan.pairing,
        plan.told,
        {split: stored.counts.get(split, 0) for split in SPLITS},
        bytes=sum(shard.bytes for shard in stored.shards),
        state="unchanged",
        notes=plan.notes,
    )
