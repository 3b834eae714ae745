"""Reading: exact samples, channels, windows, gain, rates; every kind of file that is accepted."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from s2v_cli.audio.read import SOUND_SUFFIXES, Sound, find_sounds, read_sound
from s2v_cli.errors import OptionError, SoundError
from s2v_cli.options import SoundOptions

RATE = 16_000
FIRST = SoundOptions(window="first")


def stream(samples: np.ndarray, rate: int = RATE, **form: str) -> io.BytesIO:
    """A wav file in memory."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **{"format": "WAV", "subtype": "PCM_16", **form})
    file.seek(0)
    return file


def noise(seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * rate)).astype(np.float32)


def integers(bits: int) -> st.SearchStrategy[np.ndarray]:
    """Frames [n, channels] of that many bits in an int32."""
    top = 2 ** (bits - 1)
    shapes = st.tuples(st.integers(2, 40), st.integers(1, 6))
    return arrays.arrays(np.int32, shapes, elements=st.integers(-top, top - 1))


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_integer_samples_are_scaled_exactly(bits: int) -> None:
    @settings(deadline=None)
    @given(integers(bits))
    def check(frames: np.ndarray) -> None:
        file = stream(frames << (32 - bits), subtype=f"PCM_{bits}")
        expected = (frames / 2.0 ** (bits - 1)).astype(np.float32).mean(axis=1, dtype=np.float64)
        sound = read_sound(file, sample_rate=RATE, window_s=1)
        assert sound.windows.dtype == np.float32
        assert np.array_equal(sound.windows, expected.astype(np.float32)[None])

    check()


@settings(deadline=None)
@given(arrays.arrays(np.uint8, st.integers(2, 40)))
def test_8_bit_samples_are_scaled_exactly(samples: np.ndarray) -> None:
    file = stream(np.zeros(len(samples)), subtype="PCM_U8")
    content = file.getvalue()
    position = content.index(b"data") + 8
    content = content[:position] + samples.tobytes() + content[position + len(samples) :]
    sound = read_sound(io.BytesIO(content), sample_rate=RATE, window_s=1)
    assert sound.windows[0].tolist() == [(int(sample) - 128) / 128 for sample in samples]


@settings(deadline=None)
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(2, 40), st.integers(1, 6)),
        elements=st.floats(-100, 100, width=32),
    )
)
def test_float_samples_are_neither_clipped_nor_normalised(frames: np.ndarray) -> None:
    sound = read_sound(stream(frames, subtype="FLOAT"), sample_rate=RATE, window_s=1)
    assert np.array_equal(sound.windows[0], frames.mean(axis=1, dtype=np.float64).astype("f4"))


@settings(deadline=None)
@given(
    start=st.integers(0, 3998),
    duration=st.none() | st.integers(1, 5000),
    window=st.integers(1, 5000),
)
def test_start_and_duration_select_exact_samples(
    start: int, duration: int | None, window: int
) -> None:
    samples = np.arange(4000, dtype=np.int16)
    options = SoundOptions(
        start / RATE, None if duration is None else duration / RATE, window="first"
    )
    sound = read_sound(stream(samples), sample_rate=RATE, window_s=window / RATE, options=options)
    stop = min(4000, start + window, 4000 if duration is None else start + duration)
    assert (sound.windows[0] * 2**15).tolist() == list(range(start, stop))
    assert sound.segments == ((start / RATE, (stop - start) / RATE),)


@settings(deadline=None)
@given(st.floats(-120, 60), arrays.arrays(np.int16, st.integers(2, 40)))
def test_gain_is_applied_and_not_clipped(gain_db: float, samples: np.ndarray) -> None:
    options = SoundOptions(gain_db=gain_db)
    sound = read_sound(stream(samples), sample_rate=RATE, window_s=1, options=options)
    expected = (samples / 2.0**15 * 10 ** (gain_db / 20)).astype(np.float32)
    assert np.array_equal(sound.windows[0], expected)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("8.wav", {"subtype": "PCM_U8"}),
        ("16.wav", {"subtype": "PCM_16"}),
        ("24.wav", {"subtype": "PCM_24"}),
        ("32.wav", {"subtype": "PCM_32"}),
        ("float.wav", {"subtype": "FLOAT"}),
        ("double.wav", {"subtype": "DOUBLE"}),
        ("extensible.wav", {"format": "WAVEX", "subtype": "PCM_24"}),
        ("big.wav", {"subtype": "PCM_16", "endian": "BIG"}),
        ("rf64.wav", {"format": "RF64", "subtype": "PCM_16"}),
        ("w64.w64", {}),
        ("aiff.aiff", {}),
        ("flac.flac", {}),
        ("vorbis.ogg", {}),
        ("opus.opus", {"format": "OGG", "subtype": "OPUS"}),
        ("mpeg.mp3", {}),
        ("vbr.mp3", {"bitrate_mode": "VARIABLE"}),
        ("by-content.txt", {"format": "FLAC"}),
        ("by-content.raw", {"format": "WAV"}),
        ("by-content.mp3", {"format": "WAV"}),
    ],
)
def test_formats(tmp_path: Path, name: str, form: dict[str, str]) -> None:
    path, seconds = tmp_path / name, 2.0
    time = np.arange(round(seconds * 48_000)) / 48_000
    tone = (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    soundfile.write(path, tone, 48_000, **form)
    sound = read_sound(path, sample_rate=48_000, window_s=10)
    assert sound.windows.shape == (1, len(tone))
    assert np.sqrt(np.square(sound.windows).mean()) == pytest.approx(0.5 / 2**0.5, rel=0.02)
    assert sound.source == str(path) and sound.stem == path.stem and not sound.silent
    assert sound.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("rate", "channels"), [(96_000, 6), (8_000, 1), (44_100, 2), (11_127, 1)])
def test_rates_and_channels(rate: int, channels: int) -> None:
    time = np.arange(rate) / rate
    tone = np.sin(2 * np.pi * 440 * time)[:, None] * np.linspace(0.1, 0.6, channels)
    sound = read_sound(stream(tone, rate), sample_rate=RATE, window_s=5)
    expected = np.linspace(0.1, 0.6, channels).mean() * np.sin(
        2 * np.pi * 440 * np.arange(RATE) / RATE
    )
    assert sound.windows.shape == (1, RATE)
    assert np.abs(sound.windows[0] - expected)[500:-500].max() < 2e-3


def test_a_tenth_of_a_second_is_neither_padded_nor_tiled() -> None:
    sound = read_sound(stream(noise(0.1)), sample_rate=RATE, window_s=5)
    assert sound.windows.shape == (1, 1600) and sound.segments == ((0.0, 0.1),)


def test_silence_is_accepted_and_told() -> None:
    assert read_sound(stream(np.zeros(RATE)), sample_rate=RATE, window_s=5).silent
    assert read_sound(stream(np.zeros(RATE)), sample_rate=8_000, window_s=0.5).silent
    assert not read_sound(stream(noise(1)), sample_rate=RATE, window_s=5).silent


@pytest.mark.parametrize("rate", [44_100, 48_000, 8_000])
@pytest.mark.parametrize("window", ["first", "loudest"])
def test_a_window_equals_the_same_span_of_the_whole_resampled_file(rate: int, window: str) -> None:
    samples = noise(6.3, rate) * np.linspace(0, 1, round(6.3 * rate), dtype=np.float32)
    whole = read_sound(
        stream(samples, rate, subtype="FLOAT"), sample_rate=RATE, window_s=10
    ).windows[0]
    options = SoundOptions(1.23456, 4.0, window=window)  # type: ignore[arg-type]
    part = read_sound(
        stream(samples, rate, subtype="FLOAT"), sample_rate=RATE, window_s=1.5, options=options
    )
    start = round(part.segments[0][0] * RATE)
    assert part.windows.shape == (1, 24_000)
    assert start >= round(1.23456 * RATE)
    assert np.abs(part.windows[0] - whole[start : start + 24_000]).max() < 1e-5


def test_resampling_equals_torchaudio_at_once() -> None:
    import torch

    from s2v_cli._torchaudio import import_torchaudio

    samples = noise(1, 44_100)
    expected = import_torchaudio().functional.resample(torch.from_numpy(samples), 44_100, RATE)
    sound = read_sound(stream(samples, 44_100, subtype="FLOAT"), sample_rate=RATE, window_s=5)
    assert sound.windows.shape == (1, len(expected))
    assert np.abs(sound.windows[0] - expected.numpy()).max() < 1e-6


def test_the_loudest_window_is_heard() -> None:
    samples = noise(20) * 0.01
    samples[round(12.3 * RATE) : round(13.3 * RATE)] *= 50
    sound = read_sound(stream(samples), sample_rate=RATE, window_s=1)
    assert sound.segments[0][0] == pytest.approx(12.3, abs=0.051)
    start = round(sound.segments[0][0] * RATE)
    assert np.abs(sound.windows[0] - samples[start : start + RATE]).max() <= 2**-15


def test_the_loudest_window_stays_within_start_and_duration() -> None:
    samples = noise(20) * 0.01
    samples[: 2 * RATE] *= 90
    samples[-2 * RATE :] *= 90
    samples[8 * RATE : 9 * RATE] *= 50
    options = SoundOptions(3.0, 14.0)
    sound = read_sound(stream(samples), sample_rate=RATE, window_s=1, options=options)
    assert sound.segments[0][0] == pytest.approx(8, abs=0.051)


def test_the_loudest_window_may_end_with_the_sound() -> None:
    samples = noise(4.512) * 0.01
    samples[-1000:] *= 90
    sound = read_sound(stream(samples), sample_rate=RATE, window_s=1)
    assert sum(sound.segments[0]) == pytest.approx(4.512)


def test_of_windows_as_loud_the_first_is_heard() -> None:
    sound = read_sound(stream(np.full(8 * RATE, 0.25)), sample_rate=RATE, window_s=1)
    assert sound.segments == ((0.0, 1.0),)


@pytest.mark.parametrize(
    ("seconds", "starts"),
    [
        (3.0, [0, 1, 2]),
        (3.4, [0, 1, 2]),  # the rest is less than half a window
        (3.5, [0, 1, 2, 2.5]),  # the last window ends with the sound
        (1.6, [0, 0.6]),
        (0.7, [0]),
    ],
)
def test_average_hears_window_after_window(seconds: float, starts: list[float]) -> None:
    samples = noise(seconds)
    sound = read_sound(
        stream(samples, subtype="FLOAT"),
        sample_rate=RATE,
        window_s=1,
        options=SoundOptions(window="average"),
    )
    assert [start for start, _ in sound.segments] == pytest.approx(starts)
    assert sound.windows.shape == (len(starts), min(RATE, len(samples)))
    for window, start in zip(sound.windows, starts, strict=True):
        first = round(start * RATE)
        assert np.array_equal(window, samples[first : first + RATE])


def test_average_of_a_long_sound_hears_64_windows_evenly_spaced() -> None:
    sound = read_sound(
        stream(noise(100, 1000), 1000),
        sample_rate=1000,
        window_s=0.5,
        options=SoundOptions(window="average"),
    )
    starts = np.array([start for start, _ in sound.segments])
    assert sound.windows.shape == (64, 500)
    assert starts[0] == 0 and starts[-1] == 99.5
    assert set(np.diff(starts)) <= {1.5, 2.0} | {1.0} and (starts % 0.5 == 0).all()


def test_a_wav_written_to_a_pipe_is_read_to_its_end() -> None:
    content = bytearray(stream(noise(1)).getvalue())
    position = content.index(b"data") + 4
    content[position : position + 4] = content[4:8] = b"\xff\xff\xff\xff"
    sound = read_sound(io.BytesIO(content), sample_rate=RATE, window_s=5)
    assert sound.windows.shape == (1, RATE)


@pytest.mark.parametrize("seconds", [3.7, 12.345])
def test_a_flac_written_to_a_pipe_is_read_to_its_end(seconds: float) -> None:
    samples = noise(seconds)
    content = bytearray(stream(samples, format="FLAC").getvalue())
    content[21] &= 0xF0  # the 36 bits of the length in STREAMINFO: unknown
    content[22:26] = bytes(4)
    options = SoundOptions(2.0, window="first")
    sound = read_sound(io.BytesIO(content), sample_rate=RATE, window_s=20, options=options)
    assert np.abs(sound.windows[0] - samples[2 * RATE :]).max() <= 2**-15


def test_an_mp3_of_variable_bit_rate_without_a_count_is_read_to_its_end() -> None:
    samples = noise(6)
    samples[: 3 * RATE] = 0  # silence first, at a bit rate that promises a longer or shorter file
    file = stream(samples, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode="VARIABLE")
    content = file.getvalue()
    announced = content.index(b"Xing")
    content = content[:announced] + bytes(120) + content[announced + 120 :]
    sound = read_sound(io.BytesIO(content), sample_rate=RATE, window_s=10)
    assert sound.segments[0][1] == pytest.approx(6, abs=0.15)
    assert sound.windows[0, 4 * RATE : 5 * RATE].std() == pytest.approx(0.1, rel=0.2)


def test_streams_have_no_name() -> None:
    content = stream(noise(1)).getvalue()
    sound = read_sound(io.BytesIO(content), sample_rate=RATE, window_s=5)
    assert sound.source == "-" and sound.stem == "stdin"
    assert sound.sha256 == hashlib.sha256(content).hexdigest()


def test_standard_input() -> None:
    content = stream(noise(1)).getvalue()
    script = (
        "from s2v_cli.audio.read import read_sound\n"
        "sound = read_sound('-', sample_rate=16000, window_s=5)\n"
        "print(sound.windows.shape, sound.stem, sound.sha256)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], input=content, capture_output=True, check=True
    )
    assert run.stdout.decode().split("\n")[0] == (
        f"(1, 16000) stdin {hashlib.sha256(content).hexdigest()}"
    )
    assert not run.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    content = stream(noise(1)).getvalue()
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    sound = read_sound(pipe, sample_rate=RATE, window_s=5)
    writer.join()
    assert sound.windows.shape == (1, RATE) and sound.source == str(pipe)


def test_a_sound_is_read_without_torch_at_its_own_rate(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "tone.wav", noise(1), RATE)
    script = (
        "import sys\n"
        "from s2v_cli.audio.read import read_sound\n"
        "read_sound('tone.wav', sample_rate=16000, window_s=0.5)\n"
        "print(sorted({'torch', 'torchaudio', 'scipy', 'pydub', 'av'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        check=True,
        text=True,
    )
    assert run.stdout.strip() == "[]"


def test_find_sounds_lists_a_folder(tmp_path: Path) -> None:
    for name in ("b.WAV", "a.mp3", "c.mp4", ".hidden.wav", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "folder.wav" / "inner.wav").touch()
    assert [path.name for path in find_sounds(tmp_path)] == ["a.mp3", "b.WAV", "c.mp4"]
    assert {".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".mp4", ".webm"} <= SOUND_SUFFIXES


def test_find_sounds_refuses_a_folder_without_sounds(tmp_path: Path) -> None:
    with pytest.raises(SoundError, match=r"No sound in .*wav"):
        find_sounds(tmp_path)
    with pytest.raises(SoundError, match="no such file"):
        find_sounds(tmp_path / "missing")


@pytest.mark.parametrize("start_s", [1.0, 7.5])
def test_a_start_beyond_the_end_is_refused(start_s: float) -> None:
    with pytest.raises(OptionError, match=rf"start is {start_s:g} s.*is 1 s long; allowed: 0 to"):
        read_sound(
            stream(noise(1)), sample_rate=RATE, window_s=5, options=SoundOptions(start_s=start_s)
        )


@pytest.mark.parametrize("start_s", [-1.0, float("nan"), float("inf")])
def test_a_negative_start_is_refused(start_s: float) -> None:
    with pytest.raises(OptionError, match=r"start is .*; allowed: 0 or more seconds"):
        SoundOptions(start_s=start_s)


def test_a_part_without_a_sample_is_refused() -> None:
    with pytest.raises(OptionError, match="leave no sample"):
        read_sound(
            stream(noise(1)), sample_rate=RATE, window_s=5, options=SoundOptions(duration_s=1e-6)
        )


def test_a_sound_cannot_be_changed() -> None:
    sound = read_sound(stream(noise(1)), sample_rate=RATE, window_s=5)
    assert isinstance(sound, Sound)
    with pytest.raises(AttributeError):
        sound.silent = True  # type: ignore[misc]


def test_an_mp3_is_read_without_a_word_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    """The first frame of this sound mp3 makes libmpg123 complain."""
    example = Path(__file__).parents[2] / "examples" / "chainsaw.mp3"
    read_sound(example, sample_rate=16_000, window_s=5.0)
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"
