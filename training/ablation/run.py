"""Running an ablation: each run trains, is measured and leaves its result; stopped, it goes on."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from s2v_cli.errors import DependencyError, OutputError, TrainingError
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.training.ablation.measure import Yardstick, measure, open_yardstick
from s2v_cli.training.ablation.plan import Plan, Setting
from s2v_cli.training.ablation.plot import plot
from s2v_cli.training.ablation.report import report
from s2v_cli.training.manifest import (
    MANIFEST_FILE,
    SHARDS,
    is_prepared,
    read_dataset,
    read_manifest,
    write_manifest,
)

RESULT_FILE = "result.json"
REPORT_FILE = "ablation.md"
PLOT_FILE = "ablation.png"
RESULTS_FILE = "results.json"
VIDEOS = "videos"
SELECTION = "selection"  # the study that trains on videos

Progress = Callable[[str, int, int, dict[str, float]], None]
Align = Callable[[Path, Path, Mapping[str, Any], Progress | None], Path]


@dataclass
class _Ablation:
    """One ablation under way."""

    plan: Plan
    data: Path
    folder: Path
    source: Path
    judge: Path
    align: Align
    progress: Progress | None
    facts: dict[str, str]
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    _yardstick: Yardstick | None = None

    @property
    def yardstick(self) -> Yardstick:
        if self._yardstick is None:
            teacher = str(dict(self.plan.shared).get("teacher", "mini"))
            self._yardstick = open_yardstick(
                self.data, teacher, self.plan.split, self.judge, self.progress
            )
        return self._yardstick


def ablate(
    data: Path,
    folder: Path,
    plan: Plan,
    progress: Progress | None = None,
    *,
    judge: Path | None = None,
    align: Align | None = None,
    command: str = "",
) -> Path:
    """Make the runs of a plan that are not done yet, and write the report after each.

    Args:
        data: prepared dataset with classes, or what `s2v prepare` makes one of. The study
            `selection` needs the latter, with a folder `videos`; else it is left out.
        folder: gets the runs, `results.json`, the report `ablation.md` and, where there is
            matplotlib, its picture `ablation.png`.
        plan: which runs.
        progress: called with stage, step, steps and figures.
        judge: folder of a trained judge, or where one is trained; None takes `folder/judge`.
        align: trains a sound encoder from data, folder of the run, options and progress, and
            returns the preset's folder; None takes `training.align`.
        command: how the report says that it was made.

    Returns:
        The report.

    Raises:
        TrainingError: data that cannot be used, a run that fails, or a folder whose runs were
            measured otherwise.
        OptionError: options of a run are outside their range.
        OutputError: the folder cannot be written.
    """
    from s2v_cli.training.prepare.work import ensure_prepared

    align = align or _align
    if align is _align:
        _check_options(plan)
    facts = {"command": f"`{command}`"} if command else {}
    if not (data / VIDEOS).is_dir() and SELECTION in dict(plan.studies):
        plan = plan.without(SELECTION)
        facts["left out"] = f"the study `{SELECTION}`: the data have no folder `{VIDEOS}`"
    prepared = ensure_prepared(data, folder / "data", progress)
    _same_measure(folder, plan, prepared)
    work = _Ablation(
        plan, prepared, folder, data, judge or folder / "judge", align, progress, facts
    )
    runs = list(plan.runs())
    for setting in runs:
        found = read_result(folder, setting)
        if found is not None:
            work.results[setting.key] = found
    for number, setting in enumerate(runs):
        if progress:
            progress("ablation", number, len(runs), {})
        if setting.key not in work.results:
            work.results[setting.key] = _run(work, setting)
            _write(work)
    if progress:
        progress("ablation", len(runs), len(runs), {})
    return _write(work)


def read_result(folder: Path, setting: Setting) -> dict[str, Any] | None:
    """What a run measured; None where it is not done.

    Raises:
        TrainingError: its result cannot be read.
    """
    path = folder / "runs" / setting.key / RESULT_FILE
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return dict(result["figures"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"Cannot read {path}: {error}. Remove it to run it again.") from None


def _check_options(plan: Plan) -> None:
    from s2v_cli.training.align.options import options_from

    for setting in plan.runs():
        options_from({**dict(setting.options), "seed": setting.seed})


def _align(data: Path, run: Path, options: Mapping[str, Any], progress: Progress | None) -> Path:
    from s2v_cli.training.align.options import options_from
    from s2v_cli.training.align.trainer import align

    return align(data, run, options_from(options), progress)


def _same_measure(folder: Path, plan: Plan, data: Path) -> None:
    """Keep apart what cannot be compared: one folder, one dataset and one way to measure."""
    from s2v_cli.picture import write_file

    digest = _digest(data / MANIFEST_FILE)
    told = {"split": plan.split, "pictures": plan.pictures, "manifest": digest}
    path = folder / "measure.json"
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        content = json.dumps(told, indent=2, sort_keys=True) + "\n"
        write_file(content.encode(), path, overwrite=True)
        return
    except (OSError, ValueError) as error:
        raise TrainingError(f"Cannot read {path}: {error}.") from None
    changed = [
        f"{k} was {before.get(k)!r}, is {told[k]!r}" for k in told if told[k] != before.get(k)
    ]
    if changed:
        raise TrainingError(
            f"{folder} holds runs that were measured otherwise ({', '.join(changed)}). Give "
            "another folder."
        )


def _digest(path: Path) -> str:
    import hashlib

    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise TrainingError(f"Cannot read {path}: {error.strerror}.") from None


def _run(work: _Ablation, setting: Setting) -> dict[str, Any]:
    from s2v_cli.picture import write_file

    yardstick = work.yardstick
    began = _cpu_seconds()
    taught = scored = None
    first: list[str] = []
    if setting.select is not None:
        data = _moments(work, setting.select)
        scored = video_classes(work.source / VIDEOS) & set(yardstick.held_out.classes) or None
    elif setting.classes is not None:
        taught = draw_classes(yardstick, setting.seed, setting.classes)
        data = _subset(work, taught, setting)
    else:
        data = work.data
    if setting.select is None and work.plan.fewest_classes is not None:
        first = draw_classes(yardstick, setting.seed, work.plan.fewest_classes)
    run = work.folder / "runs" / setting.key
    options = {**dict(setting.options), "seed": setting.seed}
    preset = work.align(data, run, options, work.progress)
    model = Sound2Vision.load(preset, device="cpu")
    figures: dict[str, Any] = measure(
        model, yardstick, work.plan.pictures, taught, sorted(scored) if scored else None, first
    )
    figures["cpu_seconds"] = _cpu_seconds() - began
    content = {"setting": dataclasses.asdict(setting), "classes": taught, "figures": figures}
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    write_file(text.encode(), run / RESULT_FILE, overwrite=True)
    return figures


def _cpu_seconds() -> float:
    """CPU time of this process and of those that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def draw_classes(yardstick: Yardstick, seed: int, count: int) -> list[str]:
    """The first classes of an order that is drawn by a seed, sorted.

    Raises:
        TrainingError: there are not so many with held-out sounds.
    """
    names = yardstick.held_out.classes
    if count > len(names):
        raise TrainingError(
            f"classes is {count}; allowed: up to {len(names)}, those with held-out sounds."
        )
    order = np.random.default_rng(seed).permutation(len(names))
    return sorted(names[i] for i in order[:count])


def video_classes(folder: Path) -> set[str]:
    """What the videos of a folder show, as their `SOURCES.csv` says; empty without one."""
    try:
        with (folder / "SOURCES.csv").open(newline="", encoding="utf-8") as file:
            return {row["class"] for row in csv.DictReader(file) if row.get("class")}
    except OSError:
        return set()


def _subset(work: _Ablation, names: list[str], setting: Setting) -> Path:
    """The dataset with some classes only: its own manifest, the same shards."""
    folder = work.folder / "subsets" / f"{setting.classes}classes-seed{setting.seed}"
    if is_prepared(folder):
        return folder
    dataset = read_dataset(work.data)
    kept = [e for e in read_manifest(work.data) if e.name in names]
    counts = {split: sum(e.split == split for e in kept) for split in dataset.counts}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        link = folder / SHARDS
        if not link.is_symlink():
            shutil.rmtree(link, ignore_errors=True)
            os.symlink(os.path.relpath(work.data / SHARDS, folder), link)
    except OSError as error:
        raise OutputError(f"Cannot write {folder}: {error.strerror}.") from None
    write_manifest(folder, kept)
    dataclasses.replace(dataset, counts=counts).write(folder)
    return folder


def _moments(work: _Ablation, select: str) -> Path:
    """The videos with one chosen moment each, all of them to train on."""
    from s2v_cli.training.prepare.options import PrepareOptions
    from s2v_cli.training.prepare.work import prepare

    folder = work.folder / f"videos-{select}"
    options = PrepareOptions(select=select, train=0.9, validation=0.1, test=0.0)  # type: ignore[arg-type]
    prepare(work.source / VIDEOS, folder, options, work.progress)
    return folder


def _told_of(data: Path, split: str) -> str:
    """What a report says of a dataset: how many sounds and pictures, and how long sounds are."""
    examples = [e for e in read_manifest(data) if not (e.name or "").startswith("~")]
    training = [e for e in examples if e.split == "train"]
    heard = [e for e in training if e.sound is not None]
    held = [e for e in examples if e.split == split and e.sound is not None]
    lengths = [e.duration_s for e in heard if e.duration_s is not None]
    text = (
        f"{len(heard)} training sounds of {len({e.name for e in heard})} classes, "
        f"{sum(e.image is not None for e in training)} training pictures; {len(held)} sounds of "
        f"{len({e.name for e in held})} classes measured"
    )
    if lengths:
        for limit_s in (1, 5):
            share = float(np.mean([length > limit_s + 0.1 for length in lengths]))
            text += f"; {share:.0%} of the training sounds are longer than {limit_s} s"
        text += ", and shorter ones are repeated"
    return text


def _write(work: _Ablation) -> Path:
    from s2v_cli.picture import write_file

    content = json.dumps(work.results, indent=2, sort_keys=True) + "\n"
    write_file(content.encode(), work.folder / RESULTS_FILE, overwrite=True)
    minutes = sum(run.get("cpu_seconds", 0) for run in work.results.values()) / 60
    facts = {
        **work.facts,
        "data": _told_of(work.data, work.plan.split),
        "time": f"{minutes:.0f} minutes of CPU time, training and measuring",
    }
    text = report(work.plan, work.results, facts)
    with contextlib.suppress(DependencyError):  # a report without its picture is one, too
        write_file(plot(work.plan, work.results), work.folder / PLOT_FILE, overwrite=True)
        text += f"\n![R@5 of each row, with 95% intervals over seeds]({PLOT_FILE})\n"
    path = work.folder / REPORT_FILE
    write_file(text.encode(), path, overwrite=True)
    return path
