"""The linear probe on features whose classes are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from s2v_cli.encoders.mini_sound import MiniSoundEncoder
from s2v_cli.training.probe import linear_probe, trunk_features

pytest.importorskip("sklearn")


def drawn(apart: float, seed: int = 0) -> tuple[Tensor, list[str], list[str]]:
    """60 features of three classes whose means lie so far apart, two of each recording."""
    random = torch.Generator().manual_seed(seed)
    classes = [name for name in ("rain", "dog", "bell") for _ in range(20)]
    features = torch.randn(60, 8, generator=random)
    for place, name in enumerate(("rain", "dog", "bell")):
        features[[c == name for c in classes], place] += apart
    return features, classes, [f"r{i // 2}" for i in range(60)]


def test_classes_that_lie_apart_are_told_apart() -> None:
    features, classes, recordings = drawn(10.0)
    held_out, right, _ = drawn(10.0, seed=1)
    assert sum(linear_probe(features, classes, recordings, held_out, right)) == 60


def test_features_without_classes_are_chance() -> None:
    features, classes, recordings = drawn(0.0)
    held_out, right, _ = drawn(0.0, seed=1)
    assert 10 <= sum(linear_probe(features, classes, recordings, held_out, right)) <= 32


def test_scale_and_place_of_features_change_nothing() -> None:
    features, classes, recordings = drawn(2.0)
    held_out, right, _ = drawn(2.0, seed=1)
    factors = torch.logspace(-2, 2, 8)
    moved = linear_probe(features * factors + 5, classes, recordings, held_out * factors + 5, right)
    assert moved == linear_probe(features, classes, recordings, held_out, right)


def test_the_trunk_hears_the_loudest_window() -> None:
    torch.manual_seed(0)
    encoder = MiniSoundEncoder().eval()
    loud = 0.3 * torch.randn(encoder.samples)
    silence = torch.zeros(2 * encoder.samples)
    (alone, late) = trunk_features(encoder, [loud, torch.cat([silence, loud])])
    assert alone.shape == (384,)
    torch.testing.assert_close(alone, late)
