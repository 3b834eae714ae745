"""Pictures of the same few sounds at each validation, to watch a training by eye."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from s2v_cli.errors import S2VError
from s2v_cli.picture import save_picture
from s2v_cli.strip import film_strip
from s2v_cli.training.align.augment import crop
from s2v_cli.training.align.batches import Batches
from s2v_cli.training.align.options import AlignOptions
from s2v_cli.training.pairs import BadSample, PairDataset

if TYPE_CHECKING:
    from PIL.Image import Image

    from s2v_cli.pipeline import Sound2Vision

SAMPLES_FOLDER = "samples"
SIDE = 192  # px, of a picture on the sheet


class Samples:
    """Draws fixed sounds of the validation split, each of another class where there are some.

    Where the generator's weights are not there, none are drawn.
    """

    def __init__(
        self,
        teacher: Sound2Vision,
        dataset: PairDataset,
        held_out: Batches,
        options: AlignOptions,
        run: Path,
    ) -> None:
        self._teacher, self._dataset, self._run = teacher, dataset, run
        self._samples = held_out.samples
        self._chosen = _spread(dataset, held_out, options.samples)

    @torch.no_grad()
    def draw(self, encoder: nn.Module, step: int) -> Image | None:
        """Draw and save `samples/step-NNNNNN.png`; None where nothing can be drawn.

        Raises:
            OutputError: the picture cannot be written.
        """
        import numpy as np

        images, labels = [], []
        random = np.random.default_rng(0)
        for index in self._chosen:
            try:
                wave = crop(self._dataset.wave(index), self._samples, "loudest", random)
            except BadSample:
                continue
            device = next(encoder.parameters()).device
            spectrogram = encoder.spectrogram(wave[None].to(device))  # type: ignore[operator]
            feature_map = encoder.feature_map(spectrogram)  # type: ignore[operator]
            embedding = encoder.embed(feature_map)[0].float().cpu()  # type: ignore[operator]
            options = self._teacher.preset.generate_options(seed=0, size=SIDE)
            try:
                picture = self._teacher.generate_from_embedding(embedding, options)[0]
            except S2VError:  # no weights for a generator that training does not need
                self._chosen = []
                return None
            images.append(picture.image)
            labels.append(self._dataset.class_name(index) or self._dataset.key(index))
        if not images:
            return None
        sheet = film_strip(images, labels, caption=f"step {step}")
        path = self._run / SAMPLES_FOLDER / f"step-{step:06d}.png"
        save_picture(sheet, path, overwrite=True)
        return sheet


def _spread(dataset: PairDataset, held_out: Batches, count: int) -> list[int]:
    """Up to `count` sounds, of as many classes as there are, always the same."""
    ordered = sorted(
        held_out.sounds.tolist(), key=lambda i: hashlib.sha256(dataset.key(i).encode()).digest()
    )
    turns: dict[int, int] = {}
    ranked = []
    for index in ordered:
        name = int(dataset.name[index])
        turns[name] = turns.get(name, -1) + 1
        ranked.append((turns[name], index))
    return [index for _, index in sorted(ranked, key=lambda pair: pair[0])[:count]]


def forget_samples(run: Path) -> None:
    """Remove the sheets of an earlier training of this run."""
    for path in (run / SAMPLES_FOLDER).glob("step-*.png"):
        with contextlib.suppress(OSError):
            path.unlink()
