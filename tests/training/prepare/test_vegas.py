"""VEGAS: its folders, balanced classes, and splits by YouTube video."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from s2v_cli.errors import OptionError, TrainingError
from s2v_cli.training.manifest import read_manifest
from s2v_cli.training.prepare.options import PrepareOptions, parse_per_class
from s2v_cli.training.prepare.published import class_lists
from s2v_cli.training.prepare.vegas import class_of
from s2v_cli.training.prepare.work import prepare
from tests.training.prepare.drawing import draw_photo, draw_sound, draw_video, tone
from tests.training.prepare.listing import by_origin, listed, planned_splits, reasons, touch

TEN = class_lists("vegas")["10"]


def write_class(folder: Path, name: str, ids: list[str]) -> Path:
    """A class folder of empty videos, with the ids of their numbers."""
    touch(folder, *(f"{name}/videos/video_{number:05d}.mp4" for number in range(len(ids))))
    rows = [f"{id},{10 * number},{10 * number + 10}" for number, id in enumerate(ids)]
    (folder / name / "video_info.csv").write_text(
        "\n".join(["YTID,start_second,end_second", *rows])
    )
    return folder


def distinct(name: str, count: int) -> list[str]:
    return [f"{name[:5]:x<5}{number:06d}" for number in range(count)]


def counts(folder: Path, **options: object) -> Counter[tuple[str | None, str | None]]:
    source = listed(folder, layout="vegas", **options)
    return Counter((item.name, item.split) for item in source.items())


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("baby_cry", "baby cry"),
        ("Baby crying", "baby cry"),
        ("Rail-Transport", "rail transport"),
        ("human_snoring", "snoring"),
        ("videos", None),
        ("dogs of the world", None),
    ],
)
def test_names_of_class_folders(folder: str, name: str | None) -> None:
    assert class_of(folder, TEN) == name


def test_videos_are_taken_or_sounds_with_pictures(tmp_path: Path) -> None:
    touch(
        write_class(tmp_path, "VEGAS/dog", ["aaaaaaaaaaa"]),
        *("VEGAS/dog/audios/video_00000.wav", "VEGAS/dog/img/video_00000.jpg"),
        *("VEGAS/drum/audios/video_00007.wav", "VEGAS/drum/img/video_00007.jpg"),
        *("VEGAS/drum/audios/video_00008.wav", "VEGAS/notes/x.wav"),
    )
    source = listed(tmp_path, layout="vegas")
    items = by_origin(source)
    assert sorted(items) == [
        "VEGAS/dog/videos/video_00000.mp4",
        "VEGAS/drum/audios/video_00007.wav",
    ]
    assert [item.name for item in items.values()].count("drum") == 1
    assert reasons(source) == {
        "VEGAS/drum/audios/video_00008.wav": "no partner",
        "VEGAS/notes/x.wav": "no class",
    }
    assert any(note.startswith("No folder of baby cry, chainsaw, fire") for note in source.notes)
    assert any(note.startswith("No video_info.csv in VEGAS/drum:") for note in source.notes)


def test_the_numbers_of_the_paper(tmp_path: Path) -> None:
    write_class(tmp_path, "dog", distinct("dog", 1000))
    write_class(tmp_path, "printer", distinct("printer", 850))
    found = counts(tmp_path, train=0.95, validation=0.05, test=0.0)
    assert found == {
        ("dog", "train"): 800,
        ("dog", "validation"): 40,
        ("dog", "test"): 50,
        ("printer", "train"): 800,
        ("printer", "test"): 50,
    }
    told = reasons(listed(tmp_path, layout="vegas", train=0.95, validation=0.05, test=0.0))
    assert list(told.values()) == ["not used"] * 110


def test_a_class_with_fewer_clips_keeps_the_proportions(tmp_path: Path) -> None:
    write_class(tmp_path, "dog", distinct("dog", 170))
    source = listed(tmp_path, layout="vegas", train=0.95, validation=0.05, test=0.0)
    found = Counter(item.split for item in source.items())
    assert found == {"test": 10, "validation": 8, "train": 152}
    assert any("Fewer than 800 to train on" in n and "dog 152/8/10" in n for n in source.notes)


def test_per_class(tmp_path: Path) -> None:
    write_class(tmp_path, "dog", distinct("dog", 20))
    write_class(tmp_path, "drum", distinct("drum", 20))
    found = counts(tmp_path, per_class=(6, 3), train=1.0, validation=0.0, test=0.0)
    assert found == {
        (name, split): number
        for name in ("dog", "drum")
        for split, number in (("train", 6), ("test", 3))
    }
    assert parse_per_class("800, 50") == (800, 50)
    for text in ("800", "800,x", "-1,5"):
        with pytest.raises(OptionError, match=r"per-class is .*; allowed: clips to"):
            parse_per_class(text)
    with pytest.raises(OptionError, match="per-class is 0; allowed"):
        PrepareOptions(per_class=(0, 5))


def test_the_five_classes_of_s2i(tmp_path: Path) -> None:
    for name in TEN:
        write_class(tmp_path, name.replace(" ", "_"), distinct(name, 2))
    found = {name for name, _ in counts(tmp_path, classes="5")}
    assert found == {"baby cry", "dog", "fireworks", "rail transport", "water flowing"}


def test_folders_that_tell_the_splits(tmp_path: Path) -> None:
    for split, count in (("train", 12), ("test", 8)):
        touch(tmp_path, *(f"{split}/dog/videos/{split}_{n}.mp4" for n in range(count)))
    source = listed(
        tmp_path, layout="vegas", per_class=(10, 5), train=0.75, validation=0.25, test=0.0
    )
    splits = Counter((item.origin.split("/")[0], item.split) for item in source.items())
    assert splits == {("train", "train"): 10, ("train", "validation"): 2, ("test", "test"): 5}


def test_clips_of_one_video_share_a_split_in_all_classes(tmp_path: Path) -> None:
    ids = [f"abcdefgh{number // 3:03d}" for number in range(120)]
    write_class(tmp_path, "dog", ids)
    write_class(tmp_path, "water_flowing", ids[::-1])
    splits = planned_splits(
        tmp_path, layout="vegas", per_class=(70, 20), train=0.9, validation=0.1, test=0.0
    )
    assert all(len(of_source) == 1 for of_source in splits.values())
    assert set().union(*splits.values()) == {"train", "validation", "test"}
    found = counts(tmp_path, per_class=(70, 20), train=0.9, validation=0.1, test=0.0)
    assert found["dog", "test"] == found["water flowing", "test"] == 20


def test_the_choice_does_not_depend_on_what_else_is_there(tmp_path: Path) -> None:
    write_class(tmp_path, "dog", distinct("dog", 40))
    alone = {item.key: item.split for item in listed(tmp_path, layout="vegas").items()}
    write_class(tmp_path, "drum", distinct("drum", 30))
    beside = {item.key: item.split for item in listed(tmp_path, layout="vegas").items()}
    assert {key: beside[key] for key in alone} == alone


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,start\n", r"Line 1 of .*video_info\.csv names the columns name, start; .* YTID"),
        ("YTID,start\naaaaaaaaaaa,1\n,2\n", r"Line 3 of .*video_info\.csv has no YouTube id"),
        ('YTID\n"a\n', r"Line 2 of .*video_info\.csv cannot be read"),
    ],
)
def test_bad_tables(tmp_path: Path, content: str, message: str) -> None:
    write_class(tmp_path, "dog", ["aaaaaaaaaaa"])
    (tmp_path / "dog" / "video_info.csv").write_text(content)
    with pytest.raises(TrainingError, match=message):
        listed(tmp_path, layout="vegas")


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="has no clips of VEGAS; it should have folders such"):
        listed(touch(tmp_path, "cat/a.mp4"), layout="vegas")


def test_prepared(tmp_path: Path) -> None:
    source = tmp_path / "VEGAS"
    for number in range(3):
        wave = tone(300 + 50 * number, 1.0)
        draw_video(source / f"dog/videos/video_{number:05d}.mp4", 1.0, wave=wave,
                   grey=lambda time_s, n=number: 30 * n + round(20 * time_s))  # fmt: skip
        draw_sound(source / f"baby_cry/audios/video_{number:05d}.wav", 500 + 50 * number, 1.0)
        draw_photo(source / f"baby_cry/img/video_{number:05d}.jpg", number)
    (source / "dog/videos/video_00003.mp4").write_bytes(b"broken")
    options = PrepareOptions(
        layout="vegas", select="mid", per_class=(3, 1), workers=1, train=1.0, validation=0.0, test=0
    )
    summary = prepare(source, tmp_path / "data", options)
    assert summary.names == {"baby cry": 3, "dog": 3}
    assert summary.skipped == {"broken": 1}
    examples = list(read_manifest(tmp_path / "data"))
    assert all(example.image and example.sound for example in examples)
    assert summary.pairing == "file"
    again = prepare(source, tmp_path / "data", options)
    assert again.state == "unchanged"
