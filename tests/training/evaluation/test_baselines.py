"""The rows of the table: what each of them shows for a sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from s2v_cli.pipeline import Sound2Vision
from s2v_cli.presets import load_preset
from s2v_cli.training.evaluation import baselines
from s2v_cli.training.evaluation.baselines import (
    Gallery,
    alike,
    fit_gallery,
    from_gallery,
    generator_bytes,
    nearest_photos,
    open_gallery,
    real_picture,
)
from s2v_cli.training.evaluation.held_out import class_of, open_held_out


@pytest.fixture(scope="module")
def model() -> Sound2Vision:
    return Sound2Vision.load("mini", device="cpu")


@pytest.fixture(scope="module")
def heard(model: Sound2Vision, drawn: Path) -> Tensor:
    return baselines.hear(model, open_held_out(drawn, "test"))


def pixels(images: list) -> list[np.ndarray]:  # type: ignore[type-arg]
    return [np.asarray(image) for image in images]


def test_row_b_is_what_gen_draws(model: Sound2Vision, drawn: Path, heard: Tensor) -> None:
    """The preset's defaults; each sound has seeds of its own."""
    data = open_held_out(drawn, "test")
    rows = list(baselines.from_sounds(model, data, heard[:], 2, seed=5))
    assert [row.example for row in rows] == list(data.sounds)
    options = model.preset.generate_options(seed=5 + 2 * 3, count=2)
    expected = model.generate_from_embedding(heard[3], options)
    for found, wanted in zip(rows[3].images, expected, strict=True):
        assert (np.asarray(found) == np.asarray(wanted.image)).all()


def test_row_a_sees_the_partner_and_has_the_noise_of_row_b(
    model: Sound2Vision, drawn: Path
) -> None:
    data = open_held_out(drawn, "test", 2)
    rows = list(baselines.from_images(model, data, 1, seed=9))
    partner = data.partners[1]
    assert partner is not None
    embedding = model.encode_image(data.picture(partner))
    options = model.preset.generate_options(seed=10)
    wanted = model.generate_from_embedding(embedding, options)[0].image
    assert (np.asarray(rows[1].images[0]) == np.asarray(wanted)).all()


def test_retrieval_finds_the_largest_cosine() -> None:
    gallery = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 3.0], [-1.0, 0.0]])
    queries = torch.tensor([[0.1, 5.0], [2.0, 1.9], [-9.0, 0.1], [1.0, 0.0]])
    assert nearest_photos(queries, gallery) == [1, 2, 3, 0]


def test_a_gallery_is_as_large_as_the_generator(model: Sound2Vision, drawn: Path) -> None:
    data = open_held_out(drawn, "test")
    sizes = [example.image.size for example in data.training if example.image]
    half = fit_gallery(data.training, sum(sizes) // 2)
    total = sum(example.image.size for example in half if example.image)
    assert 0 < len(half) < len(sizes) and sum(sizes) // 2 - max(sizes) < total <= sum(sizes) // 2
    assert half == fit_gallery(data.training[::-1], sum(sizes) // 2)
    assert len(fit_gallery(data.training, sum(sizes))) == len(sizes)
    assert fit_gallery(data.training, min(sizes) - 1) == []
    assert generator_bytes(load_preset("mini")) == load_preset("mini").weight("generator").bytes
    gallery = open_gallery(model, data)
    assert gallery is not None and gallery.of == len(gallery.examples) == 30
    assert gallery.bytes == sum(sizes) and gallery.embeddings.shape == (30, 256)


def test_row_c_shows_the_photo_that_was_found(drawn: Path) -> None:
    data = open_held_out(drawn, "test", 3)
    examples = data.training[:4]
    gallery = Gallery(examples, torch.eye(4), 1, 1, 4)
    rows = list(from_gallery(data, torch.eye(4)[[2, 0, 3]], gallery, 128))
    for row, place in zip(rows, (2, 0, 3), strict=True):
        wanted = real_picture(data, examples[place], 128)
        assert (np.asarray(row.images[0]) == np.asarray(wanted)).all()


def test_real_pictures_have_the_size_of_drawn_ones(drawn: Path) -> None:
    data = open_held_out(drawn, "test")
    assert real_picture(data, data.photos[0], 128).size == (128, 128)
    assert real_picture(data, data.photos[0], 768).size == (170, 170)  # never enlarged


def test_a_floor_is_of_the_same_classes_without_repeats(drawn: Path) -> None:
    data = open_held_out(drawn, "test")
    wanted = ["red"] * 4 + ["green"] * 12 + ["blue_sea"] + ["unknown"]
    chosen = alike(data.training, wanted)
    assert [class_of(e) for e in chosen] == ["red"] * 4 + ["green"] * 10 + ["blue_sea"]
    assert len({example.key for example in chosen}) == len(chosen)
