"""How groups of commands read their command lines."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class LightGroup(TyperGroup):
    """A group whose own flags are False where typer leaves None.

    Typer passes None, but not False, through pydantic, and its import would take half of the time
    of `s2v COMMAND --help`.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, with a default for each flag."""
        parameters: list[Any] = super().get_params(ctx)
        for parameter in parameters:
            if getattr(parameter, "is_bool_flag", False) and parameter.default is None:
                parameter.default = False
        return parameters


class ShowingGroup(LightGroup):
    """A group that shows, by its command `show`, what is given without a command's name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `show` before words that name no command."""
        first = args[0] if args else ""
        if first not in self.commands and first not in ("--help", "-h"):
            args = ["show", *args]
        rest: list[str] = super().parse_args(ctx, args)
        return rest
