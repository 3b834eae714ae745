"""What a preset is measured on: sounds and real pictures of one split, and the training pictures.

Only the lines of the manifest are held; pictures and sounds are read from their shards one by one.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from s2v_cli.errors import OptionError, S2VError, TrainingError
from s2v_cli.training.manifest import (
    SPLITS,
    Example,
    Pairing,
    Part,
    Split,
    read_dataset,
    read_manifest,
)
from s2v_cli.training.metrics import spread

if TYPE_CHECKING:
    from PIL.Image import Image

    from s2v_cli.audio.read import Sound
    from s2v_cli.pipeline import Sound2Vision

UNNAMED = "all"  # the one class of a dataset without names


@dataclass(frozen=True)
class HeldOut:
    """Sounds and pictures of a split.

    Attributes:
        folder: of the dataset.
        pairing: what makes a picture and a sound a pair.
        split: that is measured on.
        names: of all classes that have pictures, or sounds in the split, sorted; empty where
            examples have no names.
        sounds: that pictures are made of, sorted by key.
        photos: the split's pictures of their classes, sorted by key: the real pictures.
        training: the training split's pictures of all classes, sorted by key.
        validation: the validation split's pictures, unless that is the split measured on.
    """

    folder: Path
    pairing: Pairing
    split: Split
    names: tuple[str, ...]
    sounds: tuple[Example, ...]
    photos: tuple[Example, ...]
    training: tuple[Example, ...]
    validation: tuple[Example, ...]

    @property
    def recordings(self) -> int:
        """How many sources the sounds are from."""
        return len({example.source for example in self.sounds})

    @property
    def classes(self) -> list[str]:
        """Classes of the sounds, sorted."""
        return sorted({class_of(example) for example in self.sounds})

    @cached_property
    def partners(self) -> tuple[Example | None, ...]:
        """A real picture of each sound: its own, or one of its class, each of them in turn.

        None where the split has no picture of the class.
        """
        if self.pairing == "file":
            return tuple(e if e.image is not None else None for e in self.sounds)
        by_class: dict[str, list[Example]] = {}
        for photo in sorted(self.photos, key=lambda e: _hash(e.key)):
            by_class.setdefault(class_of(photo), []).append(photo)
        turns: dict[str, int] = {}
        found: list[Example | None] = []
        for sound in self.sounds:
            name = class_of(sound)
            turn = turns[name] = turns.get(name, -1) + 1
            photos = by_class.get(name)
            found.append(photos[turn % len(photos)] if photos else None)
        return tuple(found)

    def picture(self, example: Example) -> Image:
        """The picture of an example, RGB.

        Raises:
            TrainingError: its shard is missing or cut short, or it is no picture.
        """
        from PIL import Image as Images

        content = self.read(example, example.image)
        try:
            with Images.open(io.BytesIO(content)) as image:
                return image.convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise self._damaged(example, "picture", error) from None

    def sound(self, example: Example, model: Sound2Vision) -> Sound:
        """The sound of an example as `s2v gen` would hear it.

        Raises:
            TrainingError: its shard is missing or cut short, or it is no sound.
        """
        from s2v_cli.audio.read import read_sound

        encoder = model.sound_encoder
        stream = io.BytesIO(self.read(example, example.sound))
        try:
            return read_sound(stream, sample_rate=encoder.sample_rate, window_s=encoder.window_s)
        except S2VError as error:
            raise self._damaged(example, "sound", error) from None

    def read(self, example: Example, part: Part | None) -> bytes:
        """The bytes of a picture or sound.

        Raises:
            TrainingError: its shard is missing or cut short.
        """
        assert part is not None, example.key
        path = self.folder / example.shard
        try:
            with path.open("rb") as shard:
                shard.seek(part.offset)
                content = shard.read(part.size)
        except OSError as error:
            raise TrainingError(
                f"Cannot read {path}: {error.strerror}. Run 's2v prepare' again."
            ) from None
        if len(content) != part.size:
            raise TrainingError(f"{path} is cut short. Run 's2v prepare' again.")
        return content

    def _damaged(self, example: Example, what: str, error: Exception) -> TrainingError:
        reason = " ".join(str(error).split()).rstrip(".")
        return TrainingError(
            f"The {what} {example.key!r} in {self.folder / example.shard} cannot be read "
            f"({reason}). Run 's2v prepare' again."
        )


def class_of(example: Example) -> str:
    """Class of an example; all examples of a dataset without names are of one."""
    return example.name or UNNAMED


def open_held_out(folder: Path, split: str, limit: int | None = None) -> HeldOut:
    """Read what a preset is measured on from a prepared dataset.

    Args:
        folder: of the dataset.
        split: train, validation or test.
        limit: take that many sounds at most, of all classes in turn.

    Raises:
        OptionError: an unknown split.
        TrainingError: no dataset, or nothing in the split to measure on.
    """
    if split not in SPLITS:
        raise OptionError(f"split is {split!r}; allowed: {', '.join(SPLITS)}.")
    dataset = read_dataset(folder)
    sounds, photos, training, validation = [], [], [], []
    names: set[str | None] = set()
    for example in read_manifest(folder):
        if (example.name or "").startswith("~"):  # no picture belongs to it
            continue
        if example.image is not None:
            names.add(example.name)
            if example.split == "train":
                training.append(example)
            if example.split == "validation" != split:
                validation.append(example)
            if example.split == split:
                photos.append(example)
        if example.sound is not None and example.split == split:
            names.add(example.name)
            sounds.append(example)
    if not sounds:
        raise TrainingError(
            f"{folder} has no sounds in the split {split!r}; it has {_counts(dataset.counts)}. "
            "Choose another --split."
        )
    if limit is not None:
        sounds = [sounds[i] for i in spread([class_of(e) for e in sounds], limit)]
    heard = {class_of(example) for example in sounds}
    photos = [example for example in photos if class_of(example) in heard]
    if not photos:
        raise TrainingError(
            f"{folder} has no pictures of the sounds' classes in the split {split!r}: there is "
            "nothing real to compare with. Choose another --split."
        )
    return HeldOut(
        folder,
        dataset.pairing,
        split,
        () if None in names else tuple(sorted(name for name in names if name is not None)),
        tuple(sounds),
        tuple(photos),
        tuple(training),
        tuple(validation),
    )


def centre_square(image: Image) -> Image:
    """The largest square in the middle of a picture."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def by_hash(examples: Iterable[Example]) -> list[Example]:
    """Examples in an order that depends on their keys alone."""
    return sorted(examples, key=lambda example: _hash(example.key))


def _hash(key: str) -> bytes:
    return hashlib.sha256(f"evaluation/{key}".encode()).digest()


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} examples in {name}" for name, count in counts.items())
