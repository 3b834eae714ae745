"""Write docs/cli.md: what `s2v --help` and each `s2v COMMAND --help` print."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TARGET = Path(__file__).parent / "cli.md"
HEAD = """# Command reference

<!-- Written by `make docs` from `--help`; a test compares the two. Do not edit. -->

The answer of each command goes to stdout: paths, one a line, or JSON with `--json`. Notes and
progress go to stderr. Exit status: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C.
"""


def help_of(*command: str) -> str:
    """The help of one command, laid out for 100 columns."""
    result = subprocess.run(
        [sys.executable, "-m", "s2v_cli", *command, "--help"],
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"},
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise RuntimeError(f"s2v {' '.join(command)} --help: {result.stderr.strip()}")
    return "\n".join(line.rstrip() for line in result.stdout.strip().splitlines())


def subcommands(help_text: str) -> list[str]:
    """Names under the heading `Commands:`."""
    _, found, section = help_text.partition("\nCommands:\n")
    if not found:
        return []
    rows = section.split("\n\n")[0].splitlines()
    return [row.split()[0] for row in rows if row.startswith("  ") and not row.startswith("   ")]


def all_help() -> dict[tuple[str, ...], str]:
    """Command path -> help text, parents before children."""
    pages: dict[tuple[str, ...], str] = {}

    def visit(command: tuple[str, ...]) -> None:
        pages[command] = help_of(*command)
        for name in subcommands(pages[command]):
            visit((*command, name))

    visit(())
    return pages


def reference(pages: dict[tuple[str, ...], str]) -> str:
    """The text of docs/cli.md."""
    parts = [HEAD]
    for command, text in pages.items():
        parts.append(f"## `{' '.join(('s2v', *command))}`\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(reference(all_help()), encoding="utf-8")
    print(TARGET)
