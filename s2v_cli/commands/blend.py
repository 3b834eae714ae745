"""`s2v blend`: a speaker in an environment."""

from __future__ import annotations

from typing import Annotated

import typer

from s2v_cli.blend import Blend, draw_blend
from s2v_cli.commands.flags import Printer, Separate, StripTheme, drawing_command
from s2v_cli.job import Job
from s2v_cli.options import SoundOptions
from s2v_cli.photo import PathChoice


@drawing_command(roles=("speech_encoder", "sound_encoder", "generator"))
def blend(
    speech: Annotated[
        str,
        typer.Option(
            metavar="SOUND", show_default=False, help="A recording of speech, or - for stdin."
        ),
    ],
    env: Annotated[
        str,
        typer.Option(
            metavar="SOUND", show_default=False, help="What is around the speaker, or - for stdin."
        ),
    ],
    weight: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="The environment's share: 0 draws the face alone, 1 the environment. "
            "Default: 0.5.",
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            metavar="COUNT", help="Walk from the speech to the environment: a film strip."
        ),
    ] = None,
    separate: Separate = False,
    theme: StripTheme = "light",
    path: Annotated[
        PathChoice, typer.Option(help="Between the two embeddings: a line, or an arc.")
    ] = "linear",
    any_sound: Annotated[
        bool, typer.Option("--any-sound", help="Take speech in which no voice is found.")
    ] = False,
    *,
    job: Job,
    printer: Printer,
    sound_options: SoundOptions,
) -> None:
    """Draw from speech and an environmental sound at once.

    The embeddings of both are blended (z^new = weight z_env + (1 - weight) z_speech) and drawn.
    At weight 0 this is 's2v face' of the speech, at 1 's2v gen' of the other sound. Start,
    duration, window and gain hold for both.
    """
    asked = Blend(speech, env, job, sound_options, weight, frames, separate, theme, path, any_sound)
    printer.print_all(draw_blend(asked, printer.console), metadata=job.metadata)
