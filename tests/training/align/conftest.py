"""A drawn dataset paired by file and one by class, with their features, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from s2v_cli.pipeline import Sound2Vision
from s2v_cli.training.align.features import ImageFeatures
from s2v_cli.training.pairs import PairDataset
from tests.training.drawn_pairs import write_classes, write_pairs

Drawn = tuple[PairDataset, ImageFeatures]


@pytest.fixture(scope="session")
def mini_teacher() -> Sound2Vision:
    return Sound2Vision.load("mini", device="cpu")


def with_features(folder: Path, teacher: Sound2Vision) -> Drawn:
    dataset = PairDataset.open(folder)
    return dataset, ImageFeatures.open(dataset, teacher, folder / "cache")


@pytest.fixture(scope="session")
def by_file(tmp_path_factory: pytest.TempPathFactory, mini_teacher: Sound2Vision) -> Drawn:
    """Twenty-four training pairs in three shards, four for validation."""
    folder = write_pairs(tmp_path_factory.mktemp("file") / "data", 24, 4, shards=3)
    return with_features(folder, mini_teacher)


@pytest.fixture(scope="session")
def by_class(tmp_path_factory: pytest.TempPathFactory, mini_teacher: Sound2Vision) -> Drawn:
    """Three classes of eight training sounds and four pictures, and negatives."""
    folder = tmp_path_factory.mktemp("class") / "data"
    return with_features(write_classes(folder, ["cat", "dog", "rain", "~hum"], 8, 4), mini_teacher)
