"""Photos, clips and voices of a prepared dataset, as the stages of a recipe take them.

A class is a group of photos, and its sounds are paired with it. An example without a class is a
group of its own, with all others of its source: a photo's own sound is then its only partner.
Classes named `face_GROUP` are faces; their sounds are voices.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from s2v_cli.training.dataset import FACE, OWN, Clip, Photo
from s2v_cli.training.manifest import Example, read_manifest

UNPAIRED = "~"  # begins the names of classes that no picture belongs to


def prepared_photos(root: Path) -> list[Photo]:
    """All pictures, in the order of their keys."""
    return [
        Photo(_group(example), root / example.shard, example.key, example.split, example.image)
        for example in read_manifest(root)
        if example.image is not None and not (example.name or "").startswith(UNPAIRED)
    ]


def prepared_clips(root: Path) -> list[Clip]:
    """All sounds but the voices, in the order of their keys."""
    return [clip for clip in _clips(root) if not (clip.photo_class or "").startswith(FACE)]


def prepared_voices(root: Path) -> list[Clip]:
    """The sounds of the classes `face_GROUP`, under the name GROUP."""
    return [
        Clip(
            clip.sound_class.removeprefix(FACE),
            clip.photo_class,
            clip.path,
            clip.recording,
            clip.split,
            clip.part,
        )
        for clip in _clips(root)
        if (clip.photo_class or "").startswith(FACE)
    ]


def _clips(root: Path) -> Iterator[Clip]:
    for example in read_manifest(root):
        if example.sound is None:
            continue
        name = _group(example)
        photo = None if name.startswith(UNPAIRED) else name
        yield Clip(
            name.removeprefix(UNPAIRED),
            photo,
            root / example.shard,
            example.source,
            example.split,
            example.sound,
        )


def _group(example: Example) -> str:
    return example.name if example.name is not None else OWN + example.source
