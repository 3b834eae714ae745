"""A drawn dataset of three classes, prepared once: red, green and blue pictures, three tones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from s2v_cli.training.evaluation.held_out import open_held_out
from s2v_cli.training.evaluation.recall import train_classifier
from s2v_cli.training.judge import Judge
from s2v_cli.training.prepare.options import PrepareOptions
from s2v_cli.training.prepare.work import prepare
from s2v_cli.training.recipe import StageOptions

TINTS = {"blue_sea": (0, 0, 150), "green": (0, 150, 0), "red": (150, 0, 0)}
PHOTOS = {"train": 10, "validation": 3, "test": 4}  # of each class
SOUNDS = {"train": 1, "validation": 1, "test": 3}
QUICK = StageOptions(steps=24, batch=12, learning_rate=3e-3, ema=0.5, validate_every=8)


def draw_classes(root: Path, names: list[str]) -> Path:
    """SPLIT/images/CLASS and SPLIT/sounds/CLASS; pictures are wider than high."""
    random = np.random.default_rng(0)
    for number, name in enumerate(names):
        for split, count in PHOTOS.items():
            for i in range(count):
                path = root / split / "images" / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = random.integers(0, 100, (170, 200, 3)) + np.array(TINTS[name])
                Image.fromarray(pixels.astype(np.uint8)).save(path)
        for split, count in SOUNDS.items():
            for i in range(count):
                path = root / split / "sounds" / name / f"{i}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                time = np.arange(8000) / 16000
                wave = 0.1 * np.sin(2 * np.pi * (200 + 300 * number + 20 * i) * time)
                soundfile.write(path, wave + 0.01 * random.standard_normal(8000), 16000)
    return root


def prepared(source: Path, folder: Path, layout: str) -> Path:
    prepare(source, folder, PrepareOptions(layout=layout, workers=1, select="mid"))
    return folder


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("classes")
    return prepared(draw_classes(root / "source", list(TINTS)), root / "data", "classes")


@pytest.fixture(scope="session")
def one_class(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("one")
    return prepared(draw_classes(root / "source", ["red"]), root / "data", "classes")


@pytest.fixture(scope="session")
def unnamed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of files, which have no classes."""
    root = tmp_path_factory.mktemp("pairs")
    random = np.random.default_rng(1)
    for split, count in (("train", 6), ("test", 5)):
        for i in range(count):
            folder = root / "source" / split
            folder.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 255, (64, 64, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
            soundfile.write(folder / f"{i}.wav", 0.1 * random.standard_normal(8000), 16000)
    return prepared(root / "source", root / "data", "pairs")


@pytest.fixture(scope="session")
def classifier(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `judge.pt`, trained shortly on the drawn pictures."""
    folder = tmp_path_factory.mktemp("classifier")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    judge = train_classifier(open_held_out(drawn, "test"), folder, QUICK)
    torch.set_num_threads(threads)
    assert isinstance(judge, Judge)
    return folder / "judge.pt"
