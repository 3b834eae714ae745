"""Moments of a video: which are chosen, and the frame and sound of each (§3.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

from s2v_cli.audio.read import sound_sha256
from s2v_cli.training.manifest import SAMPLE_RATE
from s2v_cli.training.prepare.examples import (
    Made,
    Piece,
    Unusable,
    around,
    encode_image,
    evenly,
    generator_of,
    is_silent,
    prints_of,
    shrink,
    silent,
)
from s2v_cli.training.prepare.options import PrepareOptions
from s2v_cli.training.prepare.shards import encode_sound
from s2v_cli.training.prepare.sources import Item
from s2v_cli.training.prepare.video import Frame, Video

LISTEN_S = 120.0  # a span of a video up to that is decoded once for all its moments
_SCORED_SIZE = 256  # px, short side of what a scorer sees
MAX_MOMENTS = 300  # of one video; a longer one has them further apart


def make_moments(item: Item, options: PrepareOptions) -> Made:
    """Examples of a video: frames of its chosen moments, and the sound around each.

    Raises:
        Unusable: no picture, no sound, or too short.
        PictureError: it is damaged.
        DependencyError: PyAV is missing.
    """
    assert item.video is not None
    file = sound_sha256(item.video)
    with closing(_Remembering(item, options)) as video:
        low_s, high_s = usable_span(video, item, options)
        chosen = choose_moments(video, item, options, low_s, high_s)
        images = video.encoded([moment_s for moment_s, _ in chosen])
        several = options.select == "all" or options.top_k > 1
        pieces, skipped = [], []
        for rank, (moment_s, score) in enumerate(chosen):
            start_s, length_s = around(moment_s, options.duration_s, low_s, high_s)
            wave = video.wave(start_s, round(length_s * SAMPLE_RATE))
            if is_silent(wave):
                skipped.append(silent(item, start_s, options))
                if not options.keep_silent:
                    continue
            frame_s, image = images[moment_s]
            sound = encode_sound(wave)
            pieces.append(
                Piece(
                    key=f"{item.key}__{rank:03d}" if several else item.key,
                    prints=prints_of(image, sound, audible=not is_silent(wave), file=file),
                    image=image,
                    sound=sound,
                    frame_s=frame_s,
                    start_s=start_s,
                    duration_s=len(wave) / SAMPLE_RATE,
                    score=score,
                    rank=rank if item.moments or options.select == "top1" else None,
                )
            )
    return Made(tuple(pieces), tuple(skipped))


class _Remembering(Video):
    """The video of an item, which keeps the frames that were read, as they go into a shard."""

    def __init__(self, item: Item, options: PrepareOptions) -> None:
        assert item.video is not None
        super().__init__(item.video, item.origin)
        self._item, self._size = item, options.image_size
        self._encoded: dict[float, tuple[float, bytes]] = {}

    def frames(self, times_s: Sequence[float]) -> Iterator[Frame]:
        """See `Video`; the pictures are as small as anything needs them, cut to the item's box."""
        for time_s, frame in zip(times_s, super().frames(times_s), strict=True):
            image = shrink(frame.image, max(self._size, _SCORED_SIZE), self._item.box)
            self._encoded[time_s] = (frame.time_s, encode_image(image, self._size))
            yield Frame(frame.time_s, image)

    def encoded(self, times_s: Sequence[float]) -> dict[float, tuple[float, bytes]]:
        """Time and JPEG of the frames at some times; those not read yet are read now."""
        for _ in self.frames(sorted(set(times_s) - set(self._encoded))):
            pass
        return self._encoded


def usable_span(video: Video, item: Item, options: PrepareOptions) -> tuple[float, float]:
    """When an item's part of a video begins and ends, as far as there are sound and picture.

    Raises:
        Unusable: no picture, no sound, or too short.
    """
    if video.picture is None:
        raise Unusable("no picture", "it has no picture track")
    if video.sound is None:
        raise Unusable("no sound", "it has no sound track")
    low_s = max(video.picture[0], video.sound[0], item.start_s)
    high_s = min(video.picture[1], video.sound[1])
    if item.duration_s is not None:
        high_s = min(high_s, item.start_s + item.duration_s)
    if high_s - low_s < options.min_duration_s:
        raise Unusable(
            "too short",
            f"{max(0.0, high_s - low_s):.2f} s of it have sound and picture; --min-duration is "
            f"{options.min_duration_s:g} s",
        )
    return low_s, high_s


def grid(low_s: float, high_s: float, stride_s: float) -> list[float]:
    """Moments at equal distances within a span, at least one, `MAX_MOMENTS` at most."""
    count = int((high_s - low_s) / stride_s + 1e-6)
    if count < 1:
        return [(low_s + high_s) / 2]
    first_s = low_s + (high_s - low_s - (count - 1) * stride_s) / 2
    return evenly([first_s + index * stride_s for index in range(count)], MAX_MOMENTS)


def choose_moments(
    video: Video, item: Item, options: PrepareOptions, low_s: float, high_s: float
) -> list[tuple[float, float | None]]:
    """The moments to take, the best first, with their scores where there are any."""
    if item.moments:
        times = [item.start_s + moment_s for moment_s in item.moments[: options.top_k]]
        return [(min(max(time_s, low_s), high_s), None) for time_s in times]
    if options.select == "mid":
        return [((low_s + high_s) / 2, None)]
    times = grid(low_s, high_s, options.stride_s)
    if options.select == "all":
        return [(time_s, None) for time_s in times]
    from s2v_cli.training.prepare import selection

    if options.select == "random":
        generator = generator_of(item, options)
        drawn = selection.choose(
            [0.0] * len(times), times, "random", options.top_k, options.stride_s, generator
        )
        return [(times[index], None) for index in drawn]
    if high_s - low_s <= LISTEN_S:
        video.listen(low_s, high_s)
    scorer = selection.preset_scorer(options.scorer, options.device)
    scores = selection.score_moments(video, times, scorer, low_s, high_s)
    chosen = selection.choose(scores, times, "top1", options.top_k, options.stride_s)
    if not chosen:  # silent from end to end
        return [((low_s + high_s) / 2, None)]
    return [(times[index], float(scores[index])) for index in chosen]
