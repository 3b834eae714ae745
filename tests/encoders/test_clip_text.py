"""CLIP's two sides against stock transformers, on a tiny random one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from s2v_cli.encoders.clip_text import ClipTextImage
from s2v_cli.errors import WeightsError
from tests import tiny_diffusion

CPU = torch.device("cpu")
TEXTS = ["a cat", "a photo of the dog in rain", "x"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_diffusion.write_clip(tmp_path_factory.mktemp("clip") / "clip")


@pytest.fixture(scope="module")
def clip(folder: Path) -> ClipTextImage:
    return ClipTextImage.load(folder, device=CPU)


def draw_picture(width: int = 50, height: int = 40, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def test_both_sides_equal_stock_transformers(folder: Path, clip: ClipTextImage) -> None:
    library = tiny_diffusion.transformers()
    with tiny_diffusion.quiet_libraries(), torch.no_grad():
        stock = library.CLIPModel.from_pretrained(folder)
        tokens = library.CLIPTokenizer.from_pretrained(folder)(
            TEXTS, padding=True, return_tensors="pt"
        )
        image = clip.prepare(draw_picture())[None]
        # The tiny model takes CLIP's own mean and deviation, as the published one.
        mean, deviation = (
            torch.tensor(row)[:, None, None]
            for row in (
                (0.48145466, 0.4578275, 0.40821073),
                (0.26862954, 0.26130258, 0.27577711),
            )
        )
        found = stock(pixel_values=((image + 1) / 2 - mean) / deviation, **tokens)
    assert torch.allclose(clip.embed_texts(TEXTS), found.text_embeds, atol=1e-5)
    assert torch.allclose(clip.embed_images(image), found.image_embeds, atol=1e-5)
    assert clip.dimension == 24 and clip.size == 28


def test_a_text_has_one_embedding_among_any_others(clip: ClipTextImage) -> None:
    """Padding and batches of texts change nothing."""
    alone = torch.cat([clip.embed_texts([text]) for text in TEXTS * 30])
    assert torch.allclose(clip.embed_texts(TEXTS * 30), alone, atol=1e-5)


def test_long_texts_are_cut(clip: ClipTextImage) -> None:
    text = "a cat in the rain " * 40
    assert torch.equal(clip.embed_texts([text]), clip.embed_texts([text + " and a dog"]))


def test_the_hub_s_older_file_is_read(folder: Path, clip: ClipTextImage, tmp_path: Path) -> None:
    """`pytorch_model.bin`, with the position numbers that it still holds."""
    shutil.copytree(folder, tmp_path / "old")
    weights = tmp_path / "old" / "model.safetensors"
    state = load_file(weights)
    state["text_model.embeddings.position_ids"] = torch.arange(16)[None]
    state["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    weights.unlink()
    torch.save(state, tmp_path / "old" / "pytorch_model.bin")
    old = ClipTextImage.load(tmp_path / "old", device=CPU)
    assert torch.equal(old.embed_texts(TEXTS), clip.embed_texts(TEXTS))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("no weights", "has no weights: no model.safetensors or pytorch_model.bin"),
        ("truncated", "is cut short"),
        ("no settings", "config.json is missing"),
        ("another model", "holds 'bert'; needed: 'clip'"),
        ("one side", "is missing"),
        ("no tokenizer", "tokenizer.json is missing"),
        ("broken tokenizer", "Cannot read the tokenizer"),
    ],
)
def test_bad_folders_are_refused_in_one_line(
    folder: Path, tmp_path: Path, how: str, said: str
) -> None:
    bad = shutil.copytree(folder, tmp_path / "bad")
    weights, settings = bad / "model.safetensors", bad / "config.json"
    if how == "no weights":
        weights.unlink()
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif how == "no settings":
        settings.unlink()
    elif how == "another model":
        settings.write_text(json.dumps({"model_type": "bert"}))
    elif how == "one side":
        settings_of = tiny_diffusion.write_image_encoder(tmp_path / "side")
        shutil.copy(settings_of / "model.safetensors", weights)
    elif how == "no tokenizer":
        for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
            (bad / name).unlink()
    elif how == "broken tokenizer":
        (bad / "vocab.json").write_text("{")
    with pytest.raises(WeightsError) as caught:
        ClipTextImage.load(bad, device=CPU)
    message = str(caught.value)
    assert said in message and "\n" not in message and len(message) < 600
