"""Containers of phones and video (m4a, aac, mp4, webm, mkv): PyAV, or pydub and ffmpeg."""

from __future__ import annotations

import importlib
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from s2v_cli.audio.decode import Block, Decoder, cannot_read, cut_short, mono
from s2v_cli.audio.mix import Wave
from s2v_cli.errors import DependencyError

_FORMATS = "Convert it to wav, flac, ogg or mp3."
_REMEDY = "Run: pip install 's2v-cli[video]', or install ffmpeg (https://ffmpeg.org)."
_LEAD_S = 0.3  # decoded before what is wanted: a decoder's first samples after a seek differ
_TAIL_S = 2.0  # decoded at the end of a file to tell its length exactly
_SLACK_S = 0.5  # a header's duration may exceed the sound by that much
_PIECE_BYTES = 32 << 20  # what ffmpeg may hand over at once


def open_container(path: Path, name: str, head: bytes, refusal: str) -> Decoder:
    """The decoder for a file that libsndfile does not read.

    Args:
        path: a regular file.
        name: what to call it in messages.
        head: its first bytes.
        refusal: what libsndfile said.

    Raises:
        SoundError: damaged, or not a sound.
        DependencyError: neither PyAV nor ffmpeg is there.
    """
    if _importable("av"):
        return AvDecoder(path, name)
    if shutil.which("ffmpeg") and shutil.which("ffprobe"):
        return FfmpegDecoder(path, name)
    if not _known(head):
        raise cannot_read(
            name,
            f"its format is not known or it is damaged ({refusal.strip().rstrip('.')})",
            f"{_FORMATS} For other formats: pip install 's2v-cli[video]'",
        )
    raise DependencyError(f"Reading {name} needs PyAV or ffmpeg. {_REMEDY}")


def _importable(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def _known(head: bytes) -> bool:
    """Whether the first bytes are those of a container that PyAV or ffmpeg would read."""
    return (
        head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # mp4, m4a, mov
        or head[:4] in (b"\x1aE\xdf\xa3", b"OggS", b"FLV\x01", b"0&\xb2u", b"ID3\x03", b"ID3\x04")
        or (head[:4] == b"RIFF")  # avi, or a wav with a codec that libsndfile does not have
        or head[:5] == b"#!AMR"
        or head[:2] == b"\x0bw"  # ac3
        or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0)  # aac without container
        or head[:4] in (b"\0\0\x01\xba", b"\0\0\x01\xb3")  # mpeg
    )


class AvDecoder:
    """Any sound that FFmpeg's libraries decode, by PyAV."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self._path = path
        self._origin_s = 0.0
        self._seekable = False
        self.rate = 0
        self.length = 0
        self._probe()

    def blocks(self, start: int, stop: int) -> Iterator[Wave]:
        """Samples start to stop: float32 [n] blocks."""
        return map(mono, self.channels(start, stop))

    def channels(self, start: int, stop: int) -> Iterator[Block]:
        """Samples start to stop: float32 [n, channels] blocks."""
        position = start
        for first, block in self._decoded(start):
            block = block[max(0, position - first) : max(0, stop - first)]
            position += len(block)
            if len(block):
                yield block
            if position >= stop:
                return

    def close(self) -> None:
        """Nothing stays open between two reads."""

    def _probe(self) -> None:
        import av

        declared_s = None
        try:
            with self._open() as container:
                if not container.streams.audio:
                    raise cannot_read(self.name, "it has no sound track", "Give a sound file.")
                stream = container.streams.audio[0]
                formats = container.format.name.split(",")
                if "mov" in formats and stream.duration:
                    declared_s = float(stream.duration * stream.time_base)
                elif "matroska" in formats and container.duration and not container.streams.video:
                    declared_s = container.duration / av.time_base
                frame = next(container.decode(stream), None)
                if frame is None:
                    return  # zero samples
                self.rate = frame.sample_rate
                self._origin_s = float(frame.time or 0.0)
            end_s = self._contiguous_end_s() if "mov" in formats else None
        except av.FFmpegError as error:
            raise self._damaged(error) from error
        self._seekable = end_s is not None
        tail = max(0, int(((end_s or 0.0) - _TAIL_S) * self.rate))
        for first, block in self._decoded(tail):
            self.length = first + len(block)
        if declared_s is not None and self.length / self.rate < declared_s - _SLACK_S:
            raise cut_short(
                self.name,
                f"its header says {declared_s:.2f} s, {self.length / self.rate:.2f} s are there",
            )

    def _contiguous_end_s(self) -> float | None:
        """Where the packets end; None where their time stamps do not tell exact positions."""
        end = None
        with self._open() as container:
            stream = container.streams.audio[0]
            if stream.time_base * self.rate > 1:
                return None
            for packet in container.demux(stream):
                if packet.pts is None:
                    continue  # the empty one that ends the stream
                if not packet.duration or (end is not None and packet.pts != end):
                    return None
                end = packet.pts + packet.duration
            return None if end is None else float(end * stream.time_base) - self._origin_s

    def _decoded(self, start: int) -> Iterator[tuple[int, Block]]:
        """Position and samples of each frame, from start or some time before it."""
        import av

        position = None
        try:
            with self._open() as container:
                stream = container.streams.audio[0]
                target_s = self._origin_s + start / self.rate - _LEAD_S
                if self._seekable and target_s > self._origin_s:
                    container.seek(int(target_s / stream.time_base), stream=stream)
                else:
                    position = 0
                for frame in container.decode(stream):
                    block = samples_of(frame)
                    if position is None:
                        position = round((float(frame.time or 0.0) - self._origin_s) * self.rate)
                    if frame.sample_rate != self.rate:
                        raise cannot_read(self.name, "its sample rate changes", _FORMATS)
                    yield position, block
                    position += len(block)
        except av.FFmpegError as error:
            raise self._damaged(error) from error

    def _open(self) -> Any:
        import av

        return av.open(str(self._path), metadata_errors="ignore")

    def _damaged(self, error: Exception) -> Exception:
        reason = getattr(error, "strerror", None) or str(error)
        return cannot_read(
            self.name, f"its format is not known or it is damaged ({reason})", _FORMATS
        )


def samples_of(frame: Any) -> Block:
    """Samples of a PyAV frame: float32 [n, channels] in [-1, 1]."""
    array = frame.to_ndarray()
    if frame.format.is_planar:
        return _scaled(array.T)
    return _scaled(array.reshape(-1, len(frame.layout.channels)))


def _scaled(samples: npt.NDArray[Any]) -> Block:
    """float32 [n, channels] of any kind of sample; integers are scaled by 1 / 2**(bits - 1)."""
    if samples.dtype == np.uint8:
        samples = samples.astype(np.int16) - 128
        return np.asarray(samples * np.float32(2.0**-7), np.float32)
    scale = 2.0 ** (1 - 8 * samples.dtype.itemsize) if samples.dtype.kind == "i" else 1.0
    return samples.astype(np.float32) * np.float32(scale)


class FfmpegDecoder:
    """Any sound that an installed ffmpeg decodes, by pydub, a piece at a time.

    Pieces begin at fixed times, so that a sample is the same one however it is reached. pydub
    lets ffmpeg decode from the beginning to each piece: searching hours of sound takes minutes.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self._path = path
        self._pydub = _import_pydub()
        self._last: tuple[int, Block] | None = None
        information = self._information()
        streams = information.get("streams")
        if not streams:
            raise cannot_read(name, "its format is not known or it is damaged", _FORMATS)
        sounds = [stream for stream in streams if stream.get("codec_type") == "audio"]
        if not sounds:
            raise cannot_read(name, "it has no sound track", "Give a sound file.")
        self.rate = int(sounds[0]["sample_rate"])
        self._piece_s = max(10, _PIECE_BYTES // (self.rate * int(sounds[0]["channels"]) * 4))
        duration = sounds[0].get("duration")
        if duration is None and len(streams) == len(sounds):
            duration = information["format"].get("duration")
        formats = str(information["format"].get("format_name")).split(",")
        exact = duration is not None and bool({"mov", "matroska"} & set(formats))
        declared_s = float(duration) if exact and duration is not None else 0.0  # or an estimate
        last = int(declared_s // self._piece_s)
        while len(self._piece(last)) == self._piece_s * self.rate:
            last += 1
        self.length = last * self._piece_s * self.rate + len(self._piece(last))
        if self.length / self.rate < declared_s - _SLACK_S:
            raise cut_short(name, f"its header says {declared_s:.2f} s, but it ends before")

    def blocks(self, start: int, stop: int) -> Iterator[Wave]:
        """Samples start to stop: float32 [n] blocks."""
        return map(mono, self.channels(start, stop))

    def channels(self, start: int, stop: int) -> Iterator[Block]:
        """Samples start to stop: float32 [n, channels] blocks."""
        size = self._piece_s * self.rate
        for index in range(start // size, -(-stop // size)):
            first = index * size
            yield self._piece(index)[max(0, start - first) : stop - first]

    def close(self) -> None:
        """Nothing stays open between two reads."""

    def _information(self) -> dict[str, Any]:
        try:
            return self._pydub.utils.mediainfo_json(str(self._path)) or {}
        except (ValueError, KeyError):  # ffprobe said nothing, or of a stream nothing useful
            return {}

    def _piece(self, index: int) -> Block:
        if self._last is not None and self._last[0] == index:
            return self._last[1]
        self._last = None
        try:
            segment = self._pydub.AudioSegment.from_file(
                str(self._path), start_second=index * self._piece_s, duration=self._piece_s
            )
        except self._pydub.exceptions.PydubException as error:
            raise cannot_read(self.name, "it is damaged or cut short", _FORMATS) from error
        samples = np.array(segment.get_array_of_samples()).reshape(-1, segment.channels)
        self._last = index, _scaled(samples)
        return self._last[1]


def _import_pydub() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its source has invalid escapes
            import pydub
            import pydub.exceptions
            import pydub.utils
    except ImportError as error:
        package = "audioop-lts" if "audioop" in str(error) else "pydub"
        raise DependencyError(
            f"This format needs pydub, which cannot be imported ({error}). "
            f"Run: pip install {package}, or pip install 's2v-cli[video]'"
        ) from error
    return pydub
