"""`python -m s2v_cli.training`: what `accelerate launch -m` and `torchrun -m` start.

The first process tells on stderr how far it is; errors are one line and status 1 or 2.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s2v_cli.errors import OptionError, S2VError

REPORT_S = 30.0


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m s2v_cli.training",
        description="Train a sound encoder; one of several processes that share each batch.",
    )
    parser.add_argument("data", type=Path, help="a dataset that 's2v prepare' made")
    parser.add_argument("--out", "-o", type=Path, default=Path("runs/align"), help="of the run")
    parser.add_argument("--recipe", default="align", help="a recipe's name, or a TOML file")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    parser.add_argument("--fresh", action="store_true", help="begin again")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args(words)


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Fields of AlignOptions from `KEY=VALUE`; values are JSON, or else text.

    Raises:
        OptionError: a pair without `=`.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise OptionError(f"set is {pair!r}; allowed: KEY=VALUE, such as --set ema=0.99")
        try:
            found[key.replace("-", "_")] = json.loads(text)
        except ValueError:
            found[key.replace("-", "_")] = text
    return found


class _Report:
    """A line now and then."""

    def __init__(self) -> None:
        self.told = 0.0

    def __call__(self, stage: str, step: int, steps: int, figures: dict[str, float]) -> None:
        now = time.monotonic()
        if now - self.told > REPORT_S or step == steps:
            self.told = now
            told = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
            sys.stderr.write(f"s2v: {stage} {step} of {steps}{': ' if told else ''}{told}\n")


def main(words: Sequence[str] | None = None) -> int:
    """Train; returns the exit status."""
    chosen = parse(words)
    try:
        from s2v_cli.training.align.options import load_options
        from s2v_cli.training.align.trainer import align

        options = load_options(chosen.recipe, **parse_settings(chosen.set))
        align(chosen.data, chosen.out, options, _Report(), device=chosen.device, fresh=chosen.fresh)
    except S2VError as error:
        sys.stderr.write(f"s2v: error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("s2v: stopped\n")
        return 130
    return 0


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    if status and os.environ.get("WORLD_SIZE", "1") != "1":
        os._exit(status)  # the others may be waiting for this one in a collective
    raise SystemExit(status)
