"""The published front end, against the numbers of the published code and against scipy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import spectrogram

from s2v_cli.audio.spectrogram import log_spectrogram

REFERENCE = Path(__file__).parent.parent / "fixtures" / "reference"


@pytest.fixture(scope="module")
def probe() -> torch.Tensor:
    wave, rate = soundfile.read(REFERENCE / "probe.wav", dtype="float32")
    assert rate == 16_000
    return torch.from_numpy(wave)[None]


@pytest.mark.parametrize(
    ("name", "samples"), [("spectrogram_10s", 160_000), ("spectrogram_3s_tiled", 48_000)]
)
def test_equals_the_published_code(probe: torch.Tensor, name: str, samples: int) -> None:
    result = log_spectrogram(probe[:, :samples])[0].numpy()
    with np.load(REFERENCE / "spectrograms.npz") as reference:
        assert np.abs(result[:, ::8] - reference[f"{name}_every_8th"]).max() < 1e-4
        assert np.abs(result.mean(axis=1) - reference[f"{name}_row_means"]).max() < 1e-4
        assert np.abs(result.mean(axis=0) - reference[f"{name}_column_means"]).max() < 1e-4


def test_equals_scipy_for_a_loud_offset_batch() -> None:
    # Above 1 it clips; the offset shows whether the mean of each frame is removed.
    wave = np.random.default_rng(1).normal(0.4, 0.6, (2, 160_000)).astype(np.float32)
    density = spectrogram(
        wave.astype(np.float64).clip(-1, 1), 16_000, ("tukey", 0.25), nperseg=512, noverlap=353
    )[2]
    logarithm = np.log(density + 1e-7)
    mean = logarithm.mean(axis=(1, 2), keepdims=True)
    expected = (logarithm - mean) / (logarithm.std(axis=(1, 2), keepdims=True) + 1e-9)
    assert np.abs(log_spectrogram(torch.from_numpy(wave)).numpy() - expected).max() < 1e-4


def test_a_clip_does_not_depend_on_its_batch(probe: torch.Tensor) -> None:
    other = probe.flip(1) * 0.1
    both = log_spectrogram(torch.cat([probe, other]))
    assert torch.equal(both[0], log_spectrogram(probe)[0])
    assert torch.equal(both[1], log_spectrogram(other)[0])


def test_shape_and_standardisation() -> None:
    result = log_spectrogram(torch.randn(3, 12_345, generator=torch.Generator().manual_seed(0)))
    assert result.shape == (3, 257, 1004) and result.dtype == torch.float32
    assert result.mean(dim=(1, 2)).abs().max() < 1e-4
    assert (result.std(dim=(1, 2)) - 1).abs().max() < 1e-4


def test_only_the_first_ten_seconds_are_heard(probe: torch.Tensor) -> None:
    longer = torch.cat([probe, torch.ones(1, 5_000)], dim=1)
    assert torch.equal(log_spectrogram(longer), log_spectrogram(probe))


def test_volume_acts_through_the_floor(probe: torch.Tensor) -> None:
    quiet = log_spectrogram(probe * 0.1)
    assert (quiet - log_spectrogram(probe)).abs().max() > 0.1


def test_silence_is_all_zeros() -> None:
    assert not log_spectrogram(torch.zeros(1, 16_000)).any()


def test_the_wave_is_not_changed() -> None:
    wave = torch.full((1, 160_000), 2.0)
    log_spectrogram(wave)
    assert torch.equal(wave, torch.full((1, 160_000), 2.0))


@pytest.mark.parametrize("shape", [(160_000,), (1, 0), (1, 1, 5)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        log_spectrogram(torch.zeros(shape))


@pytest.mark.parametrize("samples", [512, 16_000, 80_000, 200_000])
def test_other_lengths_are_those_of_scipy(probe: torch.Tensor, samples: int) -> None:
    result = log_spectrogram(probe, samples)
    wave = np.tile(probe.double().numpy(), 2)[:, :samples]
    density = spectrogram(wave, 16_000, ("tukey", 0.25), nperseg=512, noverlap=353)[2]
    logarithm = np.log(density + 1e-7)
    expected = (logarithm - logarithm.mean()) / (logarithm.std() + 1e-9)
    assert np.abs(result.numpy() - expected).max() < 1e-4


def test_less_than_a_frame_is_refused(probe: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="samples is 511; allowed: 512"):
        log_spectrogram(probe, 511)
