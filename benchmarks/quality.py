"""How well a preset draws held-out sounds, told by classifiers that see real photos only.

    python benchmarks/quality.py DATA --out FOLDER [--preset mini] [--split test]

Prints the report and writes it to FOLDER with its figures (JSON) and contact sheets. The judge and
the zoom regressor are trained on the first run, in about an hour on two cores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from s2v_cli import Sound2Vision
from s2v_cli.errors import S2VError
from s2v_cli.picture import write_file
from s2v_cli.training.evaluate import evaluate
from s2v_cli.training.report import report


def show(stage: str, done: int, steps: int, figures: dict[str, float]) -> None:
    """A line on stderr at every tenth of a stage."""
    if done * 10 // steps > (done - 1) * 10 // steps:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        print(f"{stage} {done}/{steps} {shown}".rstrip(), file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the data set")
    parser.add_argument("--preset", default="mini", help="name, folder or TOML file")
    parser.add_argument("--out", type=Path, required=True, help="folder for figures and sheets")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--control", help="preset whose encoder was trained without level")
    parser.add_argument("--cache", type=Path, help="folder of decoded photos; OUT/cache if left")
    given = parser.parse_args(arguments)
    try:
        results = evaluate(
            Sound2Vision.load(given.preset, device="cpu"),
            given.data,
            given.out,
            split=given.split,
            control=given.control and Sound2Vision.load(given.control, device="cpu"),
            cache=given.cache,
            progress=show,
        )
        text = report(results)
        path = given.out / f"evaluation-{given.split}.txt"
        write_file((text + "\n").encode(), path, overwrite=True)
    except S2VError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
