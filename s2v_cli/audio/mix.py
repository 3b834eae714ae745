"""Level and length of sounds, and their sum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Wave = npt.NDArray[np.float32]


def apply_gain(wave: Wave, gain_db: float) -> Wave:
    """Scale a wave by a gain in dB (§5.1); nothing is clipped.

    Args:
        wave: float32 of any shape.
        gain_db: 6.02 dB doubles the amplitude, 0 dB returns the wave itself.

    Returns:
        float32 of the same shape.
    """
    if gain_db == 0:
        return wave
    scaled = np.multiply(wave, 10.0 ** (gain_db / 20.0), dtype=np.float64)
    return np.asarray(scaled, np.float32)


def tile(wave: Wave, length: int) -> Wave:
    """Repeat a wave [T] and cut it to `length` samples, as the published front end does.

    Args:
        wave: float32 [T], T >= 1.
        length: number of samples to return, >= 0.

    Returns:
        float32 [length].

    Raises:
        ValueError: the wave has no samples or more than one dimension, or length is negative.
    """
    if wave.ndim != 1 or not wave.size:
        raise ValueError(f"wave has shape {list(wave.shape)}; allowed: [T] with T >= 1.")
    if length < 0:
        raise ValueError(f"length is {length}; allowed: 0 or more samples.")
    return np.resize(wave, length)


def sum_waves(waves: Wave, gains: Sequence[float]) -> Wave:
    """Sum waves [K, ...] with linear gains (§5.1, Fig. 9-10); nothing is clipped.

    Args:
        waves: float32 [K, ...], at one sample rate.
        gains: K factors; a wave of gain 0 is left out.

    Returns:
        float32 [...]; the sum is taken in float64. A single wave of gain 1 comes back as it is.

    Raises:
        ValueError: another number of gains than of waves.
    """
    if len(waves) != len(gains):
        raise ValueError(f"{len(gains)} gains for {len(waves)} waves; needed: one for each.")
    total = np.zeros(waves.shape[1:])
    for wave, gain in zip(waves, gains, strict=True):
        if gain:
            total += np.multiply(wave, gain, dtype=np.float64)
    with np.errstate(over="ignore"):
        return np.asarray(total, np.float32)
