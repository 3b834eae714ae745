"""What the sound encoder hears in training: mixtures, filters, and sounds at other speeds."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from s2v_cli.training import sound_stage
from s2v_cli.training.dataset import Clip
from s2v_cli.training.latents import CropTable
from s2v_cli.training.recipe import StageOptions
from s2v_cli.training.sound_stage import LEVELS, SAMPLES, SoundStage, level_of

RATE = 16_000
TONES = {"rain": 400.0, "fire": 1000.0, "sea": 2500.0, "clock": 6000.0}  # Hz; clock has no photo


@pytest.fixture
def stage() -> SoundStage:
    """A stage whose sounds are one pure tone a class, at different levels."""
    clips, waves = [], []
    for number, (name, hertz) in enumerate(TONES.items()):
        photo = None if name == "clock" else name
        for take in range(2):
            clips.append(Clip(name, photo, Path(f"{name}-{take}"), f"{name}-{take}", "train"))
            time = torch.arange(RATE * (1 + 6 * take)) / RATE
            waves.append(0.1 * (1 + number) * torch.sin(2 * math.pi * hertz * time))
    names = ["fire", "rain", "sea"]
    group = torch.arange(3).repeat_interleave(4)
    table = CropTable(
        latent=torch.zeros(12, 16, 8, 8),
        embedding=torch.eye(3, 256)[group],
        zoom=torch.linspace(1, 2, 4).repeat(3),
        group=group,
        first=torch.tensor([0, 4, 8]),
        count=torch.tensor([4, 4, 4]),
        names=names,
    )
    return SoundStage(clips, waves, table, StageOptions(steps=1, batch=6, learning_rate=1e-3))


def tone_powers(sounds: torch.Tensor) -> torch.Tensor:
    """Power of each class's tone in sounds [B, T], as a share of all, [B, 4]."""
    time = torch.arange(sounds.shape[1]) / RATE
    rows = []
    for hertz in TONES.values():
        angle = 2 * math.pi * hertz * time
        rows.append((sounds @ angle.cos()).square() + (sounds @ angle.sin()).square())
    powers = torch.stack(rows, dim=1)
    return powers / powers.sum(dim=1, keepdim=True)


def test_windows_have_unit_power_and_one_length(stage: SoundStage) -> None:
    generator = torch.Generator().manual_seed(0)
    windows = torch.stack([stage._window(name, generator) for name in TONES for _ in range(5)])
    assert windows.shape == (20, SAMPLES)
    assert level_of(windows).abs().max() < 0.01


def test_windows_are_played_faster_and_slower_within_the_range(stage: SoundStage) -> None:
    generator = torch.Generator().manual_seed(0)
    pitches = []
    for _ in range(40):
        spectrum = torch.fft.rfft(stage._window("fire", generator)).abs()
        pitches.append(math.log2(float(spectrum.argmax()) / sound_stage.HEARD_S / TONES["fire"]))
    assert min(pitches) < -0.15 and max(pitches) > 0.15
    assert max(map(abs, pitches)) < sound_stage.RATE_OCTAVES + 0.01


def test_shares_say_what_a_mixture_holds(
    stage: SoundStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sound_stage, "RATE_OCTAVES", 0.0)
    monkeypatch.setattr(sound_stage, "BACKED", 0.0)
    monkeypatch.setattr(sound_stage, "MIXED", 1.0)
    pairs = stage.pairs * LEVELS
    sounds, shares = stage._sounds(pairs, ["clock"], torch.Generator().manual_seed(1))
    assert sounds.shape == (len(pairs) + 1, SAMPLES)
    assert torch.allclose(shares.sum(dim=1), torch.ones(len(pairs)))
    assert float(shares.diagonal().min()) >= 0.5
    of_class = torch.stack(
        [
            sum((shares[:, j] for j, own in enumerate(pairs) if own == name), torch.zeros(6))
            for name in TONES
        ],
        dim=1,
    )
    assert torch.allclose(tone_powers(sounds[:6]), of_class, atol=0.01)
    half = len(pairs) // LEVELS  # a loud sound is never mixed with a soft one
    assert not shares[:half, half:].any() and not shares[half:, :half].any()
    assert int((shares > 0).sum()) > len(pairs)


def test_a_sound_behind_another_is_softer_within_the_range(
    stage: SoundStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sound_stage, "RATE_OCTAVES", 0.0)
    monkeypatch.setattr(sound_stage, "BACKED", 1.0)
    monkeypatch.setattr(sound_stage, "MIXED", 0.0)
    pairs = stage.pairs * LEVELS
    sounds, shares = stage._sounds(pairs, ["clock"] * 2, torch.Generator().manual_seed(2))
    assert torch.equal(shares, torch.eye(len(pairs)))
    powers = tone_powers(sounds).sort(dim=1, descending=True).values
    decibel = 10 * (powers[:, 1] / powers[:, 0]).clamp_min(1e-9).log10()
    audible = decibel > -60  # the others have a sound of their own class behind them
    quietest, loudest = sound_stage.BACK_DB
    assert int(audible.sum()) >= 3
    assert float(decibel[audible].min()) > quietest - 0.5
    assert float(decibel[audible].max()) < loudest + 0.5


def test_filters_change_the_colour_and_keep_the_mean() -> None:
    spectrogram = torch.randn(3, 1, 64, 20, generator=torch.Generator().manual_seed(0))
    changed = sound_stage.filter_bands(spectrogram, torch.Generator().manual_seed(1))
    curve = changed - spectrogram
    assert torch.allclose(curve, curve[..., :1].expand_as(curve), atol=1e-5)
    assert curve.mean(dim=2).abs().max() < 1e-5
    assert not torch.allclose(curve[0], curve[1], atol=0.05)
    assert (curve[:, :, 1:] - curve[:, :, :-1]).abs().max() < 0.2  # smooth


def test_masks_blank_bands_of_rows_and_frames() -> None:
    spectrogram = torch.randn(8, 1, 64, 200, generator=torch.Generator().manual_seed(0))
    masked = sound_stage.mask(spectrogram, torch.Generator().manual_seed(1))
    blank = masked == spectrogram.mean(dim=(1, 2, 3), keepdim=True)
    assert torch.equal(masked[~blank], spectrogram[~blank])
    rows, frames = blank.all(dim=3).sum(dim=2), blank.all(dim=2).sum(dim=2)
    assert 0 < int(rows.max()) <= 24 and 0 < int(frames.max()) <= 60
