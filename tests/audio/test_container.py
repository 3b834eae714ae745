"""m4a, mp4, webm and the like: by PyAV, by pydub and ffmpeg, and without either."""

from __future__ import annotations

import hashlib
import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s2v_cli.audio import container
from s2v_cli.audio.decode import Decoder, read_span
from s2v_cli.audio.read import read_sound
from s2v_cli.errors import DependencyError, SoundError
from s2v_cli.options import SoundOptions

av: Any
try:
    import av
except ImportError:
    av = None

RAIN = Path(__file__).parent.parent / "fixtures" / "audio" / "rain.m4a"
RATE = 16_000
HAS_FFMPEG = bool(shutil.which("ffmpeg") and shutil.which("ffprobe"))
NO_FFMPEG = "ffmpeg and ffprobe are not installed: NOT TESTED is the reading of m4a without PyAV"
NO_PYAV = "PyAV is not installed: NOT TESTED is the reading of m4a and other containers"


@pytest.fixture(params=["PyAV", "ffmpeg"])
def path_taken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Read by PyAV, or as if PyAV were not installed."""
    if request.param == "PyAV":
        if av is None:
            pytest.skip(NO_PYAV)
    else:
        if not HAS_FFMPEG:
            pytest.skip(NO_FFMPEG)
        monkeypatch.setitem(sys.modules, "av", None)
    return str(request.param)


def encode(
    path: Path, wave: np.ndarray, codec: str = "aac", rate: int = RATE, pictures: bool = False
) -> None:
    """Write float samples [n] with PyAV, and a grey picture if asked for."""
    if av is None:
        pytest.skip(NO_PYAV)
    with av.open(str(path), "w") as file:
        if pictures:
            video = file.add_stream("mpeg4", rate=5)
            video.width = video.height = 64
            video.pix_fmt = "yuv420p"
        if len(wave):
            stream = file.add_stream(codec, rate=rate, layout="mono")
        if pictures:
            for number in range(10):
                picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 99, np.uint8))
                picture.pts = number
                file.mux(video.encode(picture))
            file.mux(video.encode())
        if len(wave):
            frame = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), "fltp", "mono")
            frame.sample_rate = rate
            resampler = av.AudioResampler(format=stream.format, layout="mono", rate=rate)
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                file.mux(stream.encode(piece))
            file.mux(stream.encode())


def tone(seconds: float, rate: int = RATE, hertz: float = 440.0) -> np.ndarray:
    return 0.4 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def test_rain(path_taken: str) -> None:
    sound = read_sound(RAIN, sample_rate=RATE, window_s=10)
    assert sound.segments[0][1] == pytest.approx(2.5, abs=0.1)
    assert 0.01 < sound.windows.std() < 0.3 and abs(sound.windows.mean()) < 0.01
    assert sound.stem == "rain" and sound.source == str(RAIN) and not sound.silent
    assert sound.sha256 == hashlib.sha256(RAIN.read_bytes()).hexdigest()


@pytest.mark.skipif(not HAS_FFMPEG, reason=NO_FFMPEG)
def test_both_paths_hear_the_same() -> None:
    if av is None:
        pytest.skip(NO_PYAV)
    first: Decoder = container.AvDecoder(RAIN, "rain")
    second: Decoder = container.FfmpegDecoder(RAIN, "rain")
    length = min(first.length, second.length)
    assert first.rate == second.rate == RATE and abs(first.length - second.length) < RATE // 100
    difference = read_span(first, 0, length) - read_span(second, 0, length)
    assert np.abs(difference).max() < 2**-14  # ffmpeg hands over 16 bits


def test_a_part_equals_the_same_span_of_the_whole(path_taken: str) -> None:
    whole = read_sound(RAIN, sample_rate=RATE, window_s=10).windows[0]
    for start_s in (0.0, 0.31, 1.0, 1.7):
        options = SoundOptions(start_s, 0.5, window="first")
        part = read_sound(RAIN, sample_rate=RATE, window_s=1, options=options).windows[0]
        start = round(start_s * RATE)
        assert np.abs(part - whole[start : start + len(part)]).max() < 1e-6
        assert len(part) == RATE // 2


def test_the_loudest_window(path_taken: str, tmp_path: Path) -> None:
    wave = tone(8) * 0.01
    wave[5 * RATE : 6 * RATE] *= 90
    encode(tmp_path / "loud.m4a", wave)
    sound = read_sound(tmp_path / "loud.m4a", sample_rate=RATE, window_s=1)
    assert sound.segments[0][0] == pytest.approx(5, abs=0.1)
    assert sound.windows.std() == pytest.approx(wave[5 * RATE : 6 * RATE].std(), rel=0.1)


def test_pieces_of_ffmpeg_join(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not HAS_FFMPEG:
        pytest.skip(NO_FFMPEG)
    path = tmp_path / "tone.m4a"
    encode(path, tone(25))
    whole = container.FfmpegDecoder(path, "tone")
    monkeypatch.setattr(container, "_PIECE_BYTES", 1)  # pieces of ten seconds
    pieces = container.FfmpegDecoder(path, "tone")
    assert pieces.length == whole.length
    joined = read_span(pieces, 5 * RATE, 24 * RATE)
    assert np.array_equal(joined, read_span(whole, 5 * RATE, 24 * RATE))
    assert len(list(pieces.blocks(0, pieces.length))) == 3


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.mp4", "aac", 44_100),
        ("a.aac", "aac", 44_100),
        ("a.m4a", "alac", 44_100),
        ("a.webm", "libopus", 48_000),
        ("a.mov", "pcm_s16le", 44_100),
        ("a.mkv", "pcm_s24le", 44_100),
        ("a.avi", "pcm_u8", 22_050),
    ],
)
def test_other_containers(
    path_taken: str, tmp_path: Path, name: str, codec: str, rate: int
) -> None:
    path = tmp_path / name
    encode(path, tone(2, rate), codec, rate)
    sound = read_sound(path, sample_rate=RATE, window_s=10)
    assert sound.segments[0][1] == pytest.approx(2, abs=0.1)
    middle = sound.windows[0][RATE // 2 : RATE]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) * RATE / len(middle) == pytest.approx(440, abs=3)
    assert np.sqrt(np.square(middle).mean()) == pytest.approx(0.4 / 2**0.5, rel=0.02)


def test_the_sound_of_a_film(path_taken: str, tmp_path: Path) -> None:
    encode(tmp_path / "film.mp4", tone(2), pictures=True)
    sound = read_sound(tmp_path / "film.mp4", sample_rate=RATE, window_s=10)
    assert sound.segments[0][1] == pytest.approx(2, abs=0.15)


def test_a_film_without_sound(path_taken: str, tmp_path: Path) -> None:
    encode(tmp_path / "film.mp4", tone(0), pictures=True)
    with pytest.raises(SoundError, match=r"film.mp4: it has no sound track"):
        read_sound(tmp_path / "film.mp4", sample_rate=RATE, window_s=1)


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
def test_an_m4a_that_is_cut_short(path_taken: str, tmp_path: Path, kept: float) -> None:
    path = tmp_path / "cut.m4a"
    path.write_bytes(RAIN.read_bytes()[: round(RAIN.stat().st_size * kept)])
    with pytest.raises(SoundError, match=r"cut.m4a: it is cut short .*download it again"):
        read_sound(path, sample_rate=RATE, window_s=1)


@pytest.mark.parametrize("window", ["first", "loudest"])
def test_a_webm_that_is_cut_short(path_taken: str, tmp_path: Path, window: str) -> None:
    path = tmp_path / "cut.webm"
    encode(path, tone(6, 48_000), "libopus", 48_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    options = SoundOptions(window=window)  # type: ignore[arg-type]
    with pytest.raises(SoundError, match=r"cut.webm: it is cut short"):
        read_sound(path, sample_rate=RATE, window_s=1, options=options)


def test_random_bytes(path_taken: str, tmp_path: Path) -> None:
    path = tmp_path / "random.m4a"
    path.write_bytes(np.random.default_rng(0).bytes(9999))
    with pytest.raises(SoundError, match="its format is not known or it is damaged"):
        read_sound(path, sample_rate=RATE, window_s=1)


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither PyAV nor ffmpeg."""
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("nothing_installed")
def test_without_pyav_and_ffmpeg_both_remedies_are_named() -> None:
    with pytest.raises(DependencyError) as raised:
        read_sound(RAIN, sample_rate=RATE, window_s=1)
    message = str(raised.value)
    assert str(RAIN) in message and "\n" not in message
    assert "pip install 's2v-cli[video]'" in message and "install ffmpeg" in message


@pytest.mark.usefixtures("nothing_installed")
def test_without_pyav_and_ffmpeg_rubbish_is_still_no_sound(tmp_path: Path) -> None:
    path = tmp_path / "random.wav"
    path.write_bytes(np.random.default_rng(0).bytes(9999))
    with pytest.raises(SoundError, match="its format is not known or it is damaged"):
        read_sound(path, sample_rate=RATE, window_s=1)


def test_a_missing_audioop_is_named() -> None:
    script = (
        "import sys\n"
        "for module in ('av', 'audioop', 'pyaudioop', 'audioop_lts'):\n"
        "    sys.modules[module] = None\n"
        "import shutil; shutil.which = lambda program: program\n"
        "from s2v_cli.audio.read import read_sound\n"
        "from s2v_cli.errors import DependencyError\n"
        "try:\n"
        f"    read_sound({str(RAIN)!r}, sample_rate=16000, window_s=1)\n"
        "except DependencyError as error:\n"
        "    print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True
    )
    assert "pip install audioop-lts" in run.stdout and run.stdout.count("\n") == 1


def test_importing_the_module_imports_neither() -> None:
    script = (
        "import sys, s2v_cli.audio.container\n"
        "print(sorted({'av', 'pydub', 'torch'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
    assert importlib.import_module("s2v_cli.audio.container") is container
