"""What is done to sounds and spectrograms before the encoder hears them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from s2v_cli.training.align.options import AlignOptions, CropChoice
from s2v_cli.training.sound_stage import loudest_window

SILENT = 1e-4  # root mean square, -80 dBFS
TRIES = 4  # for a part that is not silent
_MASKS = 3  # kind of draws, beside those of batches


class Masks(NamedTuple):
    """Bands to blank, as shares of the spectrogram: begin and end, float32 [b, n, 2] in [0, 1]."""

    frequency: Tensor
    time: Tensor


def crop(wave: Tensor, samples: int, choice: CropChoice, random: np.random.Generator) -> Tensor:
    """Part [samples] of wave [T]; a shorter one is repeated, as the published code does.

    A shorter one begins at its beginning, as it does when the encoder is used, but with `random`.

    Args:
        wave: float32 [T].
        samples: how many are wanted.
        choice: `random` avoids silent parts where it can; `centre`; `loudest`.
        random: draws the place.
    """
    if len(wave) < samples:
        wave = wave.repeat(-(-samples // len(wave)))
        if choice != "random":
            return wave[:samples]
    room = len(wave) - samples
    if not room:
        return wave
    if choice == "loudest":
        return loudest_window(wave, samples)
    if choice == "centre":
        return wave[room // 2 : room // 2 + samples]
    for _ in range(TRIES):
        start = int(random.integers(room + 1))
        part = wave[start : start + samples]
        if float(part.square().mean()) > SILENT**2:
            break
    return part


def change_gain(wave: Tensor, gain_db: float) -> Tensor:
    """Wave [T] made louder or softer; what goes beyond [-1, 1] is clipped."""
    return (wave * 10 ** (gain_db / 20)).clamp(-1, 1)


def mix_behind(wave: Tensor, behind: Tensor, level_db: float) -> Tensor:
    """Wave [T] with another one behind it, whose power is `level_db` relative to its own."""
    power, other = wave.square().mean(), behind.square().mean()
    if float(other) <= SILENT**2:
        return wave
    gain = (power / other).sqrt() * 10 ** (level_db / 20)
    return (wave + gain * behind).clamp(-1, 1)


def draw_masks(options: AlignOptions, step: int, rows: Sequence[int]) -> Masks | None:
    """SpecAugment's bands (Park et al., 2019) of rows of a global batch; None where it is off."""
    if not options.frequency_masks and not options.time_masks:
        return None
    parts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    kinds = (
        (options.frequency_masks, options.frequency_mask),
        (options.time_masks, options.time_mask),
    )
    for row in rows:
        random = np.random.default_rng((options.seed, _MASKS, step, row))
        for part, (count, widest) in zip(parts, kinds, strict=True):
            width = random.random(count) * widest
            begin = random.random(count) * (1 - width)
            part.append(np.stack([begin, begin + width], axis=1))
    frequency, time = (torch.from_numpy(np.stack(part).astype(np.float32)) for part in parts)
    return Masks(frequency, time)


def blank(spectrogram: Tensor, masks: Masks | None) -> Tensor:
    """Blank bands of spectrograms [b, 1, F, T] with each one's mean."""
    if masks is None:
        return spectrogram
    fill = spectrogram.mean(dim=(1, 2, 3))[:, None, None, None]
    for bands, axis in ((masks.frequency, 2), (masks.time, 3)):
        if not bands.shape[1]:
            continue
        size = spectrogram.shape[axis]
        place = (torch.arange(size, device=spectrogram.device) + 0.5) / size
        begin, end = bands.to(spectrogram.device)[..., None].unbind(dim=2)  # [b, n, 1] each
        inside = ((place >= begin) & (place < end)).any(dim=1)  # [b, size]
        shape = [len(spectrogram), 1, 1, 1]
        shape[axis] = size
        spectrogram = torch.where(inside.view(shape), fill, spectrogram)
    return spectrogram
