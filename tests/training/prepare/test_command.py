"""`s2v prepare`: what it prints, where, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from s2v_cli.training.manifest import read_manifest
from tests.conftest import RunHere
from tests.training.prepare.drawing import contents, draw_pairs


def test_the_result_is_the_folder_and_the_rest_is_notes(folder: Path, s2v: RunHere) -> None:
    draw_pairs(Path("pairs"), 3)
    Path("pairs/notes.wav").write_bytes(b"no sound")
    ran = s2v("prepare", "pairs", "data", "--workers", "1", "--splits", "1,0,0")
    assert (ran.status, ran.lines) == (0, ["data"])
    assert ran.complaints == [
        "s2v: note: pairs is sounds and pictures of one stem: 3 pairs.",
        "s2v: note: No example is in validation or test; --splits sets the shares.",
        "s2v: note: 3 train, 0 validation, 0 test; 31 kB.",
        "s2v: note: Skipped: 1 no partner; data/report.csv says why.",
    ]
    again = s2v("prepare", "pairs", "data", "--splits", "100,0,0")
    assert (again.status, again.lines) == (0, ["data"])
    assert again.complaints[-1] == (
        "s2v: note: All of it is there already (3 train, 0 validation, 0 test); nothing was done."
    )


def test_quiet_json(folder: Path, s2v: RunHere) -> None:
    draw_pairs(Path("pairs"), 3)
    ran = s2v("prepare", "pairs", "data", "--json", "--quiet", "--workers", "1")
    assert (ran.status, ran.err) == (0, "")
    summary = json.loads(ran.out)
    assert summary["state"] == "made" and summary["layout"] == "pairs"
    assert sum(summary["counts"].values()) == 3 and summary["folder"] == "data"


def test_a_dry_run_counts_and_writes_nothing(folder: Path, s2v: RunHere) -> None:
    draw_pairs(Path("pairs"), 4)
    before = contents(folder)
    ran = s2v("prepare", "pairs", "data", "--dry-run", "--splits", "0.5,0.5,0")
    counts = dict(line.split("\t")[::-1] for line in ran.lines)
    assert ran.status == 0 and sum(map(int, counts.values())) == 4
    assert list(counts) == ["train", "validation", "test"] and counts["test"] == "0"
    assert contents(folder) == before


def test_parts_and_merge(folder: Path, s2v: RunHere) -> None:
    draw_pairs(Path("pairs"), 4)
    ran = s2v("prepare", "pairs", "data", "--shard", "2/2", "--workers", "1")
    assert ran.status == 0 and "1 of 2 parts are missing" in ran.err
    ran = s2v("prepare", "pairs", "data", "--merge")
    assert ran.status == 1 and "Parts are missing in data: 1/2." in ran.err
    assert s2v("prepare", "pairs", "data", "--shard", "1/2", "--workers", "1").status == 0
    assert len(list(read_manifest(Path("data")))) == 4
    assert s2v("prepare", "pairs", "data", "--merge").status == 0


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--splits", "a,b"], 2, "splits is 'a,b'; allowed: three shares"),
        (["--splits", "0.5,0.1,0.1"], 2, "that add to 1"),
        (["--shard", "2"], 2, "shard is '2'; allowed: i/n"),
        (["--shard", "3/2"], 2, "shard is 3/2; allowed"),
        (["--merge", "--dry-run"], 2, "--merge stands alone"),
        (["--layout", "folders"], 2, "layout is 'folders'; allowed: auto, videos"),
        (["--select", "best"], 2, "'best' is not one of"),
        (["--duration", "0"], 2, "duration is 0.0; allowed: 0.2 to 600 s"),
        (["--layout", "videos"], 1, "Nothing to prepare in pairs (a folder of videos: 0 videos)"),
    ],
)
def test_what_is_refused(
    folder: Path, s2v: RunHere, flags: list[str], status: int, message: str
) -> None:
    draw_pairs(Path("pairs"), 1)
    ran = s2v("prepare", "pairs", "data", *flags)
    assert (ran.status, ran.out, len(ran.complaints)) == (status, "", 1)
    assert message in ran.err and not Path("data").exists()


def test_an_empty_folder(folder: Path, s2v: RunHere) -> None:
    Path("nothing").mkdir()
    ran = s2v("prepare", "nothing", "data")
    assert (ran.status, ran.out) == (1, "")
    assert ran.complaints == [
        "s2v: error: Nothing to prepare in nothing: it has no video, sound or picture. Give a "
        "folder of videos, of pairs such as a.wav and a.jpg, or of class folders."
    ]
