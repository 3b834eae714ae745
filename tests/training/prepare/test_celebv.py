"""CelebV-HQ: its JSON, cut clips and whole videos, faces and splits by YouTube video."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from s2v_cli.errors import TrainingError
from s2v_cli.training.manifest import read_manifest
from s2v_cli.training.prepare.celebv import wider
from s2v_cli.training.prepare.options import PrepareOptions
from s2v_cli.training.prepare.shards import read_part
from s2v_cli.training.prepare.work import prepare
from tests.training.prepare.drawing import NASA, copy_of, draw_video
from tests.training.prepare.listing import by_origin, listed, planned_splits, reasons, touch

BOX = {"top": 0.0, "bottom": 0.8815, "left": 0.1964, "right": 0.6922}


def clip(id: str, start_s: float = 2.0, end_s: float = 5.0, **box: float) -> dict[str, Any]:
    """An entry as the published file has it."""
    return {
        "ytb_id": id,
        "duration": {"start_sec": start_s, "end_sec": end_s},
        "bbox": BOX | box,
        "attributes": {"appearance": [0, 1], "action": [0], "emotion": {"sep_flag": False}},
        "version": "v0.1",
    }


def write_info(folder: Path, clips: dict[str, dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    info = {"meta_info": {"appearance_mapping": ["Blurry", "Male"]}, "clips": clips}
    (folder / "celebvhq_info.json").write_text(json.dumps(info, indent=1))
    return folder


TWO = {"M2Ohb0FAaJU_1": clip("M2Ohb0FAaJU"), "_0tf2n3rlJU_0": clip("_0tf2n3rlJU")}


@pytest.mark.parametrize(
    "names",
    [
        ("M2Ohb0FAaJU_1.mp4", "_0tf2n3rlJU_0.mp4"),
        ("downloaded_celebvhq/processed/M2Ohb0FAaJU_1.mp4", "35666/_0tf2n3rlJU_0.mp4"),
        ("M2Ohb0FAaJU_1_0.mp4", "_0tf2n3rlJU_0_3.mp4"),  # scenes
    ],
)
def test_clips_that_are_cut_out(tmp_path: Path, names: tuple[str, ...]) -> None:
    source = listed(touch(write_info(tmp_path, TWO), *names))
    items = by_origin(source)
    assert source.layout == "celebv"
    assert set(items) == set(names)
    assert {item.source for item in items.values()} == {"M2Ohb0FAaJU", "_0tf2n3rlJU"}
    for item in items.values():
        assert (item.start_s, item.duration_s, item.box) == (0.0, None, None)
    assert not source.skipped


def test_whole_videos_are_cut_and_cropped(tmp_path: Path) -> None:
    clips = {
        "a_b_c-d_e-f_1": clip("a_b_c-d_e-f", 1.5, 4.0),
        "a_b_c-d_e-f_2": clip("a_b_c-d_e-f", 7),
    }
    clips["a_b_c-d_e-f_2"]["duration"]["end_sec"] = 9.25
    folder = touch(write_info(tmp_path, clips), "raw/a_b_c-d_e-f.mp4")
    items = sorted(listed(folder).items(), key=lambda item: item.key)
    assert [(item.start_s, item.duration_s) for item in items] == [(1.5, 2.5), (7.0, 2.25)]
    assert len({item.source for item in items}) == 1
    assert items[0].box == wider((0.1964, 0.0, 0.6922, 0.8815))


def test_a_cut_clip_goes_before_its_whole_video(tmp_path: Path) -> None:
    names = ("raw/M2Ohb0FAaJU.mp4", "processed/M2Ohb0FAaJU_1.mp4", "raw/_0tf2n3rlJU.mp4")
    source = listed(touch(write_info(tmp_path, TWO), *names))
    assert set(by_origin(source)) == set(names[1:])
    assert reasons(source) == {names[0]: "duplicate name"}


def test_a_clip_named_as_its_video_is_told_by_its_length(tmp_path: Path) -> None:
    clips = {"vYnrubV0UqE": clip("vYnrubV0UqE", 2, 5), "M2Ohb0FAaJU": clip("M2Ohb0FAaJU", 40, 44)}
    write_info(tmp_path, clips)
    copy_of(NASA, tmp_path / "vYnrubV0UqE.mp4")  # 13 s
    draw_video(tmp_path / "M2Ohb0FAaJU.mp4", 1.0)
    starts = {item.source: item.start_s for item in listed(tmp_path).items()}
    assert starts == {"vYnrubV0UqE": 2.0, "M2Ohb0FAaJU": 0.0}


def test_files_that_are_of_no_use(tmp_path: Path) -> None:
    names = ("M2Ohb0FAaJU_1.mp4", "holiday.mp4", "M2Ohb0FAaJU_1.wav", "b/M2Ohb0FAaJU_1.mkv")
    source = listed(touch(write_info(tmp_path, TWO), *names))
    assert reasons(source) == {
        "holiday.mp4": "not listed",
        "M2Ohb0FAaJU_1.wav": "not used",
        "b/M2Ohb0FAaJU_1.mkv": "duplicate name",
        "_0tf2n3rlJU_0.mp4": "missing",
    }


@pytest.mark.parametrize(
    "box",
    [
        (0.1964, 0.0, 0.6922, 0.8815),  # of the published example: square in 16:9
        (0.5271, 0.0, 1.0, 0.8407),
        (0.3, 0.3, 0.4125, 0.5),
        (0.0, 0.0, 1.0, 1.0),
    ],
)
def test_wider_boxes(box: tuple[float, float, float, float]) -> None:
    """As the published script: 0.02 more on each side, within the picture, and square in pixels."""
    left, top, right, bottom = wider(box)
    assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1
    ratio = (box[2] - box[0]) / (box[3] - box[1])
    assert (right - left) / (bottom - top) == pytest.approx(ratio)
    if box == (0.3, 0.3, 0.4125, 0.5):
        assert (left, top, right, bottom) == pytest.approx((0.28875, 0.28, 0.42375, 0.52))


def test_the_papers_share_is_trained_on(tmp_path: Path) -> None:
    clips = {f"abcdefgh{n // 4:03d}_{n % 4}": clip(f"abcdefgh{n // 4:03d}") for n in range(400)}
    folder = touch(write_info(tmp_path, clips), *(f"{name}.mp4" for name in clips))
    source = listed(folder, train=0.9, validation=0.1, test=0.0)
    found = Counter(item.split for item in source.items())
    assert found["test"] == 176  # of 400 clips 20,000 / 35,666 are 224, and 224 is a multiple of 4
    assert found["train"] + found["validation"] == 224
    assert found["validation"] > 0
    splits = planned_splits(folder, train=0.9, validation=0.1, test=0.0)
    assert all(len(of_source) == 1 for of_source in splits.values())
    fewer = touch(write_info(tmp_path / "fewer", clips), "abcdefgh000_0.mp4", "abcdefgh050_1.mp4")
    kept = {
        item.key: item.split for item in listed(fewer, train=0.9, validation=0.1, test=0).items()
    }
    assert kept.items() <= {item.key: item.split for item in source.items()}.items()


def test_lists_of_splits_are_followed(tmp_path: Path) -> None:
    clips = {name: clip(name[:11]) for name in ("aaaaaaaaaaa_0", "aaaaaaaaaaa_1", "bbbbbbbbbbb_0",
                                                "ccccccccccc_0", "ddddddddddd_0")}  # fmt: skip
    folder = touch(write_info(tmp_path, clips), *(f"{name}.mp4" for name in clips))
    (folder / "train.txt").write_text("aaaaaaaaaaa_0\nbbbbbbbbbbb_0.mp4\n\n")
    (folder / "val.txt").write_text("ccccccccccc_0\n")
    (folder / "test.txt").write_text("aaaaaaaaaaa_1\n")
    source = listed(folder)
    assert {item.key: item.split for item in source.items()} == {
        "aaaaaaaaaaa_1": "test",
        "bbbbbbbbbbb_0": "train",
        "ccccccccccc_0": "validation",
    }
    assert reasons(source) == {"aaaaaaaaaaa_0.mp4": "other split"}
    assert source.notes == ["1 clip in no list of a split left out."]
    (folder / "test.txt").write_text("aaaaaaaaaaa_1\nbbbbbbbbbbb_0\n")
    with pytest.raises(TrainingError, match=r"Line 2 of .*test\.txt: the clip 'bbb.*for train too"):
        listed(folder)
    (folder / "test.txt").write_text("eeeeeeeeeee_0\n")
    with pytest.raises(TrainingError, match=r"Line 1 of .*test\.txt: there is no clip 'eeee"):
        listed(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{\n"clips": {\n', r"Line 3 of .*celebvhq_info\.json is not JSON"),
        ("[]", "has no object of clips"),
        ('{"clips": {}}', "has no object of clips"),
        (
            '{"clips": {"a_0": {"ytb_id": "a"}}}',
            r"The clip 'a_0' of .* is of another form",
        ),
        (json.dumps({"clips": {"a_0": clip("a", 5, 5)}}), "The clip 'a_0'"),
        (json.dumps({"clips": {"a_0": clip("a", left=0.9)}}), "The clip 'a_0'"),
    ],
)
def test_bad_json(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "celebvhq_info.json").write_text(content)
    with pytest.raises(TrainingError, match=message):
        listed(tmp_path)


def test_no_json(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"has no celebvhq_info\.json\. Get it from"):
        listed(tmp_path, layout="celebv")


def test_prepared_from_whole_videos(tmp_path: Path) -> None:
    """Sound and picture are of the clip's seconds, and the picture of its box."""
    box = {"top": 0.25, "bottom": 0.75, "left": 0.25, "right": 0.75}
    ids = ("M2Ohb0FAaJU", "_0tf2n3rlJU")
    source = write_info(tmp_path / "celebv", {f"{id}_1": clip(id, **box) for id in ids})
    copy_of(NASA, source / f"raw/{ids[0]}.mp4")
    (source / f"raw/{ids[1]}.mp4").write_bytes(b"broken")
    options = PrepareOptions(select="mid", workers=1)
    summary = prepare(source, tmp_path / "data", options)
    assert summary.skipped == {"broken": 1}
    (example,) = read_manifest(tmp_path / "data")
    assert (example.source, example.origin) == (ids[0], f"raw/{ids[0]}.mp4")
    assert (example.start_s, example.duration_s) == pytest.approx((2.0, 3.0))
    assert example.frame_s == pytest.approx(3.5, abs=0.1)
    assert example.image is not None
    with (tmp_path / "data" / example.shard).open("rb") as shard:
        image = Image.open(io.BytesIO(read_part(shard, example.image)))
    width, height = (480, 270) if image.width > 200 else (320, 180)
    assert image.size == pytest.approx((0.54 * width, 0.54 * height), abs=1)
