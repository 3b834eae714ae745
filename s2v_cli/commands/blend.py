"""`s2v blend`: a speaker in an environment."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from s2v_cli.blend import Blend, draw_blend
from s2v_cli.commands.flags import Printer, drawing_command
from s2v_cli.job import Job
from s2v_cli.options import SoundOptions


@drawing_command(roles=("speech_encoder", "sound_encoder", "generator"))
def blend(
    speech: Annotated[
        str,
        typer.Option(metavar="SOUND", show_default=False, help="A recording of speech, or -."),
    ],
    env: Annotated[
        str,
        typer.Option(metavar="SOUND", show_default=False, help="What surrounds the speaker, or -."),
    ],
    weight: Annotated[
        float | None,
        typer.Option(help="Share of the environment, 0 to 1; 0 is the face alone. Default: 0.5."),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(help="A film strip of so many pictures, from the speech to the environment."),
    ] = None,
    path: Annotated[
        Literal["linear", "spherical"],
        typer.Option(help="The way between the two in the embedding space."),
    ] = "linear",
    any_sound: Annotated[
        bool, typer.Option("--any-sound", help="Take speech in which no voice is found.")
    ] = False,
    *,
    job: Job,
    printer: Printer,
    sound_options: SoundOptions,
) -> None:
    """Blend speech and an environmental sound in one picture.

    The picture is drawn from the embedding z = (1 - weight) z_speech + weight z_env. Start,
    duration, window and gain hold for both sounds.
    """
    if weight is not None and frames is not None:
        printer.console.note("--weight is not used: the strip goes from 0 to 1.")
    asked = Blend(
        speech=speech,
        environment=env,
        job=job,
        sound_options=sound_options,
        weight=0.5 if weight is None else weight,
        frames=frames,
        path=path,
        any_sound=any_sound,
    )
    printer.print_all(draw_blend(asked, printer.console), metadata=job.metadata)
