"""The command line: global options and the list of commands."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from s2v_cli import __version__

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


class _LightGroup(TyperGroup):
    """A group whose own flags are False where typer leaves None.

    Typer passes None, but not False, through pydantic, and its import would take half of the time
    of `s2v COMMAND --help`.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        parameters: list[Any] = super().get_params(ctx)
        for parameter in parameters:
            if getattr(parameter, "is_bool_flag", False) and parameter.default is None:
                parameter.default = False
        return parameters


def build_app(only: str | None = None) -> typer.Typer:
    """The command line.

    Args:
        only: name of the one command that is about to run; the others need not be imported then.
            Any other word builds all of them.
    """
    app = typer.Typer(
        name="s2v",
        cls=_LightGroup,
        rich_markup_mode=None,  # rich would cost half of the start
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(s2v)
    for name in [only] if only is not None and only in COMMANDS else COMMANDS:
        file, function = COMMANDS[name].split(":")
        command = getattr(import_module(f"s2v_cli.commands.{file}"), function)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, cls=_LightGroup)
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
