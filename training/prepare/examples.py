"""From one item to its examples: a picture as JPEG, a sound as FLAC, or both."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from s2v_cli.errors import PictureError, S2VError, SoundError
from s2v_cli.training.manifest import SAMPLE_RATE
from s2v_cli.training.prepare.options import PrepareOptions
from s2v_cli.training.prepare.report import Reason, Skipped
from s2v_cli.training.prepare.shards import encode_sound, sha256
from s2v_cli.training.prepare.sources import Box, Item
from s2v_cli.training.prepare.splits import Prints, share_of

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from s2v_cli.audio.decode import Decoder
    from s2v_cli.audio.mix import Wave

JPEG_QUALITY = 90
MIN_SIDE = 16  # px, of a picture
SILENCE = 10 / 32768  # a peak below that, -70 dB of full scale, is silence


@dataclass(frozen=True)
class Piece:
    """An example before it has a place in a shard; see `training.manifest.Example`."""

    key: str
    prints: Prints
    image: bytes | None = None
    sound: bytes | None = None
    frame_s: float | None = None
    start_s: float | None = None
    duration_s: float | None = None
    score: float | None = None
    rank: int | None = None


@dataclass(frozen=True)
class Made:
    """What became of an item: examples, and rows for what was skipped."""

    pieces: tuple[Piece, ...] = ()
    skipped: tuple[Skipped, ...] = ()


class Unusable(Exception):
    """An item of which no example can be made."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def make(item: Item, options: PrepareOptions) -> Made:
    """Make the examples of an item. What is wrong with its files becomes a row, never an error.

    Raises:
        DependencyError: a package is missing that its format needs.
        S2VError: the scorer cannot be had.
    """
    try:
        for file in item.files:
            if not file.is_file():
                raise Unusable("missing", f"no file at {file}")
        if item.video is not None:
            from s2v_cli.training.prepare.moments import make_moments

            return make_moments(item, options)
        return _make_of_files(item, options)
    except Unusable as error:
        return Made(skipped=(Skipped(item.origin, error.reason, error.detail),))
    except (PictureError, SoundError) as error:
        return Made(skipped=(Skipped(item.origin, "broken", str(error)),))
    except S2VError:
        raise
    except Exception as error:  # a damaged file can raise anything in a decoder
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        return Made(skipped=(Skipped(item.origin, "broken", reason.splitlines()[0]),))


def _make_of_files(item: Item, options: PrepareOptions) -> Made:
    image = None if item.image is None else picture_of(item.image, options.image_size, item.box)
    if item.sound is None:
        return Made((_piece(item.key, image, None),))
    pieces, skipped = [], []
    from s2v_cli.audio.decode import open_decoder

    with closing(open_decoder(item.sound, item.origin)) as decoder:
        spans = sound_spans(decoder, item, options)
        for rank, (start, count) in enumerate(spans):
            wave = read_wave(decoder, start, count)
            if is_silent(wave):
                skipped.append(silent(item, start / SAMPLE_RATE, options))
                if not options.keep_silent:
                    continue
            key = item.key if len(spans) == 1 else f"{item.key}__{rank:03d}"
            pieces.append(_piece(key, image, wave, start / SAMPLE_RATE))
    return Made(tuple(pieces), tuple(skipped))


def _piece(key: str, image: bytes | None, wave: Wave | None, start_s: float = 0.0) -> Piece:
    sound = None if wave is None else encode_sound(wave)
    prints = prints_of(image, sound, audible=wave is not None and not is_silent(wave))
    if wave is None:
        return Piece(key, prints, image)
    return Piece(key, prints, image, sound, start_s=start_s, duration_s=len(wave) / SAMPLE_RATE)


def prints_of(
    image: bytes | None, sound: bytes | None, *, audible: bool, file: str | None = None
) -> Prints:
    """Fingerprints of an example; all silence is alike and tells nothing.

    Args:
        image: JPEG.
        sound: FLAC.
        audible: whether the sound is more than silence.
        file: hash of the video that they are from.
    """
    parts = [sha256(part) for part in (image, sound if audible else None) if part is not None]
    whole = sha256("/".join([*parts, "" if sound is None else sha256(sound)]).encode())
    return Prints(whole, tuple(parts if file is None else [*parts, file]))


def silent(item: Item, start_s: float, options: PrepareOptions) -> Skipped:
    """The row of a silent sound."""
    return Skipped(
        item.origin, "silent", f"no sound above -70 dB from {start_s:.2f} s on", options.keep_silent
    )


def is_silent(wave: Wave) -> bool:
    """Whether a wave [T] has no peak of -70 dB of full scale."""
    return not len(wave) or float(abs(wave).max()) < SILENCE


def picture_of(path: Path, size: int, box: Box | None = None) -> bytes:
    """A picture file as JPEG whose short side is `size` px, or less where it is smaller.

    A plain JPEG that is small enough already keeps its bytes, after they were decoded once.

    Raises:
        PictureError: it cannot be read.
        Unusable: it is too small.
    """
    from PIL import Image

    from s2v_cli.picture import read_picture

    image = read_picture(path)
    with Image.open(path) as file:
        plain = file.format == "JPEG" and file.mode == "RGB"
        plain = plain and not set(file.info) & {"exif", "icc_profile", "xmp", "comment", "mp"}
        plain = plain and getattr(file, "n_frames", 1) == 1
    if plain and box is None and MIN_SIDE <= min(image.size) <= size:
        return path.read_bytes()
    return encode_image(image, size, box)


def encode_image(image: Image, size: int, box: Box | None = None) -> bytes:
    """An RGB picture, or the box of it, as JPEG with a short side of at most `size` px.

    Raises:
        Unusable: it is too small.
    """
    small = shrink(image, size, box)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def shrink(image: Image, size: int, box: Box | None = None) -> Image:
    """A picture, or the box of it, with a short side of at most `size` px; the aspect is kept.

    Raises:
        Unusable: a side is below `MIN_SIDE` px.
    """
    from PIL import Image as Pillow

    if box is not None:
        left, top, right, bottom = box
        width, height = image.size
        image = image.crop(
            (round(left * width), round(top * height), round(right * width), round(bottom * height))
        )
    if min(image.size) < MIN_SIDE:
        raise Unusable(
            "too small", f"{image.width}x{image.height} px; allowed: {MIN_SIDE} px or more"
        )
    scale = size / min(image.size)
    if scale >= 1:
        return image
    wanted = (max(size, round(image.width * scale)), max(size, round(image.height * scale)))
    return image.resize(wanted, Pillow.Resampling.LANCZOS, reducing_gap=3.0)


def sound_spans(decoder: Decoder, item: Item, options: PrepareOptions) -> list[tuple[int, int]]:
    """Which parts of a sound file are taken: start and count in samples at 16 kHz.

    Raises:
        Unusable: it is too short.
    """
    from s2v_cli.audio.window import RateChange, loudest_window

    if decoder.length < 2:
        raise Unusable("too short", "it holds no sound")
    change = RateChange.between(decoder.rate, SAMPLE_RATE)
    start = round(item.start_s * SAMPLE_RATE)
    stop = change.resampled(decoder.length)
    if item.duration_s is not None:
        stop = min(stop, start + round(item.duration_s * SAMPLE_RATE))
    if stop - start < round(options.min_duration_s * SAMPLE_RATE):
        raise Unusable("too short", _lasts(max(0, stop - start) / SAMPLE_RATE, options))
    count = min(stop - start, round(options.duration_s * SAMPLE_RATE))
    if count == stop - start:
        return [(start, count)]
    if options.select == "all":
        whole = range(start, stop - count + 1, count)
        return [(first, count) for first in whole]
    if options.select == "mid":
        return [(start + (stop - start - count) // 2, count)]
    if options.select == "random":
        drawn = generator_of(item, options).integers(start, stop - count + 1, options.top_k)
        return [(int(first), count) for first in dict.fromkeys(drawn)]
    first = start * change.step_in // change.step_out
    last = min(decoder.length, -(-stop * change.step_in // change.step_out))
    window = count * change.step_in // change.step_out
    found = loudest_window(decoder, first, last, window) - first
    loudest = min(start + round(found * change.step_out / change.step_in), stop - count)
    return [(loudest, count)]


def _lasts(seconds: float, options: PrepareOptions) -> str:
    return f"it lasts {seconds:.2f} s; --min-duration is {options.min_duration_s:g} s"


def read_wave(decoder: Decoder, start: int, count: int) -> Wave:
    """A part of a sound: float32 [count], 16 kHz, mono, at its own level.

    Args:
        decoder: of the file.
        start: in samples at 16 kHz.
        count: likewise.

    Raises:
        SoundError: the file is damaged there.
    """
    from s2v_cli.audio.window import RateChange

    return RateChange.between(decoder.rate, SAMPLE_RATE).read(decoder, start, count)


def generator_of(item: Item, options: PrepareOptions) -> np.random.Generator:
    """The random numbers of an item: by its key and the seed alone."""
    import numpy as np

    return np.random.default_rng(int(share_of(f"random/{options.seed}/{item.key}") * (1 << 53)))


def around(moment_s: float, length_s: float, low_s: float, high_s: float) -> tuple[float, float]:
    """Start and length of a sound around a moment, moved so that it lies within low to high."""
    length_s = min(length_s, high_s - low_s)
    start_s = min(max(moment_s - length_s / 2, low_s), high_s - length_s)
    return start_s, length_s


def evenly(times: Sequence[float], most: int) -> list[float]:
    """At most so many of some times, evenly spaced, the first and the last among them."""
    if len(times) <= most:
        return list(times)
    return [times[round(index * (len(times) - 1) / (most - 1))] for index in range(most)]
