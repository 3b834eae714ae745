"""Kaldi's log-mel filter bank, as two of the published models hear sound.

It is torchaudio's `compliance.kaldi.fbank`, which the published code of ImageBind and of
WeSpeaker calls; this file only names the settings that both share: frames of 25 ms every 10 ms
without padding at the ends, the mean of each frame removed, pre-emphasis 0.97, power spectrum of
512 points, triangular mel filters from 20 Hz to Nyquist, natural logarithm floored at the
smallest float32 step (so silence is -15.9, not minus infinity), no energy column, no dither.
"""

from __future__ import annotations

import importlib
from typing import Literal

import torch
from torch import Tensor

from s2v_cli._torchaudio import import_torchaudio
from s2v_cli.errors import SoundError

SAMPLE_RATE = 16_000  # Hz
FRAME = 400  # samples: 25 ms
HOP = 160  # samples: 10 ms

KaldiWindow = Literal["hamming", "hanning", "povey"]


def frame_count(samples: int) -> int:
    """How many frames fit wholly into a wave of so many samples."""
    return max(0, 1 + (samples - FRAME) // HOP)


def kaldi_log_mel(wave: Tensor, bands: int, window: KaldiWindow) -> Tensor:
    """Log-mel filter bank of wave float [B, T] at 16 kHz: float32 [B, frames, bands].

    Nothing is normalised: a wave at int16 scale gives values 20.8 above those of one in [-1, 1].

    Args:
        wave: T >= 400, that is 25 ms.
        bands: mel bands, 4 or more.
        window: over each frame; `povey` is Kaldi's own, a Hann window to the power of 0.85.

    Returns:
        On the wave's device, frames = 1 + (T - 400) // 160.

    Raises:
        SoundError: the wave is shorter than one frame.
        DependencyError: torchaudio is missing or does not fit the installed torch.
    """
    require_frame(wave)
    import_torchaudio()
    fbank = importlib.import_module("torchaudio.compliance.kaldi").fbank
    rows = [
        fbank(
            row[None],
            dither=0.0,
            frame_length=1000 * FRAME / SAMPLE_RATE,
            frame_shift=1000 * HOP / SAMPLE_RATE,
            num_mel_bins=bands,
            preemphasis_coefficient=0.97,
            sample_frequency=SAMPLE_RATE,
            use_energy=False,
            window_type=window,
        )
        for row in wave.float()
    ]
    return torch.stack(rows)


def require_frame(wave: Tensor) -> None:
    """Refuse a wave [B, T] at 16 kHz that is shorter than one frame.

    Raises:
        SoundError: it is.
    """
    if wave.shape[-1] < FRAME:
        raise SoundError(
            f"The sound is {1000 * wave.shape[-1] / SAMPLE_RATE:.3g} ms long; this model hears "
            f"frames of {1000 * FRAME // SAMPLE_RATE} ms. Give a longer sound."
        )
