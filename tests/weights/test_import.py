"""A user's own downloads, recognised by what they hold."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from s2v_cli.errors import WeightsError
from s2v_cli.networks import converters as real_converters
from s2v_cli.weights.adopt import import_weights, recognise
from s2v_cli.weights.pull import PullOptions
from s2v_cli.weights.store import asset_file, asset_folder, asset_status, load_asset
from tests import published

if TYPE_CHECKING:
    from conftest import MakeTensors, WriteCatalogue

# ICGAN with four channels instead of 96, so that its files are small.
NARROW = """
[icgan-{size}]
title = "ICGAN"
kind = "tensors"
licence = "CC BY-NC 4.0"
commercial = false
page = "https://example.org/icgan"
[icgan-{size}.file]
name = "icgan_biggan_imagenet_res{size}.tar.gz"
bytes = 1_000
estimated = true
sources = ["https://example.org/icgan_biggan_imagenet_res{size}.tar.gz"]
[icgan-{size}.signature]
"shared_feat.weight" = [8, 2048]
"linear.weight" = [1024, {noise}]
"""
PIPE = """
[pipe]
title = "A pipeline"
kind = "folder"
licence = "MIT"
commercial = true
page = "https://example.org/pipe"
sources = ["hf:acme/pipe"]
patterns = ["model_index.json", "unet/*.json", "unet/net*.safetensors"]
pipeline = ["AcmePipeline"]
bytes = 1_000
fp16_bytes = 500

[eye]
title = "An image encoder"
kind = "folder"
licence = "MIT"
commercial = true
page = "https://example.org/pipe"
sources = ["hf:acme/pipe"]
patterns = ["models/eye/config.json", "models/eye/model.safetensors"]
subfolder = "models/eye"
config = { model_type = "acme_eye", projection_dim = 3 }
bytes = 1_000
"""
AGREED = PullOptions(accept_licence=True)


@pytest.fixture
def icgan(catalogue: WriteCatalogue) -> None:
    catalogue(NARROW.format(size=128, noise=20) + NARROW.format(size=256, noise=17))


@pytest.fixture
def pipe(catalogue: WriteCatalogue, home: Path, tensors: MakeTensors) -> Path:
    """A folder in diffusers' layout."""
    catalogue(PIPE)
    folder = home.parent / "download"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "AcmePipeline"}')
    (folder / "unet/config.json").write_text("{}")
    (folder / "unet/net.safetensors").write_bytes(tensors(1))
    (folder / "unet/net.non_ema.safetensors").write_bytes(tensors(2))
    (folder / "README.md").write_text("hello")
    return folder


def bring(*paths: Path, options: PullOptions = AGREED, name: str | None = None) -> list[str]:
    return list(import_weights(paths, real_converters(), options, name=name))


def test_a_checkpoint_under_any_name(home: Path) -> None:
    path = published.write_sound2scene_pth(home.parent / "my copy.pth", width=64)
    assert bring(path) == ["sound2scene-audio"]
    assert path.exists()
    assert load_asset("sound2scene-audio")
    manifest = json.loads((home / "weights/sound2scene-audio/manifest.json").read_text())
    assert manifest["source"] == "import:my copy.pth"
    assert manifest["published"][0]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    known = json.loads((home / "known_hashes.json").read_text())
    assert list(known["sound2scene-audio"]) == ["sound2scene.pth"]


def test_a_later_import_that_differs_is_refused(home: Path) -> None:
    path = published.write_sound2scene_pth(home.parent / "sound2scene.pth", width=64)
    bring(path)
    old = hashlib.sha256(path.read_bytes()).hexdigest()
    state = torch.load(path, weights_only=True)
    state["audnet.fc.bias"] += 1
    torch.save(state, path)
    new = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(WeightsError, match=f"{new} instead of {old}; --accept-changed"):
        bring(path)
    bring(path, options=replace(AGREED, accept_changed=True))


@pytest.mark.parametrize("size", [128, 256])
def test_icgans_archive(home: Path, icgan: None, size: Any) -> None:
    archive = published.write_icgan_targz(home.parent / "x.tar.gz", size)
    assert bring(archive) == [f"icgan-{size}"]
    assert load_asset(f"icgan-{size}")["start.weight"].shape == (1024, 20 if size == 128 else 17)


def test_icgans_unpacked_folder(home: Path, icgan: None) -> None:
    archive = published.write_icgan_targz(home.parent / "x.tar.gz", 256)
    shutil.unpack_archive(archive, home.parent / "unpacked", filter="data")
    (folder,) = {path.parent for path in (home.parent / "unpacked").rglob("G_ema*.pth")}
    assert bring(folder) == ["icgan-256"]


def test_swapped_archives_are_refused(home: Path, icgan: None) -> None:
    archive = published.write_icgan_targz(home.parent / "icgan_biggan_imagenet_res128.tar.gz", 256)
    with pytest.raises(WeightsError, match="it draws 256 px"):
        bring(archive, name="icgan-128")
    assert asset_status("icgan-128") == "missing"
    assert bring(archive) == ["icgan-256"]  # by what it holds, whatever its name says


def test_swapped_checkpoints_are_refused(home: Path) -> None:
    path = published.write_sound2vision_pth(home.parent / "sound2scene.pth", width=64)
    with pytest.raises(WeightsError) as caught:
        bring(path, name="sound2scene-audio")
    assert "\n" not in str(caught.value)
    assert asset_status("sound2scene-audio") == "missing"
    assert bring(path) == ["sound2vision-audio"]


def test_a_folder_of_diffusers(home: Path, pipe: Path) -> None:
    assert bring(pipe) == ["pipe"]
    folder = asset_folder("pipe")
    assert folder == home / "weights/pipe/files"
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == {
        "model_index.json",
        "unet/config.json",
        "unet/net.safetensors",
    }
    assert load_file(folder / "unet/net.safetensors")


def test_a_folder_in_half_precision(pipe: Path) -> None:
    (pipe / "unet/net.safetensors").rename(pipe / "unet/net.fp16.safetensors")
    manifest = import_weights([pipe], {}, AGREED)["pipe"]
    assert manifest.variants == ("fp16",)


def test_a_repository_of_the_hubs_cache(home: Path, pipe: Path) -> None:
    cache = home.parent / "models--acme--pipe"
    (cache / "snapshots").mkdir(parents=True)
    pipe.rename(cache / "snapshots/0123")
    assert bring(cache) == ["pipe"]


def test_a_part_of_a_repository(home: Path, pipe: Path, tensors: MakeTensors) -> None:
    eye = home.parent / "image_encoder"
    eye.mkdir()
    (eye / "config.json").write_text('{"model_type": "acme_eye", "projection_dim": 3}')
    (eye / "model.safetensors").write_bytes(tensors())
    assert bring(eye) == ["eye"]
    assert (asset_folder("eye") / "config.json").is_file()
    assert asset_folder("eye").name == "eye"
    (eye / "config.json").write_text('{"model_type": "acme_eye", "projection_dim": 4}')
    with pytest.raises(WeightsError, match="holds no weights that s2v knows"):
        bring(eye)


def test_an_incomplete_folder(pipe: Path) -> None:
    (pipe / "unet/net.safetensors").unlink()
    (pipe / "unet/net.non_ema.safetensors").unlink()
    with pytest.raises(WeightsError, match="holds no weights that s2v knows"):
        bring(pipe)
    with pytest.raises(WeightsError, match=r"is not pipe: .*no file unet/net\*\.safetensors"):
        bring(pipe, name="pipe")


def test_a_cut_file_in_a_folder(pipe: Path) -> None:
    path = pipe / "unet/net.safetensors"
    path.write_bytes(path.read_bytes()[:-10_000])
    (pipe / "unet/net.safetensors").write_bytes(path.read_bytes()[:5] + b"\0\0\0{")
    with pytest.raises(WeightsError):
        bring(pipe, name="pipe")
    assert asset_status("pipe") == "missing"


def test_an_onnx_file(home: Path) -> None:
    pytest.importorskip("onnx")
    path = published.write_speaker_onnx(home.parent / "speaker.onnx")
    assert bring(path) == ["wespeaker-resnet221"]
    assert asset_file("wespeaker-resnet221").read_bytes() == path.read_bytes()
    assert asset_file("wespeaker-resnet221").name == "voxceleb_resnet221_LM.onnx"


def test_a_folder_of_downloads(home: Path) -> None:
    downloads = home.parent / "downloads"
    downloads.mkdir()
    published.write_sound2vision_pth(downloads / "a.pth", width=64)
    save_file(
        {
            "image_proj.proj.weight": torch.zeros(3072, 1024),
            "ip_adapter.1.to_k_ip.weight": torch.zeros(320, 768),
        },
        downloads / "b.safetensors",
    )
    (downloads / "notes.txt").write_text("not mine")
    (downloads / "page.pth").write_text("<html>quota</html>")
    assert bring(downloads) == ["sound2vision-audio", "ip-adapter-sd15"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>quota</html>", "is a web page, not weights"),
        (b"", "is empty"),
        (b"plain text", "holds no weights that s2v knows. If you know better: --as ASSET"),
    ],
)
@pytest.mark.parametrize("name", [None, "sound2scene-audio"])
def test_what_is_no_weights(home: Path, content: bytes, message: str, name: str | None) -> None:
    path = home.parent / "sound2scene.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        bring(path, name=name)
    assert message in str(caught.value) or (name and "checkpoint" in str(caught.value))
    assert "\n" not in str(caught.value)
    assert not (home / "weights/sound2scene-audio/manifest.json").exists()


def test_a_pickle_that_runs_code(home: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(home.parent / "pwned"),)

    path = home.parent / "sound2scene.pth"
    torch.save({"audnet.fc.weight": Payload()}, path)
    for name in (None, "sound2scene-audio"):
        with pytest.raises(WeightsError, match=r"names posix\.mkdir|names nt\.mkdir"):
            bring(path, name=name)
    assert not (home.parent / "pwned").exists()


def test_a_licence_needs_its_yes(home: Path, icgan: None) -> None:
    archive = published.write_icgan_targz(home.parent / "x.tar.gz", 128)
    with pytest.raises(WeightsError, match=r"not for commercial use.*--accept-licence"):
        bring(archive, options=PullOptions())
    assert asset_status("icgan-128") == "missing"


def test_names_that_do_not_exist(home: Path) -> None:
    with pytest.raises(WeightsError, match="No file or folder at 'nowhere'"):
        recognise(Path("nowhere"))
    Path("x").touch()
    with pytest.raises(WeightsError, match=r"Unknown weights 'unclipp'\. Did you mean 'unclip'"):
        recognise(Path("x"), "unclipp")
    with pytest.raises(WeightsError, match="x is a file; unclip is a folder"):
        recognise(Path("x"), "unclip")
