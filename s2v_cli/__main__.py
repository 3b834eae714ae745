"""Entry point of `s2v` and `python -m s2v_cli`: the one place that catches, prints and exits."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        arguments: without the program's name; None takes the process's.

    Returns:
        Exit status: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    try:
        return _run(arguments)
    except BrokenPipeError:  # the reader of stdout left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt:
        return _fail("stopped", 130)
    except Exception as error:
        if os.environ.get("S2V_DEBUG"):
            raise
        return _explain(error)


def _run(arguments: Sequence[str] | None) -> int:
    from s2v_cli.app import build_app

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # file names may hold any byte
            stream.reconfigure(errors="surrogateescape")
    words = sys.argv[1:] if arguments is None else list(arguments)
    app = build_app(words[0] if words else None)
    status = app(words, prog_name="s2v", standalone_mode=False)
    sys.stdout.flush()
    if status == 130:  # typer turns Ctrl-C into this
        raise KeyboardInterrupt
    return status if isinstance(status, int) else 0


def _explain(error: Exception) -> int:
    from s2v_cli.errors import S2VError

    if isinstance(error, S2VError):
        return _fail(f"error: {error}", error.exit_code)
    format_message = getattr(error, "format_message", None)
    if format_message is not None:  # typer's own; what pydantic puts before is no help
        message = format_message().replace("Value error, ", "")
        context = getattr(error, "ctx", None)
        if context is not None:
            stop = "" if message.endswith((".", "?")) else "."
            message = f"{message}{stop} Try '{context.command_path} --help'."
        return _fail(f"error: {message}", getattr(error, "exit_code", 2))
    return _fail(
        f"error: {type(error).__name__}: {error} (S2V_DEBUG=1 shows where)".replace(": (", " ("), 1
    )


def _fail(message: str, status: int) -> int:
    from s2v_cli.console import one_line

    print(f"s2v: {one_line(message)}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
