"""Videos: frames at given times and the sound between them, through PyAV.

All times are seconds on the video's own clock, from its beginning; frames are never counted, so
that a variable frame rate does no harm. What is far away is sought, not decoded up to.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s2v_cli.audio.container import samples_of
from s2v_cli.audio.decode import mono
from s2v_cli.audio.framing import CutShort, check_framing
from s2v_cli.audio.mix import Wave
from s2v_cli.audio.window import RateChange
from s2v_cli.errors import DependencyError, PictureError
from s2v_cli.training.manifest import SAMPLE_RATE

if TYPE_CHECKING:
    from PIL.Image import Image

SEEK_S = 4.0  # a frame that is less far ahead is decoded up to
_LEAD_S = 0.3  # sound decoded before what is wanted: the first samples after a seek differ
_JITTER_S = 0.05  # time stamps of sound that are off by less are of sound without a gap
_SLACK_S = 0.5  # a header's duration may exceed what is there by that much
_EPSILON_S = 1e-3  # time stamps of some containers are rounded to that
_RETRIES_S = (0.0, 5.0, float("inf"))  # how much further back a seek goes that landed too late


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Attributes:
        time_s: when it begins to be shown.
        image: RGB, upright, with square pixels.
    """

    time_s: float
    image: Image


class Video:
    """A video file that frames and sound are read from.

    Args:
        path: the file.
        name: what to call it in messages.

    Attributes:
        picture: when the picture begins and ends, seconds; None where there is none.
        sound: likewise of the sound.

    Raises:
        PictureError: damaged, cut short, or not a video.
        DependencyError: PyAV is missing.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.name, self._path = name, path
        self._av = _import_av()
        self._origin_s = 0.0
        self._stack = contextlib.ExitStack()
        self._frames: Any = None  # decoder of pictures, where it stands, and one frame ahead
        self._shown: Any = None
        self._ahead: Any = None
        self._heard: _Span | None = None
        with self._errors():
            try:
                with path.open("rb") as file:
                    check_framing(file)
            except CutShort as error:
                raise self._broken(f"it is cut short ({error})") from None
            self._open()
            if self._container.start_time:
                self._origin_s = self._container.start_time / self._av.time_base
            self.picture = self._span(self._video_stream)
            self.sound = self._span(self._audio_stream)

    def _open(self) -> None:
        self._stack.close()
        self._container: Any = self._stack.enter_context(
            self._av.open(str(self._path), metadata_errors="ignore")
        )
        self._video_stream, self._audio_stream = self._best("video"), self._best("audio")

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def frames(self, times_s: Sequence[float]) -> Iterator[Frame]:
        """The frame that is shown at each time; fastest where the times ascend.

        Raises:
            PictureError: the video is damaged there, or ends before.
        """
        for time_s in times_s:
            with self._errors():
                frame = self._frame_at(time_s)
                image = self._upright(frame)
            yield Frame(self._time_of(frame), image)

    def wave(self, start_s: float, count: int) -> Wave:
        """Sound from a time on: float32 [n], 16 kHz, mono; n is less than count at the end.

        Gaps in the sound are silence.

        Raises:
            PictureError: the video is damaged there, or ends before.
        """
        first = round(start_s * SAMPLE_RATE)
        span = self._heard
        if span is None or not span.covers(start_s, start_s + count / SAMPLE_RATE):
            span = self._hear(start_s, count)
        change = RateChange.between(span.rate, SAMPLE_RATE)
        return change.read(span, first, min(count, change.resampled(span.length) - first))

    def listen(self, start_s: float, stop_s: float) -> None:
        """Decode a span of sound at once, so that reading parts of it is fast.

        Raises:
            PictureError: the video is damaged there, or ends before.
        """
        self._heard = self._hear(start_s, round((stop_s - start_s) * SAMPLE_RATE))

    def _hear(self, start_s: float, count: int) -> _Span:
        with self._errors():
            for back_s in _RETRIES_S:
                span = self._decoded(start_s - _LEAD_S - back_s, start_s, count)
                if span is not None:
                    return span
            raise self._broken(f"it has no sound from {start_s:.2f} s on")

    def _best(self, kind: str) -> Any:
        stream = self._container.streams.best(kind)
        if stream is not None and stream.codec_context is None:
            raise self._broken(f"the codec of its {kind} is not known")
        if stream is not None and kind == "video":
            if stream.disposition & stream.disposition.__class__.attached_pic:
                return None  # the cover of a record
            stream.codec_context.thread_count = 1  # other processes have the other cores
        return stream

    def _span(self, stream: Any) -> tuple[float, float] | None:
        """When a stream begins and ends, by the header, or by its packets where it does not say."""
        if stream is None:
            return None
        start_s = 0.0
        if stream.start_time is not None:
            start_s = float(stream.start_time * stream.time_base) - self._origin_s
        if stream.duration:
            return start_s, start_s + float(stream.duration * stream.time_base)
        if self._container.duration:
            return start_s, self._container.duration / self._av.time_base
        end_s = start_s
        with self._av.open(str(self._path), metadata_errors="ignore") as container:
            for packet in container.demux(container.streams[stream.index]):
                if packet.pts is not None:
                    last = (packet.pts + (packet.duration or 0)) * packet.time_base
                    end_s = max(end_s, float(last) - self._origin_s)
        return start_s, end_s

    def _seek(self, time_s: float, kind: str) -> Any:
        """Go to a time, or to the beginning; returns the decoder of a stream from there on.

        The beginning is not sought: before the first time stamp lies what primes a decoder.
        """
        if time_s > 0:
            stream = self._video_stream if kind == "video" else self._audio_stream
            try:
                target = int((time_s + self._origin_s) / stream.time_base)
                self._container.seek(target, stream=stream)
                return self._container.decode(stream)
            except self._av.FFmpegError:  # it cannot be sought in
                pass
        self._open()
        return self._container.decode(self._video_stream if kind == "video" else self._audio_stream)

    def _time_of(self, frame: Any) -> float:
        if frame.time is not None:
            return float(frame.time) - self._origin_s
        if frame.dts is not None:
            return float(frame.dts * frame.time_base) - self._origin_s
        raise self._broken("its frames have no time stamps")

    def _frame_at(self, time_s: float) -> Any:
        shown_s = None if self._shown is None else self._time_of(self._shown)
        if shown_s is None or not shown_s <= time_s + _EPSILON_S <= shown_s + SEEK_S:
            self._seek_frame(time_s)
        while True:
            if self._ahead is None:
                self._ahead = next(self._frames, None)
            if self._ahead is None or self._time_of(self._ahead) > time_s + _EPSILON_S:
                break
            self._shown, self._ahead = self._ahead, None
        frame = self._shown if self._shown is not None else self._ahead  # before the first one
        if frame is None or (time_s - self._time_of(frame) > 1 + _SLACK_S and self._ahead is None):
            raise self._broken(f"its picture ends before {time_s:.2f} s")
        if frame.is_corrupt:
            raise self._broken(f"its picture is damaged at {time_s:.2f} s")
        return frame

    def _seek_frame(self, time_s: float) -> None:
        for back_s in _RETRIES_S:
            self._shown = self._ahead = None
            self._frames = self._seek(time_s - back_s, "video")
            self._ahead = next(self._frames, None)
            if self._ahead is not None and self._time_of(self._ahead) <= time_s + _EPSILON_S:
                return

    def _upright(self, frame: Any) -> Image:
        """A frame as people see it: turned as the file says, with square pixels."""
        image: Image = frame.to_image()
        aspect = self._video_stream.sample_aspect_ratio
        if aspect and aspect != 1:
            image = image.resize((max(1, round(image.width * float(aspect))), image.height))
        if frame.rotation:
            image = image.rotate(frame.rotation, expand=True)  # counter-clockwise, as both say
        return image

    def _decoded(self, from_s: float, start_s: float, count: int) -> _Span | None:
        """Samples from about start_s on, for so many at 16 kHz; None if a seek went too far."""
        self._frames = self._shown = self._ahead = None  # one container, one place to stand
        decoded = self._seek(from_s, "audio")
        blocks, first, position, rate, enough, ended = list[Wave](), 0, 0, 0, 0, False
        for frame in decoded:
            stamp_s = self._time_of(frame)
            if not rate:
                rate = frame.sample_rate
                change = RateChange.between(rate, SAMPLE_RATE)
                if from_s > 0 and stamp_s > start_s:
                    return None
                first = position = round(stamp_s * rate)
                enough = int((start_s + count / SAMPLE_RATE) * rate) + 2 * change.margin
            elif frame.sample_rate != rate:
                raise self._broken("the sample rate of its sound changes")
            block = mono(samples_of(frame))
            ahead = round(stamp_s * rate) - position
            if abs(ahead) > _JITTER_S * rate:
                gap = max(0, min(ahead, enough - position))
                blocks.append(np.zeros(gap, np.float32))
                block = block[max(0, -ahead) :]
                position += gap
            blocks.append(block)
            position += len(block)
            if position >= enough:
                break
        else:
            ended = True
            if self.sound is not None and rate and position / rate < min(
                self.sound[1], start_s + count / SAMPLE_RATE
            ) - _SLACK_S:  # fmt: skip
                raise self._broken(f"its sound ends at {position / rate:.2f} s, not where it says")
        if not rate or position <= start_s * rate:
            return None
        return _Span(self.name, rate, first, np.concatenate(blocks), from_s <= 0, ended)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._av.FFmpegError as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise self._broken(f"it is damaged, or no video ({reason})") from error

    def _broken(self, cause: str) -> PictureError:
        return PictureError(f"Cannot read {self.name}: {cause}.")


class _Span:
    """Samples of a sound from `first` on, as a decoder of the whole sound gives them.

    Args:
        name: of the file.
        rate: of the samples.
        first: place of the first sample.
        samples: float32 [n].
        begins: whether the sound begins with them.
        ends: whether it ends with them.
    """

    def __init__(
        self, name: str, rate: int, first: int, samples: Wave, begins: bool, ends: bool
    ) -> None:
        self.name, self.rate, self.length = name, rate, first + len(samples)
        self._first, self._samples = first, samples
        self._begins, self._ends = begins, ends

    def covers(self, start_s: float, stop_s: float) -> bool:
        """Whether all samples are there that a filter sees of a part."""
        margin = 2 * RateChange.between(self.rate, SAMPLE_RATE).margin
        return (self._begins or self._first <= start_s * self.rate - margin) and (
            self._ends or self.length >= stop_s * self.rate + margin
        )

    def blocks(self, start: int, stop: int) -> Iterator[Wave]:
        """Samples start to stop; what lies before the sound is silence."""
        if start < self._first:
            yield np.zeros(min(stop, self._first) - start, np.float32)
        yield self._samples[max(0, start - self._first) : max(0, stop - self._first)]

    def channels(self, start: int, stop: int) -> Iterator[Any]:
        """The same as [n, 1]."""
        return (block[:, None] for block in self.blocks(start, stop))

    def close(self) -> None:
        """Nothing is open."""


def _import_av() -> Any:
    try:
        import av
    except ImportError:
        raise DependencyError(
            "Reading videos needs PyAV. Run: pip install 's2v-cli[video]'"
        ) from None
    return av
