"""IP-Adapter against the stock pipeline of diffusers, on a tiny random Stable Diffusion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from s2v_cli.errors import WeightsError
from s2v_cli.generators import Generator
from s2v_cli.generators.ip_adapter import IpAdapterGenerator
from s2v_cli.options import GenerateOptions
from tests import tiny_diffusion

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
EMBEDDING = tiny_diffusion.draw_embedding()


def load(folder: Path, file: Path, **settings: Any) -> IpAdapterGenerator:
    arguments = {"device": CPU, "dtype": torch.float32, **settings}
    return IpAdapterGenerator.load(folder, file, **arguments)


def draw_noise(generator: IpAdapterGenerator, seed: int = 0, count: int = 1) -> Tensor:
    seeded = torch.Generator().manual_seed(seed)
    return torch.randn(count, generator.noise_size, generator=seeded)


@pytest.fixture(scope="module")
def generator(
    diffusion_folder: Path, adapter_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> IpAdapterGenerator:
    return load(diffusion_folder, adapter_file, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def stock(diffusion_folder: Path, adapter_file: Path) -> Any:
    """The pipeline of diffusers with the adapter and no image encoder."""
    with tiny_diffusion.quiet_libraries():
        pipeline = tiny_diffusion.diffusers().StableDiffusionPipeline.from_pretrained(
            diffusion_folder
        )
        pipeline.load_ip_adapter(
            str(adapter_file.parent.parent),
            subfolder="models",
            weight_name=adapter_file.name,
            image_encoder_folder=None,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize(
    ("given", "seed"),
    [
        ({}, 0),
        ({"prompt": "a cat", "adapter_scale": 0.5}, 1),
        ({"negative_prompt": "rain", "guidance": 3.0}, 2),
        ({"prompt": "a dog in oil", "negative_prompt": "the rain", "adapter_scale": 1.5}, 3),
        ({"guidance": 1.0}, 4),
    ],
)
def test_pictures_are_those_of_the_stock_pipeline(
    generator: IpAdapterGenerator, stock: Any, given: dict[str, Any], seed: int
) -> None:
    found = generator.draw(
        draw_noise(generator, seed), EMBEDDING, GenerateOptions(steps=3, **given)
    )
    guidance = given.get("guidance", 7.5)
    told = EMBEDDING[:, None]
    if guidance > 1:
        told = torch.cat([torch.zeros_like(told), told])
    stock.set_ip_adapter_scale(given.get("adapter_scale", 1.0))
    exact = stock(
        prompt=given.get("prompt", ""),
        negative_prompt=given.get("negative_prompt"),
        guidance_scale=guidance,
        ip_adapter_image_embeds=[told],
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(seed),
        output_type="pt",
    ).images
    assert torch.equal(found / 2 + 0.5, exact)


def test_it_is_a_generator_of_the_clip_space(generator: IpAdapterGenerator) -> None:
    assert isinstance(generator, Generator)
    assert generator.noise_size == 4 * 16 * 16
    assert generator.resolution == 32
    assert (generator.defaults.steps, generator.defaults.guidance) == (30, 7.5)


def test_the_scale_of_one_picture_is_not_that_of_the_next(generator: IpAdapterGenerator) -> None:
    noise, options = draw_noise(generator), GenerateOptions(steps=2)
    first = generator.draw(noise, EMBEDDING, options)
    off = generator.draw(noise, EMBEDDING, GenerateOptions(steps=2, adapter_scale=0))
    assert (first - off).abs().mean() > 1e-3
    other = generator.draw(
        noise, tiny_diffusion.draw_embedding(seed=7), GenerateOptions(steps=2, adapter_scale=0)
    )
    assert torch.equal(off, other)
    assert torch.equal(generator.draw(noise, EMBEDDING, options), first)


def test_pictures_of_a_batch_are_those_made_alone(generator: IpAdapterGenerator) -> None:
    noise, embeddings = draw_noise(generator, 5, 2), tiny_diffusion.draw_embedding(2, 6)
    options = GenerateOptions(steps=3, prompt="a cat")
    together = generator.draw(noise, embeddings, options)
    for index in range(2):
        alone = generator.draw(noise[index, None], embeddings[index, None], options)
        assert (together[index] - alone[0]).abs().max() < 1e-3


def test_half_precision_reaches_the_adapter(diffusion_folder: Path, adapter_file: Path) -> None:
    generator = load(diffusion_folder, adapter_file, dtype=torch.float16)
    kinds = {parameter.dtype for parameter in generator.parts.unet.parameters()}
    assert kinds == {torch.float16}
    assert not any(parameter.requires_grad for parameter in generator.parts.unet.parameters())
    image = generator.draw(draw_noise(generator), EMBEDDING, GenerateOptions(steps=2))
    assert image.isfinite().all()


def change(file: Path, target: Path, how: str) -> None:
    tensors = load_file(file)
    if how == "plus":
        tensors["image_proj.latents"] = tensors.pop("image_proj.proj.weight")
    elif how == "one key less":
        del tensors["ip_adapter.1.to_k_ip.weight"]
    elif how == "wider":
        tensors["ip_adapter.1.to_v_ip.weight"] = torch.zeros(24, 32)
    elif how == "other tokens":
        tensors["image_proj.proj.weight"] = torch.zeros(4 * 48, 1024)
    elif how == "other file":
        tensors = {"weight": torch.zeros(3)}
    save_file(tensors, target)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("plus", "is not a plain IP-Adapter"),
        ("other file", "is not a plain IP-Adapter"),
        ("one key less", "does not fit this model"),
        ("wider", "does not fit this model"),
        ("other tokens", "writes tokens of 48 numbers; this Stable Diffusion reads 32"),
    ],
)
def test_adapters_that_do_not_fit_are_refused_in_one_line(
    diffusion_folder: Path,
    adapter_file: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    how: str,
    said: str,
) -> None:
    change(adapter_file, tmp_path / "bad.safetensors", how)
    with pytest.raises(WeightsError) as caught:
        load(diffusion_folder, tmp_path / "bad.safetensors")
    message = str(caught.value)
    assert said in message and "\n" not in message and len(message) < 500
    assert capfd.readouterr() == ("", "")


def test_an_adapter_of_another_space_is_refused(diffusion_folder: Path, tmp_path: Path) -> None:
    """The adapters of Stable Diffusion XL read 1280 numbers of CLIP ViT-bigG."""
    file = tiny_diffusion.write_ip_adapter(
        tmp_path / "big.safetensors", diffusion_folder, dimension=1280
    )
    with pytest.raises(WeightsError, match="reads embeddings of 1280 numbers; needed: 1024"):
        load(diffusion_folder, file)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", None])
def test_files_that_are_no_adapter_are_refused(
    diffusion_folder: Path, adapter_file: Path, tmp_path: Path, content: bytes | None
) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(adapter_file.read_bytes()[:-10] if content is None else content)
    with pytest.raises(WeightsError, match="Cannot read the weights"):
        load(diffusion_folder, bad)
    with pytest.raises(WeightsError, match="there is no"):
        load(diffusion_folder, tmp_path / "nothing.safetensors")
