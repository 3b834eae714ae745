"""The published front end of Sound2Scene and Sound2Vision: log power spectral density.

Volume acts only through the floor of 1e-7 and the clipping, as each clip is standardised
afterwards: so nothing before may normalise the level.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

SAMPLE_RATE = 16_000
DURATION_S = 10
N_SAMPLES = DURATION_S * SAMPLE_RATE  # 160000
N_FFT = 512
OVERLAP = 353
HOP = N_FFT - OVERLAP  # 159
N_FREQUENCIES = N_FFT // 2 + 1  # 257
N_FRAMES = (N_SAMPLES - OVERLAP) // HOP  # 1004
TUKEY = 0.25  # share of the window that is tapered
FLOOR = 1e-7  # added to the power spectral density before the logarithm
EPSILON = 1e-9  # added to the standard deviation


@torch.no_grad()
def log_spectrogram(wave: Tensor, samples: int = N_SAMPLES) -> Tensor:
    """Standardised log power spectral density of clips.

    Clip to [-1, 1], repeat to `samples`, one-sided density with a Tukey window and the mean of
    each frame removed, natural logarithm, minus the clip's mean over its standard deviation.

    On a CPU one clip is worked on at a time, in buffers that stay in the caches: a batch at once
    takes several times as long. No gradient flows back to the wave.

    Args:
        wave: float32 [B, T], 16 kHz, T >= 1; repeated and cut to `samples`.
        samples: that are heard, at least 512; ten seconds as published.

    Returns:
        float32 [B, 257, (samples - 353) // 159]: frequency, time, 1004 frames for ten seconds; a
        transposed view.

    Raises:
        ValueError: the shape is not [B, T] with T >= 1, or `samples` makes no frame.
    """
    if wave.ndim != 2 or not wave.shape[1]:
        raise ValueError(f"wave has shape {list(wave.shape)}; allowed: [B, T] with T >= 1.")
    if samples < N_FFT:
        raise ValueError(f"samples is {samples}; allowed: {N_FFT} or more, which is one frame.")
    count = (samples - OVERLAP) // HOP
    batch = 1 if wave.device.type == "cpu" else max(1, len(wave))
    empty = functools.partial(torch.empty, dtype=torch.float32, device=wave.device)
    result = empty(len(wave), count, N_FREQUENCIES)
    frames = empty(batch, count, N_FFT)
    density = empty(batch, count, N_FREQUENCIES)
    window = _window().to(wave.device)
    for clips, target in zip(wave.split(batch), result.split(batch), strict=True):
        overlapping = _tiled(clips.float().clamp(-1.0, 1.0), samples).unfold(1, N_FFT, HOP)
        torch.sub(overlapping, overlapping.mean(dim=2, keepdim=True), out=frames).mul_(window)
        powers = torch.view_as_real(torch.fft.rfft(frames)).square_()  # [B, frames, 257, 2]
        torch.add(powers[..., 0], powers[..., 1], out=density)
        density[..., 0] *= 0.5  # these two have no twin among the negative frequencies
        density[..., -1] *= 0.5
        logarithm = density.add_(FLOOR).log_()
        logarithm -= logarithm.mean((1, 2), keepdim=True, dtype=_exact(wave.device)).float()
        deviation = torch.linalg.vector_norm(logarithm, dim=(1, 2), keepdim=True)
        deviation /= math.sqrt(count * N_FREQUENCIES)
        torch.div(logarithm, deviation + EPSILON, out=target)
    return result.mT


def _exact(device: torch.device) -> torch.dtype:
    """For the mean: in float64 that of silence is exact, which gives zeros, not rounding noise."""
    return torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64


def _tiled(clips: Tensor, samples: int) -> Tensor:
    """Repeat clips [B, T] and cut them to [B, samples]."""
    repeats = -(-samples // clips.shape[1])
    return (clips.repeat(1, repeats) if repeats > 1 else clips)[:, :samples]


@functools.cache
def _window() -> Tensor:
    """Periodic Tukey window: float32 [512], scaled so that powers are one-sided densities.

    A power becomes a density by 2 / (sample rate x energy of the window).
    """
    position = torch.arange(N_FFT, dtype=torch.float64) / N_FFT
    edge = torch.minimum(position, 1 - position) / (TUKEY / 2)  # 0 at the ends, 1 where flat
    window = 0.5 - 0.5 * torch.cos(math.pi * edge.clamp(max=1.0))
    return (window * torch.sqrt(2 / (SAMPLE_RATE * window.square().sum()))).float()
