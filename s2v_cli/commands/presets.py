"""`s2v presets`: which models there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from s2v_cli.commands.groups import ShowingGroup
from s2v_cli.console import Console
from s2v_cli.presets import Preset, list_presets, load_preset

presets = typer.Typer(
    cls=ShowingGroup,
    rich_markup_mode=None,
    help="List models, their licences and weights; install your own under a name.",
)


@presets.command()
def show(
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


@presets.command()
def add(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", show_default=False, help="A run of 's2v train', or another preset."
        ),
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="That it gets. Default: its own.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace an installed preset of that name.")
    ] = False,
) -> None:
    """Install a preset, so that '--preset NAME' finds it from everywhere.

    Its files are checked and copied to S2V_HOME, or else to your data folder.
    """
    from s2v_cli.installation import install_preset

    console = Console()
    preset = install_preset(folder, name, overwrite=force)
    console.note(f"Installed in {preset.folder}; try: s2v gen SOUND --preset {preset.name}")
    console.result(preset.name)


@presets.command()
def remove(
    name: Annotated[
        str, typer.Argument(metavar="NAME", show_default=False, help="An installed preset.")
    ],
) -> None:
    """Remove an installed preset and its weights."""
    from s2v_cli.installation import remove_preset

    Console().result(str(remove_preset(name)))


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
