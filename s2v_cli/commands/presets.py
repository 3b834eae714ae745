"""`s2v presets`: which models there are."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from s2v_cli.console import Console
from s2v_cli.presets import Preset, list_presets, load_preset


def presets(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Show one preset in full; a name or a folder."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List models, their licences and weights.

    Of each: title, picture size, embedding space, size and licence of the weights, and whether
    they are here, missing or damaged. What `s2v gen` needs counts; `s2v weights list` shows all.
    """
    import json

    console = Console()
    chosen = list_presets() if name is None else [load_preset(name)]
    rows = [describe(preset) for preset in chosen]
    if as_json:
        console.result(json.dumps(rows, indent=2))
    elif name is not None:
        for key, value in rows[0].items():
            console.result(f"{key:<12}{_shown(value)}")
    else:
        for row in rows:
            console.result(
                f"{row['name']}: {row['title']}, {row['resolution']} px, {row['space']}, "
                f"{row['megabytes']:g} MB, {row['licence']}, weights {row['weights']}"
            )


def describe(preset: Preset) -> dict[str, Any]:
    """A preset as `--json` shows it; reads its weights once."""
    from s2v_cli.weights.pull import GEN_ROLES
    from s2v_cli.weights.store import weights_status

    return {
        "name": preset.name,
        "title": preset.title,
        "description": preset.description,
        "model": preset.model,
        "space": str(preset.space),
        "resolution": preset.resolution,
        "megabytes": round(_bytes(preset) / 1e6, 1),
        "licence": preset.licence,
        "commercial": preset.commercial,
        "bundled": preset.bundled,
        "weights": weights_status(preset, roles=None if preset.bytes else GEN_ROLES),
        "options": list(preset.options),
        "defaults": dict(preset.generate),
        "folder": str(preset.folder),
    }


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)


def _bytes(preset: Preset) -> int:
    """Size of a preset's own weights, or of the downloads that `s2v gen` needs."""
    from s2v_cli.weights.catalogue import find_asset
    from s2v_cli.weights.pull import assets_of

    return preset.bytes + sum(find_asset(name).bytes() for name in assets_of(preset))
