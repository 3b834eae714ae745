"""Names of clips, lists of classes and the published moments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from s2v_cli.errors import OptionError, TrainingError
from s2v_cli.training.prepare.options import PrepareOptions
from s2v_cli.training.prepare.published import (
    class_lists,
    parse_clip,
    train_or_validation,
    wanted_classes,
    without_leaks,
)
from s2v_cli.training.prepare.published_moments import read_moments
from s2v_cli.training.prepare.sources import Item

KNOWN = {"dog barking", "cat purring", "ice cream truck, ice cream van", "playing harp"}


@pytest.mark.parametrize(
    ("stem", "id", "starts_s"),
    [
        ("---g-f_I2yQ_000001", "---g-f_I2yQ", (1.0, 0.001)),
        ("1XjwssJT_ok_25000_35000", "1XjwssJT_ok", (25.0,)),
        ("1XjwssJT_ok_25_35", "1XjwssJT_ok", (25.0,)),
        ("uLaU_15HYdo_000002_000012", "uLaU_15HYdo", (2.0,)),
        ("--i-y1v8Hy8_0.000", "--i-y1v8Hy8", (0.0, 0.0)),
        ("-0jeONf82dE-21", "-0jeONf82dE", (21.0, 0.021)),
        ("0Cfc0r3l5Ww", "0Cfc0r3l5Ww", ()),
    ],
)
def test_clip_names(stem: str, id: str, starts_s: tuple[float, ...]) -> None:
    clip = parse_clip(stem)
    assert clip is not None
    assert (clip.id, clip.starts_s) == (id, starts_s)


@pytest.mark.parametrize("stem", ["", "holiday", "short_30", "0Cfc0r3l5Ww_30_40_50", "é" * 11])
def test_other_names(stem: str) -> None:
    assert parse_clip(stem) is None


def test_lists_of_classes() -> None:
    fifty = class_lists("vggsound")["50"]
    assert len(set(fifty)) == 50
    assert {"airplane flyby", "ice cream truck, ice cream van", "skiing"} <= set(fifty)
    vegas = class_lists("vegas")
    assert len(set(vegas["10"])) == 10
    assert len(vegas["5"]) == 5
    assert set(vegas["5"]) < set(vegas["10"])


def test_a_file_of_classes(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("# mine\ndog barking\n\n  ice cream truck, ice cream van\n")
    wanted = wanted_classes("vggsound", str(names), KNOWN)
    assert wanted == {"dog barking", "ice cream truck, ice cream van"}
    assert wanted_classes("vggsound", None, KNOWN) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cat purring\ndog barkign\n", r"Line 2 of .*'dog barkign'.*mean 'dog barking'\?"),
        ("harp\n", r"Line 1 of .*'harp'.*mean 'playing harp'\?"),
        ("qqqq\n", r"Line 1 of .*: there is no class 'qqqq'\.$"),
        ("# none\n", "names no class"),
    ],
)
def test_bad_files_of_classes(tmp_path: Path, content: str, message: str) -> None:
    names = tmp_path / "names.txt"
    names.write_text(content)
    with pytest.raises(TrainingError, match=message):
        wanted_classes("vggsound", str(names), KNOWN)


def test_unknown_list_of_classes() -> None:
    with pytest.raises(OptionError, match=r"classes is '51'; allowed: 50, or a file"):
        wanted_classes("vggsound", "51", KNOWN)


def test_validation_comes_out_of_training() -> None:
    sources = [f"video {number}" for number in range(2000)]
    options = PrepareOptions(train=0.6, validation=0.2, test=0.2)
    held_out = sum(train_or_validation(source, options) == "validation" for source in sources)
    assert 420 < held_out < 580  # a quarter
    none = PrepareOptions(train=1.0, validation=0.0, test=0.0)
    assert {train_or_validation(source, none) for source in sources} == {"train"}


def test_a_source_in_two_splits_stays_held_out() -> None:
    items = [
        Item("a", "one", "a.mp4", split="train"),
        Item("b", "one", "b.mp4", split="test"),
        Item("c", "two", "c.mp4", split="train"),
    ]
    kept, skipped = without_leaks(items)
    assert [item.key for item in kept] == ["b", "c"]
    assert [(row.file, row.reason) for row in skipped] == [("a.mp4", "other split")]


FRAMES = {"9fhhMaXTraI_44000_54000": [47, 46, 1], "G_JwMzRLRNo_252000_262000": [2, 100]}


@pytest.mark.parametrize("content", [FRAMES, [{"9fhhMaXTraI_44000_54000": [[0, 0, 3, 4]]}, FRAMES]])
def test_moments(tmp_path: Path, content: object) -> None:
    path = tmp_path / "moments.json"
    path.write_text(json.dumps(content))
    assert read_moments(path) == {
        ("9fhhMaXTraI", 44.0): (4.6, 4.5, 0.0),
        ("G_JwMzRLRNo", 252.0): (0.1, 9.9),
    }


def test_moments_that_count_from_zero(tmp_path: Path) -> None:
    path = tmp_path / "moments.json"
    path.write_text('{"9fhhMaXTraI_44000_54000": [47, 0]}')
    assert read_moments(path) == {("9fhhMaXTraI", 44.0): (4.7, 0.0)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{\n"a": [1,\n}', "Line 3 of .* is not JSON"),
        ("[]", "has no list of moments; allowed"),
        ('{"9fhhMaXTraI_44000_54000": [1.5]}', "has no list of moments; allowed"),
        ('{"9fhhMaXTraI_44000_54000": [-1]}', "has no list of moments; allowed"),
        ('{"holiday": [1]}', "names a clip 'holiday'"),
    ],
)
def test_bad_moments(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "moments.json"
    path.write_text(content)
    with pytest.raises(TrainingError, match=message):
        read_moments(path)
