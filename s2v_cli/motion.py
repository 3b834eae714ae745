"""Motion: embeddings of a window that slides over a sound, noise that drifts, frames of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from s2v_cli.audio.mix import apply_gain
from s2v_cli.audio.window import RateChange
from s2v_cli.latent import interpolate, unit_norm
from s2v_cli.options import GenerateOptions

if TYPE_CHECKING:
    from PIL.Image import Image

    from s2v_cli.audio.decode import Decoder
    from s2v_cli.pipeline import Sound2Vision

KNOTS_PER_S = 4  # embeddings; frames lie between them
HEARD_AT_ONCE = 8  # windows that go through the encoder together
BATCH = 8  # pictures that go through the generator together
_REACH = 3  # standard deviations that a smoothing kernel extends to

Progress = Callable[[str, float, "float | None"], None]


def smooth(embeddings: Tensor, deviation: float) -> Tensor:
    """Average embeddings [K, D] over their neighbours, by a Gaussian; the ends are repeated.

    Args:
        embeddings: in their order.
        deviation: standard deviation of the Gaussian, in steps; 0 leaves them.

    Returns:
        [K, D].
    """
    reach = min(math.ceil(_REACH * deviation), len(embeddings) * 4)
    if not reach:
        return embeddings
    steps = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (steps / deviation).square())
    rows = F.pad(embeddings.T[:, None], (reach, reach), mode="replicate")  # [D, 1, K + 2 reach]
    return F.conv1d(rows, (kernel / kernel.sum())[None, None])[:, 0].T.contiguous()


def between(knots: Tensor, positions: Tensor, *, unit: bool) -> Tensor:
    """Embeddings [F, D] at positions [F] in 0 to K - 1 of knots [K, D], on straight lines.

    Brought back to unit norm if `unit`, as a generator of such a space knows no others.
    """
    before = positions.floor().long().clamp(0, max(0, len(knots) - 2))
    after = (before + 1).clamp(max=len(knots) - 1)
    shares = (positions - before).clamp(0, 1)[:, None].to(knots)
    rows = torch.lerp(knots[before], knots[after], shares)
    return unit_norm(rows) if unit else rows


def drifting_noise(noise: Callable[[int], Tensor], places: Tensor) -> Tensor:
    """Noise [F, N] on a walk from the noise of one seed to that of the next, on great circles.

    Args:
        noise: the noise [N] of a seed.
        places: where on the walk, float64 [F] >= 0: 3.25 is a quarter of the way from seed 3 to
            seed 4.

    Returns:
        [F, N]; as long as noise of a seed is, so that no frame is blander than a picture of `gen`.
    """
    rows: list[Tensor] = []
    for seed in places.floor().long().unique().tolist():
        shares = places[places.floor().long() == seed] - seed
        if bool((shares == 0).all()):
            rows.append(noise(seed).expand(len(shares), -1))
        else:
            rows.append(
                interpolate(noise(seed + 1), noise(seed), shares, unit=False, path="spherical")
            )
    return torch.cat(rows)


@dataclass
class Motion:
    """One sound on its way to moving pictures: `hear` it, then `draw` the frames.

    Attributes:
        model: hears and draws.
        options: of every frame; its seed is that of the first.
        frames: how many.
        fps: frames a second.
        window_s: how much sound each moment hears.
        smooth_s: twice the standard deviation of the smoothing, seconds.
        drift: seeds a second that the noise moves.
        gain_db: of the sound, before it is heard.
        progress: told what is done.
        peak: largest sample that was heard.
        knots: the smoothed embeddings [K, D] of what was heard.
    """

    model: Sound2Vision
    options: GenerateOptions
    frames: int
    fps: int
    window_s: float
    smooth_s: float = 0.0
    drift: float = 0.0
    gain_db: float = 0.0
    progress: Progress = lambda label, done, total: None
    peak: float = field(default=0.0, init=False)
    knots: Tensor = field(default_factory=lambda: torch.empty(0), init=False)

    def hear(self, decoder: Decoder, span: tuple[int, int]) -> None:
        """Embed the windows around `KNOTS_PER_S` moments a second of samples `span`.

        A window is centred on its moment, but stays within the span.

        Raises:
            SoundError: the decoder ends early or a sample is not a finite number.
        """
        encoder = self.model.sound_encoder
        rate = encoder.sample_rate
        change = RateChange.between(decoder.rate, rate)
        start, end = (change.resampled(sample) for sample in span)
        length = min(round(self.window_s * rate), end - start)
        count = math.ceil(self.frames * KNOTS_PER_S / self.fps) + 1
        centres = [start + round(knot * rate / KNOTS_PER_S) for knot in range(count)]
        firsts = [max(start, min(centre - length // 2, end - length)) for centre in centres]
        rows = []
        for done in range(0, count, HEARD_AT_ONCE):
            self.progress("Listening", done, count)
            some = firsts[done : done + HEARD_AT_ONCE]
            wave = change.read(decoder, some[0], some[-1] + length - some[0])
            wave = apply_gain(wave, self.gain_db)
            self.peak = max(self.peak, float(abs(wave).max()))
            whole = torch.from_numpy(wave)
            windows = torch.stack([whole[first - some[0] :][:length] for first in some])
            with torch.inference_mode():
                rows.append(encoder(windows.to(self.model.device)).float().cpu())
        self.knots = smooth(torch.cat(rows), self.smooth_s / 2 * KNOTS_PER_S)

    def draw(self) -> Iterator[Image]:
        """The frames, one after the other; `hear` comes first.

        The first is what `s2v gen` makes of the same embedding and seed.
        """
        from s2v_cli.candidates import keep_best

        model, unit = self.model, self.model.space.scale == "unit"
        at_once = getattr(model.generator, "pictures_at_once", BATCH)
        seed = self.options.seed
        for first in range(0, self.frames, at_once):
            self.progress("Drawing", first, self.frames)
            numbers = torch.arange(first, min(first + at_once, self.frames), dtype=torch.float64)
            seconds = numbers / self.fps
            with torch.inference_mode():
                conditions = between(self.knots, seconds * KNOTS_PER_S, unit=unit)
                noise = drifting_noise(
                    lambda step: model.noise(seed + step)[0], seconds * self.drift
                )
                ready = conditions.to(model.device, model.dtype)
                images = model.draw(noise, ready, self.options).float()
                kept = keep_best(images, ready, self.options, _never)
            for image, _ in kept:
                yield image
        self.progress("Drawing", self.frames, self.frames)


def _never(images: Tensor, condition: Tensor) -> Tensor:
    raise AssertionError("frames have no candidates to choose from")
