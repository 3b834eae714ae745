import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from s2v_cli.errors import WeightsError
from s2v_cli.presets import Preset, list_presets, load_preset
from s2v_cli.weights.store import cache_folder, load_weights, weight_path, weights_status

TENSORS = {
    "a.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "b": torch.ones(5).half(),
}


def write_preset(folder: Path, file: Path, *, digest: str | None = None) -> Preset:
    """Write a preset that states `file` as it is now."""
    folder.mkdir(exist_ok=True)
    digest = digest or hashlib.sha256(file.read_bytes()).hexdigest()
    (folder / "preset.toml").write_text(
        f"""
name = "own"
title = "My own"
description = ""
model = "mini"
bundled = false
resolution = 64
licence = "CC0"
commercial = true
[space]
name = "own"
dimension = 8
scale = "unit"
[sound]
sample_rate = 8000
window_s = 2
[[weights]]
role = "generator"
file = "parts/generator.safetensors"
bytes = {file.stat().st_size}
sha256 = "{digest}"
"""
    )
    return load_preset(folder)


@pytest.fixture
def file(folder: Path) -> Path:
    (folder / "run/parts").mkdir(parents=True)
    path = folder / "run/parts/generator.safetensors"
    save_file(TENSORS, path)
    return path


@pytest.fixture
def preset(folder: Path, file: Path) -> Preset:
    return write_preset(folder / "run", file)


def test_whole_weights_load_as_stored(preset: Preset, file: Path) -> None:
    assert weights_status(preset) == "here"
    assert weight_path(preset, "generator") == file
    loaded = load_weights(preset, "generator")
    assert loaded.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_one_flipped_bit_is_found(preset: Preset, file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert weights_status(preset) == "damaged"
    with pytest.raises(WeightsError) as caught:
        load_weights(preset, "generator")
    message = str(caught.value)
    assert message.startswith(f"Damaged weights: {file}: its SHA-256 is ")
    assert "--weights-dir" in message


def test_cut_weights_are_found(preset: Preset, file: Path) -> None:
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-7])
    assert weights_status(preset) == "damaged"
    with pytest.raises(WeightsError, match=f"it has {size - 7} bytes instead of {size}"):
        load_weights(preset, "generator")


def test_missing_weights(preset: Preset, file: Path) -> None:
    file.unlink()
    assert weights_status(preset) == "missing"
    with pytest.raises(WeightsError) as caught:
        load_weights(preset, "generator")
    assert str(caught.value).startswith(f"Missing weights: {file} (generator of preset 'own')")


def test_unknown_role(preset: Preset) -> None:
    with pytest.raises(WeightsError, match="no weights for 'sound_encoder'; it has: generator"):
        weight_path(preset, "sound_encoder")


def test_what_is_not_safetensors_is_refused(folder: Path, file: Path) -> None:
    file.write_bytes(b"\x80\x04 a pickle perhaps, and surely not safetensors")
    preset = write_preset(folder / "run", file)
    with pytest.raises(WeightsError, match="Cannot read the weights"):
        load_weights(preset, "generator")


def test_weights_dir_replaces_all_other_places(preset: Preset, file: Path, folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    with pytest.raises(WeightsError, match="Check --weights-dir"):
        load_weights(preset, "generator", other)
    assert weights_status(preset, other) == "missing"
    file.rename(other / file.name)
    assert weight_path(preset, "generator", other) == other / file.name
    assert load_weights(preset, "generator", other).keys() == TENSORS.keys()
    assert weights_status(preset, other) == "here"
    assert weights_status(preset) == "missing"


def test_the_cache_is_the_second_place(
    preset: Preset, file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S2V_HOME", str(folder / "home"))
    assert cache_folder() == folder / "home"
    place = folder / "home/weights/parts/generator.safetensors"
    place.parent.mkdir(parents=True)
    file.rename(place)
    assert weight_path(preset, "generator") == place


def test_cache_folder_without_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("S2V_HOME", raising=False)
    assert cache_folder().is_absolute()
    assert "s2v" in str(cache_folder())


@pytest.mark.parametrize(
    "preset", [preset for preset in list_presets() if preset.bundled], ids=lambda p: p.name
)
def test_bundled_weights_are_whole(preset: Preset) -> None:
    assert weights_status(preset) == "here"
    for weight in preset.weights:
        assert load_weights(preset, weight.role)
