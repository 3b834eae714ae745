"""`s2v interp`: a photo and a sound as one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s2v_cli.commands.flags import Printer, Separate, StripTheme, drawing_command
from s2v_cli.interpolation import Interpolation, draw_interpolation
from s2v_cli.job import Job
from s2v_cli.options import SoundOptions
from s2v_cli.photo import ModeChoice, PathChoice, PhotoOptions, parse_box


@drawing_command(roles=("sound_encoder", "image_encoder", "generator"))
def interp(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", show_default=False, help="A picture.")],
    sound: Annotated[
        str,
        typer.Argument(
            metavar="SOUND", show_default=False, help="A sound file, or - for standard input."
        ),
    ],
    weight: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="The photo's share: 1 draws from the photo alone, 0 from the sound. "
            "Default: 0.5; 0 with --mode sdedit.",
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(metavar="COUNT", help="Walk from the photo to the sound: a film strip."),
    ] = None,
    separate: Separate = False,
    theme: StripTheme = "light",
    path: Annotated[
        PathChoice, typer.Option(help="Between the two embeddings: a line, or an arc.")
    ] = "linear",
    mode: Annotated[
        ModeChoice,
        typer.Option(
            help="'latent' blends the embeddings. Diffusion presets also have 'sdedit', which "
            "starts from the photo and keeps its layout, and 'compose', which follows both at once."
        ),
    ] = "latent",
    keep: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Of sdedit: how much of the photo stays. Default: 0.6."),
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y,W,H",
            help="Of sdedit: only this part changes; left, top, width and height in shares of the "
            "photo's centre square.",
        ),
    ] = None,
    *,
    job: Job,
    printer: Printer,
    sound_options: SoundOptions,
) -> None:
    """Draw from a photo and a sound at once.

    The embeddings of both are blended (z^new = weight z^V + (1 - weight) z^A) and drawn; the
    photo's centre square is seen. At weight 0 this is 's2v gen' of the sound.
    """
    how = PhotoOptions(mode, path, keep, None if box is None else parse_box(box))
    asked = Interpolation(photo, sound, job, sound_options, how, weight, frames, separate, theme)
    printer.print_all(draw_interpolation(asked, printer.console), metadata=job.metadata)
