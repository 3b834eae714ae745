"""The rows of Table 1: from the image (A), from the sound (B), retrieval (C), real pictures (D)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from s2v_cli.errors import TrainingError
from s2v_cli.latent import similarity
from s2v_cli.picture import resize
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.presets import Preset
from s2v_cli.training.evaluation.held_out import HeldOut, by_hash, centre_square, class_of
from s2v_cli.training.evaluation.options import RowName
from s2v_cli.training.judge import Progress
from s2v_cli.training.manifest import Example
from s2v_cli.weights.store import asset_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

TITLES: dict[RowName, str] = {
    "A": "from the image",
    "B": "from the sound",
    "C": "retrieval",
    "D": "real pictures",
}
# Encoder and generator, as in the paper's Table 1: V sees, A hears, G draws, R retrieves.
PARTS: dict[RowName, tuple[str, str]] = {
    "A": ("V", "G"),
    "B": ("A", "G"),
    "C": ("A", "R"),
    "D": ("-", "-"),
}
NEEDS_IMAGES: tuple[RowName, ...] = ("A", "C")


@dataclass(frozen=True)
class Drawn:
    """Pictures that a row has for one sound, or one real picture.

    Attributes:
        place: of the sound among `HeldOut.sounds`, or of the photo among `HeldOut.photos`.
        example: the sound, or the photo.
        images: square, RGB.
    """

    place: int
    example: Example
    images: list[Image]


def has_image_encoder(preset: Preset) -> bool:
    """Whether a preset can encode pictures, as rows A and C need it."""
    return any(weight.role == "image_encoder" for weight in preset.weights)


def hear(model: Sound2Vision, data: HeldOut, progress: Progress | None = None) -> Tensor:
    """z^A [N, D] of the sounds, each heard as by `s2v gen`.

    Raises:
        TrainingError: a sound cannot be read, or its embedding is not finite.
    """
    rows = []
    for number, example in enumerate(data.sounds):
        embedding = model.encode_sound(data.sound(example, model)).embedding
        if not bool(embedding.isfinite().all()):
            raise TrainingError(
                f"The embedding of the sound {example.key!r} is not finite: the preset "
                f"{model.preset.name!r} is damaged."
            )
        rows.append(embedding)
        if progress:
            progress("listen", number + 1, len(data.sounds), {})
    return torch.stack(rows)


def from_sounds(
    model: Sound2Vision, data: HeldOut, embeddings: Tensor, seeds: int, seed: int = 0
) -> Iterator[Drawn]:
    """Row B: pictures of each sound by the preset's defaults, each sound with seeds of its own."""
    for place, (example, embedding) in enumerate(zip(data.sounds, embeddings, strict=True)):
        yield Drawn(place, example, _draw(model, embedding, place, seeds, seed))


def from_images(model: Sound2Vision, data: HeldOut, seeds: int, seed: int = 0) -> Iterator[Drawn]:
    """Row A: as row B, of the sound's real picture in place of the sound, with the same noise."""
    for place, (example, partner) in enumerate(zip(data.sounds, data.partners, strict=True)):
        if partner is not None:
            embedding = model.encode_image(data.picture(partner))
            yield Drawn(place, example, _draw(model, embedding, place, seeds, seed))


def _draw(model: Sound2Vision, embedding: Tensor, place: int, seeds: int, seed: int) -> list[Image]:
    options = model.preset.generate_options(seed=seed + place * seeds, count=seeds)
    return [picture.image for picture in model.generate_from_embedding(embedding, options)]


@dataclass(frozen=True)
class Gallery:
    """The photos that row C retrieves from.

    Attributes:
        examples: the photos.
        embeddings: z^V of each, [M, D].
        bytes: of all their files.
        generator_bytes: of the generator's weights, which the photos take the place of.
        of: how many photos there were to choose from.
    """

    examples: Sequence[Example]
    embeddings: Tensor
    bytes: int
    generator_bytes: int
    of: int


def generator_bytes(preset: Preset, weights_dir: Path | None = None) -> int:
    """How large the weights of a preset's generator are on disk.

    Raises:
        MissingWeightsError: published weights that were not pulled.
    """
    weight = preset.weight("generator")
    manifests = [asset_manifest(name, weights_dir) for name in weight.assets]
    return weight.bytes + sum(file.bytes for found in manifests for file in found.files)


def fit_gallery(training: Sequence[Example], limit: int) -> list[Example]:
    """As many training photos, in an order by their keys' hashes, as fit into `limit` bytes."""
    chosen, left = [], limit
    for example in by_hash(training):
        size = example.image.size if example.image else 0
        if size > left:
            break
        chosen.append(example)
        left -= size
    return chosen


def open_gallery(
    model: Sound2Vision,
    data: HeldOut,
    weights_dir: Path | None = None,
    progress: Progress | None = None,
) -> Gallery | None:
    """A retrieval system of the generator's size (§4.3); None where not one photo fits in."""
    limit = generator_bytes(model.preset, weights_dir)
    chosen = fit_gallery(data.training, limit)
    if not chosen:
        return None
    rows = []
    for number, example in enumerate(chosen):
        rows.append(model.encode_image(data.picture(example)))
        if progress:
            progress("look at training photos", number + 1, len(chosen), {})
    size = sum(example.image.size for example in chosen if example.image)
    return Gallery(chosen, torch.stack(rows), size, limit, len(data.training))


def nearest_photos(embeddings: Tensor, gallery: Tensor) -> list[int]:
    """For each embedding [N, D], the row of the gallery [M, D] with the largest cosine."""
    return [int(similarity(gallery, row[None]).argmax()) for row in embeddings]


def from_gallery(data: HeldOut, embeddings: Tensor, gallery: Gallery, side: int) -> Iterator[Drawn]:
    """Row C: the training photo nearest to each sound."""
    found = nearest_photos(embeddings, gallery.embeddings)
    for place, (example, photo) in enumerate(zip(data.sounds, found, strict=True)):
        image = real_picture(data, gallery.examples[photo], side)
        yield Drawn(place, example, [image])


def real(data: HeldOut, photos: Sequence[Example], side: int) -> Iterator[Drawn]:
    """Row D, and the reference of FID and KID: real pictures."""
    for place, example in enumerate(photos):
        yield Drawn(place, example, [real_picture(data, example, side)])


def real_picture(data: HeldOut, example: Example, side: int) -> Image:
    """The centre square of a real picture, reduced to `side` px: the size of drawn pictures.

    So that sharpness alone tells no picture from a real one. Smaller ones stay as they are.
    """
    square = centre_square(data.picture(example))
    return resize(square, side) if square.width > side else square


def alike(photos: Sequence[Example], classes: Sequence[str]) -> list[Example]:
    """Photos of the same classes as often as they occur, without repeats, for a floor.

    Args:
        photos: to choose from.
        classes: one for each photo that is wanted.

    Returns:
        Fewer where a class has no more photos.
    """
    waiting: dict[str, list[Example]] = {}
    for example in reversed(by_hash(photos)):
        waiting.setdefault(class_of(example), []).append(example)
    return [waiting[name].pop() for name in classes if waiting.get(name)]
