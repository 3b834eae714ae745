"""What is held out, on a miniature data set with a known answer."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from s2v_cli.errors import TrainingError
from s2v_cli.training.dataset import (
    Clip,
    find_clips,
    find_photos,
    hash_share,
    load_photos,
    load_waves,
    members_of,
    photo_split,
)

Row = dict[str, str]
SOUND_COLUMNS = ("class", "file", "esc50_fold", "recording")


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        table.writerows(rows)


def sound_rows(name: str, recordings: int, clips: int, fold: Callable[[int], str]) -> list[Row]:
    return [
        {
            "class": name,
            "file": f"{name}/{recording}-{clip}.wav",
            "esc50_fold": fold(recording),
            "recording": f"{name}-{recording}",
        }
        for recording in range(recordings)
        for clip in range(clips)
    ]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Paired with ESC-50 folds: rain; paired without: forest, bell; unpaired: clock; and snow."""
    rows = [
        *sound_rows("rain", 20, 2, lambda i: str(1 + i % 4)),
        *sound_rows("forest", 21, 2, lambda i: ""),
        *sound_rows("bell", 2, 3, lambda i: ""),
        *sound_rows("clock", 8, 1, lambda i: str(1 + i % 4)),
        *sound_rows("traffic", 8, 1, lambda i: ""),
        *sound_rows("snow", 6, 2, lambda i: ""),
    ]
    # One clip of a recording is in fold 4, the other in no fold: both are held out.
    rows[2]["esc50_fold"], rows[3]["esc50_fold"] = "4", ""
    write_table(tmp_path / "sounds" / "SOURCES.csv", SOUND_COLUMNS, rows)
    pairs = {"rain": "rain", "forest": "forest", "bell": "church", "clock": "", "snow": "snow"}
    write_table(
        tmp_path / "sounds" / "image_classes.csv",
        ("sound_class", "image_class"),
        [{"sound_class": sound, "image_class": photo} for sound, photo in pairs.items()],
    )
    for folder in ("images", "faces"):
        names = ("rain", "forest") if folder == "images" else ("female_adult",)
        write_table(
            tmp_path / folder / "SOURCES.csv",
            ("class", "file"),
            [{"class": n, "file": f"{n}/{i:03}.png"} for n in names for i in range(400)],
        )
    return tmp_path


def recordings_of(clips: Sequence[Clip], name: str, split: str) -> set[str]:
    return {c.recording for c in clips if c.sound_class == name and c.split == split}


def test_no_recording_straddles_splits(data: Path) -> None:
    splits: dict[str, set[str]] = {}
    clips = find_clips(data)
    assert len(clips) == 40 + 42 + 6 + 8 + 8 + 12
    for clip in clips:
        splits.setdefault(clip.recording, set()).add(clip.split)
    assert {len(found) for found in splits.values()} == {1}


def test_fold_four_is_test_and_nothing_else_of_its_classes(data: Path) -> None:
    clips = find_clips(data)
    fold_four = {f"rain-{i}" for i in range(20) if i % 4 == 3} | {"rain-1"}
    assert recordings_of(clips, "rain", "test") == fold_four
    assert recordings_of(clips, "clock", "test") == {"clock-3", "clock-7"}


def test_paired_classes_without_folds_hold_out_a_fifth_at_least_one(data: Path) -> None:
    clips = find_clips(data)
    assert len(recordings_of(clips, "forest", "test")) == 4  # of 21
    assert len(recordings_of(clips, "bell", "test")) == 1  # of 2
    assert recordings_of(clips, "traffic", "test") == set()  # unpaired, in no fold


def test_an_eighth_of_the_rest_is_validation(data: Path) -> None:
    clips = find_clips(data)
    assert len(recordings_of(clips, "rain", "validation")) == 2  # of 14
    assert len(recordings_of(clips, "forest", "validation")) == 2  # of 17
    assert recordings_of(clips, "bell", "validation") == set()  # the last one stays in training
    assert len(recordings_of(clips, "bell", "train")) == 1


def test_snow_is_never_held_out(data: Path) -> None:
    assert {c.split for c in find_clips(data) if c.sound_class == "snow"} == {"train"}


def test_pairs_come_from_the_table_and_an_empty_cell_is_none(data: Path) -> None:
    pairs = {c.sound_class: c.photo_class for c in find_clips(data)}
    assert pairs == {
        "rain": "rain",
        "forest": "forest",
        "bell": "church",
        "clock": None,
        "traffic": None,
        "snow": "snow",
    }


def test_wind_goes_with_mountains_though_the_table_leaves_it_empty(data: Path) -> None:
    with (data / "sounds" / "SOURCES.csv").open("a", encoding="utf-8") as file:
        file.write("wind,wind/1.wav,1,wind-1\n")
    assert {c.photo_class for c in find_clips(data) if c.sound_class == "wind"} == {"mountain"}


def test_about_a_tenth_of_the_photos_is_test_and_it_stays_so(data: Path) -> None:
    photos = find_photos(data)
    counts = {s: sum(p.split == s for p in photos) for s in ("train", "validation", "test")}
    assert len(photos) == 1200
    assert 85 <= counts["test"] <= 155
    assert 30 <= counts["validation"] <= 80
    assert {p.key: p.split for p in find_photos(data)} == {p.key: p.split for p in photos}
    # By the file's name alone: other photos in the table do not move one.
    table = (data / "images" / "SOURCES.csv").read_text(encoding="utf-8").splitlines()
    (data / "images" / "SOURCES.csv").write_text("\n".join([table[0], *table[200:]]) + "\n")
    before = {p.key: p.split for p in photos}
    after = find_photos(data)
    assert len(after) == 1200 - 199
    assert all(before[p.key] == p.split for p in after)


def test_splits_that_were_published_do_not_change() -> None:
    keys = [f"rain/{i:03}.png" for i in range(40)]
    # By `printf rain/011.png | sha256sum`, the last three decimal digits of the number:
    assert hash_share("rain/011.png") == 0.030
    assert hash_share("rain/033.png") == 0.530
    test = ["rain/011.png", "rain/017.png", "rain/029.png", "rain/033.png"]
    assert [key for key in keys if photo_split(key) == "test"] == test


def test_faces_are_groups_of_their_own(data: Path) -> None:
    photos = find_photos(data)
    assert {p.group for p in photos} == {"rain", "forest", "face_female_adult"}
    face = next(p for p in photos if p.group == "face_female_adult")
    assert face.path == data / "faces" / "female_adult" / "000.png"


@pytest.mark.parametrize(
    "missing",
    ["images/SOURCES.csv", "faces/SOURCES.csv", "sounds/SOURCES.csv", "sounds/image_classes.csv"],
)
def test_a_missing_table_is_named(data: Path, missing: str) -> None:
    (data / missing).unlink()
    with pytest.raises(TrainingError) as caught:
        find_photos(data)
        find_clips(data)
    assert str(data / missing) in str(caught.value)


def test_photos_are_read_resized_and_cached(data: Path) -> None:
    rgb = np.zeros((40, 40, 3), np.uint8)
    rgb[:, :, 1] = 200
    photos = find_photos(data)[:2]
    for photo in photos:
        photo.path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rgb).save(photo.path)
    pixels = load_photos(photos, data / "cache")
    assert pixels.shape == (2, 3, 160, 160)
    assert pixels.dtype == torch.uint8
    assert pixels[:, 1].eq(200).all()
    assert pixels[:, 0].eq(0).all()
    for photo in photos:
        photo.path.unlink()
    assert torch.equal(load_photos(photos, data / "cache"), pixels)


def test_waves_keep_their_level_and_another_rate_is_refused(tmp_path: Path) -> None:
    clips = []
    for number, length in enumerate((500, 800)):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.full(length, 0.25), 16_000, subtype="FLOAT")
        clips.append(Clip("rain", "rain", path, str(number), "train"))
    waves = load_waves(clips, tmp_path / "cache")
    assert [len(wave) for wave in waves] == [500, 800]
    assert waves[1].eq(0.25).all()
    again = load_waves(clips, tmp_path / "cache")
    assert all(torch.equal(a, b) for a, b in zip(waves, again, strict=True))
    soundfile.write(clips[0].path, np.zeros(500), 8_000)
    with pytest.raises(TrainingError, match="8000 Hz"):
        load_waves(clips)


def test_members_of_groups_what_is_kept() -> None:
    members = members_of(["b", "a", "b", "c"], lambda i: i != 3)
    assert {name: index.tolist() for name, index in members.items()} == {"a": [1], "b": [0, 2]}
    assert list(members) == ["a", "b"]
