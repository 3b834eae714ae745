"""The bundled model's front end: log-mel spectrogram on an absolute scale.

Nothing here is normalised by the clip, so that the clip's level stays in the result (§5.1).
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

SAMPLE_RATE = 16_000  # Hz
FFT_SIZE = 512  # samples: 32 ms
HOP = 256  # samples: 16 ms
MEL_BANDS = 64
LOWEST_HZ, HIGHEST_HZ = 50.0, 8000.0
FLOOR = 1e-9  # power; 16-bit rounding noise lies near it
CENTRE_DB, SPREAD_DB = -45.0, 25.0  # rough mean and deviation of band powers of real clips


def mel_edges(bands: int, low: float, high: float) -> Tensor:
    """Where filters begin, peak and end on the HTK mel scale: hertz, float64 [bands + 2].

    Filter i reaches from edge i to edge i + 2.
    """

    def to_mel(hertz: float) -> float:
        return 2595 * math.log10(1 + hertz / 700)

    mel = torch.linspace(to_mel(low), to_mel(high), bands + 2, dtype=torch.float64)
    return 700 * (10 ** (mel / 2595) - 1)


def mel_filters(bands: int, fft_size: int, sample_rate: int, low: float, high: float) -> Tensor:
    """Triangular filters on the HTK mel scale, unit peak, [fft_size / 2 + 1, bands]."""
    edges = mel_edges(bands, low, high)
    bins = torch.linspace(0, sample_rate / 2, fft_size // 2 + 1, dtype=torch.float64)
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp_min(0).float()


@lru_cache(maxsize=4)
def _tables(device: str) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):  # kept for callers that want gradients, too
        window = torch.hann_window(FFT_SIZE)
        filters = mel_filters(MEL_BANDS, FFT_SIZE, SAMPLE_RATE, LOWEST_HZ, HIGHEST_HZ)
        return window.to(device), filters.to(device)


def log_mel(wave: Tensor, samples: int) -> Tensor:
    """Log-mel spectrogram of wave float [B, T] at 16 kHz: [B, 1, 64, samples / 256 + 1].

    The wave is clipped to [-1, 1] and repeated or cut to `samples`. Values are band powers in dB
    (a full-scale sine gives about -6), centred and scaled by constants; the level survives.
    """
    wave = wave.float().clamp(-1, 1)
    if wave.shape[1] < samples:
        wave = wave.repeat(1, -(-samples // wave.shape[1]))
    wave = wave[:, :samples]
    window, filters = _tables(str(wave.device))
    spectrum = torch.stft(
        wave, FFT_SIZE, HOP, window=window, center=True, pad_mode="reflect", return_complex=True
    )
    power = spectrum.abs().square() / window.sum() ** 2  # [B, 257, frames]
    mel = power.transpose(1, 2) @ filters
    decibel = 10 * (mel + FLOOR).log10()
    return ((decibel - CENTRE_DB) / SPREAD_DB).transpose(1, 2)[:, None]
