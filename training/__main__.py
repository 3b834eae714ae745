"""`python -m s2v_cli.training`: what `accelerate launch -m` and `torchrun -m` start.

The first process tells on stderr how far it is; errors are one line and status 1 or 2.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s2v_cli.errors import OptionError, S2VError
from s2v_cli.training.launch import LOST

REPORT_S = 30.0
FOLLOW_S = 1.0


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
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)
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
        if now - self.told > REPORT_S or step == steps or stage == "early_stop":
            self.told = now
            told = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
            sys.stderr.write(f"s2v: {stage} {step} of {steps}{': ' if told else ''}{told}\n")


def main(words: Sequence[str] | None = None) -> int:
    """Train; returns the exit status: that of `s2v`, or 3 where another process is gone."""
    chosen = parse(words)
    if chosen.parent is not None:
        threading.Thread(target=_follow, args=(chosen.parent,), daemon=True).start()
    try:
        from s2v_cli.training.align.options import load_options
        from s2v_cli.training.align.trainer import align

        options = load_options(chosen.recipe, **parse_settings(chosen.set))
        run = align(
            chosen.data, chosen.out, options, _Report(), device=chosen.device, fresh=chosen.fresh
        )
    except S2VError as error:
        return _fail(f"error: {error}", error.exit_code)
    except KeyboardInterrupt:
        return _fail("stopped", 130)
    except Exception as error:
        from s2v_cli.training.align.distributed import lost_others

        if os.environ.get("S2V_DEBUG"):
            raise
        if lost_others(error):  # that one says why
            return LOST
        return _fail(f"error: {type(error).__name__} ({error})", 1)
    if os.environ.get("RANK", "0") == "0":
        sys.stdout.write(f"{run}\n")
    return 0


def _fail(message: str, status: int) -> int:
    sys.stderr.write(f"s2v: {' '.join(message.split())}\n")
    return status


def _follow(parent: int) -> None:
    """End with the process that started this one, should it be killed."""
    while os.getppid() == parent:
        time.sleep(FOLLOW_S)
    os._exit(1)


def _leave(status: int) -> None:
    """End this process; one of several that fails does not wait for the others."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.environ.get("WORLD_SIZE", "1") != "1":
        if status:
            os._exit(status)  # the others may be waiting for it in a collective
        import torch

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    raise SystemExit(status)


if __name__ == "__main__":
    _leave(main())
