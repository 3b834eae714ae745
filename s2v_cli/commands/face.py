"""`s2v face`: faces from speech."""

from __future__ import annotations

from typing import Annotated

import typer

from s2v_cli.batch import Batch, draw_batch, find_sources
from s2v_cli.commands.flags import Printer, StripTheme, drawing_command
from s2v_cli.job import Job
from s2v_cli.options import SoundOptions


@drawing_command(roles=("speech_encoder", "sound_encoder", "generator"))
def face(
    speech: Annotated[
        list[str],
        typer.Argument(
            metavar="SPEECH",
            show_default=False,
            help="Recordings of speech, folders of them, or - for standard input.",
        ),
    ],
    grid: Annotated[
        bool, typer.Option("--grid", help="One contact sheet; of several sounds, one row each.")
    ] = False,
    any_sound: Annotated[
        bool, typer.Option("--any-sound", help="Draw also sounds in which no voice is found.")
    ] = False,
    theme: StripTheme = "light",
    *,
    job: Job,
    printer: Printer,
    sound_options: SoundOptions,
) -> None:
    """Draw a face that could belong to a voice.

    The face follows what a voice tells of gender and rough age, and of nothing else: it is nobody's
    portrait, and not to be used to find out who speaks or what somebody looks like.

    Silence and sounds without a voice are refused.
    """
    batch = Batch(
        find_sources(speech), job, sound_options, grid, True, any_sound=any_sound, theme=theme
    )
    printer.print_all(draw_batch(batch, printer.console), metadata=job.metadata)
