"""`s2v animate`: a moving picture of a sound, with the sound in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from s2v_cli.animation import WINDOW_S, AnimateOptions, Animation, draw_animation
from s2v_cli.commands.flags import Printer, drawing_command
from s2v_cli.duration import parse_duration
from s2v_cli.job import Job
from s2v_cli.options import SoundOptions

_PLAIN = AnimateOptions()


@drawing_command(leave="window count best_of output")
def animate(
    sound: Annotated[
        str,
        typer.Argument(
            metavar="SOUND", show_default=False, help="A sound file, or - for standard input."
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="A file (.mp4 with the sound; .gif, .webp without), a folder (ends in /), or a "
            "template as in 's2v gen'. Default: SOUND.mp4 in the current folder.",
        ),
    ] = None,
    fps: Annotated[int, typer.Option(help="Frames a second, 1 to 60.")] = _PLAIN.fps,
    window: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="How much sound each moment hears: less follows faster, more is surer. "
            f"Default: {WINDOW_S:g} seconds.",
        ),
    ] = None,
    smooth: Annotated[
        str, typer.Option(metavar="TIME", help="Over how much time changes are spread; 0: none.")
    ] = f"{_PLAIN.smooth_s:g}",
    drift: Annotated[
        float,
        typer.Option(
            help="How far the noise moves each second, in seeds: 0 keeps it, 1 is at the next "
            "seed's picture after a second."
        ),
    ] = _PLAIN.drift,
    *,
    job: Job,
    printer: Printer,
    sound_options: SoundOptions,
) -> None:
    """Turn a sound into a moving picture.

    A window slides over the sound; its embeddings, smoothed, and noise that drifts from seed to
    seed make the frames. --start and --duration choose the part; the file holds the sound as it
    is, whatever --gain-db says to the model. A long sound takes time, but no more memory.

    A .mp4 needs PyAV: pip install 's2v-cli[video]'
    """
    options = AnimateOptions(
        fps,
        None if window is None else parse_duration(window, "window"),
        parse_duration(smooth, "smooth"),
        drift,
    )
    job = replace(job, target=output)
    animation = Animation(sound, job, sound_options, options)
    printer.print_all(draw_animation(animation, printer.console), metadata=job.metadata)
