"""`s2v mix`: a picture of several sounds at once, or a walk from one to the other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s2v_cli.audio.tracks import ClipChoice, MixOptions, parse_tracks
from s2v_cli.commands.flags import Printer, Separate, StripTheme, drawing_command
from s2v_cli.job import Job
from s2v_cli.mixing import Mixing, draw_mix
from s2v_cli.options import SoundOptions


@drawing_command()
def mix(
    sounds: Annotated[
        list[str],
        typer.Argument(
            metavar="SOUND[:WEIGHT][@OFFSET]",
            show_default=False,
            help="Sounds with their weights, linear or in dB, and where they begin: "
            "dog.flac:0.7 rain.wav:-6dB sea.ogg:0.5@2.5s. A file of the whole name wins; "
            "else the last colon divides name and weight.",
        ),
    ],
    sweep: Annotated[
        int | None,
        typer.Option(
            metavar="STEPS", help="Walk from the first of two sounds to the second: a film strip."
        ),
    ] = None,
    frame: Annotated[
        int | None, typer.Option(metavar="STEP", help="Draw only this step of the sweep, from 1.")
    ] = None,
    separate: Separate = False,
    theme: StripTheme = "light",
    pad: Annotated[
        bool, typer.Option("--pad", help="Silence after short sounds; else they repeat.")
    ] = False,
    clip: Annotated[
        ClipChoice,
        typer.Option(
            help="Of samples beyond full scale: 'warn' leaves them to the model, 'cut' cuts them, "
            "'scale' turns the mix down until it fits, 'error' refuses."
        ),
    ] = "warn",
    allow_inversion: Annotated[
        bool,
        typer.Option("--allow-inversion", help="Allow negative weights, which invert the phase."),
    ] = False,
    save_audio: Annotated[
        Path | None,
        typer.Option(
            "--save-audio",
            metavar="FILE",
            help="Write what is heard of the mix: .wav (of floats, so that 's2v gen' of it gives "
            "the same picture) or .mp3.",
        ),
    ] = None,
    *,
    job: Job,
    printer: Printer,
    sound_options: SoundOptions,
) -> None:
    """Turn several sounds, mixed, into a picture.

    The waveforms are summed with their weights, which need not add to 1. Short sounds repeat until
    the longest ends. Which part of the mix is heard does not depend on the weights, so that the
    pictures of a sweep hear the same moment. A sound of weight 0 is left out.

    With --sweep the weights go from 1 and 0 to 0 and 1; what is written behind a sound multiplies
    its own.
    """
    mixing = Mixing(
        parse_tracks(sounds),
        job,
        sound_options,
        MixOptions(pad, clip, allow_inversion),
        sweep,
        frame,
        separate,
        theme,
        save_audio,
    )
    printer.print_all(draw_mix(mixing, printer.console), metadata=job.metadata)
