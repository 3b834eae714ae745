"""Sources: every spelling of every layout, and what is refused."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from s2v_cli.errors import OptionError, TrainingError
from s2v_cli.training.dataset import find_clips, find_photos
from s2v_cli.training.prepare.options import PrepareOptions
from s2v_cli.training.prepare.plan import make_plan
from s2v_cli.training.prepare.sources import Item, distinct_keys, open_source, slug


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def listed(folder: Path, **options: object) -> tuple[str, dict[str, Item], Counter[str]]:
    """Layout, items by origin, and how many were skipped for each reason."""
    source = open_source(folder, PrepareOptions(**options))  # type: ignore[arg-type]
    return (
        source.layout,
        {item.origin: item for item in source.items()},
        Counter(row.reason for row in source.skipped),
    )


def test_videos_of_every_container_at_any_depth(tmp_path: Path) -> None:
    names = ("a.mp4", "b.WEBM", "c/d.mkv", "c/e/f.mov", "g.avi")
    layout, items, skipped = listed(touch(tmp_path, *names, "notes.txt", ".hidden.mp4"))
    assert (layout, sorted(items), skipped) == ("videos", sorted(names), Counter())
    assert (items["a.mp4"].name, items["c/e/f.mov"].name) == (None, "e")


def test_a_prepared_dataset_is_no_source(tmp_path: Path) -> None:
    touch(tmp_path, "dataset.json", "manifest.jsonl")
    with pytest.raises(TrainingError, match=r"is a prepared dataset already\. Train with it: s2v"):
        listed(tmp_path)


def test_one_video(tmp_path: Path) -> None:
    layout, items, _ = listed(touch(tmp_path, "a.mp4") / "a.mp4")
    assert (layout, list(items)) == ("videos", ["a.mp4"])


@pytest.mark.parametrize(
    "names",
    [
        ("a.wav", "a.jpg", "b.flac", "b.PNG"),
        ("x/a.wav", "x/a.jpg", "x/b.mp3", "x/b.webp"),
        ("sounds/a.wav", "images/a.jpg", "sounds/b.ogg", "images/b.jpeg"),
        ("Audio/x/a.wav", "Photos/x/a.jpg", "Audio/x/b.m4a", "Photos/x/b.bmp"),
    ],
)
def test_pairs_of_one_stem(tmp_path: Path, names: tuple[str, ...]) -> None:
    layout, items, skipped = listed(touch(tmp_path, *names))
    assert (layout, len(items), skipped) == ("pairs", 2, Counter())
    for item in items.values():
        assert item.image is not None and item.sound is not None
        assert item.image.stem == item.sound.stem


def test_pairs_without_partners_and_with_two(tmp_path: Path) -> None:
    names = ("a.wav", "a.flac", "a.jpg", "b.wav", "c.jpg", "d.wav", "d.jpg", "e.avi")
    _, items, skipped = listed(touch(tmp_path, *names), layout="pairs")
    assert sorted(items) == ["a.flac", "d.wav"]
    assert skipped == {"duplicate name": 1, "no partner": 2, "not used": 1}


@pytest.mark.parametrize(
    "pattern", ["images/{c}/{i}.jpg sounds/{c}/{s}.wav", "{c}/{i}.jpg {c}/{s}.wav",
                "{c}/pictures/{i}.jpg {c}/audio/{s}.wav"],
)  # fmt: skip
def test_class_folders_in_three_spellings(tmp_path: Path, pattern: str) -> None:
    image, sound = pattern.split()
    for name in ("rain", "church bells"):
        for number in range(3):
            touch(tmp_path, image.format(c=name, i=f"i{number}"))
            touch(tmp_path, sound.format(c=name, s=f"s{number}"))
    layout, items, skipped = listed(tmp_path)
    assert (layout, len(items), skipped) == ("classes", 12, Counter())
    assert Counter(item.name for item in items.values()) == {"rain": 6, "church bells": 6}
    assert Counter(item.image is None for item in items.values()) == {True: 6, False: 6}


def test_sounds_of_classes_without_pictures(tmp_path: Path) -> None:
    touch(tmp_path, "rain/1.jpg", "rain/2.wav", "wind/3.wav", "4.wav", "snow/5.jpg")
    _, items, skipped = listed(tmp_path, layout="classes")
    assert sorted(items) == ["rain/1.jpg", "rain/2.wav", "snow/5.jpg"]
    assert skipped == {"no partner": 1, "no class": 1}
    _, items, skipped = listed(tmp_path, layout="classes", unpaired=True)
    assert items["wind/3.wav"].name == "~wind" and skipped == {"no class": 1}


def test_split_folders(tmp_path: Path) -> None:
    touch(tmp_path, "train/dog/1.mp4", "val/dog/1.mp4", "Test/cat/2.mp4")
    _, items, _ = listed(tmp_path)
    assert {item.split for item in items.values()} == {"train", "validation", "test"}
    assert items["train/dog/1.mp4"].name == "dog"
    assert items["train/dog/1.mp4"].source != items["val/dog/1.mp4"].source


def test_listed_classes_have_the_splits_and_recordings_of_the_bundled_model(
    miniature: Path,
) -> None:
    layout, items, skipped = listed(miniature)
    photos = [photo for photo in find_photos(miniature) if not photo.group.startswith("face_")]
    clips = find_clips(miniature)
    assert layout == "classes"
    for photo in photos:
        item = items[f"images/{photo.key}"]
        assert (item.name, item.split, item.image) == (photo.group, photo.split, photo.path)
    paired = [clip for clip in clips if clip.photo_class is not None]
    for clip in paired:
        item = items[clip.path.relative_to(miniature).as_posix()]
        assert (item.name, item.split) == (clip.photo_class, clip.split)
        assert (item.source, item.sound) == (clip.recording, clip.path)
    assert len(items) == len(photos) + len(paired)
    assert skipped == {"no partner": len(clips) - len(paired)} and len(paired) < len(clips)


def test_mixed_folders_are_taken_for_what_most_of_them_is(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "a.jpg", "b.wav", "b.jpg", "v.mp4")
    layout, items, skipped = listed(tmp_path)
    assert (layout, len(items), skipped) == ("pairs", 2, {"not used": 1})
    touch(tmp_path, "w.mp4")
    layout, items, skipped = listed(tmp_path)
    assert (layout, len(items), skipped) == ("videos", 2, {"not used": 4})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "it has no video, sound or picture"),
        (("notes.txt",), "it has no video, sound or picture"),
        (("a.wav", "b.wav"), "it has 2 sounds, but no picture"),
        (("a.jpg",), "it has 1 picture, but no sound"),
        (("a.wav", "b.jpg"), "0 pairs): 2 no partner"),
        (("rain/1.wav", "fire/2.jpg"), "no class has both sounds and pictures (fire)"),
    ],
)
def test_nothing_to_prepare(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    source = touch(tmp_path / "source", *names)
    source.mkdir(exist_ok=True)
    with pytest.raises(TrainingError) as caught:
        make_plan(source, tmp_path / "data", PrepareOptions())
    assert message in str(caught.value)


def test_a_source_that_is_missing_or_no_table(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="No file or folder at"):
        listed(tmp_path / "nowhere")
    with pytest.raises(TrainingError, match="neither a video nor a manifest"):
        listed(touch(tmp_path, "a.txt") / "a.txt")
    with pytest.raises(OptionError, match="layout is 'vidoes'; allowed: auto, videos, pairs"):
        listed(tmp_path, layout="vidoes")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all")
def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    (touch(tmp_path, "in/a.mp4") / "in").chmod(0)
    with pytest.raises(TrainingError, match="Permission denied"):
        listed(tmp_path)


def test_keys_are_plain_and_all_different() -> None:
    origins = ["A b.mp4", "a_b.mp4", "a-b.mp4", "雨.mp4", "x" * 200 + ".mp4", "雪.mp4"]
    items = [Item(slug(os.path.splitext(name)[0]), name, name) for name in origins]
    keys = {item.origin: item.key for item in distinct_keys(items)}
    assert len(set(keys.values())) == len(origins)
    assert keys["A b.mp4"] == "a_b" and keys["a_b.mp4"].startswith("a_b_")
    for key in keys.values():
        assert set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-") and len(key) <= 90
    assert keys == {item.origin: item.key for item in distinct_keys(items[::-1])}
