"""Pair selection (§3.3): the moments of a video at which sound and picture belong together most.

C[t] = q^V_t . q^A_t, the embedding of the frame at t times that of a short sound around t. Any pair
of encoders that meet in one space gives a score; all but the scorer is the same for all of them.
`docs/selection.md` has the measurements behind the defaults.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from s2v_cli.encoders import PreparesPictures
from s2v_cli.errors import OptionError, SpaceError
from s2v_cli.options import DeviceChoice
from s2v_cli.training.manifest import SAMPLE_RATE
from s2v_cli.training.prepare.examples import SILENCE, around, shrink
from s2v_cli.training.prepare.options import SelectChoice

if TYPE_CHECKING:
    from PIL.Image import Image

    from s2v_cli.pipeline import Sound2Vision
    from s2v_cli.training.prepare.video import Video

Correlation = Literal["dot", "centred"]

WINDOW_S = 1.0  # of the sound around a moment, seconds
FRAME_SIZE = 256  # px, short side of the frames that are scored
BATCH = 32  # frames or sounds that go through an encoder at once
UNUSABLE = float("-inf")  # score of a moment that is never chosen


class MomentScorer(Protocol):
    """Tells how well sound and picture of each moment of a video belong together."""

    def score(self, frames: Sequence[Image], waves: Tensor) -> Tensor:
        """C[t] of the moments of one video, float32 [M]; `-inf` where one cannot be used.

        Args:
            frames: RGB, one a moment, M of them.
            waves: the sound around each, float32 [M, T], 16 kHz.
        """
        ...


class PresetScorer:
    """Scores moments by the encoders of a preset.

    Embeddings are brought to unit norm: in a raw space, a frame with a large norm would win at
    every moment, whatever is heard.

    Args:
        model: a loaded preset with a sound and an image encoder.
        correlation: `dot` is the paper's C[t]; `centred` takes from both embeddings their mean
            over the video first, and so ranks by what changes in it.

    Raises:
        PresetError: the preset has no image encoder.
        SpaceError: its encoders do not share a space.
        OptionError: it hears another sample rate than that of the shards.
    """

    def __init__(self, model: Sound2Vision, correlation: Correlation = "dot") -> None:
        if correlation not in get_args(Correlation):
            raise OptionError(
                f"correlation is {correlation!r}; allowed: {', '.join(get_args(Correlation))}."
            )
        self.model, self.correlation = model, correlation
        sound, image = model.sound_encoder, model.image_encoder
        if sound.space != image.space:
            raise SpaceError(
                f"Cannot score moments: {sound.space} and {image.space} are different embedding "
                "spaces. Use a preset whose encoders share one."
            )
        if sound.sample_rate != SAMPLE_RATE:
            raise OptionError(
                f"scorer is {model.preset.name!r}, which hears {sound.sample_rate} Hz; allowed: "
                f"presets that hear {SAMPLE_RATE} Hz."
            )

    def score(self, frames: Sequence[Image], waves: Tensor) -> Tensor:
        """C[t] of M frames and sounds [M, T], 16 kHz: float32 [M]; `-inf` where it is silent."""
        if len(frames) != len(waves):
            raise ValueError(f"{len(frames)} frames, {len(waves)} sounds")
        audible = waves.abs().amax(dim=1) >= SILENCE
        scores = torch.full((len(frames),), UNUSABLE)
        if not audible.any():
            return scores
        image, sound = self.embed_frames(frames), self.embed_waves(waves)
        scores[audible] = correlate(image[audible], sound[audible], self.correlation)
        return scores

    @torch.inference_mode()
    def embed_frames(self, frames: Sequence[Image]) -> Tensor:
        """q^V of M frames: float32 [M, D], unit norm, on the CPU."""
        from s2v_cli.picture import to_tensor

        encoder = self.model.image_encoder
        prepare = encoder.prepare if isinstance(encoder, PreparesPictures) else to_tensor
        rows = []
        for first in range(0, len(frames), BATCH):
            pixels = [prepare(frame.convert("RGB")) for frame in frames[first : first + BATCH]]
            for part in _of_one_size(pixels):
                rows.append(encoder(part.to(self.model.device)).float().cpu())
        return F.normalize(torch.cat(rows), dim=1)

    @torch.inference_mode()
    def embed_waves(self, waves: Tensor) -> Tensor:
        """q^A of M sounds [M, T], 16 kHz: float32 [M, D], unit norm, on the CPU."""
        encoder = self.model.sound_encoder
        rows = [encoder(part.to(self.model.device)).float().cpu() for part in waves.split(BATCH)]
        return F.normalize(torch.cat(rows), dim=1)


def preset_scorer(
    preset: str | os.PathLike[str] = "mini",
    device: DeviceChoice = "auto",
    correlation: Correlation = "dot",
) -> PresetScorer:
    """A scorer from a preset by name, or from the folder of one that was trained here.

    It is loaded once a process.

    Raises:
        PresetError: unknown preset, or one without an image encoder.
        WeightsError: its weights are missing or damaged.
        SpaceError, OptionError: as in `PresetScorer`.
    """
    return _loaded(os.fspath(preset), device, correlation)


@lru_cache(maxsize=2)
def _loaded(preset: str, device: DeviceChoice, correlation: Correlation) -> PresetScorer:
    from s2v_cli.pipeline import Sound2Vision

    return PresetScorer(Sound2Vision.load(preset, device=device), correlation)


def correlate(image: Tensor, sound: Tensor, correlation: Correlation = "dot") -> Tensor:
    """C[t] = q^V_t . q^A_t (§3.3) of unit embeddings [M, D] each: [M].

    `centred` is the same after the mean over the moments was taken from both.
    """
    if correlation == "centred":
        image, sound = image - image.mean(dim=0), sound - sound.mean(dim=0)
    return (image * sound).sum(dim=1)


def score_moments(
    video: Video,
    times_s: Sequence[float],
    scorer: MomentScorer,
    low_s: float,
    high_s: float,
    window_s: float = WINDOW_S,
) -> Tensor:
    """C[t] at some moments of a video: float32 [M].

    Args:
        video: with sound and picture.
        times_s: the moments, ascending, seconds.
        scorer: of frames and sounds.
        low_s: where the video's usable part begins, seconds.
        high_s: where it ends.
        window_s: how much sound around a moment is heard; at an end the window moves inwards.

    Raises:
        PictureError: the video is damaged.
    """
    frames = [shrink(frame.image, FRAME_SIZE) for frame in video.frames(times_s)]
    length = round(min(window_s, high_s - low_s) * SAMPLE_RATE)
    waves = np.zeros((len(times_s), length), np.float32)
    for row, time_s in zip(waves, times_s, strict=True):
        start_s, _ = around(time_s, window_s, low_s, high_s)
        wave = video.wave(start_s, length)
        row[: len(wave)] = wave
    return scorer.score(frames, torch.from_numpy(waves))


def choose(
    scores: Sequence[float] | Tensor,
    times_s: Sequence[float],
    select: SelectChoice = "top1",
    k: int = 1,
    stride_s: float = 1.0,
    generator: np.random.Generator | None = None,
) -> list[int]:
    """Which moments to take: indices, the best first.

    `top1` takes the k best and `random` any k, both at least `stride_s` apart (non-maximum
    suppression); `mid` the one nearest to the middle of all times; `all` every one in their order.
    A moment whose score is not finite, such as a silent one, is never taken. Of equal scores, the
    moment nearest to the middle comes first, and of two as near the earlier: where the score tells
    nothing, the middle frame is what is left.

    Args:
        scores: C[t] of each moment, [M]; `mid`, `random` and `all` use of them only whether they
            are finite.
        times_s: of each moment, seconds, [M].
        select: which.
        k: how many at most, >= 1.
        stride_s: smallest distance of two, seconds; 0 switches suppression off.
        generator: for `random`.

    Raises:
        OptionError: an option is outside its range.
    """
    if select not in get_args(SelectChoice):
        raise OptionError(f"select is {select!r}; allowed: {', '.join(get_args(SelectChoice))}.")
    if k < 1:
        raise OptionError(f"top-k is {k}; allowed: 1 or more.")
    if not stride_s >= 0:
        raise OptionError(f"stride is {stride_s}; allowed: 0 s or more.")
    values, times = np.asarray(scores, np.float64), np.asarray(times_s, np.float64)
    if values.shape != times.shape or values.ndim != 1:
        raise ValueError(f"{values.shape} scores, {times.shape} times")
    usable = [int(index) for index in np.flatnonzero(np.isfinite(values))]
    if not usable or select == "all":
        return usable
    off_middle = np.abs(times - (times.min() + times.max()) / 2).round(6)
    if select == "mid":
        return [min(usable, key=lambda i: (off_middle[i], times[i], i))]
    if select == "random":
        generator = np.random.default_rng() if generator is None else generator
        order = [usable[place] for place in generator.permutation(len(usable))]
    else:
        order = sorted(usable, key=lambda i: (-values[i], off_middle[i], times[i], i))
    return _apart(order, times, k, stride_s)


def _apart(order: Sequence[int], times: np.ndarray, k: int, stride_s: float) -> list[int]:
    """The first k of some moments that are not too near to one taken before."""
    taken: list[int] = []
    for index in order:
        if len(taken) == k:
            break
        if all(abs(times[index] - times[other]) >= stride_s - 1e-6 for other in taken):
            taken.append(index)
    return taken


def _of_one_size(pixels: Sequence[Tensor]) -> list[Tensor]:
    """Batches [b, 3, H, W] of pictures [3, H, W], in order: one, if all are of one size."""
    if all(picture.shape == pixels[0].shape for picture in pixels):
        return [torch.stack(list(pixels))]
    return [picture[None] for picture in pixels]
