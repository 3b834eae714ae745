"""The paper's Table 2 and Fig. 16 at small scale, as `docs/ablation.md` reports them.

    python benchmarks/ablation.py DATA --out FOLDER [--plan ablation] [--judge FOLDER]

Stopped, the same command goes on run by run; the report of what is done is written after each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from s2v_cli.errors import S2VError
from s2v_cli.training.ablation.plan import load_plan
from s2v_cli.training.ablation.run import ablate


def show(stage: str, done: int, steps: int, figures: dict[str, float]) -> None:
    """A line on stderr at every half of a stage."""
    if stage == "ablation" or (steps and done * 2 // steps > (done - 1) * 2 // steps):
        shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        print(f"{stage} {done}/{steps} {shown}".rstrip(), file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the data set")
    parser.add_argument("--plan", default="ablation", help="name or TOML file")
    parser.add_argument("--out", type=Path, required=True, help="folder for runs and report")
    parser.add_argument("--judge", type=Path, help="folder of a trained judge; OUT/judge if left")
    given = parser.parse_args(arguments)
    try:
        plan = load_plan(given.plan)
        command = "python benchmarks/ablation.py DATA --out FOLDER"
        path = ablate(given.data, given.out, plan, show, judge=given.judge, command=command)
    except S2VError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
