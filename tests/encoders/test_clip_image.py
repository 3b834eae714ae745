"""The CLIP image encoder against stock transformers, on a tiny random one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from s2v_cli.encoders import ImageEncoder
from s2v_cli.encoders.clip_image import ClipImageEncoder
from s2v_cli.errors import WeightsError
from tests import tiny_diffusion

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_diffusion.write_image_encoder(tmp_path_factory.mktemp("clip") / "image_encoder")


@pytest.fixture(scope="module")
def encoder(model: Path) -> ClipImageEncoder:
    return ClipImageEncoder.load(model, device=CPU, dtype=torch.float32)


def draw_picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)


@pytest.mark.parametrize("size", [(64, 64), (101, 57), (57, 101), (20, 30), (28, 28)])
def test_photos_become_what_stock_transformers_makes_of_them(
    model: Path, encoder: ClipImageEncoder, size: tuple[int, int]
) -> None:
    with tiny_diffusion.quiet_libraries():
        from transformers import CLIPVisionModelWithProjection
        from transformers.models.clip import CLIPImageProcessorPil
    with tiny_diffusion.quiet_libraries():
        stock = CLIPVisionModelWithProjection.from_pretrained(model)
        processor = CLIPImageProcessorPil(
            size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
        )
    photo = draw_picture(*size)
    with torch.no_grad():
        expected = stock(**processor(images=photo, return_tensors="pt")).image_embeds
        found = encoder(encoder.prepare(photo)[None])
    assert found.shape == (1, encoder.space.dimension)
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_embeddings_keep_their_length(encoder: ClipImageEncoder) -> None:
    views = torch.stack([encoder.prepare(draw_picture(40, 40, seed)) for seed in range(3)])
    lengths = encoder(views).norm(dim=1)
    assert (lengths - 1).abs().min() > 0.1
    assert lengths.std() > 1e-4


def test_generated_pictures_of_any_size_are_seen_as_a_whole(encoder: ClipImageEncoder) -> None:
    """Large tensors are resized by the encoder, nearly as PIL does it on 8-bit pixels."""
    photo = draw_picture(112, 112)
    large = torch.from_numpy(np.array(photo, np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    prepared = encoder(encoder.prepare(photo)[None])
    assert (encoder(large) - prepared).norm() < 0.02 * prepared.norm()
    other = encoder(encoder.prepare(draw_picture(112, 112, 1))[None])
    assert (other - prepared).norm() > 0.1 * prepared.norm()


def test_grey_and_transparent_photos_are_read(encoder: ClipImageEncoder) -> None:
    photo = draw_picture(64, 48)
    assert torch.equal(encoder.prepare(photo.convert("RGBA")), encoder.prepare(photo))
    grey = encoder.prepare(photo.convert("L"))
    assert torch.equal(grey[0], grey[2])
    assert grey.min() >= -1 and grey.max() <= 1


def test_gradients_reach_the_picture(encoder: ClipImageEncoder) -> None:
    image = torch.zeros(1, 3, 56, 56, requires_grad=True)
    encoder(image).square().sum().backward()
    assert image.grad is not None and float(image.grad.abs().sum()) > 0


def test_it_is_found_in_the_published_folders(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "unclip/image_encoder")
    shutil.copytree(model, tmp_path / "adapter/models/image_encoder")
    image = torch.zeros(1, 3, 28, 28)
    rows = [
        ClipImageEncoder.load(folder, device=CPU, dtype=torch.float32)(image)
        for folder in (model, tmp_path / "unclip", tmp_path / "adapter")
    ]
    assert torch.equal(rows[0], rows[1]) and torch.equal(rows[0], rows[2])


def test_it_is_an_image_encoder(encoder: ClipImageEncoder) -> None:
    assert isinstance(encoder, ImageEncoder)


def damage(model: Path, folder: Path, how: str) -> None:
    shutil.copytree(model, folder)
    settings = json.loads((folder / "config.json").read_text())
    if how == "truncated":
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    elif how == "web page":
        (folder / "model.safetensors").write_text("<!DOCTYPE html><html>Too many requests</html>")
    elif how == "no weights":
        (folder / "model.safetensors").unlink()
    elif how == "pickle only":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    elif how == "no settings":
        (folder / "config.json").unlink()
    elif how == "broken settings":
        (folder / "config.json").write_text("{")
    elif how == "deeper":
        settings["num_hidden_layers"] = 3
        (folder / "config.json").write_text(json.dumps(settings))
    elif how == "text":
        settings["architectures"] = ["CLIPTextModel"]
        (folder / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("truncated", "Cannot load"),
        ("web page", "Cannot load"),
        ("no weights", "has no weights"),
        ("pickle only", "has no weights"),
        ("no settings", "has no image encoder"),
        ("broken settings", "Cannot read"),
        ("deeper", "of another network"),
        ("text", "needed: CLIPVisionModelWithProjection"),
    ],
)
def test_bad_folders_are_refused_in_one_line(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], how: str, said: str
) -> None:
    damage(model, tmp_path / "bad", how)
    with pytest.raises(WeightsError) as caught:
        ClipImageEncoder.load(tmp_path / "bad", device=CPU, dtype=torch.float32)
    message = str(caught.value)
    assert said in message and "\n" not in message and len(message) < 600
    assert capfd.readouterr() == ("", "")


def test_an_encoder_of_another_space_is_refused(tmp_path: Path) -> None:
    """CLIP ViT-L writes 768 numbers, ViT-bigG 1280."""
    folder = tiny_diffusion.write_image_encoder(tmp_path / "large", dimension=768)
    with pytest.raises(WeightsError, match=r"writes 768 numbers; needed: 1024"):
        ClipImageEncoder.load(folder, device=CPU, dtype=torch.float32)
