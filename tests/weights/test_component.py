"""Parts of published diffusion models on disk, and the silence of the libraries that read them."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from s2v_cli.errors import WeightsError
from s2v_cli.weights.component import (
    load_part,
    part_folder,
    quiet_libraries,
    read_settings,
    weight_files,
)
from tests import tiny_diffusion


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(json.dumps({"weight_map": {"a": "2.safetensors", "b": "1.x"}}))


@pytest.mark.parametrize(
    ("names", "wide", "half"),
    [
        (["model.safetensors"], "model.safetensors", "model.safetensors"),
        (["model.fp16.safetensors"], "model.fp16.safetensors", "model.fp16.safetensors"),
        (
            ["diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"],
            "diffusion_pytorch_model.safetensors",
            "diffusion_pytorch_model.fp16.safetensors",
        ),
    ],
)
def test_files_are_chosen_by_precision(
    tmp_path: Path, names: list[str], wide: str, half: str
) -> None:
    touch(tmp_path, *names)
    for name, wanted in ((wide, False), (half, True)):
        files, variant = weight_files(tmp_path, half=wanted)
        assert files == [tmp_path / name]
        assert variant == ("fp16" if "fp16" in name else None)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("model.safetensors.index.json", None),
        ("diffusion_pytorch_model.safetensors.index.fp16.json", "fp16"),
        ("model.fp16.safetensors.index.json", "fp16"),
    ],
)
def test_shards_are_found_by_their_index(tmp_path: Path, name: str, variant: str | None) -> None:
    touch(tmp_path, name)
    assert weight_files(tmp_path) == (
        [tmp_path / "1.x", tmp_path / "2.safetensors"],
        variant,
    )


def test_sharded_networks_are_loaded_whole(tmp_path: Path) -> None:
    place = tiny_diffusion.write_image_encoder(tmp_path / "whole")
    kind = tiny_diffusion.transformers().CLIPVisionModelWithProjection
    network = load_part(kind, place, torch.float32)
    network.save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    assert len(weight_files(tmp_path / "shards")[0]) > 1
    again = load_part(kind, tmp_path / "shards", torch.float32)
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    touch(tmp_path, "pytorch_model.bin", "model.bin")
    with pytest.raises(WeightsError, match="has no weights"):
        weight_files(tmp_path)


def test_networks_are_used_by_memory_mapping(tmp_path: Path) -> None:
    """Their memory is the file's: what the file says later, the network says too."""
    place = tiny_diffusion.write_stable_diffusion(tmp_path / "model") / "unet"
    unet = load_part(tiny_diffusion.diffusers().UNet2DConditionModel, place, torch.float32)
    file = place / "diffusion_pytorch_model.safetensors"
    name, content = "conv_out.bias", file.read_bytes()
    before = load_file(file)[name].clone()
    start = content.find(before.numpy().tobytes())
    with file.open("r+b") as stream:
        stream.seek(start)
        stream.write((before + 1).numpy().tobytes())
    assert torch.allclose(unet.get_parameter(name), before + 1)


def test_settings_that_are_none_are_refused(tmp_path: Path) -> None:
    for content, said in (("{", "Cannot read"), ("[1]", "holds no settings"), (None, "incomplete")):
        file = tmp_path / "config.json"
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_text(content)
        with pytest.raises(WeightsError, match=said):
            read_settings(file)


def test_folders_without_the_part_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is not a diffusers folder"):
        part_folder(tmp_path, "unet")
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(WeightsError, match="part 'unet' is missing"):
        part_folder(tmp_path, "unet")


def test_libraries_are_quiet_for_the_time_being(capfd: pytest.CaptureFixture[str]) -> None:
    bars = tiny_diffusion.transformers().utils.logging
    log = logging.getLogger("transformers.somewhere")
    assert bars.is_progress_bar_enabled()
    with quiet_libraries():
        assert not bars.is_progress_bar_enabled()
        log.error("a line")
        warnings.warn("a warning", stacklevel=1)
        with quiet_libraries():
            pass
        log.error("another line")
        assert not bars.is_progress_bar_enabled()
    assert capfd.readouterr() == ("", "")
    assert bars.is_progress_bar_enabled()
    assert log.isEnabledFor(logging.ERROR)
    with pytest.warns(UserWarning, match="loud again"):
        warnings.warn("loud again", stacklevel=1)


def test_they_are_loud_again_after_an_error() -> None:
    bars = tiny_diffusion.transformers().utils.logging
    with pytest.raises(ZeroDivisionError), quiet_libraries():
        _ = 1 / 0
    assert bars.is_progress_bar_enabled()
    assert logging.root.manager.disable < logging.CRITICAL
