"""Manifests of one's own: what they may say, and one clear line for what they may not."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from s2v_cli.errors import TrainingError
from s2v_cli.training.prepare.options import PrepareOptions
from s2v_cli.training.prepare.plan import make_plan
from s2v_cli.training.prepare.sources import Item, Listed, open_source

ROWS = [
    {"video": "a.mp4", "split": "train", "class": "dog", "start": 2.5, "duration": 4},
    {"video": "a.mp4", "split": "train", "start": 8, "source": "a.mp4"},
    {"image": "b.jpg", "sound": "b.wav", "source": "trip", "split": "val"},
]


def read(table: Path, **options: object) -> Listed:
    source = open_source(table, PrepareOptions(**options))  # type: ignore[arg-type]
    assert isinstance(source, Listed)
    return source


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def as_table(delimiter: str) -> str:
    columns = ["video", "image", "sound", "split", "class", "source", "start", "duration"]
    lines = [[str(row.get(column, "")) for column in columns] for row in ROWS]
    return "\n".join(delimiter.join(line) for line in [columns, *lines])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", as_table(",")),
        ("x.csv", "\ufeff" + as_table(";").replace("\n", "\r\n")),
        ("x.tsv", as_table("\t") + "\n\n"),
        ("x.jsonl", "\n".join(json.dumps(row) for row in ROWS) + "\n\n"),
    ],
)
def test_every_format_says_the_same(tmp_path: Path, name: str, text: str) -> None:
    source = read(write(tmp_path, name, text))
    first, second, third = source.items()
    assert (source.layout, source.pairing, source.skipped) == ("manifest", "file", [])
    assert first == Item(
        "a_2500", "a.mp4", "a.mp4", f"line {1 if name == 'x.jsonl' else 2} of {name}", "dog",
        "train", video=tmp_path / "a.mp4", start_s=2.5, duration_s=4.0,
    )  # fmt: skip
    assert (second.key, second.start_s, second.duration_s) == ("a_8000", 8.0, None)
    assert (third.key, third.source, third.split, third.name) == ("b", "trip", "validation", None)
    assert (third.image, third.sound) == (tmp_path / "b.jpg", tmp_path / "b.wav")


def test_a_folder_with_a_manifest(tmp_path: Path) -> None:
    write(tmp_path, "manifest.csv", "video\na.mp4\n")
    assert len(list(read(tmp_path).items())) == 1
    write(tmp_path, "manifest.jsonl", '{"video": "a.mp4"}\n')
    with pytest.raises(TrainingError, match=r"holds manifest\.csv and manifest\.jsonl"):
        read(tmp_path)


def test_rows_of_one_file_are_paired_by_class(tmp_path: Path) -> None:
    text = "image,sound,class\na.jpg,,rain\n,b.wav,rain\n,c.wav,wind\nd.jpg,,\n"
    source = read(write(tmp_path, "x.csv", text))
    assert source.pairing == "class"
    assert Counter(item.name for item in source.items()) == {"rain": 2}
    assert sorted(row.reason for row in source.skipped) == ["no class", "no partner"]
    source = read(tmp_path / "x.csv", unpaired=True)
    assert Counter(item.name for item in source.items()) == {"rain": 2, "~wind": 1}


def test_rows_that_repeat_a_row_are_reported(tmp_path: Path) -> None:
    text = "video,start\na.mp4,0\na.mp4,5\na.mp4,0\n"
    source = read(write(tmp_path, "x.csv", text))
    assert len(list(source.items())) == 2
    assert [(row.reason, row.detail) for row in source.skipped] == [
        ("duplicate name", "the same as line 2")
    ]


def test_columns_that_are_not_used_are_named(tmp_path: Path) -> None:
    source = read(write(tmp_path, "x.csv", "video,licence,note\na.mp4,CC0,\n"))
    assert source.notes == ["Columns that are not used: licence."]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "", "x.csv has no rows"),
        ("x.csv", "video\n\n", "x.csv has no rows"),
        ("x.jsonl", "\n", "x.jsonl has no rows"),
        ("x.csv", "vidoe\na.mp4\n", "none of video, image, sound, which name files. Did you mean"),
        ("x.csv", "video,split\na.mp4,tran\n", "Line 2 of {} has the split 'tran'; allowed: train"),
        ("x.csv", 'video\n"two\nlines.mp4"\n"b.mp4\n', "Line 4 of {} cannot be read"),
        ("x.csv", "video\na.mp4,b\n", "Line 2 of {} has 2 cells, line 1 names 1 columns"),
        ("x.csv", "video,video\na,b\n", "Line 1 of {} names the column 'video' twice"),
        ("x.csv", b"video\na.mp4\nb\xff.mp4\n", "Line 3 of {} is not UTF-8"),
        ("x.csv", "video,start\na.mp4,soon\n", "Line 2 of {} has the start 'soon'"),
        ("x.csv", "video,duration\na.mp4,0\n", "Line 2 of {} has the duration '0'"),
        ("x.csv", "video,image\na.mp4,a.jpg\n", "Line 2 of {} names a video beside a picture"),
        ("x.csv", "video,class\n,dog\nb.mp4,\n", "Line 2 of {} names no file"),
        ("x.jsonl", '{"video": "a.mp4"}\n{"video": \n', "Line 2 of {} is not JSON"),
        ("x.jsonl", '["a.mp4"]\n', "Line 1 of {} is not an object"),
        ("x.jsonl", '{"video": 7}\n', "Line 1 of {} has the video 7; allowed: a path"),
        ("x.jsonl", '{"video": "a", "start": "nan"}\n', "Line 1 of {} has the start 'nan'"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_its_number(
    tmp_path: Path, name: str, text: str | bytes, message: str
) -> None:
    table = write(tmp_path, name, text)
    with pytest.raises(TrainingError) as caught:
        read(table)
    assert message.format(table) in str(caught.value) and "\n" not in str(caught.value)


def test_splits_that_leak_name_both_lines(tmp_path: Path) -> None:
    text = "video,source,split\na.mp4,x,train\nb.mp4,y,test\nc.mp4,x,test\n"
    table = write(tmp_path, "x.csv", text)
    with pytest.raises(TrainingError, match=r"line 2 of x\.csv.* in test \(line 4 of x\.csv\)"):
        make_plan(table, tmp_path / "data", PrepareOptions())
