"""What is measured on: the sounds and pictures of one split, read from their shards."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from s2v_cli.errors import OptionError, TrainingError
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.training.evaluation.held_out import class_of, open_held_out
from s2v_cli.training.manifest import read_dataset


def test_sounds_and_pictures_of_a_split(drawn: Path) -> None:
    data = open_held_out(drawn, "test")
    assert data.names == ("blue_sea", "green", "red") and data.classes == list(data.names)
    assert len(data.sounds) == data.recordings == 9 and len(data.photos) == 12
    assert len(data.training) == 30 and len(data.validation) == 9
    assert {example.split for example in (*data.sounds, *data.photos)} == {"test"}
    assert open_held_out(drawn, "validation").validation == ()  # never both


def test_a_limit_takes_all_classes_in_turn(drawn: Path) -> None:
    data = open_held_out(drawn, "test", 4)
    assert sorted(map(class_of, data.sounds)) == ["blue_sea", "blue_sea", "green", "red"]
    few = open_held_out(drawn, "test", 2)
    assert few.classes == ["blue_sea", "green"] and len(few.names) == 3
    assert {class_of(photo) for photo in few.photos} == {"blue_sea", "green"}


def test_partners_are_of_the_class_and_not_always_the_same(drawn: Path) -> None:
    data = open_held_out(drawn, "test")
    partners = [partner for partner in data.partners if partner is not None]
    assert [p.name for p in partners] == [s.name for s in data.sounds]
    assert len({p.key for p in partners}) == 9


def test_a_pair_of_files_is_its_own_partner(unnamed: Path) -> None:
    data = open_held_out(unnamed, "test")
    assert data.names == () and data.partners == data.sounds and data.classes == ["all"]


def test_a_sound_is_heard_as_gen_hears_it(drawn: Path, tmp_path: Path) -> None:
    model = Sound2Vision.load("mini", device="cpu")
    data = open_held_out(drawn, "test")
    flac = tmp_path / "a.flac"
    flac.write_bytes(data.read(data.sounds[0], data.sounds[0].sound))
    heard = model.encode_sound(data.sound(data.sounds[0], model)).embedding
    assert (heard == model.encode_sound(flac).embedding).all()


def test_pictures_are_rgb_and_whole(drawn: Path) -> None:
    data = open_held_out(drawn, "test")
    image = data.picture(data.photos[0])
    assert image.mode == "RGB" and image.size == (200, 170)


@pytest.mark.parametrize("how", ["gone", "cut", "damaged"])
def test_a_bad_shard_is_named(drawn: Path, tmp_path: Path, how: str) -> None:
    folder = shutil.copytree(drawn, tmp_path / "data")
    data = open_held_out(folder, "test")
    photo = data.photos[-1]
    shard = folder / photo.shard
    assert photo.image is not None
    if how == "gone":
        shard.unlink()
    elif how == "cut":
        shard.write_bytes(shard.read_bytes()[: photo.image.offset + 10])
    else:
        content = bytearray(shard.read_bytes())
        content[photo.image.offset : photo.image.offset + photo.image.size] = bytes(
            photo.image.size
        )
        shard.write_bytes(content)
    with pytest.raises(TrainingError) as caught:
        data.picture(photo)
    message = str(caught.value)
    assert str(shard) in message and "s2v prepare" in message and "\n" not in message


def test_what_cannot_be_measured_on(drawn: Path, one_class: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="split is 'tset'; allowed: train, validation, test"):
        open_held_out(drawn, "tset")
    with pytest.raises(TrainingError, match="is not a prepared dataset"):
        open_held_out(tmp_path, "test")
    empty = shutil.copytree(one_class, tmp_path / "empty")
    lines = (empty / "manifest.jsonl").read_text().splitlines()
    kept = [line for line in lines if '"split": "test"' not in line]
    (empty / "manifest.jsonl").write_text("\n".join(kept) + "\n")
    assert read_dataset(empty).counts["test"] > 0
    with pytest.raises(TrainingError, match="has no sounds in the split 'test'; it has"):
        open_held_out(empty, "test")
    silent = [line for line in lines if '"sound"' in line or '"split": "train"' in line]
    (empty / "manifest.jsonl").write_text("\n".join(silent) + "\n")
    with pytest.raises(TrainingError, match="has no pictures of the sounds' classes in the split"):
        open_held_out(empty, "test")
