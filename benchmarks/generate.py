"""Cold `s2v gen` in a process of its own beside the floor, `python -c "import torch"`.

    python benchmarks/generate.py [--runs 5] [--count 1] [--best-of 1]

Prints the median wall time of warm runs in seconds, peak memory, and the ratio.
Budget for one picture of `mini` on a CPU: 1.5 times the floor plus 1 s.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import wave
from pathlib import Path

BUDGET_RATIO, BUDGET_S = 1.5, 1.0


def write_tone(path: Path, seconds: float = 5.0, sample_rate: int = 16_000) -> None:
    count = round(seconds * sample_rate)
    samples = (round(9000 * math.sin(2 * math.pi * 440 * n / sample_rate)) for n in range(count))
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, sample_rate, count, "NONE", ""))
        file.writeframes(struct.pack(f"<{count}h", *samples))


def run(command: list[str]) -> tuple[float, float]:
    """Wall time in seconds and peak memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    took = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with status {process.returncode}")
    return took, usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--best-of", type=int, default=1)
    options = parser.parse_args()
    python = sys.executable
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "tone.wav"
        write_tone(sound)
        command = [
            python, "-m", "s2v_cli", "gen", str(sound), "-o", f"{folder}/", "--force", "--quiet",
            "--count", str(options.count), "--best-of", str(options.best_of),
        ]  # fmt: skip
        rounds = [
            (run([python, "-c", "import torch"]), run(command)) for _ in range(options.runs + 1)
        ][1:]  # interleaved, so that load hits both alike; the first warms the disk
    floor, took = (statistics.median(round_[side][0] for round_ in rounds) for side in (0, 1))
    floor_peak, peak = (max(round_[side][1] for round_ in rounds) for side in (0, 1))
    budget = BUDGET_RATIO * floor + BUDGET_S
    print(f"{'import torch':<16}{floor:7.2f} s  {floor_peak:7.0f} MB")
    print(f"{'s2v gen':<16}{took:7.2f} s  {peak:7.0f} MB")
    print(f"ratio {took / floor:.2f}; budget {budget:.2f} s: {took / budget:.0%} used")


if __name__ == "__main__":
    main()
