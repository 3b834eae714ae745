"""The judge learns real training photos, keeps its best moment, and survives a kill."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from s2v_cli.errors import TrainingError
from s2v_cli.training import loop
from s2v_cli.training.dataset import Photo
from s2v_cli.training.judge import (
    SIZE,
    Judge,
    JudgeStage,
    accuracy,
    as_images,
    look,
    mix,
    train_judge,
)
from s2v_cli.training.recipe import StageOptions

GROUPS = ("face_male_adult", "fire", "rain")
OPTIONS = StageOptions(steps=24, batch=12, learning_rate=3e-3, ema=0.5, validate_every=8)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def photos() -> list[Photo]:
    found = []
    for i in range(20):
        split = "test" if i < 3 else "validation" if i < 6 else "train"
        for group in GROUPS:
            key = f"{group}/{i}.png"
            found.append(Photo(group, Path(key), key, split))  # type: ignore[arg-type]
    return found


@pytest.fixture(scope="module")
def pixels(photos: list[Photo]) -> Tensor:
    """Stripes: across, down, and none."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 90, (len(photos), 3, 160, 160), generator=random)
    for image, photo in zip(images, photos, strict=True):
        if photo.group == "fire":
            image[:, torch.arange(160) % 40 < 20, :] += 150
        elif photo.group == "rain":
            image[:, :, torch.arange(160) % 40 < 20] += 150
    return images.byte()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("judge")


@pytest.fixture(scope="module")
def judge(photos: list[Photo], pixels: Tensor, folder: Path) -> Judge:
    return train_judge(photos, pixels, folder, OPTIONS)


def test_it_learns_what_it_was_not_shown(judge: Judge, photos: list[Photo], pixels: Tensor) -> None:
    mean, by_group = accuracy(judge, photos, pixels, "test")
    assert tuple(by_group) == GROUPS == tuple(judge.names)
    assert mean == pytest.approx(sum(by_group.values()) / 3)
    assert mean > 0.8
    assert not judge.training


def test_accuracy_is_a_mean_over_classes_of_any_size(
    judge: Judge, photos: list[Photo], pixels: Tensor
) -> None:
    index = [i for i, p in enumerate(photos) if p.split == "test"]
    # Every photo of one group, one of another, and the labels of the third are wrong.
    some = [replace(photos[i], group="fire") for i in index if photos[i].group == "fire"]
    rows = [i for i in index if photos[i].group == "fire"]
    some += [replace(photos[i], group="rain") for i in rows[:1]]
    _, logits = look(judge, pixels[torch.tensor(rows)])
    named_fire = [judge.names[k] == "fire" for k in logits.argmax(1).tolist()]
    mean, by_group = accuracy(judge, some, pixels[torch.tensor([*rows, rows[0]])], "test")
    assert by_group["fire"] == pytest.approx(sum(named_fire) / 3)
    assert mean == pytest.approx((by_group["fire"] + by_group["rain"]) / 2)


def test_only_training_photos_are_learned(photos: list[Photo], pixels: Tensor) -> None:
    held_out = torch.tensor([p.split != "train" for p in photos])
    weights = []
    for others in (pixels[held_out], 255 - pixels[held_out]):
        changed = pixels.clone()
        changed[held_out] = others
        torch.manual_seed(1)
        stage = JudgeStage(photos, changed, OPTIONS)
        for step in range(2):
            stage.step(step, loop.step_generator(0, step))
        weights.append(stage.modules["judge"].state_dict())
    for name, tensor in weights[0].items():
        if isinstance(tensor, Tensor):
            assert torch.equal(tensor, weights[1][name]), name


def test_the_best_moment_is_kept(judge: Judge, photos: list[Photo], pixels: Tensor) -> None:
    stage = JudgeStage(photos, pixels, OPTIONS)
    worse = Judge(judge.names, judge.trained_on).eval()
    with torch.no_grad():
        worse.head.bias[0] = 1e6  # calls everything a face
    good = stage.validate({"judge": judge})
    assert stage.validate({"judge": worse}) == {
        "validation_accuracy": pytest.approx(1 / 3),
        "best_accuracy": good["best_accuracy"],
    }
    best = stage.modules["best"].state_dict()
    assert torch.equal(best["judge.head.bias"], judge.head.bias)


def test_a_killed_training_goes_on_to_the_same_judge(
    photos: list[Photo], pixels: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(OPTIONS, steps=6, validate_every=2)
    whole = train_judge(photos, pixels, tmp_path / "whole", options).state_dict()

    class Killed(Exception):
        pass

    def kill(stage: str, step: int, steps: int, figures: dict[str, float]) -> None:
        if step == 4:
            raise Killed

    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", -1.0)
    with pytest.raises(Killed):
        train_judge(photos, pixels, tmp_path / "killed", options, kill)
    resumed = train_judge(photos, pixels, tmp_path / "killed", options).state_dict()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]) if isinstance(value, Tensor) else True, name


def test_a_finished_judge_is_read_back_with_its_names(
    judge: Judge, photos: list[Photo], pixels: Tensor, folder: Path
) -> None:
    steps: list[int] = []
    again = train_judge(photos, pixels, folder, OPTIONS, lambda _, step, *__: steps.append(step))
    assert steps == []
    assert again.names == judge.names
    assert torch.equal(look(again, pixels[:4])[1], look(judge, pixels[:4])[1])


def test_a_judge_of_other_training_photos_is_refused(
    judge: Judge, photos: list[Photo], pixels: Tensor, folder: Path
) -> None:
    moved = [replace(p, split="train") if p.split == "test" else p for p in photos]
    with pytest.raises(TrainingError, match="other photos"):
        train_judge(moved, pixels, folder, OPTIONS)


@pytest.mark.parametrize("missing", ["train", "validation"])
def test_a_split_without_photos_is_named(
    photos: list[Photo], pixels: Tensor, tmp_path: Path, missing: str
) -> None:
    rest = [p for p in photos if p.split != missing]
    with pytest.raises(TrainingError, match=missing):
        train_judge(rest, pixels[: len(rest)], tmp_path, OPTIONS)


def test_training_leaves_the_global_random_state_alone(
    photos: list[Photo], pixels: Tensor, tmp_path: Path
) -> None:
    before = torch.get_rng_state()
    train_judge(photos, pixels, tmp_path, replace(OPTIONS, steps=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_features_come_from_pictures_of_any_size(judge: Judge) -> None:
    image = torch.linspace(-1, 1, SIZE).expand(2, 3, SIZE, SIZE)
    larger = torch.nn.functional.interpolate(image, (192, 192), mode="bilinear")
    features, logits = look(judge, image)
    assert features.shape == (2, judge.trunk.size)
    assert logits.shape == (2, len(GROUPS))
    near = torch.cosine_similarity(features[0], look(judge, larger)[0][0], dim=0)
    assert float(near) > 0.98


def test_bytes_and_floats_look_the_same(judge: Judge, pixels: Tensor) -> None:
    assert as_images(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]
    assert torch.equal(look(judge, pixels[:2])[0], look(judge, as_images(pixels[:2]))[0])


def test_mixing_moves_pictures_and_targets_alike() -> None:
    random = torch.Generator().manual_seed(0)
    target = torch.eye(64)
    images = target[:, :, None, None].expand(-1, -1, 2, 2)  # a picture that shows its target
    mixed, shares = mix(images, target, random)
    assert torch.allclose(mixed[:, :, 0, 0], shares)
    assert torch.allclose(shares.sum(1), torch.ones(64))
    own = shares.diagonal()
    assert 0.5 <= float(own.min()) < 0.8  # the picture itself stays the larger part
    assert 30 < int((own == 1).sum()) < 60  # and most are left alone
