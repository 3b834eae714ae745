"""Whether a voice is told from noise, on made sounds and on real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from s2v_cli.audio.voice import VOICED_ENOUGH, voiced_share

ROOT = Path(__file__).parents[2]
VOICE = ROOT / "tests" / "fixtures" / "audio" / "voice.ogg"  # 4.6 s of a woman reading
RATE = 16_000


def read(path: Path) -> np.ndarray:
    wave, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE
    return np.asarray(wave)


def glide(low: float, high: float, *, seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    """A buzz whose pitch goes from low to high Hz: harmonics up to 3 kHz, falling by 1/n."""
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * (low * time + (high - low) * time**2 / (2 * seconds))
    harmonics = range(1, int(3000 / high))
    wave = sum(np.sin(n * phase) / n for n in harmonics)
    return (0.1 * np.asarray(wave)).astype(np.float32)


def noise(seconds: float = 2.0, slope: float = 0.0) -> np.ndarray:
    """Noise whose power falls with frequency to the power of `slope`: 0 white, 2 rumbling."""
    rng = np.random.default_rng(4)
    spectrum = np.fft.rfft(rng.standard_normal(round(seconds * RATE)))
    spectrum /= np.maximum(np.fft.rfftfreq(round(seconds * RATE), 1 / RATE), 20.0) ** (slope / 2)
    wave = np.fft.irfft(spectrum)
    return (0.1 * wave / wave.std()).astype(np.float32)


@pytest.mark.parametrize(("low", "high"), [(90, 130), (180, 260), (420, 300)])
def test_a_gliding_buzz_is_voiced(low: float, high: float) -> None:
    assert voiced_share(glide(low, high)) > 0.95


@pytest.mark.parametrize(("low", "high"), [(600, 900), (1000, 1500), (40, 55)])
def test_a_tone_outside_the_pitch_range_is_not(low: float, high: float) -> None:
    assert voiced_share(glide(low, high)) < 0.05


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_noise_is_not(slope: float) -> None:
    assert voiced_share(noise(slope=slope)) < 0.05


def test_clicks_are_not() -> None:
    wave = np.zeros(2 * RATE, dtype=np.float32)
    wave[::8000] = 0.9
    assert voiced_share(wave) < 0.02


@pytest.mark.parametrize("samples", [0, 1, 639, 640, 32_000])
def test_silence_and_scraps_have_no_voice(samples: int) -> None:
    assert voiced_share(np.zeros(samples, dtype=np.float32)) == 0.0
    assert voiced_share(np.full(samples, 0.5, dtype=np.float32)) == 0.0


def test_the_share_is_that_of_the_time() -> None:
    both = np.concatenate([glide(110, 160, seconds=1.0), noise(3.0) * 0.3])
    assert voiced_share(both) == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_other_rates_hear_the_same(rate: int) -> None:
    assert voiced_share(glide(110, 160, rate=rate), rate) > 0.95


def test_a_real_voice_has_enough_at_any_volume_and_in_noise() -> None:
    wave = read(VOICE)
    share = voiced_share(wave)
    assert share > 2 * VOICED_ENOUGH
    assert voiced_share(wave * 0.05) == pytest.approx(share, abs=0.02)
    level = float(np.sqrt((wave**2).mean()))
    hiss = noise(len(wave) / RATE)[: len(wave)] * (10 * level * 10 ** (-15 / 20))
    assert voiced_share(wave[: len(hiss)] + hiss) > VOICED_ENOUGH


@pytest.mark.parametrize("name", ["rain.wav", "sea.ogg", "fire.flac", "thunder.mp3"])
def test_real_noises_have_not(name: str) -> None:
    assert voiced_share(read(ROOT / "examples" / name)) < VOICED_ENOUGH


def test_long_sounds_are_taken_in_parts_without_a_seam() -> None:
    wave = np.tile(glide(110, 160, seconds=1.0), 15)
    assert voiced_share(wave) > 0.9
