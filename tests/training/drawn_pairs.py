"""Prepared datasets of drawn sounds and pictures, written shard by shard."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from s2v_cli.training.manifest import (
    SAMPLE_RATE,
    SPLITS,
    Dataset,
    Example,
    Pairing,
    Split,
    write_manifest,
)
from s2v_cli.training.prepare.shards import ShardWriter, encode_sound

SECONDS = 0.5


def sound_of(number: int, seconds: float = SECONDS) -> np.ndarray:
    """Noise float32 [T], another for each number."""
    random = np.random.default_rng(number)
    return random.normal(0, 0.1, round(seconds * SAMPLE_RATE)).astype(np.float32)


def jpeg_of(number: int, size: tuple[int, int] = (48, 40)) -> bytes:
    """Patches of colours, others for each number, as a JPEG file."""
    patches = np.random.default_rng(number).integers(0, 256, (5, 6, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(patches).resize(size, Image.Resampling.NEAREST).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def flac_of(number: int, seconds: float = SECONDS) -> bytes:
    return encode_sound(sound_of(number, seconds))


def write_rows(
    folder: Path,
    rows: Sequence[tuple[Example, bytes | None, bytes | None]],
    pairing: Pairing = "file",
    shards: int = 2,
) -> Path:
    """A dataset of examples, each with the content of its picture and its sound."""
    written, examples = [], []
    for split in SPLITS:
        own = [row for row in rows if row[0].split == split]
        for number, part in enumerate(np.array_split(np.arange(len(own)), shards)):
            if len(part):
                writer = ShardWriter(folder, split, number)
                examples += [writer.add(*own[place]) for place in part]
                written.append(writer.close())
    counts = {split: sum(row[0].split == split for row in rows) for split in SPLITS}
    Dataset(pairing, tuple(written), counts, {}).write(folder)
    write_manifest(folder, examples)
    return folder


def example(key: str, split: Split = "train", name: str | None = None) -> Example:
    return Example(key=key, source=key, split=split, shard="", name=name)


def write_pairs(
    folder: Path,
    train: int = 24,
    validation: int = 4,
    *,
    bad_sounds: Collection[int] = (),
    bad_images: Collection[int] = (),
    shards: int = 2,
    seconds: float = SECONDS,
) -> Path:
    """Pairs 0000, 0001, ... paired by file; some of them damaged."""
    rows: list[tuple[Example, bytes | None, bytes | None]] = []
    for number in range(train + validation):
        split: Split = "train" if number < train else "validation"
        image = b"no picture" if number in bad_images else jpeg_of(number)
        sound = b"no sound" if number in bad_sounds else flac_of(number, seconds)
        rows.append((example(f"{number:04d}", split), image, sound))
    return write_rows(folder, rows, shards=shards)


def write_classes(folder: Path, names: Sequence[str], sounds: int = 6, images: int = 4) -> Path:
    """So many sounds and pictures of each class for training, one of each for validation."""
    rows: list[tuple[Example, bytes | None, bytes | None]] = []
    for name in names:
        for number in range(sounds + 1):
            split: Split = "train" if number < sounds else "validation"
            sound = flac_of(len(rows))
            rows.append((example(f"{name.strip('~')}-s{number}", split, name), None, sound))
        if name.startswith("~"):
            continue
        for number in range(images + 1):
            split = "train" if number < images else "validation"
            rows.append((example(f"{name}-i{number}", split, name), jpeg_of(len(rows)), None))
    return write_rows(folder, rows, "class")
