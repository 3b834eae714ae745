"""z^V of every picture, computed once."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from s2v_cli.errors import TrainingError
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.training.align import features as features_module
from s2v_cli.training.align.features import ImageFeatures
from s2v_cli.training.pairs import PairDataset
from tests.training.align.conftest import Drawn
from tests.training.drawn_pairs import example, flac_of, jpeg_of, write_pairs, write_rows

OPEN_IN_PROCESS = """
import os, signal, sys
from pathlib import Path
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.training.align import features
from s2v_cli.training.pairs import PairDataset

features.BATCH, features.SYNC_EVERY = 2, 4
def progress(stage, done, count, figures):
    print(done, flush=True)
    if done == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
folder = Path(sys.argv[1])
teacher = Sound2Vision.load("mini", device="cpu")
features.ImageFeatures.open(PairDataset.open(folder), teacher, folder / "cache", progress)
"""


def opening(folder: Path, kill_at: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", OPEN_IN_PROCESS, str(folder), str(kill_at)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


class Steps:
    """A progress callback that keeps how many pictures were done each time."""

    def __init__(self) -> None:
        self.done: list[int] = []

    def __call__(self, stage: str, done: int, count: int, figures: dict[str, float]) -> None:
        assert stage == "image_features"
        self.done.append(done)


def file_of(folder: Path) -> Path:
    (path,) = (p for p in folder.glob("*.npy") if ".part" not in p.name)
    return path


def everything(features: ImageFeatures, dataset: PairDataset) -> np.ndarray:
    return features[dataset.images()].numpy()


def test_they_are_those_of_the_pipeline_whatever_the_pictures_sizes(
    tmp_path: Path, mini_teacher: Sound2Vision
) -> None:
    sizes = [(48, 40), (40, 48), (48, 40), (64, 64), (40, 48)]
    rows = [(example(f"{n}"), jpeg_of(n, size), flac_of(n)) for n, size in enumerate(sizes)]
    dataset = PairDataset.open(write_rows(tmp_path, rows))
    features = ImageFeatures.open(dataset, mini_teacher, tmp_path / "cache")
    assert features.dimension == 256
    for number in (4, 0, 3):
        expected = mini_teacher.encode_image(dataset.image(number))
        assert (features[np.array([number])][0] - expected).abs().max() < 1e-5
    assert features[torch.tensor([2, 1])].equal(features[np.array([2, 1])])


def test_they_are_computed_once(by_file: Drawn, mini_teacher: Sound2Vision) -> None:
    dataset, features = by_file
    steps = Steps()
    again = ImageFeatures.open(dataset, mini_teacher, dataset.folder / "cache", steps)
    assert not steps.done
    assert np.array_equal(everything(again, dataset), everything(features, dataset))


def test_a_cache_that_cannot_be_written_is_read_all_the_same(
    by_file: Drawn, mini_teacher: Sound2Vision, monkeypatch: pytest.MonkeyPatch
) -> None:
    import filelock

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(filelock, "FileLock", refuse)
    ImageFeatures.open(by_file[0], mini_teacher, by_file[0].folder / "cache")


def test_other_data_and_other_weights_have_files_of_their_own(
    tmp_path: Path, mini_teacher: Sound2Vision
) -> None:
    for name, images in (("a", ()), ("b", {1})):
        dataset = PairDataset.open(write_pairs(tmp_path / name, 3, 0, bad_images=images))
        ImageFeatures.open(dataset, mini_teacher, tmp_path / "cache")
    other = Sound2Vision.load("mini", device="cpu")
    other.image_encoder  # noqa: B018  # notes its hash
    other.weights_sha256["image_encoder"] = "0" * 64
    ImageFeatures.open(dataset, other, tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 3


def test_a_killed_computation_goes_on_and_two_processes_compute_once(
    tmp_path: Path, mini_teacher: Sound2Vision
) -> None:
    folder = write_pairs(tmp_path, 14, 0, bad_images={3})
    killed = opening(folder, kill_at=10)
    assert killed.communicate(timeout=120)[0].split() == ["2", "4", "6", "8", "10"]
    assert killed.returncode == -signal.SIGKILL
    assert not [path for path in (folder / "cache").glob("*.npy") if ".part" not in path.name]
    processes = [opening(folder), opening(folder)]
    outputs = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(outputs) == [[], ["10", "12", "14"]]  # 8 were noted as done
    dataset = PairDataset.open(folder)
    steps = Steps()
    found = ImageFeatures.open(dataset, mini_teacher, folder / "cache", steps)
    assert not steps.done
    whole = ImageFeatures.open(dataset, mini_teacher, tmp_path / "other", steps)
    assert np.abs(everything(found, dataset) - everything(whole, dataset)).max() < 1e-5
    assert found.bad.tolist() == whole.bad.tolist() == [3]


def test_a_note_that_outlived_its_features_is_not_believed(
    tmp_path: Path, mini_teacher: Sound2Vision, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = PairDataset.open(write_pairs(tmp_path, 4, 0))
    cache = tmp_path / "cache"
    expected = everything(ImageFeatures.open(dataset, mini_teacher, cache), dataset)
    file_of(cache).unlink()  # the note beside it still says that all is done

    class Killed(BaseException):
        pass

    def end(*figures: object) -> None:
        raise Killed

    with pytest.raises(Killed):
        ImageFeatures.open(dataset, mini_teacher, cache, end)
    found = everything(ImageFeatures.open(dataset, mini_teacher, cache), dataset)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("damage", ["cut", "no note", "not a note", "other shape"])
def test_a_damaged_file_is_computed_again(
    damage: str, tmp_path: Path, mini_teacher: Sound2Vision
) -> None:
    dataset = PairDataset.open(write_pairs(tmp_path, 3, 0))
    cache = tmp_path / "cache"
    expected = everything(ImageFeatures.open(dataset, mini_teacher, cache), dataset)
    path = file_of(cache)
    if damage == "cut":
        os.truncate(path, path.stat().st_size - 4)
    elif damage == "no note":
        path.with_suffix(".json").unlink()
    elif damage == "not a note":
        path.with_suffix(".json").write_text("[]")
    else:
        np.save(path, np.zeros((2, 256), np.float32))
    assert np.array_equal(
        everything(ImageFeatures.open(dataset, mini_teacher, cache), dataset), expected
    )


def test_bad_pictures_are_told_up_to_a_hundredth(
    tmp_path: Path, mini_teacher: Sound2Vision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_module, "MAX_BAD", 0.25)
    dataset = PairDataset.open(write_pairs(tmp_path / "some", 8, 0, bad_images={2, 5}))
    features = ImageFeatures.open(dataset, mini_teacher, tmp_path / "cache")
    assert features.bad.tolist() == [2, 5]
    dataset = PairDataset.open(write_pairs(tmp_path / "many", 8, 0, bad_images={2, 5, 6}))
    with pytest.raises(TrainingError, match=r"3 of the first 8 pictures .* '0002'"):
        ImageFeatures.open(dataset, mini_teacher, tmp_path / "cache")


def test_no_pictures_at_all_is_one_line(tmp_path: Path, mini_teacher: Sound2Vision) -> None:
    dataset = PairDataset.open(write_rows(tmp_path, [(example("a"), None, flac_of(0))]))
    with pytest.raises(TrainingError, match="no pictures to learn from"):
        ImageFeatures.open(dataset, mini_teacher, tmp_path / "cache")


def test_what_has_no_picture_has_no_features(by_class: Drawn) -> None:
    dataset, features = by_class
    with pytest.raises(AssertionError, match="without pictures"):
        features[dataset.sounds("train")[:1]]


def test_a_vanished_shard_is_named_and_what_is_done_is_kept(
    tmp_path: Path, mini_teacher: Sound2Vision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_module, "BATCH", 2)
    monkeypatch.setattr(features_module, "SYNC_EVERY", 2)
    dataset = PairDataset.open(write_pairs(tmp_path, 8, 0))
    shard = tmp_path / "shards" / "train-000001.tar"
    away = shard.rename(tmp_path / "away.tar")
    with pytest.raises(TrainingError, match=r"train-000001\.tar"):
        ImageFeatures.open(dataset, mini_teacher, tmp_path / "cache")
    away.rename(shard)
    steps = Steps()
    ImageFeatures.open(dataset, mini_teacher, tmp_path / "cache", steps)
    assert steps.done == [6, 8]


def test_a_cache_that_is_no_folder_is_one_line(tmp_path: Path, mini_teacher: Sound2Vision) -> None:
    dataset = PairDataset.open(write_pairs(tmp_path / "data", 2, 0))
    (tmp_path / "cache").write_text("")
    with pytest.raises(TrainingError, match=r"Cannot keep the image features in .*cache: "):
        ImageFeatures.open(dataset, mini_teacher, tmp_path / "cache")


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="space cannot be reserved here")
def test_a_full_disk_is_one_line(
    tmp_path: Path, mini_teacher: Sound2Vision, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int, offset: int, size: int) -> None:
        assert size == os.fstat(descriptor).st_size > 2 * 256 * 4
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", fail)
    dataset = PairDataset.open(write_pairs(tmp_path, 2, 0))
    with pytest.raises(TrainingError, match="No space left on device"):
        ImageFeatures.open(dataset, mini_teacher, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.json"))


def test_the_note_is_json(by_file: Drawn) -> None:
    path = file_of(by_file[0].folder / "cache").with_suffix(".json")
    assert json.loads(path.read_text()) == {"done": 28, "bad": []}
