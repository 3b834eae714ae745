"""Shards: what other readers see, equal bytes, going on after a kill."""

from __future__ import annotations

import gc
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import webdataset
from PIL import Image

from s2v_cli.errors import OutputError, TrainingError
from s2v_cli.training.manifest import Example, read_dataset, read_manifest
from s2v_cli.training.prepare.options import PrepareOptions
from s2v_cli.training.prepare.shards import ShardWriter, encode_sound, read_part, sha256
from s2v_cli.training.prepare.work import prepare
from tests.training.prepare.drawing import draw_pairs

EXAMPLES = [Example(f"key-{number}", f"source {number}", "train", "") for number in range(5)]


def write(folder: Path, examples: list[Example] = EXAMPLES) -> ShardWriter:
    writer = ShardWriter(folder, "train", 3)
    for example in examples:
        writer.add(example, b"picture of " + example.key.encode(), b"s" * 700)
    return writer


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_what_prepare_wrote(tmp_path: Path) -> None:
    prepare(draw_pairs(tmp_path / "pairs", 6), tmp_path / "data", PrepareOptions(workers=1))
    examples = {example.key: example for example in read_manifest(tmp_path / "data")}
    shards = [str(tmp_path / "data" / s.file) for s in read_dataset(tmp_path / "data").shards]
    seen = {}
    for sample in webdataset.WebDataset(shards, shardshuffle=False, empty_check=False):
        seen[sample["__key__"]] = sample
    gc.collect()  # the library leaves files open
    assert set(seen) == set(examples) and len(examples) == 6
    for key, sample in seen.items():
        assert sha256(sample["jpg"]) == examples[key].image.sha256
        assert Image.open(io.BytesIO(sample["jpg"])).size == (48, 32)
        wave, rate = soundfile.read(io.BytesIO(sample["flac"]))
        assert rate == 16_000 and len(wave) == 8_000
        assert b'"split"' in sample["json"]


def test_offsets_and_hashes_find_the_files(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "test", 0)
    example = writer.add(EXAMPLES[0], b"picture", None)
    other = writer.add(EXAMPLES[1], None, b"sound")
    shard = writer.close()
    assert (shard.file, shard.examples) == ("shards/test-000000.tar", 2)
    content = (tmp_path / shard.file).read_bytes()
    assert (len(content), sha256(content)) == (shard.bytes, shard.sha256)
    with (tmp_path / shard.file).open("rb") as stream:
        assert example.image is not None and read_part(stream, example.image) == b"picture"
        assert other.sound is not None and read_part(stream, other.sound) == b"sound"
        assert example.sound is None and other.image is None


def test_equal_examples_make_equal_bytes_without_time_or_owner(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a").close(), write(tmp_path / "b").close()
    assert first == second
    assert (tmp_path / "a" / first.file).read_bytes() == (tmp_path / "b" / first.file).read_bytes()
    with tarfile.open(tmp_path / "a" / first.file) as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.uname, member.mode) == (0, 0, "", 0o644)


@pytest.mark.parametrize("kept", range(6))
def test_goes_on_at_a_known_length(tmp_path: Path, kept: int) -> None:
    whole = write(tmp_path / "whole").close()
    writer = write(tmp_path / "again", EXAMPLES[:kept])
    writer.sync()
    length = writer.bytes
    writer.add(Example("lost", "", "train", ""), b"more", b"that the journal does not know")
    writer.abandon()
    writer = ShardWriter(tmp_path / "again", "train", 3, examples=kept, bytes=length)
    for example in EXAMPLES[kept:]:
        writer.add(example, b"picture of " + example.key.encode(), b"s" * 700)
    assert writer.close() == whole
    name = whole.file
    assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_goes_on_with_a_shard_that_was_closed_after_the_last_checkpoint(tmp_path: Path) -> None:
    writer = write(tmp_path, EXAMPLES[:2])
    length = writer.bytes
    writer.close()
    writer = ShardWriter(tmp_path, "train", 3, examples=2, bytes=length)
    for example in EXAMPLES[2:]:
        writer.add(example, b"picture of " + example.key.encode(), b"s" * 700)
    assert writer.close() == write(tmp_path / "whole").close()


def test_a_shard_that_vanished_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"train-000003\.tar is shorter .* --force"):
        ShardWriter(tmp_path, "train", 3, examples=2, bytes=512)
    writer = write(tmp_path, EXAMPLES[:1])
    writer.sync()
    writer.abandon()
    with pytest.raises(TrainingError, match="shorter than the journal says"):
        ShardWriter(tmp_path, "train", 3, examples=2, bytes=writer.bytes + 512)


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shards").write_text("in the way")
    with pytest.raises(OutputError, match=r"Cannot write .*train-000000\.tar"):
        ShardWriter(tmp_path, "train", 0)


def test_sixteen_bit_samples_come_back_as_they_were() -> None:
    samples = np.array([-32768, -1, 0, 1, 12345, 32767], np.int16)
    again, rate = soundfile.read(
        io.BytesIO(encode_sound(samples / np.float32(32768))), dtype="int16"
    )
    assert rate == 16_000 and (again == samples).all()


def test_what_is_beyond_full_scale_is_cut() -> None:
    again, _ = soundfile.read(
        io.BytesIO(encode_sound(np.array([1.5, -1.5, 1.0], np.float32))), dtype="int16"
    )
    assert again.tolist() == [32767, -32768, 32767]
