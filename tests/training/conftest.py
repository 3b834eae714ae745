"""A miniature data set: three photo groups, a face group, and sounds with and without photos."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

PHOTOS, FACES, CLIPS = 14, 6, 6


def _write_csv(path: Path, columns: str, rows: list[list[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns.split(","), *rows])


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder as `training.dataset` reads it; pictures and sounds are drawn by rule."""
    root = tmp_path_factory.mktemp("miniature")
    rng = np.random.default_rng(0)

    def photo(path: Path, tint: tuple[int, int, int]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 60, (160, 160, 3)) + np.array(tint)
        Image.fromarray(pixels.astype(np.uint8)).save(path, quality=80)

    rows: list[list[object]] = []
    for name, tint in (("rain", (0, 0, 180)), ("fire", (190, 60, 0)), ("mountain", (60, 150, 60))):
        for i in range(PHOTOS):
            photo(root / "images" / name / f"{name}_{i}.jpg", tint)
            rows.append([name, f"{name}/{name}_{i}.jpg", "drawn", "", "CC0"])
    _write_csv(root / "images/SOURCES.csv", "class,file,source_repo,source_path,licence", rows)
    rows = []
    for i in range(FACES):
        photo(root / "faces/male_adult" / f"{i}.jpg", (150, 120, 100))
        rows.append(["male_adult", f"male_adult/{i}.jpg", "drawn", "", "CC0"])
    _write_csv(root / "faces/SOURCES.csv", "class,file,source_repo,source_path,licence", rows)
    rows = []
    time = np.arange(8000) / 16000
    for number, name in enumerate(("rain", "fire", "wind", "clock")):
        for i in range(CLIPS):
            wave = 0.1 * np.sin(2 * np.pi * 300 * (number + 1) * time) + 0.02 * rng.standard_normal(
                8000
            )
            file = root / "sounds" / name / f"{i}.wav"
            file.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(file, wave, 16000)
            fold = 1 + i % 4
            rows.append([name, f"{name}/{i}.wav", "", "", "CC0", 0.5, name, fold, f"{name}-{i}"])
    _write_csv(
        root / "sounds/SOURCES.csv",
        "class,file,source_repo,source_path,licence,duration_s,orig_label,esc50_fold,recording",
        rows,
    )
    pairs: list[list[object]] = [["rain", "rain", 6], ["fire", "fire", 6], ["wind", "", 6]]
    _write_csv(root / "sounds/image_classes.csv", "sound_class,image_class,clips", pairs)
    return root
