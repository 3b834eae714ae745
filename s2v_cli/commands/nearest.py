"""`s2v nearest`: the photos that a sound lies nearest to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from s2v_cli.commands.flags import Printer, drawing_command
from s2v_cli.job import Job
from s2v_cli.options import SoundOptions
from s2v_cli.retrieval import Search, search
from s2v_cli.strip import Theme

_LEFT = (
    "seed count truncation best_of size contrast prompt negative_prompt steps guidance sampler "
    "noise_level adapter_scale output show as_json"
)


@drawing_command(roles=("sound_encoder", "image_encoder"), leave=_LEFT)
def nearest(
    query: Annotated[
        str,
        typer.Argument(
            metavar="SOUND",
            show_default=False,
            help="A sound file, - for standard input, or a photo.",
        ),
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", show_default=False, help="A folder of photos.")
    ],
    count: Annotated[int, typer.Option("--count", "-n", help="How many photos.")] = 8,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Search the folders in FOLDER too.")
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="Draw a contact sheet: a file (.png, .jpg, .webp), a folder (ends in /), or - "
            "for a PNG on standard output instead of the list.",
        ),
    ] = None,
    theme: Annotated[Theme, typer.Option(help="Of the contact sheet.")] = "light",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    *,
    job: Job,
    printer: Printer,
    sound_options: SoundOptions,
) -> None:
    """Find the photos of a folder that a sound lies nearest to.

    Prints them, the nearest first, with the similarity (a cosine) before each. Photos are looked
    at once: what was seen is kept in the cache, for this model alone, until a file changes.
    """
    piped = output == "-"
    if piped:
        Printer(piped=True, as_json=as_json, show=False, quiet=True)  # not for a terminal
    asked = Search(
        query, folder, replace(job, target=output), sound_options, count, recursive, theme
    )
    console = printer.console
    with console:
        found = search(asked, console)
        sheet = found.sheet
        if piped and sheet is not None:
            console.result_bytes(sheet.encode(".png", metadata=job.metadata))
        elif as_json:
            shown = {
                "query": query,
                "photos": found.photos,
                "nearest": [
                    {"path": str(match.path), "similarity": match.similarity}
                    for match in found.matches
                ],
                "sheet": None if sheet is None else str(sheet.path),
            }
            console.result(json.dumps(shown, indent=2))
        else:
            for match in found.matches:
                console.result(f"{match.similarity:.3f}\t{match.path}")
            if sheet is not None:
                console.note(f"The contact sheet is {sheet.path}.")
