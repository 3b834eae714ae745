"""What cannot be read is refused in one line that names the file, the cause and the next step."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from s2v_cli.audio.read import read_sound
from s2v_cli.errors import SoundError
from s2v_cli.options import SoundOptions

RATE = 16_000


def refusal(path: Path, window: str = "loudest", window_s: float = 1.0) -> str:
    """The message of the refusal of a file."""
    options = SoundOptions(window=window)  # type: ignore[arg-type]
    with pytest.raises(SoundError) as raised:
        read_sound(path, sample_rate=RATE, window_s=window_s, options=options)
    message = str(raised.value)
    assert message.startswith(f"Cannot read {path}: ")
    assert "\n" not in message and len(message.replace(str(path), "")) < 200
    assert message.count(". ") >= 1 and message.endswith((".", "[video]'"))  # the cause, what to do
    return message


def write(path: Path, samples: np.ndarray, **form: str) -> bytes:
    soundfile.write(path, samples, RATE, **form)
    return path.read_bytes()


def noise(seconds: float = 3.0) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE))


def test_a_missing_file(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "missing.wav")


def test_a_folder(tmp_path: Path) -> None:
    assert "it is a folder" in refusal(tmp_path)


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.wav"
    path.touch()
    assert "it is empty (0 bytes)" in refusal(path)


def test_an_empty_stream() -> None:
    with pytest.raises(SoundError, match=r"Cannot read the stream: it is empty"):
        read_sound(io.BytesIO(), sample_rate=RATE, window_s=1)


@pytest.mark.parametrize(
    "text", ["hello, world\n" * 99, "#EXTM3U\nhttp://127.0.0.1/x\n", "é" * 4095]
)
@pytest.mark.parametrize("name", ["text.wav", "text.mp3", "text.m4a"])
def test_a_text_file(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert "it is a text file, not a sound" in refusal(path)


def test_random_bytes(tmp_path: Path) -> None:
    path = tmp_path / "random.wav"
    path.write_bytes(np.random.default_rng(0).bytes(9999))
    assert "its format is not known or it is damaged" in refusal(path)


@pytest.mark.parametrize("window", ["first", "loudest", "average"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.999])
@pytest.mark.parametrize(
    "name", ["cut.wav", "cut.flac", "cut.mp3", "vbr.mp3", "cut.ogg", "cut.aiff", "cut.rf64"]
)
def test_a_file_that_is_cut_short(tmp_path: Path, name: str, kept: float, window: str) -> None:
    path = tmp_path / name
    form = {"rf64": {"format": "RF64"}, "vbr": {"bitrate_mode": "VARIABLE"}}
    content = write(path, noise(), **form.get(path.suffix[1:], form.get(path.stem, {})))
    path.write_bytes(content[: round(len(content) * kept)])
    message = refusal(path, window)
    assert "cut short" in message and message.endswith("Copy or download it again.")


@pytest.mark.parametrize("size", [5, 12, 20, 40, 43])
def test_a_wav_that_ends_in_its_header(tmp_path: Path, size: int) -> None:
    path = tmp_path / "cut.wav"
    path.write_bytes(write(path, noise())[:size])
    refusal(path)


def test_an_mp3_without_its_last_frames(tmp_path: Path) -> None:
    path = tmp_path / "cut.mp3"
    content = write(path, noise(), bitrate_mode="CONSTANT")
    last = content.rindex(content[4 * 144 : 4 * 144 + 2])  # cut where a frame begins
    path.write_bytes(content[:last])
    assert "cut short" in refusal(path)


def test_an_mp3_that_is_cut_and_has_no_count(tmp_path: Path) -> None:
    path = tmp_path / "cut.mp3"
    content = write(path, noise())
    tag = content.index(b"Xing")
    content = content[:tag] + bytes(120) + content[tag + 120 :]
    path.write_bytes(content[:-100])
    assert "its last frame is not whole" in refusal(path)


def test_an_mp3_with_tags_at_both_ends_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "tagged.mp3"
    content = write(path, noise())
    front = b"ID3\x04\0\0" + bytes((0, 0, 2, 0)) + b"\xff" * 256
    back = b"TAG" + bytes(125)
    footer = struct.pack("<8sIIII8x", b"APETAGEX", 2000, 32 + 10, 0, 0)
    path.write_bytes(front + content + bytes(10) + footer + back)
    sound = read_sound(path, sample_rate=RATE, window_s=10)
    assert sound.segments == ((0.0, 3.0),)


def test_a_flac_behind_id3_tags_is_no_mp3(tmp_path: Path) -> None:
    path = tmp_path / "tagged.flac"
    path.write_bytes(b"ID3\x04\0\0\0\0\0\x10" + bytes(16) + write(path, noise()))
    assert read_sound(path, sample_rate=RATE, window_s=10).segments == ((0.0, 3.0),)


def test_a_wav_with_a_chunk_that_is_not_padded_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "odd.wav"
    content = write(path, noise())
    path.write_bytes(content + b"note" + struct.pack("<I", 3) + b"abc")
    assert read_sound(path, sample_rate=RATE, window_s=10).segments == ((0.0, 3.0),)


def test_damage_inside_a_flac(tmp_path: Path) -> None:
    path = tmp_path / "damaged.flac"
    content = bytearray(write(path, noise()))
    middle = len(content) // 2
    content[middle : middle + 4000] = np.random.default_rng(1).bytes(4000)
    path.write_bytes(content)
    assert "damaged" in refusal(path)


@pytest.mark.parametrize(("samples", "cause"), [(0, "zero samples"), (1, "one sample")])
def test_hardly_any_samples(tmp_path: Path, samples: int, cause: str) -> None:
    path = tmp_path / "short.wav"
    write(path, np.zeros(samples))
    assert cause in refusal(path)


@pytest.mark.parametrize("window", ["first", "loudest", "average"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_that_are_no_numbers(
    tmp_path: Path, value: float, channels: int, window: str
) -> None:
    path = tmp_path / "nan.wav"
    samples = np.zeros((RATE, channels))
    samples[RATE // 2, 0] = value
    write(path, samples, subtype="FLOAT")
    assert "not finite numbers (NaN or infinite) at 0.500 s" in refusal(path, window)


def test_infinities_of_both_signs(tmp_path: Path) -> None:
    path = tmp_path / "inf.wav"
    write(path, np.array([[np.inf, -np.inf]] * 9), subtype="FLOAT")
    assert "not finite numbers" in refusal(path)


def test_samples_that_gain_makes_infinite(tmp_path: Path) -> None:
    path = tmp_path / "huge.wav"
    write(path, np.full(99, 1e38), subtype="FLOAT")
    with pytest.raises(SoundError, match="its samples are too large"):
        read_sound(path, sample_rate=RATE, window_s=1, options=SoundOptions(gain_db=60))


def test_a_device_is_refused() -> None:
    if not Path("/dev/zero").exists():
        pytest.skip("this system has no /dev/zero")
    assert "it is not a regular file" in refusal(Path("/dev/zero"))
