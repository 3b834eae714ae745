"""The command line: global options and the list of commands."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

from s2v_cli import __version__
from s2v_cli.commands.groups import LightGroup

# Commands in the order of --help: name -> home below s2v_cli.commands.
COMMANDS = {
    "gen": "gen:gen",
    "mix": "mix:mix",
    "interp": "interp:interp",
    "edit": "edit:edit",
    "face": "face:face",
    "blend": "blend:blend",
    "explain": "explain:explain",
    "animate": "animate:animate",
    "nearest": "nearest:nearest",
    "replay": "replay:replay",
    "info": "replay:info",
    "prepare": "prepare:prepare",
    "train": "train:train",
    "eval": "eval:evaluate",
    "study": "study:study",
    "analyze": "analyze:analyze",
    "weights": "weights:weights",
    "presets": "presets:presets",
    "doctor": "doctor:doctor",
}
_PASSES_FLAGS = {"allow_extra_args": True, "ignore_unknown_options": True}


def build_app(only: str | None = None) -> typer.Typer:
    """The command line.

    Args:
        only: name of the one command that is about to run; the others need not be imported then.
            Any other word builds all of them.
    """
    app = typer.Typer(
        name="s2v",
        cls=LightGroup,
        rich_markup_mode=None,  # rich would cost half of the start
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(s2v)
    for name in [only] if only is not None and only in COMMANDS else COMMANDS:
        file, function = COMMANDS[name].split(":")
        command = getattr(import_module(f"s2v_cli.commands.{file}"), function)
        if isinstance(command, typer.Typer):
            own = command.info.cls
            app.add_typer(command, name=name, cls=own if isinstance(own, type) else LightGroup)
        else:
            settings = _PASSES_FLAGS if name == "replay" else None
            app.command(name, context_settings=settings)(command)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"s2v {__version__}")
        raise typer.Exit


def s2v(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Turn sound into pictures."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
