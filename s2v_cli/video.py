"""Writers of moving pictures, a frame at a time: mp4 with sound through PyAV, GIF and WebP."""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from s2v_cli.errors import DependencyError, OptionError, OutputError

if TYPE_CHECKING:
    from PIL.Image import Image

    from s2v_cli.audio.decode import Block

VIDEO_SUFFIXES = (".mp4", ".gif", ".webp")
MAX_GIF_FPS = 50  # a GIF counts hundredths of a second, and viewers slow shorter frames down
_VIDEO_CODECS = ("libx264", "libopenh264", "mpeg4")
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_AAC_RATE = 48_000  # for all others
_WEBP_QUALITY = 85
_EXIF_IFD, _EXIF_COMMENT = 0x8769, 0x9286
_EXIF_ASCII = b"ASCII\0\0\0"  # character code that starts a UserComment (Exif 2.3, §4.6.5)


@dataclass(frozen=True)
class SoundTrack:
    """The sound of a video.

    Attributes:
        blocks: float32 [n, channels] in [-1, 1], read as they are needed.
        sample_rate: of them.
        channels: 1 or 2.
        samples: how many there are.
    """

    blocks: Iterator[Block]
    sample_rate: int
    channels: int
    samples: int


class Writer(Protocol):
    """Takes the frames of one moving picture, all of one size."""

    def add(self, image: Image) -> None:
        """Append a frame, RGB."""
        ...

    def finish(self) -> None:
        """Write what is left: after that the file is whole."""
        ...

    def close(self) -> None:
        """Close the file, whole or not; may be called twice."""
        ...


def check_format(suffix: str, fps: int, side: int) -> None:
    """Refuse, before any work, what a format cannot hold.

    Args:
        suffix: one of `VIDEO_SUFFIXES`.
        fps: frames a second.
        side: of a frame, pixels.

    Raises:
        OptionError: too many frames a second, or an odd side.
        DependencyError: .mp4 without PyAV.
    """
    if suffix == ".gif" and fps > MAX_GIF_FPS:
        raise OptionError(f"fps is {fps}; of a .gif allowed: 1 to {MAX_GIF_FPS}.")
    if suffix == ".mp4":
        if side % 2:
            raise OptionError(
                f"size is {side}; a .mp4 takes even sides: {side - 1} or {side + 1} pixels."
            )
        _import_av()


@contextlib.contextmanager
def open_writer(
    path: Path, suffix: str, *, fps: int, sound: SoundTrack | None, comment: str | None
) -> Iterator[Writer]:
    """A writer of one moving picture; it is finished unless an error ends the block.

    Args:
        path: file to write, replaced where it exists; its name need not end in `suffix`.
        suffix: one of `VIDEO_SUFFIXES`.
        fps: frames a second.
        sound: only for .mp4.
        comment: text to keep in the file, ASCII.

    Raises:
        OutputError: the file cannot be written.
        DependencyError: .mp4 without PyAV.
    """
    try:
        with contextlib.closing(_writer(path, suffix, fps, sound, comment)) as writer:
            yield writer
            writer.finish()
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror or error}.") from error


def _writer(
    path: Path, suffix: str, fps: int, sound: SoundTrack | None, comment: str | None
) -> Writer:
    if suffix == ".mp4":
        return Mp4Writer(path, fps, sound, comment)
    kind: type[GifWriter | WebpWriter] = GifWriter if suffix == ".gif" else WebpWriter
    return kind(path.open("wb"), fps, comment)


def read_comment(path: Path) -> str | None:
    """The text that a writer kept in a .mp4; None where there is none.

    Raises:
        DependencyError: PyAV is missing.
    """
    av = _import_av()
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            return container.metadata.get("comment")  # type: ignore[no-any-return]
    except (av.FFmpegError, OSError):
        return None


class Mp4Writer:
    """H.264 and AAC in mp4, by PyAV; the sound follows the pictures, so that little is kept."""

    def __init__(self, path: Path, fps: int, sound: SoundTrack | None, comment: str | None) -> None:
        self._av = _import_av()
        self._fps, self._sound, self._frames = fps, sound, 0
        with self._errors(path):
            self._container: Any = self._av.open(
                str(path), "w", format="mp4", options={"movflags": "+faststart"}
            )
        self._path = path
        if comment is not None:
            self._container.metadata["comment"] = comment
        self._video: Any = None
        self._audio: Any = None
        self._resampler: Any = None
        self._heard = 0  # samples of the sound that are written

    def add(self, image: Image) -> None:
        """Append a frame, RGB, and the sound up to its end."""
        with self._errors(self._path):
            if self._video is None:
                self._video = self._add_video(image.width, image.height)
                self._add_audio()
            frame = self._av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = self._frames, Fraction(1, self._fps)
            self._container.mux(self._video.encode(frame))
            self._frames += 1
            if self._sound is not None:
                self._hear(self._frames * self._sound.sample_rate // self._fps)

    def finish(self) -> None:
        """Write the rest of the sound and what the encoders hold back."""
        with self._errors(self._path):
            if self._sound is not None:
                self._hear(self._sound.samples)
                for frame in self._resampler.resample(None):
                    self._container.mux(self._audio.encode(frame))
                self._container.mux(self._audio.encode(None))
            if self._video is not None:
                self._container.mux(self._video.encode(None))
            self._container.close()

    def close(self) -> None:
        """Close the file; what is not finished is not playable."""
        with contextlib.suppress(self._av.FFmpegError, ValueError):
            self._container.close()

    def _add_video(self, width: int, height: int) -> Any:
        name = next((name for name in _VIDEO_CODECS if self._has(name)), None)
        if name is None:
            raise DependencyError(
                f"PyAV has no encoder for mp4 ({', '.join(_VIDEO_CODECS)}); "
                "write a .gif or .webp, or run: pip install --force-reinstall av"
            )
        stream = self._container.add_stream(name, rate=self._fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # One thread: with several, what they write depends on their number.
        stream.codec_context.thread_count = 1
        if name == "libx264":
            stream.options = {"crf": "18", "preset": "veryfast"}
        else:
            stream.bit_rate = max(500_000, width * height * self._fps // 4)
        return stream

    def _add_audio(self) -> None:
        if self._sound is None:
            return
        rate = self._sound.sample_rate if self._sound.sample_rate in _AAC_RATES else _AAC_RATE
        self._audio = self._container.add_stream("aac", rate=rate, layout=self._layout)
        self._audio.bit_rate = 96_000 * self._sound.channels
        self._resampler = self._av.AudioResampler("fltp", self._layout, rate)

    @property
    def _layout(self) -> str:
        return "mono" if self._sound is not None and self._sound.channels == 1 else "stereo"

    def _has(self, name: str) -> bool:
        try:
            self._av.codec.Codec(name, "w")
        except ValueError:  # PyAV's UnknownCodecError is one
            return False
        return True

    def _hear(self, until: int) -> None:
        """Encode sound until that sample."""
        assert self._sound is not None
        while self._heard < min(until, self._sound.samples):
            block = next(self._sound.blocks, None)
            if block is None:
                return
            planes = block.T.copy(order="C")
            frame = self._av.AudioFrame.from_ndarray(planes, "fltp", self._layout)
            frame.sample_rate = self._sound.sample_rate
            frame.pts, frame.time_base = self._heard, Fraction(1, self._sound.sample_rate)
            self._heard += len(block)
            for resampled in self._resampler.resample(frame):
                self._container.mux(self._audio.encode(resampled))

    @contextlib.contextmanager
    def _errors(self, path: Path) -> Iterator[None]:
        try:
            yield
        except self._av.FFmpegError as error:
            reason = error.strerror or str(error)
            raise OutputError(f"Cannot write {path}: {reason}.") from error


class _StillsWriter:
    """What GIF and WebP share: a file put together from the bytes of still pictures."""

    ticks_per_s: int

    def __init__(self, file: BinaryIO, fps: int, comment: str | None) -> None:
        self._file, self._fps = file, fps
        self._comment = b"" if comment is None else comment.encode("ascii", "replace")
        self._frames = 0

    def add(self, image: Image) -> None:
        """Append a frame, RGB."""
        if not self._frames:
            self._begin(image.width, image.height)
        start, end = (round(self.ticks_per_s * n / self._fps) for n in self._span())
        self._frames += 1
        self._append(image, end - start)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _span(self) -> tuple[int, int]:
        return self._frames, self._frames + 1

    def _begin(self, width: int, height: int) -> None:
        raise NotImplementedError

    def _append(self, image: Image, ticks: int) -> None:
        raise NotImplementedError


class GifWriter(_StillsWriter):
    """Animated GIF (GIF89a) that repeats for ever, each frame with its own 256 colours."""

    ticks_per_s = 100

    def finish(self) -> None:
        """Write the trailer."""
        self._file.write(b"\x3b")

    def _begin(self, width: int, height: int) -> None:
        self._file.write(b"GIF89a" + struct.pack("<HHBBB", width, height, 0x70, 0, 0))
        self._file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00")
        if self._comment:
            blocks = (self._comment[i : i + 255] for i in range(0, len(self._comment), 255))
            self._file.write(b"\x21\xfe" + b"".join(bytes([len(b)]) + b for b in blocks) + b"\0")

    def _append(self, image: Image, ticks: int) -> None:
        colours, pixels = _gif_parts(image)
        depth = (len(colours) // 3).bit_length() - 1  # 2**depth colours
        self._file.write(b"\x21\xf9\x04" + struct.pack("<BHBB", 0x04, ticks, 0, 0))
        self._file.write(b"\x2c" + struct.pack("<HHHH", 0, 0, image.width, image.height))
        self._file.write(bytes([0x80 | (depth - 1)]) + colours + pixels)


def _gif_parts(image: Image) -> tuple[bytes, bytes]:
    """Colour table and compressed pixels of a picture, out of a still GIF."""
    buffer = io.BytesIO()
    image.quantize(256).save(buffer, "GIF", interlace=False)
    still = buffer.getvalue()
    position, table = 13, b""  # header and logical screen
    if still[10] & 0x80:
        size = 3 << ((still[10] & 7) + 1)
        table, position = still[position : position + size], position + size
    while still[position] == 0x21:  # an extension: label and blocks
        position += 2
        while still[position]:
            position += 1 + still[position]
        position += 1
    flags = still[position + 9]
    position += 10
    if flags & 0x80:
        size = 3 << ((flags & 7) + 1)
        table, position = still[position : position + size], position + size
    return table, still[position:-1]


class WebpWriter(_StillsWriter):
    """Animated WebP that repeats for ever: a RIFF file with one ANMF chunk a frame."""

    ticks_per_s = 1000

    def finish(self) -> None:
        """Write the comment and the length of the whole."""
        if self._comment:
            self._file.write(_chunk(b"EXIF", _exif(self._comment)))
        length = self._file.tell() - 8
        self._file.seek(4)
        self._file.write(struct.pack("<I", length))

    def _begin(self, width: int, height: int) -> None:
        flags = 0x02 | (0x08 if self._comment else 0)  # animation, Exif
        header = struct.pack("<I", flags) + _uint24(width - 1) + _uint24(height - 1)
        self._file.write(b"RIFF\0\0\0\0WEBP" + _chunk(b"VP8X", header))
        self._file.write(_chunk(b"ANIM", struct.pack("<IH", 0, 0)))

    def _append(self, image: Image, ticks: int) -> None:
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=_WEBP_QUALITY, method=2)
        picture = buffer.getvalue()[12:]  # behind RIFF, its length and WEBP
        place = _uint24(0) + _uint24(0) + _uint24(image.width - 1) + _uint24(image.height - 1)
        whole = place + _uint24(ticks) + b"\x02" + picture  # 2: do not blend with the last one
        self._file.write(_chunk(b"ANMF", whole))


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _uint24(number: int) -> bytes:
    return struct.pack("<I", number)[:3]


def _exif(text: bytes) -> bytes:
    """An Exif block with text as its UserComment, as pictures of s2v have it."""
    from PIL import Image

    exif = Image.Exif()
    exif.get_ifd(_EXIF_IFD)[_EXIF_COMMENT] = _EXIF_ASCII + text
    return exif.tobytes().removeprefix(b"Exif\0\0")


def _import_av() -> Any:
    try:
        import av
    except ImportError as error:
        raise DependencyError(
            "Writing a .mp4 needs PyAV. Run: pip install 's2v-cli[video]', "
            "or write a .gif or .webp (without sound)."
        ) from error
    return av
