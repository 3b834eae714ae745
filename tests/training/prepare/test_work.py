"""Preparing as a whole: equal bytes however it is done, stopped or shared out; nothing is fatal."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from filelock import FileLock
from PIL import Image

from s2v_cli.errors import OptionError, OutputError, PresetError, TrainingError
from s2v_cli.training.manifest import Example, is_prepared, read_dataset, read_manifest
from s2v_cli.training.prepare import journal
from s2v_cli.training.prepare.assembly import remove
from s2v_cli.training.prepare.examples import Made
from s2v_cli.training.prepare.executors import Processes
from s2v_cli.training.prepare.options import PrepareOptions
from s2v_cli.training.prepare.report import COLUMNS
from s2v_cli.training.prepare.sources import Item
from s2v_cli.training.prepare.work import ensure_prepared, merge_parts, prepare, run_items
from tests.training.prepare.drawing import (
    BUNNY,
    NASA,
    contents,
    copy_of,
    draw_pairs,
    draw_photo,
    draw_sound,
    draw_video,
    tone,
)

SMALL = PrepareOptions(workers=1, shard_mb=0.05, train=0.6, validation=0.2, test=0.2)


class Stopped(Exception):
    """What ends a run in these tests."""


def report(folder: Path) -> list[dict[str, str]]:
    with (folder / "report.csv").open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        assert tuple(reader.fieldnames or ()) == COLUMNS
        return list(reader)


def as_examples(folder: Path) -> list[tuple[object, ...]]:
    """The examples of a dataset without where they lie in it."""

    def row(example: Example) -> tuple[object, ...]:
        image = None if example.image is None else example.image.sha256
        sound = None if example.sound is None else example.sound.sha256
        return (replace(example, shard="", image=None, sound=None), image, sound)

    return [row(example) for example in read_manifest(folder)]


def check_shards(folder: Path) -> None:
    """All offsets of a manifest lead to the bytes of their hashes, and no file is left over."""
    from s2v_cli.training.prepare.shards import read_part, sha256

    dataset = read_dataset(folder)
    counts = dict.fromkeys(dataset.counts, 0)
    for example in read_manifest(folder):
        counts[example.split] += 1
        with (folder / example.shard).open("rb") as stream:
            for part in (example.image, example.sound):
                assert part is None or sha256(read_part(stream, part)) == part.sha256
    assert counts == dataset.counts
    for shard in dataset.shards:
        content = (folder / shard.file).read_bytes()
        assert (len(content), sha256(content)) == (shard.bytes, shard.sha256)
    there = {path for path in contents(folder) if path.startswith("shards")}
    assert there == {shard.file for shard in dataset.shards}
    assert set(contents(folder)) - there == {"dataset.json", "manifest.jsonl", "report.csv"}


@pytest.fixture(scope="module")
def whole(many_pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pairs, prepared at one go."""
    folder = tmp_path_factory.mktemp("whole") / "data"
    summary = prepare(many_pairs, folder, SMALL)
    assert summary.state == "made" and sum(summary.counts.values()) == 40
    return folder


def test_a_dataset(whole: Path, many_pairs: Path) -> None:
    check_shards(whole)
    dataset = read_dataset(whole)
    assert (dataset.pairing, dataset.options["layout"]) == ("file", "pairs")
    assert all(dataset.counts.values()) and len(dataset.shards) > 5
    examples = list(read_manifest(whole))
    assert [example.key for example in examples] == [f"{number:03d}" for number in range(40)]
    assert all(example.image and example.sound for example in examples)
    assert report(whole) == []
    assert str(many_pairs) not in (whole / "dataset.json").read_text()


def test_a_second_run_does_nothing(many_pairs: Path, whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    summary = prepare(many_pairs, whole, replace(SMALL, workers=2))
    assert summary.state == "unchanged" and sum(summary.counts.values()) == 40
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_several_processes_make_the_same_bytes(
    many_pairs: Path, whole: Path, tmp_path: Path
) -> None:
    prepare(many_pairs, tmp_path / "data", replace(SMALL, workers=2))
    assert contents(tmp_path / "data") == contents(whole)


@pytest.mark.parametrize("checkpoint_s", [0.0, 1000.0], ids=["often", "only-at-shards"])
def test_stopped_at_every_item_it_goes_on_to_the_same_bytes(
    many_pairs: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    checkpoint_s: float,
) -> None:  # fmt: skip
    monkeypatch.setattr(journal, "CHECKPOINT_S", checkpoint_s)
    seen = list[int]()

    def stop(stage: str, step: int, steps: int, figures: dict[str, float]) -> None:
        if stage == "Preparing" and len(seen) < 25:
            seen.append(step)
            if len(seen) % 2:
                raise Stopped

    runs = 0
    while not is_prepared(tmp_path / "data"):
        runs += 1
        assert runs < 60
        try:
            prepare(many_pairs, tmp_path / "data", SMALL, stop)
        except Stopped:
            continue
    assert runs > 5
    assert contents(tmp_path / "data") == contents(whole)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(
    many_pairs: Path, whole: Path, tmp_path: Path, end: signal.Signals
) -> None:
    flags = ["--shard-size", "0.05", "--splits", "60,20,20", "--workers", "2"]
    command = [sys.executable, "-m", "s2v_cli", "prepare", str(many_pairs), "data", *flags]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not list((tmp_path / "data").glob("shards/*.tar")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
    process.send_signal(end)
    out, err = process.communicate(timeout=60)
    if end == signal.SIGINT:
        assert (process.returncode, out) == (130, "") and err.endswith("s2v: stopped\n")
        assert "Traceback" not in err
    assert not is_prepared(tmp_path / "data")
    ended = time.monotonic()
    while _others(tmp_path):  # workers do not outlive their parent
        assert time.monotonic() < ended + 20
        time.sleep(0.05)
    prepare(many_pairs, tmp_path / "data", SMALL)
    assert contents(tmp_path / "data") == contents(whole)


def _others(folder: Path) -> list[int]:
    """Processes whose current folder is this one."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "cwd") == str(folder):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_a_full_disk_is_one_line_and_what_is_done_is_kept(
    many_pairs: Path, whole: Path, tmp_path: Path
) -> None:
    """A limit on the size of a file fails as a full disk does, in the middle of a shard."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, 120_000))

    flags = ["--shard-size", "0.15", "--workers", "1", "--splits", "60,20,20", "--quiet"]
    command = [sys.executable, "-m", "s2v_cli", "prepare", str(many_pairs), "data", *flags]
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, preexec_fn=limit, check=False
    )
    assert ended.returncode == 1 and ended.stdout == ""
    assert ended.stderr.startswith("s2v: error: Cannot write data/shards/")
    assert "File too large" in ended.stderr and len(ended.stderr.splitlines()) == 1
    options = replace(SMALL, shard_mb=0.15)
    prepare(many_pairs, tmp_path / "data", options)
    prepare(many_pairs, tmp_path / "other", options)
    assert contents(tmp_path / "data") == contents(tmp_path / "other")


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_parts_merge_to_the_examples_of_one_job(
    many_pairs: Path, whole: Path, tmp_path: Path, order: tuple[int, ...]
) -> None:
    folder = tmp_path / "data"
    for left, number in zip((2, 1, 0), order, strict=True):
        assert not is_prepared(folder)
        summary = prepare(many_pairs, folder, replace(SMALL, part=(number, 3)))
        assert summary.state == ("part" if left else "made")
        assert not left or f"{left} of 3 parts are missing" in summary.notes[-1]
    check_shards(folder)
    assert as_examples(folder) == as_examples(whole)
    assert read_dataset(folder).options == read_dataset(whole).options
    for part in (None, (2, 3)):
        assert prepare(many_pairs, folder, replace(SMALL, part=part)).state == "unchanged"


def test_more_parts_than_items(tmp_path: Path) -> None:
    source, folder = draw_pairs(tmp_path / "pairs", 2), tmp_path / "data"
    for number in range(1, 6):
        prepare(source, folder, replace(SMALL, part=(number, 5)))
    check_shards(folder)
    assert len(as_examples(folder)) == 2


def test_merging_by_hand_names_the_missing_parts(many_pairs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with pytest.raises(TrainingError, match="holds no parts"):
        merge_parts(many_pairs, folder, SMALL)
    prepare(many_pairs, folder, replace(SMALL, part=(2, 4)))
    with pytest.raises(TrainingError, match=r"Parts are missing in .*: 1/4, 3/4, 4/4\. Make them"):
        merge_parts(many_pairs, folder, SMALL)
    with pytest.raises(TrainingError, match=r"holds a part 2/4 .* --force"):
        prepare(many_pairs, folder, SMALL)
    with pytest.raises(TrainingError, match=r"holds a part 2/4 .* --force"):
        prepare(many_pairs, folder, replace(SMALL, part=(1, 2)))
    with pytest.raises(TrainingError, match="image_size was 256, is 64"):
        prepare(many_pairs, folder, replace(SMALL, part=(2, 4), image_size=64))


def test_a_folder_that_several_jobs_remove_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    for number in range(300):
        (folder / f"{number}/.prepare").mkdir(parents=True)
        (folder / f"{number}/.prepare/journal.jsonl").touch()
    with ThreadPoolExecutor(4) as jobs:
        assert list(jobs.map(remove, [folder] * 4)) == [None] * 4
    assert not folder.exists()


def test_duplicates_across_parts_are_found_as_one_job_finds_them(tmp_path: Path) -> None:
    source = draw_pairs(tmp_path / "pairs", 12)
    for number in range(8):  # the same pair again, a picture with another sound, and the reverse
        copy_of(source / f"{number:03d}.jpg", source / f"again{number}.jpg")
        copy_of(source / f"{number:03d}.wav", source / f"again{number}.wav")
        copy_of(source / f"{number + 2:03d}.jpg", source / f"mixed{number}.jpg")
        copy_of(source / f"{number + 4:03d}.wav", source / f"mixed{number}.wav")
    prepare(source, tmp_path / "one", SMALL)
    for number in (1, 2, 3):
        prepare(source, tmp_path / "many", replace(SMALL, part=(number, 3)))
    check_shards(tmp_path / "one")
    check_shards(tmp_path / "many")
    assert as_examples(tmp_path / "many") == as_examples(tmp_path / "one")
    assert report(tmp_path / "many") == report(tmp_path / "one")
    rows = report(tmp_path / "one")
    assert {row["reason"] for row in rows} == {"duplicate content"} and len(rows) >= 8
    splits = dict[str, set[str]]()
    for example in read_manifest(tmp_path / "one"):
        for part in (example.image, example.sound):
            assert part is not None
            splits.setdefault(part.sha256, set()).add(example.split)
    assert all(len(found) == 1 for found in splits.values())


def test_one_video_under_two_names(tmp_path: Path) -> None:
    """Even where different moments are taken of it."""
    for number in range(6):
        copy_of(BUNNY, tmp_path / "videos" / f"{number}.webm")
    draw_video(tmp_path / "videos" / "other.mp4", 1.0)
    options = replace(SMALL, select="random", stride_s=0.1, duration_s=0.5)
    summary = prepare(tmp_path / "videos", tmp_path / "data", options)
    splits = {e.split for e in read_manifest(tmp_path / "data") if "webm" in e.origin}
    assert len(splits) == 1 and summary.skipped["duplicate content"] >= 1


def test_a_dataset_made_otherwise_is_kept_unless_forced(tmp_path: Path) -> None:
    source, folder = draw_pairs(tmp_path / "pairs", 3), tmp_path / "data"
    prepare(source, folder, SMALL)
    before = contents(folder)
    with pytest.raises(TrainingError, match=r"seed was 0, is 1.*--force"):
        prepare(source, folder, replace(SMALL, seed=1))
    draw_pairs(source, 1, first=3)
    with pytest.raises(TrainingError, match="the files of the source have changed"):
        prepare(source, folder, SMALL)
    assert contents(folder) == before
    assert sum(prepare(source, folder, SMALL, overwrite=True).counts.values()) == 4
    check_shards(folder)


def test_an_unfinished_run_made_otherwise_is_kept_unless_forced(tmp_path: Path) -> None:
    source, folder = draw_pairs(tmp_path / "pairs", 6), tmp_path / "data"

    def stop(stage: str, step: int, steps: int, figures: dict[str, float]) -> None:
        if step == 3:
            raise Stopped

    with pytest.raises(Stopped):
        prepare(source, folder, SMALL, stop)
    with pytest.raises(TrainingError, match=r"unfinished run made otherwise \(image_size was"):
        prepare(source, folder, replace(SMALL, image_size=64))
    prepare(source, folder, replace(SMALL, image_size=64), overwrite=True)
    check_shards(folder)


def test_added_files_move_no_example_to_another_split(tmp_path: Path) -> None:
    source = draw_pairs(tmp_path / "pairs", 20)
    prepare(source, tmp_path / "before", SMALL)
    draw_pairs(source, 20, first=20)
    prepare(source, tmp_path / "after", SMALL)
    after = {example.key: example for example in read_manifest(tmp_path / "after")}
    for example in read_manifest(tmp_path / "before"):
        assert after[example.key].split == example.split
    assert len(after) == 40


def test_bad_files_are_rows_and_the_rest_is_made(tmp_path: Path) -> None:
    """A folder with one of each trouble."""
    source = tmp_path / "videos"
    draw_video(source / "good.mp4", 1.0)
    copy_of(NASA, source / "nasa.mp4")
    draw_video(source / "silent.mp4", 1.0, wave=np.zeros(16_000), grey=lambda time_s: 200)
    (source / "broken.mp4").write_bytes(b"\0" * 500)
    (source / "empty.webm").write_bytes(b"")
    copy_of(source / "good.mp4", source / "good again.mp4")
    draw_photo(source / "cover.jpg")
    summary = prepare(source, tmp_path / "data", replace(SMALL, select="mid"))
    rows = report(tmp_path / "data")
    assert {row["file"]: row["reason"] for row in rows if "good" not in row["file"]} == {
        "silent.mp4": "silent",
        "broken.mp4": "broken",
        "empty.webm": "broken",
        "cover.jpg": "not used",
    }
    assert [row["reason"] for row in rows if "good" in row["file"]] == ["duplicate content"]
    assert all(row["kept"] == "no" and row["detail"] for row in rows)
    assert summary.skipped == {"broken": 2, "duplicate content": 1, "not used": 1, "silent": 1}
    assert sum(summary.counts.values()) == 2
    check_shards(tmp_path / "data")
    kept = replace(SMALL, select="mid", keep_silent=True)
    summary = prepare(source, tmp_path / "silent", kept)
    assert "silent" not in summary.skipped and sum(summary.counts.values()) == 3
    assert [r["kept"] for r in report(tmp_path / "silent") if r["reason"] == "silent"] == ["yes"]


def test_nothing_usable_at_all(tmp_path: Path) -> None:
    source = tmp_path / "videos"
    source.mkdir()
    (source / "a.mp4").write_bytes(b"\0" * 100)
    for _ in range(2):
        with pytest.raises(
            TrainingError, match=r"No example came of .*1 video \(1 broken\); .*report\.csv"
        ):
            prepare(source, tmp_path / "data", SMALL)
        assert set(contents(tmp_path / "data")) == {"report.csv"}
    draw_video(source / "a.mp4", 1.0)
    assert prepare(source, tmp_path / "data", SMALL).state == "made"


def test_one_pair(tmp_path: Path) -> None:
    summary = prepare(draw_pairs(tmp_path / "pairs", 1), tmp_path / "data", SMALL)
    assert summary.notes == ("The dataset is a single example; training needs more.",)
    assert len(as_examples(tmp_path / "data")) == 1


def test_splits_without_examples_are_told(tmp_path: Path) -> None:
    options = replace(SMALL, train=1.0, validation=0.0, test=0.0)
    summary = prepare(draw_pairs(tmp_path / "pairs", 4), tmp_path / "data", options)
    assert summary.notes == ("No example is in validation or test; --splits sets the shares.",)


def test_classes(miniature: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    summary = prepare(miniature, folder, SMALL)
    check_shards(folder)
    assert read_dataset(folder).pairing == "class"
    for example in read_manifest(folder):
        assert (example.image is None) != (example.sound is None)
        assert example.name in ("rain", "fire", "mountain")
    assert set(summary.names) == {"rain", "fire", "mountain"}
    assert summary.skipped == {"no partner": 6}
    keeping = prepare(miniature, tmp_path / "all", replace(SMALL, unpaired=True))
    assert keeping.names["~clock"] == 6


def test_sounds_without_a_picture_in_their_split_are_told(tmp_path: Path) -> None:
    for number in range(30):
        draw_sound(tmp_path / "in/rain" / f"{number}.wav", 200 + 9 * number)
    draw_photo(tmp_path / "in/rain/one.jpg")
    summary = prepare(tmp_path / "in", tmp_path / "data", SMALL)
    assert any(
        note.startswith("Sounds without a picture of their class in their split: rain (")
        for note in summary.notes
    )


def test_a_strange_folder_is_left_alone(many_pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty and holds no dataset"):
        prepare(many_pairs, tmp_path, SMALL, overwrite=True)
    with pytest.raises(OutputError, match="is the source itself"):
        prepare(many_pairs, many_pairs, SMALL)
    with pytest.raises(OutputError, match="Cannot"):
        prepare(many_pairs, tmp_path / "notes.txt" / "data", SMALL)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_two_runs_in_one_folder(many_pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "data/.prepare").mkdir(parents=True)
    with (
        FileLock(tmp_path / "data/.prepare/lock"),
        pytest.raises(OutputError, match="Another run is at work in"),
    ):
        prepare(many_pairs, tmp_path / "data", SMALL)


def test_a_shard_that_vanished_from_an_unfinished_run(many_pairs: Path, tmp_path: Path) -> None:
    def stop(stage: str, step: int, steps: int, figures: dict[str, float]) -> None:
        if step == 39:
            raise Stopped

    with pytest.raises(Stopped):
        prepare(many_pairs, tmp_path / "data", SMALL, stop)
    sorted((tmp_path / "data/shards").glob("train-*.tar"))[0].unlink()
    with pytest.raises(TrainingError, match=r"train-000000\.tar .* gone\. .*--force"):
        prepare(many_pairs, tmp_path / "data", SMALL)


def test_ensure_prepared(tmp_path: Path, whole: Path) -> None:
    assert ensure_prepared(whole, tmp_path / "unused") == whole
    source = draw_pairs(tmp_path / "pairs", 2)
    for _ in range(2):
        assert ensure_prepared(source, tmp_path / "data") == tmp_path / "data"
    check_shards(tmp_path / "data")


def test_progress_tells_rates(many_pairs: Path, tmp_path: Path) -> None:
    told = list[tuple[str, int, int, dict[str, float]]]()
    prepare(many_pairs, tmp_path / "data", SMALL, lambda *state: told.append(state))
    assert told[0][0] == "Listing" and [state[1] for state in told[1:]] == list(range(1, 41))
    assert told[-1][3]["items_per_s"] > 0 and told[-1][3]["examples"] == 40


def test_a_scorer_that_is_not_there_is_told_before_the_work(tmp_path: Path) -> None:
    draw_video(tmp_path / "videos/a.mp4", 1.0)
    with pytest.raises(PresetError, match="Unknown preset 'minni'"):
        prepare(tmp_path / "videos", tmp_path / "data", replace(SMALL, scorer="minni"))


def crash(item: Item) -> Made:
    """A worker whose process ends at one item."""
    if item.key == "3":
        os._exit(11)
    return Made()


def test_a_decoder_that_ends_its_process_costs_one_item() -> None:
    items = [Item(str(number), "s", f"{number}.mp4") for number in range(8)]
    made = list(run_items(items, crash, Processes(2)))
    assert [bool(result.skipped) for result in made] == [n == 3 for n in range(8)]
    assert made[3].skipped[0].reason == "crashed" and made[3].skipped[0].file == "3.mp4"


def fail(item: Item) -> Made:
    """A worker that finds a package missing."""
    raise OptionError(f"no good: {item.key}")


def test_errors_of_workers_are_raised_here() -> None:
    with pytest.raises(OptionError, match="no good: a"):
        list(run_items([Item("a", "s", "o")], fail, Processes(2)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"duration_s": 0.0}, "duration is 0.0; allowed: 0.2 to 600 s"),
        ({"image_size": 8}, "image-size is 8; allowed: whole numbers from 32 to 4096 px"),
        ({"select": "best"}, "select is 'best'; allowed: top1, mid, random, all"),
        ({"top_k": 0}, "top-k is 0"),
        ({"stride_s": float("nan")}, "stride is nan"),
        ({"train": 0.5}, "splits is 0.5,0.05,0.1; allowed: three shares"),
        ({"train": 1.2, "validation": -0.2, "test": 0.0}, "splits is 1.2,-0.2,0"),
        ({"min_duration_s": 20.0}, "min-duration is 20.0; allowed: 0.01 to 10 s"),
        ({"part": (4, 3)}, "shard is 4/3; allowed: i/n with i from 1 to n"),
        ({"part": (0, 3)}, "shard is 0/3"),
        ({"workers": 0}, "workers is 0"),
        ({"shard_mb": 0}, "shard-mb is 0"),
        ({"device": "gpu"}, "device is 'gpu'; allowed: auto, cpu"),
    ],
)
def test_options_are_checked(fields: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        PrepareOptions(**fields)  # type: ignore[arg-type]
    assert message in str(caught.value)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_examples(tmp_path: Path) -> None:
    """Four times as many pairs take hardly more memory."""
    peaks = []
    for count in (500, 2000):
        folder = tmp_path / str(count)
        folder.mkdir()
        image = np.random.default_rng(0)
        for number in range(count):
            pixels = image.integers(0, 256, (64, 64, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.jpg")
            soundfile.write(folder / f"{number}.wav", tone(200 + number / 10, 2.0), 16_000)
        script = (
            "import resource, sys; from pathlib import Path;"
            "from s2v_cli.training.prepare.work import prepare;"
            "from s2v_cli.training.prepare.options import PrepareOptions;"
            "prepare(Path(sys.argv[1]), Path(sys.argv[2]), PrepareOptions(workers=1));"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        command = [sys.executable, "-c", script, str(folder), str(tmp_path / f"d{count}")]
        peaks.append(int(subprocess.check_output(command)) / 1024)
    assert peaks[1] - peaks[0] < 25, peaks  # MB; the files differ by 100 MB


@pytest.mark.slow
def test_jobs_that_run_at_the_same_time(many_pairs: Path, whole: Path, tmp_path: Path) -> None:
    """Whichever ends last merges; none fails, and nothing is left of the parts."""
    flags = ["--shard-size", "0.05", "--splits", "60,20,20", "--workers", "1", "--json"]
    command = [sys.executable, "-m", "s2v_cli", "prepare", str(many_pairs), "data", *flags]
    jobs = [
        subprocess.Popen([*command, "--shard", f"{n}/4"], cwd=tmp_path, stdout=subprocess.PIPE)
        for n in range(1, 5)
    ]
    states = [json.loads(job.communicate(timeout=120)[0])["state"] for job in jobs]
    assert all(job.returncode == 0 for job in jobs) and states.count("made") == 1
    check_shards(tmp_path / "data")
    assert as_examples(tmp_path / "data") == as_examples(whole)
