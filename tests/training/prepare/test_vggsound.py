"""VGGSound: its list, every way to name its clips, classes, moments and splits."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s2v_cli.errors import OptionError, TrainingError
from s2v_cli.training.manifest import read_manifest
from s2v_cli.training.prepare.options import PrepareOptions
from s2v_cli.training.prepare.plan import make_plan
from s2v_cli.training.prepare.shards import read_part
from s2v_cli.training.prepare.work import prepare
from tests.conftest import RunHere
from tests.training.prepare.drawing import NASA, copy_of, draw_video, tone
from tests.training.prepare.listing import by_origin, listed, planned_splits, reasons, touch

INDEX = """\
---g-f_I2yQ,1,people marching,test
--0PQM4-hqg,30,waterfall burbling,train
--9O4XZOge4,30,"female speech, woman speaking",train
0Cfc0r3l5Ww,17,dog barking,train
0Cfc0r3l5Ww,46,dog growling,train
-1oRfe0FQI8,60,"railroad car, train wagon",train
"""


def write_index(folder: Path, text: str = INDEX, name: str = "vggsound.csv") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder


ARCHIVE = "scratch/shared/beegfs/hchen/train_data/VGGSound_final/video"


@pytest.mark.parametrize(
    "names",
    [
        ("---g-f_I2yQ_000001.mp4", "--0PQM4-hqg_000030.mp4", "0Cfc0r3l5Ww_000046.mp4"),
        (
            f"{ARCHIVE}/---g-f_I2yQ_000001.mp4",
            f"vggsound_03/{ARCHIVE}/--0PQM4-hqg_000030.mp4",
            f"{ARCHIVE}/0Cfc0r3l5Ww_000046.mp4",
        ),
        ("---g-f_I2yQ_1.mp4", "--0PQM4-hqg_30.mkv", "0Cfc0r3l5Ww_46.webm"),
        ("---g-f_I2yQ_1000_11000.mp4", "--0PQM4-hqg_30000_40000.mp4", "0Cfc0r3l5Ww_46000.mp4"),
        (
            "test/people_marching/---g-f_I2yQ_000001_000011.mp4",
            "train/waterfall_burbling/--0PQM4-hqg_000030_000040.mp4",
            "train/dog_growling/0Cfc0r3l5Ww_000046_000056.mp4",
        ),
        (
            "clips/people marching/---g-f_I2yQ_000001.mp4",
            "clips/waterfall burbling/--0PQM4-hqg_000030.mp4",
            "clips/dog growling/0Cfc0r3l5Ww_000046.mp4",
        ),
    ],
)
def test_names_of_clips(tmp_path: Path, names: tuple[str, ...]) -> None:
    source = listed(touch(write_index(tmp_path), *names), select="mid")
    items = by_origin(source)
    assert source.layout == "vggsound"
    assert [(items[name].source, items[name].name) for name in names] == [
        ("---g-f_I2yQ", "people marching"),
        ("--0PQM4-hqg", "waterfall burbling"),
        ("0Cfc0r3l5Ww", "dog growling"),
    ]
    assert {items[name].start_s for name in names} == {0.0}
    missing = [file for file, reason in reasons(source).items() if reason == "missing"]
    assert len(missing) == len(reasons(source)) == 3
    assert "0Cfc0r3l5Ww_000017.mp4" in missing
    assert "VGGSound: 3 of 6 listed clips, 3 classes" in source.told


@pytest.mark.parametrize("place", [".", "annotations", "data", ".."])
def test_where_the_list_lies(tmp_path: Path, place: str) -> None:
    folder = touch(tmp_path / "clips", "--0PQM4-hqg_000030.mp4")
    write_index(folder / place)
    assert len(by_origin(listed(folder, layout="vggsound"))) == 1


def test_the_list_itself_as_the_source(tmp_path: Path) -> None:
    touch(write_index(tmp_path), "video/--0PQM4-hqg_000030.mp4")
    items = by_origin(listed(tmp_path / "vggsound.csv"))
    assert list(items) == ["video/--0PQM4-hqg_000030.mp4"]


def test_the_lists_of_its_repository(tmp_path: Path) -> None:
    write_index(tmp_path, "--0PQM4-hqg_000030.mp4,waterfall burbling\n", "data/train.csv")
    write_index(tmp_path, "---g-f_I2yQ_000001.mp4,people marching\n", "data/test.csv")
    touch(tmp_path, "---g-f_I2yQ_000001.mp4", "--0PQM4-hqg_000030.mp4")
    source = listed(tmp_path, layout="vggsound", train=1.0, validation=0.0, test=0.0)
    assert {item.name: item.split for item in source.items()} == {
        "people marching": "test",
        "waterfall burbling": "train",
    }


def test_a_header_is_no_clip(tmp_path: Path) -> None:
    write_index(tmp_path, "youtube_id,start,label,split\n" + INDEX)
    source = listed(touch(tmp_path, "--0PQM4-hqg_30.mp4"))
    assert len(by_origin(source)) == 1


def test_a_clip_that_is_listed_twice_stays_held_out(tmp_path: Path) -> None:
    write_index(tmp_path, INDEX + "---g-f_I2yQ,1,people marching,train\n")
    (item,) = listed(touch(tmp_path, "---g-f_I2yQ_1.mp4")).items()
    assert item.split == "test"


def test_files_that_are_of_no_use(tmp_path: Path) -> None:
    names = {
        "holiday.mp4": "not listed",
        "abcdefghijk_30.mp4": "not listed",  # an id, but not of the list
        "--0PQM4-hqg_31.mp4": "not listed",  # another start
        "b/--0PQM4-hqg_000030.mkv": "duplicate name",
        "--9O4XZOge4_000030.wav": "no partner",
        "0Cfc0r3l5Ww.mp4": "not listed",  # two clips have that id
    }
    touch(write_index(tmp_path), "a/--0PQM4-hqg_000030.mp4", *names)
    source = listed(tmp_path, select="mid")
    assert list(by_origin(source)) == ["a/--0PQM4-hqg_000030.mp4"]
    told = reasons(source)
    assert {name: told[name] for name in names} == names


def test_sounds_with_pictures_in_place_of_videos(tmp_path: Path) -> None:
    touch(
        write_index(tmp_path),
        "audios/--0PQM4-hqg_30000_40000.wav",
        "images/--0PQM4-hqg_30000_40000.jpg",
    )
    (item,) = listed(tmp_path).items()
    assert (item.video, item.image, item.sound) == (
        None,
        tmp_path / "images/--0PQM4-hqg_30000_40000.jpg",
        tmp_path / "audios/--0PQM4-hqg_30000_40000.wav",
    )


def test_an_id_alone_is_a_clip_or_the_whole_video_by_its_length(tmp_path: Path) -> None:
    write_index(tmp_path, "0Cfc0r3l5Ww,2,a,train\n0Cfc0r3l5Ww,3,b,train\n--0PQM4-hqg,30,c,train\n")
    copy_of(NASA, tmp_path / "0Cfc0r3l5Ww.mp4")  # 13 s
    draw_video(tmp_path / "--0PQM4-hqg.mp4", 1.0)
    items = {item.name: item for item in listed(tmp_path).items()}
    spans = {name: (item.start_s, item.duration_s) for name, item in items.items()}
    assert spans == {"a": (2.0, 10.0), "b": (3.0, 10.0), "c": (0.0, None)}
    assert items["a"].video == items["b"].video
    assert items["a"].key != items["b"].key


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("--8puiAGLhs,30,car engine starting", "car engine starting'; allowed"),
        ("--8puiAGLhs,x,car engine starting,train", "starting,train'; allowed"),
        ("--8puiAGLhs,30,car engine starting,dev", "starting,dev'; allowed"),
        ("short,30,car engine starting,train", "starting,train'; allowed"),
        ("--8puiAGLhs,30,,train", "30,,train'; allowed"),
        ('--8puiAGLhs,30,"car" engine,train', "cannot be read"),
    ],
)
def test_a_line_that_is_no_row(tmp_path: Path, line: str, what: str) -> None:
    write_index(tmp_path, INDEX + line + "\n")
    with pytest.raises(TrainingError, match=rf"^Line 7 of .*vggsound\.csv .*{what}"):
        listed(tmp_path)


def test_lists_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"has no vggsound\.csv\. Get it from"):
        listed(tmp_path, layout="vggsound")
    write_index(tmp_path, "\n")
    with pytest.raises(TrainingError, match="has no rows"):
        listed(tmp_path)
    (tmp_path / "vggsound.csv").write_bytes(INDEX.encode() + b"\xff\n")
    with pytest.raises(TrainingError, match=r"^Line 7 of .* is not UTF-8"):
        listed(tmp_path)


def test_the_fifty_classes_of_the_paper(tmp_path: Path) -> None:
    write_index(tmp_path, INDEX + "--8puiAGLhs,30,skiing,train\n-0hh8Yp02FU,49,skiing,test\n")
    names = ("--8puiAGLhs_30.mp4", "-0hh8Yp02FU_49.mp4", "-1oRfe0FQI8_60.mp4", "0Cfc0r3l5Ww_46.mp4")
    source = listed(touch(tmp_path, *names), classes="50")
    assert {item.name for item in source.items()} == {"skiing", "railroad car, train wagon"}
    missing = ["---g-f_I2yQ_000001.mp4", "--0PQM4-hqg_000030.mp4", "0Cfc0r3l5Ww_000017.mp4"]
    assert reasons(source) == dict.fromkeys(missing, "missing")
    assert "1 clip of other classes left out." in source.notes
    assert any(note.startswith("Classes without a row: airplane flyby,") for note in source.notes)


def test_options_that_are_of_other_layouts(tmp_path: Path) -> None:
    touch(write_index(tmp_path), "--0PQM4-hqg_30.mp4")
    with pytest.raises(OptionError, match="--per-class goes with --layout vegas; the"):
        listed(tmp_path, per_class=(8, 2))
    with pytest.raises(OptionError, match="--classes goes with --layout vggsound or vegas"):
        listed(tmp_path, layout="videos", classes="50")


def test_segments_of_one_video_share_a_split(tmp_path: Path) -> None:
    ids = [f"abcdefgh{number:03d}" for number in range(120)]
    rows = [f"{id},{start},skiing,train" for id in ids for start in (0, 30)]
    rows += [f"{id},60,skiing,test" for id in ids[:20]]  # a list that leaks
    write_index(tmp_path, "\n".join(rows))
    touch(tmp_path, *(f"{id}_{start}.mp4" for id in ids for start in (0, 30, 60)))
    splits = planned_splits(tmp_path, train=0.7, validation=0.3, test=0.0)
    assert all(len(of_source) == 1 for of_source in splits.values())
    assert all(splits[id] == {"test"} for id in ids[:20])
    assert {"train", "validation"} == set().union(*(splits[id] for id in ids[20:]))
    told = reasons(listed(tmp_path))
    assert sum(reason == "other split" for reason in told.values()) == 40


def test_published_moments_choose_the_frames(tmp_path: Path) -> None:
    clips = write_index(tmp_path / "clips")
    draw_video(clips / "--0PQM4-hqg_000030.mp4", 4.0)  # the frame at t has the grey 20 + 20 t
    draw_video(clips / "0Cfc0r3l5Ww_000017.mp4", 2.0, wave=tone(700, 2.0))
    moments = tmp_path / "top1_boxes_top10_moments.json"
    moments.write_text(json.dumps({"--0PQM4-hqg_30000_40000": [31, 1, 11]}))
    options = PrepareOptions(select="mid", moments=str(moments), top_k=2, workers=1, test=0.15,
                             validation=0.0)  # fmt: skip
    summary = prepare(clips, tmp_path / "data", options)
    assert any("1 clip take" in note and "1 are not in it" in note for note in summary.notes)
    examples = {(e.source, e.rank): e for e in read_manifest(tmp_path / "data")}
    chosen = [examples["--0PQM4-hqg", rank].frame_s for rank in (0, 1)]
    assert chosen == pytest.approx([3.0, 0.0])
    assert examples["0Cfc0r3l5Ww", None].frame_s == pytest.approx(1.0)
    best = examples["--0PQM4-hqg", 0]
    assert best.image is not None
    with (tmp_path / "data" / best.shard).open("rb") as shard:
        image = Image.open(io.BytesIO(read_part(shard, best.image)))
    grey = float(np.asarray(image).mean())
    assert grey == pytest.approx(80, abs=4)


def test_the_order_of_the_files_does_not_matter(tmp_path: Path) -> None:
    names = ("--0PQM4-hqg_000030.mp4", "0Cfc0r3l5Ww_000017.mp4", "0Cfc0r3l5Ww_000046.mp4")
    first = touch(write_index(tmp_path / "a"), *names)
    second = touch(write_index(tmp_path / "b", "".join(reversed(INDEX.splitlines(True)))), *names)
    options = PrepareOptions(select="mid")
    plans = [make_plan(folder, tmp_path / "data", options) for folder in (first, second)]
    assert plans[0].heading == plans[1].heading


def test_the_command(folder: Path, s2v: RunHere) -> None:
    touch(write_index(Path("clips")), "0Cfc0r3l5Ww_46.mp4", "-1oRfe0FQI8_60.mp4")
    ran = s2v("prepare", "clips", "data", "--classes", "50", "--splits", "1,0,0", "--dry-run")
    assert (ran.status, ran.lines) == (0, ["1\ttrain", "0\tvalidation", "0\ttest"])
    assert ran.complaints[0] == ("s2v: note: clips is VGGSound: 1 of 4 listed clips, 1 class.")
    assert "s2v: note: Skipped: 3 missing." in ran.complaints
    refused = s2v("prepare", "clips", "data", "--classes", "fifty")
    assert (refused.status, refused.complaints) == (
        2,
        ["s2v: error: classes is 'fifty'; allowed: 50, or a file of class names, one a line."],
    )
    assert s2v("prepare", "clips", "data", "--per-class", "8,2").status == 2
