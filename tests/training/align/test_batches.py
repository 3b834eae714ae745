"""Batches that follow from seed, step and row alone."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from s2v_cli.errors import OptionError, TrainingError
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.training.align import batches as batches_module
from s2v_cli.training.align import features as features_module
from s2v_cli.training.align.batches import Batch, Batches
from s2v_cli.training.align.options import AlignOptions
from tests.training.align.conftest import Drawn, with_features
from tests.training.drawn_pairs import (
    SECONDS,
    example,
    flac_of,
    jpeg_of,
    write_classes,
    write_pairs,
    write_rows,
)

OPTIONS = AlignOptions(
    batch=8,
    duration_s=0.3,
    workers=0,
    mix=0.5,
    gain_db=6.0,
    frequency_masks=2,
    time_masks=1,
)
PLAIN = AlignOptions(batch=8, duration_s=SECONDS, workers=0)


def joined(parts: Iterable[Batch]) -> list[torch.Tensor]:
    """Everything that is in batches, one after the other."""
    rows = []
    for part in parts:
        assert part.masks is not None
        rows.append((part.wave, part.image_embedding, part.example, *part.masks))
    return [torch.cat(column) for column in zip(*rows, strict=True)]


def same(one: Iterable[Batch], other: Iterable[Batch]) -> bool:
    return all(a.equal(b) for a, b in zip(joined(one), joined(other), strict=True))


@pytest.mark.parametrize("drawn", ["by_file", "by_class"])
@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_one_global_batch(
    drawn: str, world: int, request: pytest.FixtureRequest
) -> None:
    dataset, features = request.getfixturevalue(drawn)
    whole = Batches(dataset, features, OPTIONS)
    parts = [Batches(dataset, features, OPTIONS, rank=rank, world=world) for rank in range(world)]
    for step in (0, 4):
        shares = [part.at(step) for part in parts]
        assert {len(share.wave) for share in shares} == {8 // world}
        assert same([whole.at(step)], shares)


def test_reading_ahead_in_processes_gives_the_same(by_class: Drawn) -> None:
    alone = Batches(*by_class, OPTIONS)
    helped = Batches(*by_class, dataclasses.replace(OPTIONS, workers=2))
    assert alone.steps_per_epoch == 3
    expected = list(alone.iterate(1, 8))  # over the ends of epochs
    assert same(expected, list(helped.iterate(1, 8)))
    assert same(expected[2:], list(helped.iterate(3, 8)))  # as a run goes on
    assert list(helped.iterate(8, 8)) == []


def test_batches_are_of_float32_and_of_the_duration(by_file: Drawn) -> None:
    batch = Batches(*by_file, OPTIONS).at(0)
    assert batch.wave.shape == (8, 4_800) and batch.wave.dtype == torch.float32
    assert batch.image_embedding.shape == (8, 256)
    assert batch.image_embedding.dtype == torch.float32
    assert batch.example.dtype == torch.int64
    assert batch.masks is not None and batch.masks.frequency.shape == (8, 2, 2)
    assert Batches(*by_file, PLAIN).at(0).masks is None


def test_seed_and_step_make_the_difference(by_file: Drawn) -> None:
    batches = Batches(*by_file, OPTIONS)
    assert same([batches.at(1)], [batches.at(1)])
    assert not same([batches.at(1)], [batches.at(2)])
    assert not same([batches.at(1)], [batches.at(4)])  # the same place in the next epoch
    other = Batches(*by_file, dataclasses.replace(OPTIONS, seed=1))
    assert not same([batches.at(1)], [other.at(1)])


def test_no_global_random_numbers_are_drawn(by_file: Drawn) -> None:
    before = torch.get_rng_state()
    kept = np.random.get_state(legacy=False)  # that nothing draws from it
    list(Batches(*by_file, dataclasses.replace(OPTIONS, workers=2)).iterate(0, 3))
    Batches(*by_file, OPTIONS).at(0)
    assert torch.get_rng_state().equal(before)
    now = np.random.get_state(legacy=False)
    assert np.array_equal(now["state"]["key"], kept["state"]["key"])  # type: ignore[call-overload,index]


def test_an_epoch_has_each_sound_once_in_another_order(by_file: Drawn) -> None:
    dataset, features = by_file
    batches = Batches(dataset, features, PLAIN)
    epochs = [
        torch.cat([batches.at(3 * epoch + step).example for step in range(3)]).tolist()
        for epoch in range(3)
    ]
    assert all(sorted(epoch) == list(range(24)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_sounds_that_are_left_over_are_others_in_each_epoch(by_file: Drawn) -> None:
    batches = Batches(*by_file, dataclasses.replace(PLAIN, batch=9))
    assert batches.steps_per_epoch == 2
    left = {
        frozenset(range(24))
        - {n for step in (0, 1) for n in batches.at(2 * epoch + step).example.tolist()}
        for epoch in range(4)
    }
    assert len(left) == 4 and all(len(rest) == 6 for rest in left)


def test_an_epoch_goes_through_windows_of_shards(
    by_file: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, features = by_file
    monkeypatch.setattr(batches_module, "SHARDS_AT_ONCE", 1)
    batches = Batches(dataset, features, PLAIN)
    orders = [batches.order(epoch) for epoch in range(6)]
    shards = [dataset.shard[order].tolist() for order in orders]
    for each in shards:
        assert sum(a != b for a, b in itertools.pairwise(each)) == 2
    assert len({tuple(each) for each in shards}) > 1
    assert sorted(orders[0][:8]) != orders[0][:8].tolist()


def test_a_pair_by_file_is_one_example(by_file: Drawn) -> None:
    dataset, features = by_file
    batch = Batches(dataset, features, PLAIN).at(2)
    assert batch.image_embedding.equal(features[batch.example])
    waves = torch.stack([dataset.wave(number) for number in batch.example.tolist()])
    assert batch.wave.equal(waves)  # as long as they are heard, nothing is done to them


def test_a_pair_by_class_is_any_picture_of_the_class(by_class: Drawn) -> None:
    dataset, features = by_class
    batches = Batches(dataset, features, PLAIN)
    pictures = dataset.images("train")
    seen: dict[int, set[int]] = {}
    for step in range(24):
        batch = batches.at(step)
        assert not any((dataset.class_name(n) or "").startswith("~") for n in batch.example)
        distance = torch.cdist(batch.image_embedding, features[pictures])
        assert float(distance.amin(dim=1).max()) < 1e-3
        for sound, nearest in zip(batch.example.tolist(), distance.argmin(dim=1), strict=True):
            picture = int(pictures[int(nearest)])
            assert dataset.name[picture] == dataset.name[sound]
            seen.setdefault(sound, set()).add(picture)
    assert len(seen) == 24
    assert max(map(len, seen.values())) > 1


def test_every_sound_once_is_unchanged(by_class: Drawn) -> None:
    dataset, features = by_class
    held_out = Batches(dataset, features, OPTIONS, split="validation")
    parts = list(held_out.once(2))
    assert [len(part.wave) for part in parts] == [2, 1]
    assert torch.cat([part.example for part in parts]).tolist() == held_out.sounds.tolist()
    again = next(iter(held_out.once(3)))
    assert again.wave.equal(torch.cat([part.wave for part in parts]))
    assert again.image_embedding.equal(torch.cat([part.image_embedding for part in parts]))
    assert again.wave.shape == (3, 4_800)
    strange = dataclasses.replace(OPTIONS, duration_s=SECONDS)
    whole = next(Batches(dataset, features, strange, split="validation").once(3))
    assert whole.wave[0].equal(dataset.wave(int(whole.example[0])))


# Data that do not fit


def test_more_pairs_in_a_batch_than_there_are(by_file: Drawn) -> None:
    with pytest.raises(TrainingError, match=r"batch is 25, but .* 24 training pairs.*--batch 24"):
        Batches(*by_file, dataclasses.replace(PLAIN, batch=25))
    assert Batches(*by_file, dataclasses.replace(PLAIN, batch=24)).steps_per_epoch == 1


def test_a_batch_that_processes_cannot_share(by_file: Drawn) -> None:
    with pytest.raises(OptionError, match="batch is 8; 3 processes share a multiple of 3"):
        Batches(*by_file, PLAIN, world=3)


def test_one_class_has_nothing_to_be_told_from(tmp_path: Path, mini_teacher: Sound2Vision) -> None:
    drawn = with_features(write_classes(tmp_path, ["cat"], 8, 2), mini_teacher)
    with pytest.raises(TrainingError, match=r"are of the class 'cat'.*--loss l2"):
        Batches(*drawn, PLAIN)
    assert len(Batches(*drawn, dataclasses.replace(PLAIN, loss="l2")).at(0).wave) == 8


def test_one_pair_has_nothing_to_be_told_from(tmp_path: Path, mini_teacher: Sound2Vision) -> None:
    drawn = with_features(write_pairs(tmp_path, 1, 0), mini_teacher)
    with pytest.raises(TrainingError, match=r"one training pair only.*--loss l2"):
        Batches(*drawn, PLAIN)
    batches = Batches(*drawn, dataclasses.replace(PLAIN, loss="l2", batch=1))
    assert batches.at(0).example.tolist() == batches.at(5).example.tolist() == [0]


def test_no_training_pairs(tmp_path: Path, mini_teacher: Sound2Vision) -> None:
    drawn = with_features(write_pairs(tmp_path, 0, 4), mini_teacher)
    with pytest.raises(TrainingError, match=r"no training pairs. See its report\.csv"):
        Batches(*drawn, PLAIN)
    empty = Batches(*drawn, PLAIN, split="test")
    assert not list(empty.once())


# Damage


@pytest.mark.parametrize("workers", [0, 2])
def test_others_stand_in_for_bad_sounds(
    workers: int, tmp_path: Path, mini_teacher: Sound2Vision
) -> None:
    bad = {3, 7, 11}
    dataset, features = with_features(
        write_pairs(tmp_path, 16, 4, bad_sounds={*bad, 17}), mini_teacher
    )
    options = dataclasses.replace(PLAIN, workers=workers)
    batches = Batches(dataset, features, options)
    found = list(batches.iterate(0, 2))
    assert {number for batch in found for number in batch.bad} == bad == batches.bad
    assert not bad & {n for batch in found for n in batch.example.tolist()}
    for batch in found:
        assert len(batch.wave) == 8
        assert batch.image_embedding.equal(features[batch.example])  # of those that stand in
    held_out = next(Batches(dataset, features, options, split="validation").once())
    assert held_out.example.tolist() == [16, 18, 19]


def test_bad_sounds_that_would_be_mixed_in_are_counted_too(
    tmp_path: Path, mini_teacher: Sound2Vision
) -> None:
    drawn = with_features(write_pairs(tmp_path, 8, 0, bad_sounds={0}), mini_teacher)
    batches = Batches(*drawn, dataclasses.replace(OPTIONS, batch=2, mix=1.0))
    found = [batches.at(step) for step in range(20)]
    assert batches.bad == {0}
    assert sum(len(batch.bad) for batch in found) > 20 / 4  # 5 of 20 steps have it as their own


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_bad_sounds_are_one_line(
    workers: int, tmp_path: Path, mini_teacher: Sound2Vision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "FEW", 4)
    drawn = with_features(write_pairs(tmp_path, 16, 0, bad_sounds=range(5)), mini_teacher)
    batches = Batches(*drawn, dataclasses.replace(PLAIN, workers=workers))
    with pytest.raises(TrainingError, match=r"^5 of the 16 sounds .* '0000'.*again\.$") as error:
        list(batches.iterate(0, 20))
    assert "\n" not in str(error.value)


def test_nothing_but_bad_sounds_ends(tmp_path: Path, mini_teacher: Sound2Vision) -> None:
    drawn = with_features(write_pairs(tmp_path, 8, 0, bad_sounds=range(8)), mini_teacher)
    with pytest.raises(TrainingError, match="10 sounds in a row cannot be decoded"):
        Batches(*drawn, PLAIN).at(0)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("damage", ["vanished", "truncated"])
def test_a_lost_shard_is_one_line(
    workers: int, damage: str, tmp_path: Path, mini_teacher: Sound2Vision
) -> None:
    drawn = with_features(write_pairs(tmp_path, 16, 0), mini_teacher)
    drawn[0].close()
    shard = tmp_path / "shards" / "train-000001.tar"
    if damage == "vanished":
        shard.unlink()
    else:
        with shard.open("r+b") as file:
            file.truncate(1000)
    batches = Batches(*drawn, dataclasses.replace(PLAIN, workers=workers))
    with pytest.raises(TrainingError, match=r"train-000001\.tar") as error:
        list(batches.iterate(0, 6))
    assert "\n" not in str(error.value)


def test_sounds_whose_pictures_are_all_bad_are_left_out(
    tmp_path: Path, mini_teacher: Sound2Vision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_module, "MAX_BAD", 1.0)
    by_file = with_features(write_pairs(tmp_path / "file", 8, 0, bad_images={2, 3}), mini_teacher)
    batches = Batches(*by_file, dataclasses.replace(PLAIN, batch=6))
    assert batches.at(0).example.sort().values.tolist() == [0, 1, 4, 5, 6, 7]
    rows = [
        (example("cat", name="cat"), None, flac_of(0)),
        (example("cat-bad", name="cat"), b"", None),
        (example("cat-fine", name="cat"), jpeg_of(1), None),
        (example("dog", name="dog"), None, flac_of(1)),
        (example("dog-bad", name="dog"), b"", None),
        (example("rain", name="rain"), None, flac_of(2)),
        (example("rain-fine", name="rain"), jpeg_of(2), None),
    ]
    dataset, features = with_features(write_rows(tmp_path / "class", rows, "class"), mini_teacher)
    batches = Batches(dataset, features, dataclasses.replace(PLAIN, batch=2))
    assert [dataset.key(i) for i in batches.sounds] == ["cat", "rain"]
    fine = features[np.array([2])][0]
    for step in range(10):
        batch = batches.at(step)
        (cat,) = batch.image_embedding[batch.example == 0]
        assert cat.equal(fine)  # never the one that cannot be decoded
