"""All speed measurements, one after the other: `python -m benchmarks`.

Each is a command of its own too. `benchmarks/quality.py` is not among them: it needs the data set.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SPEED = ("startup", "generate", "generator", "spectrogram", "animate", "biggan", "load")


def main() -> int:
    status = 0
    for name in SPEED:
        print(f"== {name}", flush=True)
        status |= subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}"], cwd=Path(__file__).parents[1]
        ).returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
