"""Mixing files: exact sums, lengths, offsets, the window, clipping, and what it costs."""

from __future__ import annotations

import io
import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from s2v_cli.audio.mix import sum_waves
from s2v_cli.audio.mixdown import Mixdown, encode_sound_file, mix_sounds
from s2v_cli.audio.read import read_sound
from s2v_cli.audio.tracks import MixOptions, Track, parse_track, sweep_weights
from s2v_cli.errors import OptionError, SoundError
from s2v_cli.options import SoundOptions

RATE = 16_000


def write(name: str, wave: np.ndarray, rate: int = RATE) -> None:
    soundfile.write(name, wave, rate, subtype="FLOAT")


def noise(seconds: float, seed: int = 0, level: float = 0.1) -> np.ndarray:
    samples = np.random.default_rng(seed).normal(size=round(seconds * RATE))
    return np.asarray(level * samples, np.float32)


def mix(*tracks: str, window_s: float = 5.0, **settings: Any) -> Mixdown:
    return mix_sounds(
        [parse_track(track) for track in tracks], sample_rate=RATE, window_s=window_s, **settings
    )


def heard(*tracks: str, **settings: Any) -> np.ndarray:
    (sound,) = mix(*tracks, **settings).sounds
    return sound.windows


def test_a_sum_of_waveforms(folder: Path) -> None:
    a, b = noise(2, 1), noise(2, 2)
    write("a.wav", a)
    write("b.wav", b)
    expected = 0.7 * a.astype(np.float64) + 10 ** (-6 / 20) * b.astype(np.float64)
    got = heard("a.wav:0.7", "b.wav:-6dB")
    assert got.dtype == np.float32
    assert np.array_equal(got, expected.astype(np.float32)[None])
    louder = heard("a.wav:0.7", "b.wav:-6dB", options=SoundOptions(gain_db=6.0))
    assert np.allclose(louder, 10**0.3 * got, atol=1e-6)


def test_a_track_of_gain_zero_is_left_out(folder: Path) -> None:
    """Exactly what `gen` hears of the other, at every length, even if the left out is longer."""
    for seconds in (0.7, 3, 12):
        write("a.wav", noise(seconds, 1) * np.linspace(0, 1, round(seconds * RATE)))
        write("b.wav", noise(20, 2))
        alone = read_sound("a.wav", sample_rate=RATE, window_s=5.0)
        mixed = mix("a.wav:1", "b.wav:0")
        assert np.array_equal(mixed.sounds[0].windows, alone.windows)
        assert mixed.sounds[0].segments == alone.segments
        assert mixed.sounds[0].sha256 == mixed.sha256[0] == alone.sha256
        assert [track.source for track in mixed.tracks] == ["a.wav"]


def test_a_lone_track_has_its_gain(folder: Path) -> None:
    a = noise(2)
    write("a.wav", a)
    assert np.array_equal(heard("a.wav:0.5"), 0.5 * a[None])


def test_short_tracks_repeat_or_are_padded(folder: Path) -> None:
    a, b = noise(3, 1), noise(1.25, 2)
    write("a.wav", a)
    write("b.wav", b)
    assert np.array_equal(heard("a.wav", "b.wav"), (a + np.resize(b, len(a)))[None])
    padded = a.copy()
    padded[: len(b)] += b
    assert np.array_equal(heard("a.wav", "b.wav", mixing=MixOptions(pad=True)), padded[None])


def test_offsets(folder: Path) -> None:
    a, b = noise(3, 1), noise(1, 2)
    write("a.wav", a)
    write("b.wav", b)
    expected = a.copy()
    expected[40_000:] += b[:8000]
    assert np.array_equal(
        heard("a.wav", "b.wav:1@2.5s"), np.append(expected, a[:8000] + b[8000:])[None]
    )
    late = heard("b.wav:1@2s", "a.wav:0")
    assert not late[0, :32_000].any()
    assert np.array_equal(late[0, 32_000:], b)


def test_rates_and_channels(folder: Path) -> None:
    """Each track is what `read_sound` makes of it."""
    time = np.arange(44_100) / 44_100
    stereo = np.stack([np.sin(2 * np.pi * 440 * time), np.zeros(44_100)], axis=1) * 0.4
    write("a.wav", stereo, 44_100)
    write("b.wav", noise(0.5)[:4000], 8000)
    one = read_sound("a.wav", sample_rate=RATE, window_s=5.0).windows[0]
    two = read_sound("b.wav", sample_rate=RATE, window_s=5.0).windows[0]
    assert np.array_equal(heard("a.wav", "b.wav"), (one + np.resize(two, len(one)))[None])


def test_one_window_for_all_weights(folder: Path) -> None:
    """It is the loudest of the equal mix, though each sound alone is loudest elsewhere."""
    a, b = noise(20, 1, 0.02), noise(20, 2, 0.02)
    a[2 * RATE : 4 * RATE] *= 5
    b[12 * RATE : 14 * RATE] *= 6
    write("a.wav", a)
    write("b.wav", b)
    sweep = mix("a.wav", "b.wav", sweep=sweep_weights(5), window_s=2.0)
    assert {sound.segments for sound in sweep.sounds} == {((12.0, 2.0),)}
    for (one, other), sound in zip(sweep_weights(5), sweep.sounds, strict=True):
        cut = slice(12 * RATE, 14 * RATE)
        assert np.allclose(sound.windows[0], one * a[cut] + other * b[cut], atol=1e-7)
    for weights in (("a.wav:0.9", "b.wav:0.1"), ("a.wav:-20dB", "b.wav")):
        assert mix(*weights, window_s=2.0).sounds[0].segments == ((12.0, 2.0),)
    assert mix("a.wav", "b.wav:0", window_s=2.0).sounds[0].segments == ((2.0, 2.0),)


def test_a_sweep_multiplies_what_is_written(folder: Path) -> None:
    a, b = noise(1, 1), noise(1, 2)
    write("a.wav", a)
    write("b.wav", b)
    steps = mix("a.wav:2", "b.wav:-20dB", sweep=sweep_weights(3)).sounds
    for sound, expected in zip(steps, (2 * a, a + 0.05 * b, 0.1 * b), strict=True):
        assert np.allclose(sound.windows[0], expected, atol=1e-6)


def test_parts_and_windows_of_the_mix(folder: Path) -> None:
    a, b = noise(9, 1), noise(9, 2)
    write("a.wav", a)
    write("b.wav", b)
    both = (a + b).astype(np.float32)
    part = mix("a.wav", "b.wav", options=SoundOptions(start_s=1.5, duration_s=2)).sounds[0]
    assert part.segments == ((1.5, 2.0),)
    assert np.array_equal(part.windows[0], both[24_000:56_000])
    average = mix("a.wav", "b.wav", options=SoundOptions(window="average"), window_s=3.0).sounds[0]
    assert average.windows.shape == (3, 48_000)
    assert np.array_equal(average.windows.reshape(-1), both)
    with pytest.raises(OptionError, match=r"start is 9 s, but the mix is 9 s long"):
        mix("a.wav", "b.wav", options=SoundOptions(start_s=9))


def test_clipping_is_chosen_and_told(folder: Path) -> None:
    a = np.zeros(RATE, np.float32)
    a[:100] = 0.8
    write("a.wav", a)
    for clip, peak, down in (("warn", 1.6, 0), ("cut", 1, 0), ("scale", 1, 20 * math.log10(1.6))):
        mixed = mix("a.wav", "a.wav", mixing=MixOptions(clip=clip))  # type: ignore[arg-type]
        assert mixed.beyond == 100
        assert mixed.turned_down_db == pytest.approx(down, abs=1e-5)
        assert mixed.sounds[0].windows.max() == np.float32(peak)
    with pytest.raises(SoundError, match=r"100 samples beyond full scale, by up to 4\.1 dB; use"):
        mix("a.wav", "a.wav", mixing=MixOptions(clip="error"))
    assert mix("a.wav:0.5", "a.wav:0.5", mixing=MixOptions(clip="error")).beyond == 0


def test_a_sweep_is_turned_down_as_one(folder: Path) -> None:
    write("a.wav", np.full(RATE, 0.8, np.float32))
    write("b.wav", np.full(RATE, 0.2, np.float32))
    steps = mix("a.wav:4", "b.wav", sweep=sweep_weights(2), mixing=MixOptions(clip="scale")).sounds
    assert [float(sound.windows.max()) for sound in steps] == pytest.approx([1, 0.2 / 3.2])


def test_inversion_cancels(folder: Path) -> None:
    write("a.wav", noise(1))
    mixed = mix("a.wav:1", "a.wav:-0.999999", mixing=MixOptions(allow_inversion=True))
    assert np.abs(mixed.sounds[0].windows).max() < 1e-5


def test_silence_is_known(folder: Path) -> None:
    write("a.wav", np.zeros(RATE, np.float32))
    write("b.wav", noise(1))
    assert mix("a.wav", "a.wav:0.5").sounds[0].silent
    assert not mix("a.wav", "b.wav").sounds[0].silent


def test_bad_tracks(folder: Path) -> None:
    write("a.wav", noise(1))
    Path("text.wav").write_text("no sound\n" * 99)
    write("one.wav", np.zeros(1, np.float32))
    for name, said in (("text.wav", "it is a text file"), ("one.wav", "it holds one sample")):
        with pytest.raises(SoundError, match=f"Cannot read {name}: {said}"):
            mix("a.wav", name)
    write("huge.wav", np.full(RATE, 3e38, np.float32))
    with pytest.raises(SoundError, match=r"its samples are too large\. Use lower weights"):
        mix("huge.wav:100", "a.wav")


def test_long_tracks_take_little_memory(folder: Path) -> None:
    """Twenty minutes against one minute that repeats: 77 MB as floats, a fraction is held."""
    minutes = 20
    with soundfile.SoundFile("long.wav", "w", RATE, 1, "PCM_16") as file:
        for minute in range(minutes):
            level = 0.3 if minute == 17 else 0.05
            file.write(noise(60, minute, level))
    write("b.wav", noise(60, 99, 0.01))
    tracemalloc.start()
    try:
        mixed = mix("long.wav", "b.wav:0.5@0.5s")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 30e6
    start = mixed.sounds[0].segments[0][0]
    assert 17 * 60 <= start <= 18 * 60 - 5


def test_any_place_of_a_long_track_is_the_same_sum(folder: Path) -> None:
    """Tracks beyond the kept length are read in pieces, at another rate too."""
    time = np.arange(130 * 8000) / 8000
    write("long.wav", 0.2 * np.sin(2 * np.pi * (50 + time) * time), 8000)
    write("b.wav", noise(1))
    whole = read_sound("long.wav", sample_rate=RATE, window_s=130).windows[0]
    options = SoundOptions(start_s=120.25, window="first")
    got = mix("long.wav", "b.wav", options=options).sounds[0]
    b = np.resize(noise(1), 130 * RATE)
    part = slice(round(120.25 * RATE), round(125.25 * RATE))
    assert got.segments == ((120.25, 5.0),)
    assert np.abs(got.windows[0] - whole[part] - b[part]).max() < 1e-6


def test_files_of_what_is_heard(folder: Path) -> None:
    wave = 0.8 * np.sin(2 * np.pi * 300 * np.arange(5 * RATE, dtype=np.float32) / RATE)
    write("a.wav", wave)
    sound = mix("a.wav:2").sounds[0]
    assert np.abs(sound.windows).max() > 1
    back, rate = soundfile.read(io.BytesIO(encode_sound_file(sound, ".wav")), dtype="float32")
    assert rate == RATE
    assert np.array_equal(back, sound.windows[0])
    content = encode_sound_file(sound, ".MP3")
    assert len(content) < 60_000
    back, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    assert rate == RATE
    assert abs(len(back) - len(wave)) < 4000
    assert np.abs(back).max() < 1.3  # cut before coding, which overshoots a little


def test_sums_need_a_gain_for_each() -> None:
    with pytest.raises(ValueError, match="1 gains for 2 waves"):
        sum_waves(np.zeros((2, 4), np.float32), [1.0])


def test_tracks_from_a_library(folder: Path) -> None:
    write("a.wav", noise(1))
    plain = mix_sounds([Track("a.wav", 0.5)], sample_rate=RATE, window_s=5.0)
    assert np.array_equal(plain.sounds[0].windows, heard("a.wav:0.5"))
