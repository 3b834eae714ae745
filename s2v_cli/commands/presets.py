"""`s2v presets`: which models there are."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from s2v_cli.console import Console
from s2v_cli.presets import Preset, list_presets, load_preset
from s2v_cli.weights.store import weights_status


def presets(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Show one preset in full; a name or a folder."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List models, their licences and weights.

    Of each: title, picture size, embedding space, size and licence of the weights, and whether
    they are here, missing or damaged.
    """
    import json

    console = Console()
    chosen = list_presets() if name is None else [load_preset(name)]
    rows = [describe(preset) for preset in chosen]
    if as_json:
        console.result(json.dumps(rows, indent=2))
    elif name is not None:
        for key, value in rows[0].items():
            console.result(f"{key:<12}{value}")
    else:
        for row in rows:
            console.result(
                f"{row['name']}: {row['title']}, {row['resolution']} px, {row['space']}, "
                f"{row['megabytes']:g} MB, {row['licence']}, weights {row['weights']}"
            )


def describe(preset: Preset) -> dict[str, Any]:
    """A preset as `--json` shows it; reads its weights once."""
    return {
        "name": preset.name,
        "title": preset.title,
        "description": preset.description,
        "model": preset.model,
        "space": str(preset.space),
        "resolution": preset.resolution,
        "megabytes": round(preset.bytes / 1e6, 1),
        "licence": preset.licence,
        "commercial": preset.commercial,
        "bundled": preset.bundled,
        "weights": weights_status(preset),
        "folder": str(preset.folder),
    }
