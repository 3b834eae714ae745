"""Effects are real: a mix follows its weights, an interpolation its own, on fixed seeds.

`benchmarks/control.py` measures the same over 30 held-out pairs; here the example sounds stand in.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy import stats
from torch import Tensor

from s2v_cli.audio.mixdown import mix_sounds
from s2v_cli.audio.tracks import Track, sweep_weights
from s2v_cli.latent import interpolate, similarity
from s2v_cli.pipeline import Sound2Vision

EXAMPLES = Path(__file__).parents[1] / "examples"
PAIRS = [
    ("dog.flac", "sea.ogg"), ("church_bells.ogg", "sea.ogg"), ("fire.flac", "church_bells.ogg"),
    ("rain.wav", "dog.flac"), ("chainsaw.mp3", "sea.ogg"), ("helicopter.ogg", "church_bells.ogg"),
]  # fmt: skip
STEPS, SEEDS = 7, 4
SHARES = [one for one, _ in sweep_weights(STEPS)]


@pytest.fixture(scope="module")
def model() -> Sound2Vision:
    return Sound2Vision.load("mini", device="cpu")


def follows(weights: list[float], row: Tensor, first: Tensor, second: Tensor) -> float:
    nearer = similarity(row, first) - similarity(row, second)
    return float(stats.spearmanr(weights, nearer.numpy()).statistic)


def seen(model: Sound2Vision, conditions: Tensor, seeds: int = SEEDS) -> Tensor:
    """Mean image embeddings [F, D] of pictures of conditions [F, D]."""
    options, total = model.preset.generate_options(), torch.zeros_like(conditions)
    for seed in range(seeds):
        pictures = model.generate_strip(conditions, replace(options, seed=seed))
        total += torch.stack([model.encode_image(picture.image) for picture in pictures])
    return total / seeds


def walk(model: Sound2Vision, first: str, second: str) -> Tensor:
    """Sound embeddings [F, D] on the way from one example to another."""
    tracks = [Track(str(EXAMPLES / first)), Track(str(EXAMPLES / second))]
    mixed = mix_sounds(tracks, sample_rate=16_000, window_s=5.0, sweep=sweep_weights(STEPS))
    return torch.stack([model.encode_sound(sound).embedding for sound in mixed.sounds])


def test_what_is_heard_of_a_mix_follows_its_weights(model: Sound2Vision) -> None:
    walks = [walk(model, *pair) for pair in PAIRS]
    found = [follows(SHARES, heard, heard[0], heard[-1]) for heard in walks]
    assert sum(found) / len(found) >= 0.9, found
    assert min(found) > 0.5


@pytest.mark.slow
def test_what_is_seen_of_a_mix_follows_its_weights(model: Sound2Vision) -> None:
    walks = [seen(model, walk(model, *pair)) for pair in PAIRS]
    found = [follows(SHARES, drawn, drawn[0], drawn[-1]) for drawn in walks]
    assert sum(found) / len(found) >= 0.8, found
    assert min(found) > 0


def test_another_order_is_not_followed(model: Sound2Vision) -> None:
    """The measure is no artefact of its ends."""
    heard = walk(model, *PAIRS[0])
    order = torch.tensor([3, 0, 5, 1, 6, 2, 4])
    assert abs(follows(SHARES, heard[order], heard[0], heard[-1])) < 0.7


@pytest.mark.slow
@pytest.mark.parametrize("path", ["linear", "spherical"])
def test_an_interpolation_follows_its_weight(model: Sound2Vision, path: str) -> None:
    image = model.encode_image(EXAMPLES / "boat.jpg")
    found = []
    for name in ("church_bells.ogg", "fire.flac", "dog.flac"):
        sound = model.encode_sound(EXAMPLES / name).embedding
        blends = interpolate(image, sound, torch.tensor(SHARES), unit=True, path=path)  # type: ignore[arg-type]
        drawn = seen(model, blends)
        found.append(follows(SHARES, drawn, image, sound))
    assert sum(found) / len(found) >= 0.9, found
