"""`s2v edit`: a photo moved in the direction of a sound."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s2v_cli.commands.flags import Printer, drawing_command
from s2v_cli.editing import Edit, draw_edit
from s2v_cli.job import Job
from s2v_cli.options import SoundOptions


@drawing_command(
    roles=("sound_encoder", "image_encoder", "generator"),
    leave="gain_db count truncation best_of contrast steps sampler guidance",
)
def edit(
    photo: Annotated[
        str,
        typer.Argument(
            metavar="PHOTO",
            show_default=False,
            help="A photo, or what --save-inversion wrote; the centre square is used.",
        ),
    ],
    sound: Annotated[
        str,
        typer.Option(
            metavar="SOUND", show_default=False, help="Sound that the photo moves towards, or -."
        ),
    ],
    sound2: Annotated[
        str | None,
        typer.Option(
            metavar="SOUND",
            help="Sound that it moves away from. Default: the mean of the sounds that the model "
            "was taught; for published models a nearly silent room.",
        ),
    ] = None,
    from_db: Annotated[
        float | None,
        typer.Option("--from-db", metavar="DB", help="Instead: from SOUND at this gain ..."),
    ] = None,
    to_db: Annotated[
        float | None, typer.Option("--to-db", metavar="DB", help="... to SOUND at this gain.")
    ] = None,
    strength: Annotated[
        float, typer.Option(help="How far to move; 0 is the reconstruction, less than 0 backwards.")
    ] = 1.0,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Of the inversion. Default: 60 for mini, 300 for other GANs; of diffusion presets "
            "their own."
        ),
    ] = None,
    starts: Annotated[
        int | None, typer.Option(help="Noises to start from; the best goes on. Default: 4.")
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="Of diffusion presets. Default: 1, none; more inverts less well."),
    ] = None,
    tune: Annotated[
        bool,
        typer.Option("--tune", help="Tune a copy of the generator to the photo too: more detail."),
    ] = False,
    show_inversion: Annotated[
        bool,
        typer.Option("--show-inversion", help="A strip: photo, reconstruction and edit."),
    ] = False,
    save_inversion: Annotated[
        Path | None,
        typer.Option(
            "--save-inversion",
            metavar="FILE",
            help="Keep the inversion (.safetensors), to edit the photo again without delay.",
        ),
    ] = None,
    *,
    job: Job,
    printer: Printer,
    sound_options: SoundOptions,
) -> None:
    """Edit a photo by sound.

    Finds the noise and the embedding z that make the photo, and draws it again from
    z + strength (z_sound - z_sound2). With --from-db or --to-db the two sounds are SOUND at two
    levels: what a louder sound changes. The inversion is an optimisation, by pixels and by
    features of the model's image encoder; diffusion presets invert by DDIM instead, and know
    neither --starts nor --tune.
    """
    asked = Edit(
        picture=photo,
        sound=sound,
        sound2=sound2,
        job=job,
        sound_options=sound_options,
        from_db=from_db,
        to_db=to_db,
        strength=strength,
        steps=steps,
        starts=starts,
        guidance=guidance,
        tune=tune,
        show_inversion=show_inversion,
        save_inversion=save_inversion,
    )
    printer.print_all(draw_edit(asked, printer.console), metadata=job.metadata)
