"""Distances of drawn pictures to real ones, on features that are known."""

from __future__ import annotations

import pytest
import torch

from s2v_cli.training.realism import distances, same_classes

pytest.importorskip("torchmetrics")


def test_a_shift_is_the_distance_and_equal_sets_have_none() -> None:
    random = torch.Generator().manual_seed(0)
    real = torch.randn(400, 4, generator=random)
    logits = torch.zeros(400, 3)
    logits[torch.arange(400), torch.arange(400) % 3] = 50.0  # sure, and of all classes alike
    names = [str(i % 3) for i in range(400)]
    sources = [str(i // 2) for i in range(400)]
    found = distances(real + 2.0, logits, names, sources, real, names, real)
    assert found["fid"] == pytest.approx(4 * 2.0**2, rel=1e-4)
    assert found["fid_floor"] == pytest.approx(0, abs=1e-4)
    assert found["kid"]["low"] > 0 > found["kid_floor"]["low"] - 1e-3
    assert found["inception_score"]["value"] == pytest.approx(3, rel=1e-3)
    assert (found["pictures"], found["real"], found["dimension"]) == (400, 400, 4)


def test_photos_of_the_same_classes_without_repeats() -> None:
    groups = ["a"] * 5 + ["b"] * 2 + ["c"]
    chosen = same_classes(groups, ["b", "a", "b", "b", "a", "missing"])
    assert len(set(chosen)) == len(chosen) == 4
    assert sorted(groups[i] for i in chosen) == ["a", "a", "b", "b"]
    assert chosen == same_classes(groups, ["b", "a", "b", "b", "a", "missing"])
