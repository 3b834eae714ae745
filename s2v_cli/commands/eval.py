"""`s2v eval`: how well a preset draws held-out sounds, beside the paper's baselines."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from s2v_cli.commands.asking import dialogue_of, pull_options
from s2v_cli.console import Console
from s2v_cli.options import DeviceChoice, DtypeChoice
from s2v_cli.training.evaluation.options import (
    ROWS,
    EvalOptions,
    InceptionChoice,
    RecallChoice,
)

REPORT_S = 60.0  # between lines of progress where there is no terminal to draw a bar on
WIDTH = 200  # characters of the table where there is no terminal


class _Report:
    """Tells a console how far an evaluation is."""

    def __init__(self, console: Console, bar: bool) -> None:
        self.console, self.bar, self.told = console, bar, time.monotonic()

    def __call__(self, stage: str, step: int, steps: int, figures: dict[str, float]) -> None:
        self.console.progress(stage, step, steps or None)
        if not self.bar and time.monotonic() - self.told > REPORT_S:
            self.told = time.monotonic()
            self.console.note(f"{stage}: {step} of {steps}")


def evaluate(
    preset: Annotated[
        str,
        typer.Argument(
            metavar="PRESET", show_default=False, help="A name from 's2v presets', or a folder."
        ),
    ],
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            show_default=False,
            help="A dataset of 's2v prepare', or what that takes.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FOLDER", help="For tables, contact sheets and the classifier."
        ),
    ] = Path("runs/eval"),
    split: Annotated[
        str, typer.Option(metavar="NAME", help="Measure on train, validation or test.")
    ] = "test",
    seeds: Annotated[int, typer.Option(metavar="N", help="Pictures of each sound.")] = 4,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="Sounds at most, of all classes in turn.")
    ] = None,
    rows: Annotated[
        str,
        typer.Option(
            metavar="LETTERS",
            help="Of the table: A from the image, B from the sound, C retrieval, D real pictures.",
        ),
    ] = "".join(ROWS),
    recall: Annotated[
        RecallChoice,
        typer.Option(help="What ranks the classes for R@k. 'auto' takes CLIP if it was pulled."),
    ] = "auto",
    template: Annotated[
        str, typer.Option(metavar="TEXT", help="What CLIP reads, {} being the class name.")
    ] = "{}",
    classifier: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A judge.pt of an earlier run. Default: train one if needed."
        ),
    ] = None,
    inception: Annotated[
        InceptionChoice,
        typer.Option(
            help="Whose features FID, KID and IS are of. 'auto' takes the first that was pulled."
        ),
    ] = "auto",
    force_fid: Annotated[
        bool, typer.Option("--force-fid", help="FID of fewer pictures than features, too.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the first picture.")] = 0,
    device: Annotated[DeviceChoice, typer.Option(help="Where to compute.")] = "auto",
    dtype: Annotated[DtypeChoice, typer.Option(help="Precision.")] = "auto",
    low_vram: Annotated[
        bool,
        typer.Option("--low-vram", help="Save graphics memory, for diffusion presets; slower."),
    ] = False,
    weights_dir: Annotated[
        Path | None,
        typer.Option("--weights-dir", metavar="FOLDER", help="Where published weights lie."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Download missing weights without asking.")
    ] = False,
    accept_licence: Annotated[
        bool,
        typer.Option("--accept-licence", help="Agree to a non-commercial licence of weights."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No notes and no progress; errors stay.")
    ] = False,
) -> None:
    """Measure how well a preset draws the sounds of a dataset.

    Prints R@1, R@5, FID, KID and IS with their intervals, beside pictures from the image,
    retrieved and real ones, and writes them as JSON, CSV and Markdown with contact sheets.
    """
    options = EvalOptions(
        split=split,
        seeds=seeds,
        limit=limit,
        rows=rows,
        recall=recall,
        template=template,
        classifier=classifier,
        inception=inception,
        force_fid=force_fid,
        seed=seed,
    )
    with Console(quiet=quiet) as console:
        console.progress("Loading the preset")
        _have_weights(preset, options, weights_dir, accept_licence, yes, console)
        from s2v_cli.pipeline import Sound2Vision
        from s2v_cli.training.evaluation.score import evaluate_preset

        model = Sound2Vision.load(
            preset, device=device, dtype=dtype, weights_dir=weights_dir, low_vram=low_vram
        )
        report = _Report(console, bar=sys.stderr.isatty())
        results = evaluate_preset(
            model, data, out, options, report, note=console.note, weights_dir=weights_dir
        )
        if as_json:
            console.result(json.dumps(results, indent=2, sort_keys=True))
            return
        console.result(_table(results))
        console.note(f"Written: {', '.join(results['files'])}.")


def _have_weights(
    name: str,
    options: EvalOptions,
    weights_dir: Path | None,
    accept_licence: bool,
    yes: bool,
    console: Console,
) -> None:
    """Download what the preset lacks, if it may."""
    from s2v_cli.networks import converters
    from s2v_cli.presets import load_preset
    from s2v_cli.weights.pull import GEN_ROLES, assets_of, ensure_weights

    preset = load_preset(name)
    roles = [*GEN_ROLES]
    if {"A", "C"} & {*options.rows}:
        roles += [w.role for w in preset.weights if w.role == "image_encoder"]
    if assets := assets_of(preset, roles):
        pull = pull_options("auto", assets, weights_dir, accept_licence)
        ensure_weights(preset, roles, converters(), pull, dialogue_of(console), yes=yes)


def _table(results: dict[str, Any]) -> str:
    """The results for a terminal."""
    from rich import box
    from rich.console import Console as RichConsole
    from rich.table import Table

    from s2v_cli.training.evaluation.table import HEADINGS, cells, head

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="right" if number > 2 else "left")
    for row in cells(results):
        table.add_row(*row)
    screen = RichConsole(no_color=True, highlight=False)
    if not sys.stdout.isatty():
        screen.width = WIDTH
    with screen.capture() as captured:
        screen.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    return "\n".join([*head(results), *lines]).rstrip()
