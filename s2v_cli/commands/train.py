"""`s2v train`: a model of one's own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from s2v_cli.console import Console
from s2v_cli.errors import OptionError

REPORT_S = 60.0  # between lines of progress where there is no terminal to draw a bar on


class _Report:
    """Tells a console how training goes on: loss, rate and time left of the stage."""

    def __init__(self, console: Console, bar: bool) -> None:
        self.console, self.bar = console, bar
        self.stage = ""
        self.began = self.told = 0.0
        self.first = 0

    def __call__(self, stage: str, step: int, steps: int, figures: dict[str, float]) -> None:
        now = time.monotonic()
        if stage != self.stage:
            self.stage, self.began, self.first, self.told = stage, now, step - 1, 0.0
        rate = (step - self.first) / max(now - self.began, 1e-3)
        left = time.strftime("%H:%M:%S", time.gmtime((steps - step) / rate))
        loss = f"loss {figures['loss']:.3f}, " if "loss" in figures else ""
        label = f"{stage}: {loss}{rate:.2f} steps/s, {left} left"
        self.console.progress(label, step, steps)
        if not self.bar and (now - self.told > REPORT_S or step == steps):
            self.console.note(f"step {step} of {steps}, {label}")
            self.told = now


def train(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            show_default=False,
            help="Folder with images/, faces/ and sounds/, and speech/ for faces from voices, each "
            "with its SOURCES.csv.",
        ),
    ],
    recipe: Annotated[
        str, typer.Option(metavar="NAME", help="A recipe's name, or a TOML file.")
    ] = "mini",
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="FOLDER", help="For checkpoints, logs and the preset."),
    ] = Path("runs/mini"),
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="CPU threads. Default: one a core.")
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No notes and no progress; errors stay.")
    ] = False,
) -> None:
    """Train a model on a folder of sounds and pictures.

    Runs every stage of the recipe and writes a preset folder, which 's2v gen --preset FOLDER'
    takes. Stopped at any moment, the same command goes on from the last checkpoint.
    """
    import sys

    if threads is not None and threads < 1:
        raise OptionError(f"threads is {threads}; allowed: 1 or more.")
    from s2v_cli.training.recipe import load_recipe

    chosen = load_recipe(recipe)
    with Console(quiet=quiet) as console:
        console.progress("Reading the data")
        import torch

        from s2v_cli.training.run import Run

        if threads is not None:
            torch.set_num_threads(threads)
        report = _Report(console, bar=sys.stderr.isatty())
        run = Run(data, out, chosen, report)
        if not run.speech:
            console.note(f"{data} has no speech/: the preset will have no speech encoder.")
        preset = run.train()
    console.result(str(preset))
