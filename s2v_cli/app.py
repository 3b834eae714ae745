"""The command line: global options and the list of commands."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from s2v_cli import __version__
from s2v_cli.commands.animate import animate
from s2v_cli.commands.blend import blend
from s2v_cli.commands.doctor import doctor
from s2v_cli.commands.edit import edit
from s2v_cli.commands.face import face
from s2v_cli.commands.gen import gen
from s2v_cli.commands.interp import interp
from s2v_cli.commands.mix import mix
from s2v_cli.commands.presets import presets
from s2v_cli.commands.replay import PASSES_FLAGS, info, replay
from s2v_cli.commands.train import train
from s2v_cli.commands.weights import weights


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


app = typer.Typer(
    name="s2v",
    cls=_LightGroup,
    rich_markup_mode=None,  # rich would cost half of the start
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"s2v {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
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


app.command()(gen)
app.command()(mix)
app.command()(interp)
app.command(context_settings=PASSES_FLAGS)(replay)
app.command()(info)
app.command()(edit)
app.command()(face)
app.command()(blend)
app.command()(animate)
app.command()(train)
app.add_typer(weights, name="weights", cls=_LightGroup)
app.command()(presets)
app.command()(doctor)
