"""`s2v gen`: pictures from sounds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from s2v_cli.batch import Batch, draw_batch, find_sources
from s2v_cli.console import Console
from s2v_cli.duration import parse_duration
from s2v_cli.errors import OptionError
from s2v_cli.options import DeviceChoice, DtypeChoice, SoundOptions, WindowChoice
from s2v_cli.presets import load_preset


def gen(
    sounds: Annotated[
        list[str],
        typer.Argument(
            metavar="SOUND",
            show_default=False,
            help="Sound files, folders of sounds, or - for standard input.",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="A file (.png, .jpg, .webp), a folder (ends in /), a template such as "
            "'{stem}-{seed}.png' (fields: stem, seed, index, preset, window), or - to write a "
            "PNG to standard output. Default: SOUND.png in the current folder.",
        ),
    ] = None,
    start: Annotated[
        str, typer.Option(metavar="TIME", help="Where to start listening: 83.5, 83.5s or 1:23.5.")
    ] = "0",
    duration: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="How much to listen to. Default: to the end."),
    ] = None,
    window: Annotated[
        WindowChoice,
        typer.Option(
            help="Of a sound longer than the model hears at once: the loudest part, the first, "
            "or the average of all."
        ),
    ] = "loudest",
    count: Annotated[int, typer.Option("--count", "-n", help="Pictures of each sound.")] = 1,
    grid: Annotated[
        bool, typer.Option("--grid", help="One contact sheet; of several sounds, one row each.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the first picture; the next has seed + 1.")] = 0,
    gain_db: Annotated[
        float, typer.Option("--gain-db", metavar="DB", help="Make the sound louder or softer.")
    ] = 0.0,
    truncation: Annotated[
        float | None,
        typer.Option(
            help="Spread of the noise, more than 0 to 2: less is more typical and less diverse. "
            "Default: the preset's."
        ),
    ] = None,
    best_of: Annotated[
        int | None,
        typer.Option(
            "--best-of", help="Draw so many candidates for each picture and keep the nearest."
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(metavar="PIXELS", help="Side of the picture, resampled. Default: as drawn."),
    ] = None,
    preset: Annotated[
        str, typer.Option(metavar="NAME", help="A name from 's2v presets', or a folder.")
    ] = "mini",
    device: Annotated[DeviceChoice, typer.Option(help="Where to compute.")] = "auto",
    dtype: Annotated[DtypeChoice, typer.Option(help="Precision.")] = "auto",
    weights_dir: Annotated[
        Path | None,
        typer.Option("--weights-dir", metavar="FOLDER", help="Where the preset's weights lie."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace files that exist.")] = False,
    no_metadata: Annotated[
        bool,
        typer.Option("--no-metadata", help="Leave out the record that makes the picture again."),
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Preview in the terminal.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON list of what was made.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No notes and no progress; errors stay.")
    ] = False,
) -> None:
    """Turn sounds into pictures.

    Prints the path of each picture. The same sound, seed and options give the same picture.

    Of several sounds each is drawn; one that cannot be read is reported, the others go on, and
    the exit status is 1.
    """
    import json

    piped = output == "-"
    if piped and (as_json or sys.stdout.isatty()):
        raise OptionError("output is '-': standard output is not for --json or a terminal then.")
    batch = Batch(
        sources=find_sources(sounds),
        target=output,
        preset=preset,
        sound_options=SoundOptions(
            start_s=parse_duration(start, "start"),
            duration_s=None if duration is None else parse_duration(duration, "duration"),
            window=window,
            gain_db=gain_db,
        ),
        options=load_preset(preset).generate_options(
            seed=seed, count=count, truncation=truncation, best_of=best_of, size=size
        ),
        grid=grid,
        device=device,
        dtype=dtype,
        weights_dir=weights_dir,
        overwrite=force,
        metadata=not no_metadata,
    )
    made: list[dict[str, Any]] = []
    with Console(quiet=quiet) as console:
        try:
            for picture in draw_batch(batch, console):
                made.append(picture.as_json())
                if piped:
                    console.result_bytes(picture.encode(".png", metadata=batch.metadata))
                elif not as_json:
                    console.result(str(picture.path))
                if show:
                    console.preview(picture.image)
        finally:
            if as_json:
                console.result(json.dumps(made, indent=2))
    if console.errors:
        raise typer.Exit(1)
