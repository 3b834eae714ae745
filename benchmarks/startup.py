"""Time of `s2v --help` and `s2v COMMAND --help` beside an empty Python, and what each imports.

    python benchmarks/startup.py [--runs 10]

Prints the median of warm runs in seconds. Budget: 0.2 s; neither torch nor numpy imported.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = [[], ["gen"], ["train"], ["presets"], ["doctor"]]
HEAVY = ("torch", "numpy", "rich", "pydantic")


def seconds(commands: list[list[str]], runs: int) -> list[float]:
    """Median wall time of warm runs of each command, interleaved so that load hits all alike."""
    times: list[list[float]] = [[] for _ in commands]
    for _ in range(runs + 1):
        for command, own in zip(commands, times, strict=True):
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            own.append(time.perf_counter() - start)
    return [statistics.median(own[1:]) for own in times]


def heavy_imports(arguments: list[str]) -> list[str]:
    """Heavy packages that a command line imports."""
    script = (
        "import sys; from s2v_cli.__main__ import main; main(sys.argv[1:]); "
        f"print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, *arguments], check=True, capture_output=True, text=True
    )
    return ran.stderr.split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    runs = parser.parse_args().runs
    helps = [[*command, "--help"] for command in COMMANDS]
    empty, *took_by_help = seconds(
        [
            [sys.executable, "-c", "pass"],
            *([sys.executable, "-m", "s2v_cli", *arguments] for arguments in helps),
        ],
        runs,
    )
    print(f"{'python -c pass':<24}{empty:6.3f} s")
    for arguments, took in zip(helps, took_by_help, strict=True):
        heavy = ", ".join(heavy_imports(arguments)) or "nothing heavy"
        name = " ".join(["s2v", *arguments])
        print(f"{name:<24}{took:6.3f} s  {took / empty:4.1f}x  imports {heavy}")


if __name__ == "__main__":
    main()
