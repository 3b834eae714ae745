"""Drawn sounds, pictures and videos to prepare."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from PIL import Image

VIDEOS = Path(__file__).parents[2] / "fixtures" / "video"
NASA = VIDEOS / "narration_nasa_13013.mp4"
BUNNY = VIDEOS / "animation_bigbuckbunny_1s.webm"


def tone(hertz: float, seconds: float, rate: int = 16_000, level: float = 0.3) -> np.ndarray:
    """A sine: float32 [T]."""
    time = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def draw_sound(
    path: Path,
    hertz: float = 440.0,
    seconds: float = 0.5,
    *,
    rate: int = 16_000,
    level: float = 0.3,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(hertz, seconds, rate, level), rate)
    return path


def draw_photo(path: Path, seed: int = 0, size: tuple[int, int] = (48, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def draw_pairs(folder: Path, count: int, first: int = 0) -> Path:
    """Pairs 000.wav and 000.jpg and so on, all different."""
    for number in range(first, first + count):
        draw_sound(folder / f"{number:03d}.wav", 200 + 7 * number)
        draw_photo(folder / f"{number:03d}.jpg", number)
    return folder


CODECS = {
    ".mp4": ("mpeg4", "aac"),
    ".mov": ("mpeg4", "aac"),
    ".mkv": ("libx264", "flac"),
    ".avi": ("mpeg4", "pcm_s16le"),
    ".webm": ("libvpx", "libopus"),
}


def draw_video(
    path: Path,
    seconds: float = 3.0,
    *,
    fps: int = 10,
    size: tuple[int, int] = (64, 48),
    wave: np.ndarray | None = None,
    rate: int = 16_000,
    grey: Callable[[float], int] = lambda time_s: 20 + round(20 * time_s),
) -> Path:
    """A video whose frame at t is all of one grey, and which sounds like a wave (or a tone)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = tone(440, seconds, rate) if wave is None else wave
    samples = np.clip(np.rint(wave * 32768), -32768, 32767).astype(np.int16)[None]
    picture_codec, sound_codec = CODECS[path.suffix]
    with av.open(str(path), "w") as container:
        picture = container.add_stream(picture_codec, rate=fps)
        picture.width, picture.height, picture.pix_fmt = *size, "yuv420p"
        picture.codec_context.gop_size, picture.bit_rate = 12, 2_000_000
        sound = container.add_stream(sound_codec, rate=rate, layout="mono")
        for number in range(round(seconds * fps)):
            level = grey(number / fps)
            frame = av.VideoFrame.from_image(Image.new("RGB", size, (level, level, level)))
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(picture.encode(frame))
        heard = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        heard.sample_rate, heard.pts, heard.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler(
            sound.codec_context.format.name, "mono", rate, sound.codec_context.frame_size or 1024
        )
        for part in (heard, None):
            for block in resampler.resample(part):
                container.mux(sound.encode(block))
        for stream in (picture, sound):
            container.mux(stream.encode(None))
    return path


def copy_streams(path: Path, target: Path, kinds: list[str]) -> Path:
    """A copy of some streams of a video, not decoded, in the container of the target's suffix."""
    with av.open(str(path)) as source, av.open(str(target), "w") as container:
        streams = [stream for stream in source.streams if stream.type in kinds]
        copies = {stream.index: container.add_stream_from_template(stream) for stream in streams}
        for packet in source.demux(streams):
            if packet.dts is not None:
                packet.stream = copies[packet.stream.index]
                container.mux(packet)
    return target


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder, hidden ones too: relative path -> bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def copy_of(path: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)
    return target
