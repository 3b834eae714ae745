"""Batches of sounds and the z^V of their pictures, the same whatever reads them.

Which sounds a step sees, and how they are cut, made louder and mixed, follows from the seed, the
step and a sound's row in the global batch alone. So a run that goes on after a kill, one with
other workers and one on several processes see the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from s2v_cli.errors import OptionError, TrainingError
from s2v_cli.training.align.augment import Masks, change_gain, crop, draw_masks, mix_behind
from s2v_cli.training.align.features import ImageFeatures
from s2v_cli.training.align.options import CONTRASTIVE, AlignOptions
from s2v_cli.training.manifest import SAMPLE_RATE, Split
from s2v_cli.training.pairs import BadSample, PairDataset

SHARDS_AT_ONCE = 16  # that one part of an epoch is drawn from, so that reads stay near each other
MAX_BAD = 0.01  # share of the sounds that may be unreadable
FEW = 10  # unreadable sounds that are always let pass
PREFETCH = 4  # batches that each worker reads ahead
_ORDER, _ROW, _PAIR = range(3)  # kinds of draws: each has random numbers of its own


class Batch(NamedTuple):
    """Pairs of one step, or of one process's part of it.

    Attributes:
        wave: float32 [b, samples], 16 kHz, cut, gained and mixed.
        image_embedding: z^V of each one's picture, float32 [b, D].
        example: number of each sound in the dataset, int64 [b].
        masks: what SpecAugment blanks of each spectrogram; None for nothing.
        bad: numbers of sounds that could not be decoded and that others stand in for.
    """

    wave: Tensor
    image_embedding: Tensor
    example: Tensor
    masks: Masks | None = None
    bad: tuple[int, ...] = ()


class Batches:
    """The batches of one split.

    Args:
        dataset: that is trained on.
        features: z^V of its pictures.
        options: `duration_s` filled in, as by `AlignOptions.resolved`.
        split: of the dataset.
        rank: of this process, from 0.
        world: processes that share the batch.

    Raises:
        TrainingError: no pairs, fewer than a batch, or a single class where a loss needs more.
        OptionError: the batch cannot be shared out evenly.
    """

    def __init__(
        self,
        dataset: PairDataset,
        features: ImageFeatures,
        options: AlignOptions,
        *,
        split: Split = "train",
        rank: int = 0,
        world: int = 1,
    ) -> None:
        assert options.duration_s is not None
        self.dataset, self.features, self.options = dataset, features, options
        self.split, self.rank, self.world = split, rank, world
        self.samples = round(options.duration_s * SAMPLE_RATE)
        self.sounds = _usable(dataset, features, split)
        if split == "train":
            self._check()
        self._shard_order: dict[int, np.ndarray] = {}
        self._bad_pictures = frozenset(features.bad.tolist())
        self.bad: set[int] = set()

    def _check(self) -> None:
        count, batch, folder = len(self.sounds), self.options.batch, self.dataset.folder
        if batch % self.world:
            raise OptionError(
                f"batch is {batch}; {self.world} processes share a multiple of {self.world}."
            )
        if count == 0:
            raise TrainingError(f"{folder} has no training pairs. See its report.csv.")
        contrastive = self.options.loss in (*CONTRASTIVE, "auto")
        if count == 1 and contrastive:
            raise TrainingError(
                f"{folder} has one training pair only, and loss {self.options.loss!r} tells pairs "
                "from each other. Add data, or train with --loss l2."
            )
        if contrastive and self.dataset.pairing == "class":
            names = {int(self.dataset.name[i]) for i in self.sounds}
            if len(names) == 1:
                raise TrainingError(
                    f"All training sounds of {folder} are of the class "
                    f"{self.dataset.names[names.pop()]!r}, and loss {self.options.loss!r} tells "
                    "classes from each other. Add another class, or train with --loss l2."
                )
        if count < batch:
            raise TrainingError(
                f"batch is {batch}, but {folder} has {count} training pairs; allowed: up to "
                f"{count}. Run again with --batch {count}, or add data."
            )

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches; the few sounds left over are others in each epoch."""
        return len(self.sounds) // self.options.batch

    def order(self, epoch: int) -> np.ndarray:
        """Numbers of the sounds of an epoch, int64 [n]: shards shuffled, then 16 at a time."""
        if epoch not in self._shard_order:
            random = np.random.default_rng((self.options.seed, _ORDER, epoch))
            shards = self.dataset.shard[self.sounds]
            places = random.permutation(int(shards.max()) + 1)[shards] // SHARDS_AT_ONCE
            shuffled = random.permutation(len(self.sounds))
            chosen = shuffled[np.argsort(places[shuffled], kind="stable")]
            self._shard_order = {epoch: self.sounds[chosen]}
        return self._shard_order[epoch]

    def at(self, step: int) -> Batch:
        """This process's rows of the global batch of a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        batch = self.options.batch
        numbers = self.order(epoch)[place * batch : (place + 1) * batch]
        share = batch // self.world
        rows = range(self.rank * share, (self.rank + 1) * share)
        waves, pictures, sounds = [], [], []
        bad: list[int] = []
        for row in rows:
            random = np.random.default_rng((self.options.seed, _ROW, step, row))
            sound, wave = self._read(int(numbers[row]), random, bad)
            waves.append(self._heard(wave, random, bad))
            pictures.append(self._partner(sound, random))
            sounds.append(sound)
        self._note(bad)
        return Batch(
            torch.stack(waves),
            self.features[np.array(pictures)],
            torch.tensor(sounds),
            draw_masks(self.options, step, rows),
            tuple(bad),
        )

    def _read(self, sound: int, random: np.random.Generator, bad: list[int]) -> tuple[int, Tensor]:
        """A sound; where it cannot be decoded, it is added to `bad` and another taken for it."""
        for _ in range(FEW):
            try:
                return sound, self.dataset.wave(sound)
            except BadSample as error:
                bad.append(sound)
                reason = error
                sound = int(self.sounds[random.integers(len(self.sounds))])
        raise TrainingError(
            f"{FEW} sounds in a row cannot be decoded, the last one {reason}. Run 's2v prepare' "
            "again."
        )

    def _note(self, bad: list[int]) -> None:
        self.bad.update(bad)
        if len(self.bad) > max(FEW, MAX_BAD * len(self.sounds)):
            name = self.dataset.key(min(self.bad))
            raise TrainingError(
                f"{len(self.bad)} of the {len(self.sounds)} sounds of {self.dataset.folder} cannot "
                f"be decoded, for example {name!r}. Run 's2v prepare' again."
            )

    def _heard(self, wave: Tensor, random: np.random.Generator, bad: list[int]) -> Tensor:
        options = self.options
        wave = crop(wave, self.samples, options.crop, random)
        if options.mix and random.random() < options.mix:
            other = int(self.sounds[random.integers(len(self.sounds))])
            _, behind = self._read(other, random, bad)
            level = random.uniform(*options.mix_db)
            wave = mix_behind(wave, crop(behind, self.samples, options.crop, random), level)
        if options.gain_db:
            wave = change_gain(wave, random.uniform(-options.gain_db, options.gain_db))
        return wave

    def _partner(self, sound: int, random: np.random.Generator) -> int:
        partners = self.dataset.partners(sound)
        while True:
            found = int(partners[random.integers(len(partners))])
            if found not in self._bad_pictures:
                return found

    def iterate(self, first: int, last: int) -> Iterator[Batch]:
        """The batches of steps first to last, exclusive, read ahead by worker processes."""
        workers = min(self.options.workers, os.cpu_count() or 1, max(0, last - first))
        if not workers:
            yield from (self.at(step) for step in range(first, last))
            return
        loader = DataLoader(
            _Steps(self, first, last),
            batch_size=None,
            shuffle=False,
            num_workers=workers,
            prefetch_factor=PREFETCH,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # else the loader draws from the global one
        )
        try:
            for batch in loader:
                if isinstance(batch, TrainingError):
                    raise batch
                self._note(list(batch.bad))
                yield batch
        except RuntimeError as error:
            if "worker" not in str(error):
                raise
            raise TrainingError(
                f"A process that reads ahead ended: {str(error).splitlines()[0]} Make /dev/shm "
                "or the memory larger, or run again with --workers 0."
            ) from None

    def once(self, batch: int | None = None) -> Iterator[Batch]:
        """Every sound of the split once, by number, unchanged: the loudest window of each.

        Its picture is one of its class by a fixed draw. Sounds that cannot be decoded are left
        out.
        """
        size = batch or self.options.batch
        for start in range(0, len(self.sounds), size):
            waves, pictures, sounds = [], [], []
            for sound in self.sounds[start : start + size].tolist():
                random = np.random.default_rng((self.options.seed, _PAIR, sound))
                try:
                    wave = self.dataset.wave(sound)
                except BadSample:
                    continue
                waves.append(crop(wave, self.samples, "loudest", random))
                pictures.append(self._partner(sound, random))
                sounds.append(sound)
            if waves:
                embedding = self.features[np.array(pictures)]
                yield Batch(torch.stack(waves), embedding, torch.tensor(sounds))


class _Steps(TorchDataset[Batch | TrainingError]):
    """Steps first to last as torch's DataLoader counts them."""

    def __init__(self, batches: Batches, first: int, last: int) -> None:
        self.batches, self.first, self.last = batches, first, last

    def __len__(self) -> int:
        return max(0, self.last - self.first)

    def __getitem__(self, index: int) -> Batch | TrainingError:
        """The batch, or the error: raised in a worker, its message would be a traceback."""
        try:
            return self.batches.at(self.first + index)
        except TrainingError as error:
            return error


def _usable(dataset: PairDataset, features: ImageFeatures, split: Split) -> np.ndarray:
    """The split's sounds that have a picture which could be decoded, int64 [n]."""
    sounds = dataset.sounds(split)
    if not len(features.bad):
        return sounds
    groups = sounds if dataset.pairing == "file" else dataset.name[sounds]
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    fine = [not np.isin(dataset.partners(int(i)), features.bad).all() for i in sounds[first]]
    kept: np.ndarray = sounds[np.array(fine, bool)[group]]
    return kept
