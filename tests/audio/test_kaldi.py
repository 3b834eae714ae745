"""The Kaldi filter bank: against its definition, written here with numpy, and at its edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from s2v_cli.audio.kaldi import KaldiWindow, frame_count, kaldi_log_mel
from s2v_cli.errors import SoundError

POSITION = np.arange(400) / 399
WINDOWS = {
    "hanning": 0.5 - 0.5 * np.cos(2 * np.pi * POSITION),
    "hamming": 0.54 - 0.46 * np.cos(2 * np.pi * POSITION),
    "povey": (0.5 - 0.5 * np.cos(2 * np.pi * POSITION)) ** 0.85,
}


def by_definition(wave: np.ndarray, bands: int, window: str) -> np.ndarray:
    frames = np.lib.stride_tricks.sliding_window_view(wave.astype(np.float64), 400)[::160]
    frames = frames - frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    power = np.abs(np.fft.rfft((frames - 0.97 * before) * WINDOWS[window], 512)) ** 2
    mel = 1127 * np.log(1 + np.fft.rfftfreq(512, 1 / 16_000) / 700)
    edges = np.linspace(1127 * np.log(1 + 20 / 700), mel[-1], bands + 2)
    rising = (mel[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mel[:, None]) / (edges[2:] - edges[1:-1])
    filters = np.minimum(rising, falling).clip(min=0)
    filters[-1] = 0  # Kaldi leaves the bin of the Nyquist frequency out
    return np.log(np.maximum(power @ filters, np.finfo(np.float32).eps))


@pytest.mark.parametrize(("bands", "window"), [(128, "hanning"), (80, "povey"), (80, "hamming")])
def test_equals_the_definition(bands: int, window: KaldiWindow) -> None:
    wave = np.random.default_rng(3).normal(0.1, 0.2, (2, 3333)).astype(np.float32)
    result = kaldi_log_mel(torch.from_numpy(wave), bands, window)
    assert result.shape == (2, frame_count(3333), bands) == (2, 19, bands)
    assert result.dtype == torch.float32
    expected = np.stack([by_definition(row, bands, window) for row in wave])
    assert np.abs(result.numpy() - expected).max() < 2e-3
    assert np.abs(result.numpy() - expected).mean() < 1e-5


def test_silence_is_the_floor() -> None:
    result = kaldi_log_mel(torch.zeros(1, 800), 80, "povey")
    assert torch.equal(result, torch.full_like(result, np.log(np.finfo(np.float32).eps)))


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2)])
def test_only_whole_frames_count(samples: int, frames: int) -> None:
    assert frame_count(samples) == frames
    if frames:
        assert kaldi_log_mel(torch.ones(1, samples), 80, "povey").shape[1] == frames
    else:
        with pytest.raises(SoundError, match=r"ms long; this model hears frames of 25 ms"):
            kaldi_log_mel(torch.ones(1, samples), 80, "povey")


def test_the_default_torch_dtype_and_the_random_state_do_not_matter() -> None:
    wave = torch.linspace(-1, 1, 1000)[None] ** 3
    before = torch.random.get_rng_state()
    first = kaldi_log_mel(wave, 80, "povey")
    assert torch.equal(torch.random.get_rng_state(), before)  # no dither
    assert torch.equal(first, kaldi_log_mel(wave.double(), 80, "povey"))
