"""Any example of a prepared dataset straight out of its shard."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s2v_cli.errors import TrainingError
from s2v_cli.training import pairs
from s2v_cli.training.manifest import MANIFEST_FILE, Dataset, Example, Part
from s2v_cli.training.pairs import BadSample, PairDataset
from tests.training.drawn_pairs import (
    example,
    flac_of,
    jpeg_of,
    sound_of,
    write_classes,
    write_pairs,
    write_rows,
)


@pytest.fixture(scope="module")
def by_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "data", 10, 3)


@pytest.fixture(scope="module")
def by_class(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classes") / "data"
    return write_classes(folder, ["cat", "rain", "~hum"], sounds=3, images=2)


def test_examples_come_back_as_they_were_written(by_file: Path) -> None:
    dataset = PairDataset.open(by_file)
    assert len(dataset) == 13
    for number in (12, 0, 7):
        assert dataset.key(number) == f"{number:04d}"
        wave = dataset.wave(number)
        assert np.abs(wave.numpy() - sound_of(number)).max() <= 0.5001 / 32768
        with Image.open(io.BytesIO(jpeg_of(number))) as image:
            assert np.array_equal(np.asarray(image), np.asarray(dataset.image(number)))


def test_pairs_by_file_are_of_one_example(by_file: Path) -> None:
    dataset = PairDataset.open(by_file)
    assert dataset.pairing == "file"
    assert dataset.sounds("train").tolist() == list(range(10))
    assert dataset.images("validation").tolist() == [10, 11, 12]
    assert dataset.sounds("test").tolist() == []
    assert dataset.partners(4).tolist() == [4]
    assert dataset.class_name(4) is None


def test_pairs_by_class_are_of_one_class_and_split(by_class: Path) -> None:
    dataset = PairDataset.open(by_class)
    keys = [dataset.key(number) for number in range(len(dataset))]
    sounds = {keys[i] for i in dataset.sounds("train")}
    assert sounds == {f"{name}-s{n}" for name in ("cat", "rain") for n in range(3)}
    partners = dataset.partners(keys.index("rain-s1"))
    assert [keys[i] for i in partners] == ["rain-i0", "rain-i1"]
    assert [keys[i] for i in dataset.partners(keys.index("rain-s3"))] == ["rain-i2"]
    assert dataset.class_name(keys.index("rain-s1")) == "rain"
    assert dataset.names == ["cat", "rain", "~hum"]


def test_negatives_have_no_partners_and_are_no_pairs(by_class: Path) -> None:
    dataset = PairDataset.open(by_class)
    negatives = dataset.negatives("train")
    assert [dataset.key(i) for i in negatives] == ["hum-s0", "hum-s1", "hum-s2"]
    assert not len(dataset.partners(int(negatives[0])))


def test_what_has_no_class_or_no_other_half_is_no_pair(tmp_path: Path) -> None:
    rows = [
        (example("a", name=None), jpeg_of(0), None),
        (example("b", name=None), None, flac_of(0)),
        (example("c", name="cat"), None, flac_of(1)),
        (example("d", "validation", "cat"), jpeg_of(1), None),
    ]
    dataset = PairDataset.open(write_rows(tmp_path / "class", rows, "class"))
    assert not len(dataset.sounds())
    assert not any(len(dataset.partners(number)) for number in (1, 2))
    dataset = PairDataset.open(write_rows(tmp_path / "file", rows))
    assert not len(dataset.sounds())
    with pytest.raises(TrainingError, match=r"'a' of .* has no sound"):
        dataset.wave(0)


def test_it_can_be_handed_to_another_process(by_file: Path) -> None:
    dataset = PairDataset.open(by_file)
    expected = dataset.wave(3)
    copy = pickle.loads(pickle.dumps(dataset))  # as spawned workers get it
    assert copy.wave(3).equal(expected)
    assert copy.digest == dataset.digest
    dataset.close()
    assert dataset.wave(3).equal(expected)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
def test_threads_read_many_shards_with_few_open_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "OPEN_SHARDS", 2)
    folder = write_pairs(tmp_path, 12, 0, shards=6)
    dataset = PairDataset.open(folder)
    before = len(os.listdir("/proc/self/fd"))
    order = np.random.default_rng(0).integers(0, 12, 200).tolist()
    with ThreadPoolExecutor(4) as pool:
        contents = list(pool.map(lambda number: dataset.content("image", number), order))
    assert contents == [jpeg_of(number) for number in order]
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    dataset.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_vanished_shard_is_named(tmp_path: Path) -> None:
    dataset = PairDataset.open(write_pairs(tmp_path, 4, 0))
    (tmp_path / "shards" / "train-000001.tar").unlink()
    assert len(dataset.wave(0))
    with pytest.raises(TrainingError, match=r"train-000001.tar: No such file.* Put it back"):
        dataset.wave(3)


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    dataset = PairDataset.open(write_pairs(tmp_path, 4, 0))
    os.truncate(tmp_path / "shards" / "train-000001.tar", 9000)
    with pytest.raises(TrainingError, match=r"train-000001.tar is shorter.*sound of '0003'") as e:
        dataset.wave(3)
    assert not isinstance(e.value, BadSample)  # nothing stands in for it


def endless_flac() -> bytes:
    """A FLAC whose header tells of 2^36 - 1 samples."""
    content = bytearray(flac_of(0))
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4
    return bytes(content)


@pytest.mark.parametrize("content", [b"", b"fLaC", flac_of(0)[:60], endless_flac()])
def test_a_sound_that_cannot_be_decoded_is_a_bad_sample(content: bytes, tmp_path: Path) -> None:
    rows = [(example("bad"), jpeg_of(0), content)]
    dataset = PairDataset.open(write_rows(tmp_path, rows))
    with pytest.raises(BadSample, match=r"bad\.flac of "):
        dataset.wave(0)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", jpeg_of(0)[:500]])
def test_a_picture_that_cannot_be_decoded_is_a_bad_sample(content: bytes, tmp_path: Path) -> None:
    dataset = PairDataset.open(write_rows(tmp_path, [(example("bad"), content, flac_of(0))]))
    with pytest.raises(BadSample, match=r"bad\.jpg of "):
        dataset.image(0)


def test_the_digest_tells_datasets_apart(tmp_path: Path) -> None:
    one = PairDataset.open(write_pairs(tmp_path / "a", 4, 0))
    same = PairDataset.open(write_pairs(tmp_path / "b", 4, 0))
    other = PairDataset.open(write_pairs(tmp_path / "c", 4, 0, bad_images={1}))
    assert one.digest == same.digest != other.digest


@pytest.mark.parametrize(
    ("key", "value"),
    [("key", 5), ("image", {"offset": "x", "size": 1, "sha256": ""}), ("name", ["cat"])],
)
def test_fields_of_another_kind_are_one_line(key: str, value: object, tmp_path: Path) -> None:
    path = write_pairs(tmp_path, 2, 0) / MANIFEST_FILE
    first, second = path.read_text().splitlines()
    path.write_text(first + "\n" + json.dumps(json.loads(second) | {key: value}) + "\n")
    with pytest.raises(TrainingError, match=r"Line 2 of .*manifest.jsonl") as error:
        PairDataset.open(tmp_path)
    assert "\n" not in str(error.value)


def rows_of(folder: Path, count: int) -> Path:
    """A manifest of that many examples, without the shards."""
    part = Part(123_456, 78_901, "0" * 64)
    line = Example("KEY", "SOURCE", "train", "SHARD", part, part, name="CLASS").to_line()
    with (folder / MANIFEST_FILE).open("w") as file:
        for number in range(count):
            row = line.replace("KEY", f"clip-{number:07d}").replace("CLASS", f"{number % 300}")
            row = row.replace("SOURCE", f"video-{number // 10:06d}")
            file.write(row.replace("SHARD", f"shards/{number // 500}.tar") + "\n")
    Dataset("class", (), {"train": count}, {}).write(folder)
    return folder


def test_an_example_takes_a_hundred_bytes_of_memory(tmp_path: Path) -> None:
    count = 5_000
    folder = rows_of(tmp_path, count)
    tracemalloc.start()
    try:
        dataset = PairDataset.open(folder)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(dataset) == count
    assert kept < 100 * count + 200_000  # the latter whatever the count
    assert peak < 300 * count + 200_000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
def test_two_hundred_thousand_examples_take_little_memory(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from s2v_cli.training.pairs import PairDataset\n"
        "most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = most(); dataset = PairDataset.open(Path(sys.argv[1]))\n"
        "print(len(dataset), most() - before)"
    )
    command = [sys.executable, "-c", code, str(rows_of(tmp_path, 200_000))]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    count, kilobytes = map(int, output.split())
    assert count == 200_000
    assert kilobytes < 60_000
