"""The published front end against scipy: seconds for 64 clips of ten seconds, interleaved.

Run: python benchmarks/spectrogram.py [rounds [threads]]

`log_spectrogram` is the whole front end. Against it stand `scipy.signal.spectrogram` alone, on
the batch in float32 and in float64 (as the published code computes it), and the whole front end
made with it. scipy always uses one thread, s2v all cores unless told otherwise. Medians over the
rounds are compared.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.signal import spectrogram

from s2v_cli.audio.spectrogram import (
    EPSILON,
    FLOOR,
    N_FFT,
    N_SAMPLES,
    OVERLAP,
    SAMPLE_RATE,
    TUKEY,
    log_spectrogram,
)

CLIPS = 64
TARGET = 3.0


def scipy_spectrogram(wave: np.ndarray) -> np.ndarray:
    return np.asarray(
        spectrogram(wave, SAMPLE_RATE, ("tukey", TUKEY), nperseg=N_FFT, noverlap=OVERLAP)[2]
    )


def scipy_front_end(wave: np.ndarray) -> np.ndarray:
    logarithm = np.log(scipy_spectrogram(wave.clip(-1, 1)) + FLOOR)
    mean = logarithm.mean(axis=(1, 2), keepdims=True)
    return np.asarray((logarithm - mean) / (logarithm.std((1, 2), keepdims=True) + EPSILON))


def main(rounds: int = 9, threads: int = 0) -> None:
    torch.set_num_threads(threads or torch.get_num_threads())
    wave = np.random.default_rng(0).normal(0, 0.1, (CLIPS, N_SAMPLES)).astype(np.float32)
    double = wave.astype(np.float64)
    tensor = torch.from_numpy(wave)
    difference = np.abs(scipy_front_end(wave[:2]) - log_spectrogram(tensor[:2]).numpy()).max()
    contestants: dict[str, Callable[[], Any]] = {
        "s2v": lambda: log_spectrogram(tensor),
        "scipy float32": lambda: scipy_spectrogram(wave),
        "scipy float64": lambda: scipy_spectrogram(double),
        "scipy, whole front end": lambda: scipy_front_end(double),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(
        f"{CLIPS} clips, {rounds} rounds, {torch.get_num_threads()} threads, "
        f"largest difference {difference:.1e}"
    )
    for name, median in medians.items():
        print(
            f"{name:24s}{median:8.3f} s (best {min(seconds[name]):.3f} s)"
            f"   ratio to s2v {median / medians['s2v']:5.2f}"
        )
    print(f"target: scipy at least {TARGET:g} times s2v")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
