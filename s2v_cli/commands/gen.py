"""`s2v gen`: pictures from sounds."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from s2v_cli.batch import Batch, draw_batch, find_sources
from s2v_cli.commands.flags import Printer, Separate, StripTheme, drawing_command
from s2v_cli.errors import OptionError
from s2v_cli.job import Job
from s2v_cli.options import SoundOptions
from s2v_cli.volume import Volumes, draw_volumes, parse_gains


@drawing_command(leave="gain_db")
def gen(
    sounds: Annotated[
        list[str],
        typer.Argument(
            metavar="SOUND",
            show_default=False,
            help="Sound files, folders of sounds, or - for standard input.",
        ),
    ],
    grid: Annotated[
        bool, typer.Option("--grid", help="One contact sheet; of several sounds, one row each.")
    ] = False,
    gain_db: Annotated[
        str,
        typer.Option(
            "--gain-db",
            metavar="DB",
            help="Make the sound louder or softer; start:stop:count draws a film strip of several "
            "volumes, for example -20:20:5.",
        ),
    ] = "0",
    separate: Separate = False,
    theme: StripTheme = "light",
    *,
    job: Job,
    printer: Printer,
    sound_options: SoundOptions,
) -> None:
    """Turn sounds into pictures.

    The same sound, seed and options give the same picture.

    Of several sounds each is drawn; one that cannot be read is reported, the others go on, and
    the exit status is 1.
    """
    gains, sources = parse_gains(gain_db), find_sources(sounds)
    if len(gains) == 1:
        if separate:
            raise OptionError("--separate belongs to several volumes: --gain-db start:stop:count.")
        heard = replace(sound_options, gain_db=gains[0])
        made = draw_batch(Batch(sources, job, heard, grid, theme=theme), printer.console)
    elif grid:
        raise OptionError("--grid and several volumes exclude each other: these make a strip.")
    else:
        volumes = Volumes(sources, gains, job, sound_options, separate, theme)
        made = draw_volumes(volumes, printer.console)
    printer.print_all(made, metadata=job.metadata)
