"""One picture from the bundled generator: milliseconds, beside one 128 px convolution as a floor.

    python benchmarks/generator.py [--runs 30] [--threads 2]

The budget is 40 ms a picture on two cores. The ratio is to 1 GFLOP of 3x3 convolution on the same
machine and threads, so that it can be compared between machines.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from s2v_cli import Sound2Vision

BUDGET_MS = 40.0


def milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = Sound2Vision.load("mini", device="cpu")
    noise = model.noise(0)
    embedding = torch.nn.functional.normalize(model.noise(1)[:, : model.space.dimension])
    image, weight = torch.randn(1, 66, 84, 84), torch.randn(66, 66, 3, 3)  # 0.55 GMAC
    drawn, floor = [], []
    with torch.inference_mode():
        for _ in range(given.runs + 3):
            drawn.append(milliseconds(lambda: model.generator(noise, embedding)))
            floor.append(milliseconds(lambda: F.conv2d(image, weight, padding=1)))
    picture, convolution = statistics.median(drawn[3:]), statistics.median(floor[3:])
    print(f"one picture      {picture:7.1f} ms   (budget {BUDGET_MS:.0f} ms on two cores)")
    print(f"1 GFLOP of conv  {convolution * 0.91:7.1f} ms")
    print(f"ratio            {picture / (convolution * 0.91):7.1f}")


if __name__ == "__main__":
    main()
