"""`s2v analyze`: the modality gap between the sounds and pictures of a dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from s2v_cli.commands.asking import have_weights
from s2v_cli.commands.reporting import Report
from s2v_cli.console import Console
from s2v_cli.options import DeviceChoice
from s2v_cli.strip import Theme
from s2v_cli.training.evaluation.gap_options import AnalyzeOptions, Scale, preset_labels


def analyze(
    presets: Annotated[
        list[str],
        typer.Argument(
            metavar="PRESET",
            show_default=False,
            help="Names from 's2v presets', or folders: several are shown side by side.",
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
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="For plots and figures.")
    ] = Path("runs/analyze"),
    split: Annotated[
        str, typer.Option(metavar="NAME", help="Measure on train, validation or test.")
    ] = "test",
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="Sounds at most, of all classes in turn.")
    ] = None,
    scale: Annotated[
        Scale,
        typer.Option(
            help="'unit' divides each embedding by its norm, as the paper does; 'own' takes it as "
            "it is."
        ),
    ] = "unit",
    mapped: Annotated[
        int, typer.Option("--map", metavar="N", help="Pairs of the t-SNE at most; 0 draws none.")
    ] = 500,
    perplexity: Annotated[float, typer.Option(help="Of the t-SNE.")] = 30.0,
    seed: Annotated[int, typer.Option(help="Of the intervals and the t-SNE.")] = 0,
    theme: Annotated[Theme, typer.Option(help="Of the plots.")] = "light",
    device: Annotated[DeviceChoice, typer.Option(help="Where to compute.")] = "auto",
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
    """Measure the gap between the embeddings of sounds and of their pictures.

    Prints its magnitude, its orthogonality to the features, their centre and the alignment of
    pairs, and writes their distributions (gap.png), a map of both modalities (tsne.png) and all
    figures (analysis.json).
    """
    options = AnalyzeOptions(split, limit, scale, mapped, perplexity, seed, theme)
    with Console(quiet=quiet) as console:
        preset_labels(presets)  # before anything is downloaded in vain
        console.progress("Loading the preset")
        for name in presets:
            have_weights(
                name,
                ("sound_encoder", "image_encoder"),
                console,
                weights_dir=weights_dir,
                accept_licence=accept_licence,
                yes=yes,
            )
        from s2v_cli.training.evaluation.analysis import analyze as measure
        from s2v_cli.training.evaluation.analysis import table

        results = measure(
            presets,
            data,
            out,
            options,
            Report(console),
            note=console.note,
            device=device,
            weights_dir=weights_dir,
        )
        if as_json:
            console.result(json.dumps(results, indent=2, sort_keys=True))
            return
        _print(console, results, table(results))


def _print(console: Console, results: dict[str, Any], rows: list[list[str]]) -> None:
    found = results["data"]
    console.result(
        f"{found['pairs']} pairs of {found['recordings']} recordings and {found['photos']} "
        f"pictures in {found['classes']} classes, split {found['split']} of {found['folder']}"
    )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        console.result("  ".join(padded).rstrip())
    console.result("In brackets: 95% intervals of the mean, over recordings.")
    console.note(f"Written: {', '.join(results['files'])}.")
