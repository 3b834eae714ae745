"""`s2v explain`: which part of a sound its picture comes from."""

from __future__ import annotations

from typing import Annotated

import typer

from s2v_cli.commands.flags import Printer, drawing_command
from s2v_cli.explanation import Explanation, draw_explanation
from s2v_cli.job import Job
from s2v_cli.options import SoundOptions
from s2v_cli.strip import Theme


@drawing_command(roles=("sound_encoder", "image_encoder", "generator"), leave="count best_of")
def explain(
    sound: Annotated[
        str,
        typer.Argument(
            metavar="SOUND", show_default=False, help="A sound file, or - for standard input."
        ),
    ],
    picture_of: Annotated[
        str | None,
        typer.Option(
            "--picture-of",
            metavar="SOUND",
            help="Explain the picture of this other sound: what in SOUND would speak for it?",
        ),
    ] = None,
    theme: Annotated[Theme, typer.Option(help="Of the figure.")] = "light",
    *,
    job: Job,
    printer: Printer,
    sound_options: SoundOptions,
) -> None:
    """Show which part of a sound its picture comes from.

    A heat map over the spectrogram (Grad-CAM), with the picture beside it: how much each moment
    and frequency brings the generated picture to what it is, seen through the last convolution of
    the sound encoder. Where the generator takes many steps, gradients go through the last one.

    --json lists the most important seconds. --size is the side of the picture in the figure.
    """
    explanation = Explanation(sound, job, sound_options, picture_of, theme)
    printer.print_all(draw_explanation(explanation, printer.console), metadata=job.metadata)
