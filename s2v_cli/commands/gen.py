"""`s2v gen`: pictures from sounds."""

from __future__ import annotations

from typing import Annotated

import typer

from s2v_cli.batch import Batch, draw_batch, find_sources
from s2v_cli.commands.flags import Printer, drawing_command
from s2v_cli.job import Job
from s2v_cli.options import SoundOptions


@drawing_command()
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
    batch = Batch(find_sources(sounds), job, sound_options, grid)
    printer.print_all(draw_batch(batch, printer.console), metadata=job.metadata)
