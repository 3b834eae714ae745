"""`s2v replay`: a picture made again from its record. `s2v info`: the record itself."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Annotated, Any

import typer

from s2v_cli.console import Console
from s2v_cli.errors import OptionError


def replay(
    context: typer.Context,
    picture: Annotated[
        Path, typer.Argument(metavar="PICTURE", show_default=False, help="Made by s2v.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Keep the new picture here. Default: only compare; with changes PICTURE-replay.",
        ),
    ] = None,
    use: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="FILE",
            help="Use this instead of the recorded input; once for each input.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace FILE if it exists.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No notes and no progress; errors stay.")
    ] = False,
) -> None:
    """Make a picture again from its record, and say whether it came out identical.

    Any other flag of the command that made it changes that part: --seed 8, --preset NAME,
    --size 256. The inputs are looked for where they were, seen from the current folder. Without
    changes the exit status is 1 if a pixel differs; what is not as it was then is noted.
    """
    import json

    from s2v_cli.replay import replay as make_again

    changes = list(context.args)
    if changes and not changes[0].startswith("-"):
        raise OptionError(f"{changes[0]!r} is one argument too many; replay takes one picture.")
    if output is None and changes:
        output = Path(f"{picture.stem}-replay{picture.suffix}")
    with Console(quiet=quiet) as console:
        console.progress(f"Drawing {picture} again")
        found = make_again(
            picture,
            _run,
            changes=changes,
            inputs=use or (),
            output=output,
            overwrite=force,
        )
    for change in found.changes:
        console.note(change)
    if as_json:
        console.result(json.dumps(found.as_json(), indent=2))
    else:
        if found.path is not None:
            console.result(str(found.path))
        if not changes:
            different = f"differs: {found.share:.2%} of the pixels, by up to {found.largest} of 255"
            console.result("identical" if found.identical else different)
    if not changes and not found.identical:
        raise typer.Exit(1)


def _run(arguments: Any) -> None:
    from s2v_cli.app import build_app

    app = build_app(arguments[0])
    with contextlib.redirect_stdout(io.StringIO()):  # its answer is the file
        status = app(list(arguments), prog_name="s2v", standalone_mode=False)
    if status:
        raise typer.Exit(status)


def info(
    picture: Annotated[
        Path, typer.Argument(metavar="PICTURE", show_default=False, help="Made by s2v.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole record.")] = False,
) -> None:
    """Show how a picture was made: its command, inputs, options, weights and versions."""
    import json

    from s2v_cli.picture import read_record

    console, record = Console(), read_record(picture)
    if as_json:
        console.result(json.dumps(record, indent=2, sort_keys=True))
        return
    console.result(str(record.get("command", "")))
    for key, value in record.items():
        if key == "size":
            console.result(f"{key:<18}{'x'.join(map(str, value))} pixels")
        elif key not in ("arguments", "command") and value is not None:
            console.result(f"{key.replace('_', ' '):<18}{_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        given = {key: inner for key, inner in value.items() if inner not in (None, "")}
        return ", ".join(f"{key} {_shown(inner)}" for key, inner in given.items())
    if isinstance(value, list):
        numbers = all(isinstance(inner, int | float) for inner in value)
        return (" to " if numbers else "; ").join(_shown(inner) for inner in value) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
