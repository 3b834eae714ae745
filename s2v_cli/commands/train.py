"""`s2v train`: a model of one's own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer

from s2v_cli.console import Console
from s2v_cli.errors import OptionError
from s2v_cli.options import DeviceChoice

REPORT_S = 60.0  # between lines of progress where there is no terminal to draw a bar on

Loss = Literal["auto", "l2-infonce", "cosine-infonce", "raw-infonce", "l2"]


class _Report:
    """Tells a console how training goes on: loss, rate and time left of the stage."""

    def __init__(self, console: Console, bar: bool) -> None:
        self.console, self.bar = console, bar
        self.stage = ""
        self.began = self.told = 0.0
        self.first = 0

    def __call__(self, stage: str, step: int, steps: int, figures: dict[str, float]) -> None:
        now = time.monotonic()
        if stage == "early_stop":
            self.console.note(
                f"ended at step {step} of {steps}: validation has not been better than "
                f"{figures['best']:.4g} for too long. The weights of then are kept."
            )
            return
        if stage != self.stage:
            self.stage, self.began, self.first, self.told = stage, now, step, 0.0
        loss = f" loss {figures['loss']:.3f}" if "loss" in figures else ""
        pace = ""
        if step > self.first:
            rate = (step - self.first) / max(now - self.began, 1e-3)
            pace = f"{',' if loss else ''} {rate:.2f} steps/s, {_clock((steps - step) / rate)} left"
        label = f"{stage}:{loss}{pace}".removesuffix(":")
        self.console.progress(label, step, steps or None)
        if not self.bar and steps and (now - self.told > REPORT_S or step == steps):
            self.console.note(f"step {step} of {steps}, {label}")
            self.told = now


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(max(0.0, seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"


class _Workers(NamedTuple):
    """How many processes share a batch, and how many threads each has; None is what it takes."""

    processes: int
    threads: int | None


def train(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            show_default=False,
            help="A dataset that 's2v prepare' made, or anything that it takes.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FOLDER",
            help="For checkpoints, logs and the preset. Default: runs/RECIPE.",
        ),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="'align' (a sound encoder for a preset), 'align-published', 'mini' (all stages of "
            "a model), 'mini-further' (from the bundled one on), 'gan' (a generator), or a TOML "
            "file.",
        ),
    ] = "align",
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET", help="Whose image encoder is learned from and whose generator draws."
        ),
    ] = None,
    loss: Annotated[Loss | None, typer.Option(help="Of the alignment (Eq. 1-2, Table 2).")] = None,
    duration: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="How much sound is heard at once.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training sounds.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps, in place of epochs.")] = None,
    batch: Annotated[int | None, typer.Option(help="Pairs a step, over all processes.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Its peak.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and augmentation.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any other key of the recipe; see docs/training.md."
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin again where the run has a checkpoint.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the run's checkpoint; fail without one.")
    ] = False,
    device: Annotated[DeviceChoice, typer.Option(help="Where to compute.")] = "auto",
    gpus: Annotated[
        int | None, typer.Option(metavar="N", help="Share each batch between N CUDA GPUs.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(metavar="N", help="Share each batch between N CPU processes.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="CPU threads. Default: one a core.")
    ] = None,
    ablate: Annotated[
        str | None,
        typer.Option(
            metavar="PLAN", help="Rerun the paper's ablations instead: 'ablation', or a TOML plan."
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No notes and no progress; errors stay.")
    ] = False,
) -> None:
    """Train on sounds and pictures of your own.

    The recipe 'align' trains a sound encoder towards the frozen image encoder of a preset, whose
    generator then draws what the new encoder hears. FOLDER becomes a preset, which
    's2v gen --preset FOLDER' takes and 's2v presets add FOLDER' installs. Stopped at any moment,
    the same command goes on from the last checkpoint to the same weights.
    """
    import sys

    flags: dict[str, Any] = {
        "teacher": teacher,
        "loss": loss,
        "duration_s": duration,
        "epochs": epochs,
        "steps": steps,
        "batch": batch,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    _check(threads, gpus, processes, resume, fresh, device)
    with Console(quiet=quiet) as console:
        console.progress("Reading the data")
        report = _Report(console, bar=sys.stderr.isatty())
        kind, run = _plan(recipe, ablate, out, {**flags, "--set": settings})
        if kind != "align":
            _check_alone(kind, gpus=gpus, processes=processes, fresh=fresh, device=device)
        if resume and not _begun(run):
            raise OptionError(f"resume: {run} has no checkpoint. Leave --resume out to begin.")
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        if kind == "ablation":
            result = _ablate(data, run, str(ablate), report)
        elif kind == "stages":
            result = _run_stages(data, run, recipe, device, report, console)
        else:
            from s2v_cli.training.__main__ import parse_settings

            flags |= parse_settings(settings or [])
            workers = _Workers(gpus or processes or 1, threads)
            if gpus or processes:
                device = "cuda" if gpus else "cpu"
            result = _align(data, run, recipe, flags, device, fresh, workers, report)
    console.result(str(result))


def _check(
    threads: int | None,
    gpus: int | None,
    processes: int | None,
    resume: bool,
    fresh: bool,
    device: DeviceChoice,
) -> None:
    for name, value in (("threads", threads), ("gpus", gpus), ("processes", processes)):
        if value is not None and value < 1:
            raise OptionError(f"{name} is {value}; allowed: 1 or more.")
    if gpus is not None and processes is not None:
        raise OptionError("gpus and processes are both given; allowed: one of them.")
    for name, count, kind in (("gpus", gpus, "cuda"), ("processes", processes, "cpu")):
        if count is not None and device not in ("auto", kind):
            raise OptionError(f"device is {device!r}; allowed with --{name}: auto, {kind}.")
    if resume and fresh:
        raise OptionError("resume and fresh are both given; allowed: one of them.")
    if gpus is not None:
        from s2v_cli.training.launch import check_gpus

        check_gpus(gpus)


def _check_alone(
    kind: str, *, gpus: int | None, processes: int | None, fresh: bool, device: DeviceChoice
) -> None:
    """Refuse what only the training of a sound encoder has."""
    what = "an ablation" if kind == "ablation" else "a recipe of stages"
    for name, value in (("gpus", gpus), ("processes", processes)):
        if value is not None:
            raise OptionError(
                f"{name} is {value}, but {what} runs in one process; leave --{name} out."
            )
    if fresh:
        raise OptionError(
            f"fresh is given, but {what} keeps what it has done; give another --out to begin again."
        )
    if kind == "ablation" and device != "auto":
        raise OptionError(f"device is {device!r}; allowed for {what}: auto.")


def _plan(
    recipe: str, ablate: str | None, out: Path | None, flags: dict[str, Any]
) -> tuple[str, Path]:
    """What is asked for, `align`, `stages` or `ablation`, and the folder of the run."""
    from s2v_cli.training.recipe import has_stages, read_table

    name = recipe if ablate is None else ablate
    kind = "ablation"
    if ablate is None:
        kind = "stages" if has_stages(read_table(recipe)) else "align"
    if kind != "align":
        for flag, value in flags.items():
            if value is not None:
                shown = flag.removeprefix("--").replace("duration_s", "duration")
                raise OptionError(
                    f"{shown.replace('_', '-')} is {value!r}, but is of recipes such as 'align'; "
                    f"{name!r} holds all of its options itself. Change them in a copy of the file."
                )
    return kind, out or Path("runs") / Path(name).stem


def _begun(run: Path) -> bool:
    return any(run.glob("*.pt"))


def _align(
    data: Path,
    run: Path,
    recipe: str,
    flags: dict[str, Any],
    device: DeviceChoice,
    fresh: bool,
    workers: _Workers,
    report: _Report,
) -> Path:
    from s2v_cli.training.align.options import load_options
    from s2v_cli.training.prepare.work import ensure_prepared

    options = load_options(recipe, **flags)
    prepared = ensure_prepared(data, run / "data", report)
    if workers.processes == 1:
        from s2v_cli.training.align.trainer import align

        return align(prepared, run, options, report, device=device, fresh=fresh)
    from s2v_cli.training.launch import launch, training_words

    words = training_words(prepared, run, recipe, flags, device=device, fresh=fresh)
    status = launch(workers.processes, words, threads=workers.threads)
    if status == 130:
        raise KeyboardInterrupt
    if status:
        raise typer.Exit(status)
    return run


def _run_stages(
    data: Path, run: Path, recipe: str, device: DeviceChoice, report: _Report, console: Console
) -> Path:
    from s2v_cli.training.recipe import load_recipe
    from s2v_cli.training.run import Run

    work = Run(data, run, load_recipe(recipe), report, device=device)
    if not work.speech:
        console.note(f"{data} has no speech/: the preset will have no speech encoder.")
    return work.train()


def _ablate(data: Path, run: Path, plan: str, report: _Report) -> Path:
    from s2v_cli.training.ablation.plan import load_plan
    from s2v_cli.training.ablation.run import ablate

    command = f"s2v train {data} --ablate {plan} --out {run}"
    return ablate(data, run, load_plan(plan), report, command=command)
