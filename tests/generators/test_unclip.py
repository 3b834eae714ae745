"""The unCLIP generator against the stock pipeline of diffusers, on a tiny random model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from s2v_cli.errors import OptionError, WeightsError
from s2v_cli.generators import Generator
from s2v_cli.generators.unclip import UnclipGenerator
from s2v_cli.options import GenerateOptions
from s2v_cli.picture import to_image
from tests import tiny_diffusion

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
EMBEDDING = tiny_diffusion.draw_embedding()


def load(folder: Path, **settings: Any) -> UnclipGenerator:
    return UnclipGenerator.load(folder, **{"device": CPU, "dtype": torch.float32, **settings})


def draw_noise(generator: UnclipGenerator, seed: int = 0, count: int = 1) -> Tensor:
    seeded = torch.Generator().manual_seed(seed)
    return torch.randn(count, generator.noise_size, generator=seeded)


@pytest.fixture(scope="module")
def generator(unclip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> UnclipGenerator:
    return load(unclip_folder, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def stock(unclip_folder: Path) -> Any:
    """The pipeline of diffusers, its image encoder included."""
    with tiny_diffusion.quiet_libraries():
        pipeline = tiny_diffusion.diffusers().StableUnCLIPImg2ImgPipeline.from_pretrained(
            unclip_folder
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize(
    ("given", "seed"),
    [
        ({}, 0),
        ({}, 8),
        ({"prompt": "a cat"}, 1),
        ({"negative_prompt": "rain"}, 2),
        ({"prompt": "a dog in oil", "negative_prompt": "the rain", "noise_level": 250}, 3),
        ({"noise_level": 999, "guidance": 3.5}, 4),
        ({"guidance": 1.0, "prompt": "photo"}, 5),
    ],
)
def test_pictures_are_those_of_the_stock_pipeline(
    generator: UnclipGenerator, stock: Any, given: dict[str, Any], seed: int
) -> None:
    found = generator.draw(
        draw_noise(generator, seed), EMBEDDING, GenerateOptions(steps=3, **given)
    )
    arguments = {"prompt": given.get("prompt", ""), "num_inference_steps": 3}
    arguments |= {"negative_prompt": given.get("negative_prompt")}
    arguments |= {"noise_level": given.get("noise_level", 0)}
    arguments |= {"guidance_scale": given.get("guidance", 10.0), "image_embeds": EMBEDDING}
    exact = stock(
        generator=torch.Generator().manual_seed(seed), output_type="pt", **arguments
    ).images
    assert torch.equal(found / 2 + 0.5, exact)
    picture: Image.Image = stock(
        generator=torch.Generator().manual_seed(seed), output_type="pil", **arguments
    ).images[0]
    assert to_image(found[0]).tobytes() == picture.tobytes()


def test_a_plain_call_is_a_plain_call_of_the_stock_pipeline(
    generator: UnclipGenerator, stock: Any
) -> None:
    """20 steps, guidance 10, level 0, empty prompt: the paper's settings are its defaults."""
    found = generator(draw_noise(generator, 3), EMBEDDING)
    seeded = torch.Generator().manual_seed(3)
    exact = stock(image_embeds=EMBEDDING, generator=seeded, output_type="pt").images
    assert torch.equal(found / 2 + 0.5, exact)


def test_it_is_a_generator_with_all_randomness_in_its_noise(generator: UnclipGenerator) -> None:
    assert isinstance(generator, Generator)
    assert generator.noise_size == 1024 + 4 * 16 * 16
    assert generator.resolution == 32
    noise, options = draw_noise(generator), GenerateOptions(steps=3)
    before = torch.random.get_rng_state()
    first = generator.draw(noise, EMBEDDING, options)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(generator.draw(noise, EMBEDDING, options), first)
    for part in (slice(0, 1024), slice(1024, None)):
        other = noise.clone()
        other[:, part] = draw_noise(generator, 1)[:, part]
        moved = (generator.draw(other, EMBEDDING, options) - first).abs().mean()
        assert moved > 1e-5


def test_pictures_of_a_batch_are_those_made_alone(generator: UnclipGenerator) -> None:
    noise, embeddings = draw_noise(generator, 5, 3), tiny_diffusion.draw_embedding(3, 6)
    options = GenerateOptions(steps=3, prompt="a cat", negative_prompt="rain", noise_level=40)
    together = generator.draw(noise, embeddings, options)
    for index in range(3):
        alone = generator.draw(noise[index, None], embeddings[index, None], options)
        assert (together[index] - alone[0]).abs().max() < 1e-4
    assert (together[0] - together[1]).abs().mean() > 0.01


def test_progress_counts_the_steps(generator: UnclipGenerator) -> None:
    seen: list[tuple[int, int]] = []
    generator.draw(
        draw_noise(generator),
        EMBEDDING,
        GenerateOptions(steps=3, sampler="ddim"),
        lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_sound_alone_needs_no_image_encoder_and_later_no_text_encoder(
    unclip_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, cache = tmp_path / "model", tmp_path / "cache"
    shutil.copytree(unclip_folder, folder)
    shutil.rmtree(folder / "image_encoder")
    shutil.rmtree(folder / "feature_extractor")
    options = GenerateOptions(steps=2)
    generator = load(folder, cache=cache)
    noise = draw_noise(generator)
    first = generator.draw(noise, EMBEDDING, options)
    shutil.rmtree(folder / "text_encoder")
    shutil.rmtree(folder / "tokenizer")
    later = load(folder, cache=cache)
    assert torch.equal(later.draw(noise, EMBEDDING, options), first)
    with pytest.raises(WeightsError, match="part 'tokenizer' is missing"):
        later.draw(noise, EMBEDDING, GenerateOptions(steps=2, prompt="a cat"))
    with pytest.raises(WeightsError, match="is missing"):
        load(folder).draw(noise, EMBEDDING, options)
    assert capfd.readouterr() == ("", "")


def test_fp16_files_are_taken_for_half_precision_and_where_nothing_else_is(
    tmp_path: Path,
) -> None:
    half = tiny_diffusion.write_unclip(tmp_path / "half", variant="fp16", seed=60)
    noise, options = torch.zeros(1, 2048), GenerateOptions(steps=3)
    noise[:, 1024:] = torch.randn(1, 1024, generator=torch.Generator().manual_seed(0))
    wide = load(half)
    assert wide.parts.unet.dtype == torch.float32
    narrow = load(half, dtype=torch.float16)
    assert narrow.parts.unet.dtype == narrow.parts.vae.dtype == torch.float16
    pair = [one.draw(noise, EMBEDDING, options) for one in (wide, narrow)]
    assert pair[1].dtype == torch.float32
    assert 0 < (pair[0] - pair[1]).abs().mean() < 0.02
    both = tiny_diffusion.write_unclip(tmp_path / "both", seed=0)
    for part in ("unet", "vae"):
        for file in (half / part).glob("*.fp16.safetensors"):
            shutil.copy(file, both / part)
    name = "conv_in.weight"
    chosen = load(both, dtype=torch.float16).parts.unet.get_parameter(name)
    assert torch.equal(chosen, narrow.parts.unet.get_parameter(name))
    assert not torch.equal(load(both).parts.unet.get_parameter(name), chosen.float())


def test_half_precision_upcasts_attention_and_pictures_that_overflow(unclip_folder: Path) -> None:
    generator = load(unclip_folder, dtype=torch.float16)
    kind = tiny_diffusion.diffusers().models.attention_processor.Attention
    attention = [module for module in generator.parts.unet.modules() if isinstance(module, kind)]
    assert attention and all(module.upcast_attention for module in attention)
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert generator.parts.decode(latents).isfinite().all()
    assert generator.parts.vae.dtype == torch.float16
    weight = generator.parts.vae.decoder.conv_in.weight
    weight.mul_(5e4 / float(weight.abs().max()))  # what it makes of these latents is beyond 65504
    assert generator.parts.decode(10 * latents).isfinite().all()
    assert generator.parts.vae.dtype == torch.float32


def test_low_vram_makes_the_same_picture(unclip_folder: Path, generator: UnclipGenerator) -> None:
    careful = load(unclip_folder, low_vram=True)
    assert careful.parts.vae.use_tiling and careful.parts.vae.use_slicing
    noise, options = draw_noise(careful), GenerateOptions(steps=2)
    expected = generator.draw(noise, EMBEDDING, options)
    assert (careful.draw(noise, EMBEDDING, options) - expected).abs().max() < 1e-4


def test_gradients_reach_the_embedding_through_the_last_step(generator: UnclipGenerator) -> None:
    embedding = EMBEDDING.clone().requires_grad_()
    with torch.enable_grad():
        image = generator.draw(draw_noise(generator), embedding, GenerateOptions(steps=3))
        image.square().sum().backward()
    assert embedding.grad is not None and float(embedding.grad.abs().sum()) > 0


def test_nothing_reaches_the_network(
    unclip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    generator = load(unclip_folder, cache=tmp_path)
    generator.draw(draw_noise(generator), EMBEDDING, GenerateOptions(steps=1, prompt="a cat"))


def damage(folder: Path, how: str) -> None:
    def change(file: str, **settings: Any) -> None:
        path = folder / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))

    unet = folder / "unet/diffusion_pytorch_model.safetensors"
    if how == "no index":
        (folder / "model_index.json").unlink()
    elif how.startswith("without "):
        shutil.rmtree(folder / how.removeprefix("without "))
    elif how == "truncated":
        unet.write_bytes(unet.read_bytes()[:-1000])
    elif how == "web page":
        unet.write_text("<!DOCTYPE html><html>404</html>")
    elif how == "empty":
        unet.write_bytes(b"")
    elif how == "no unet weights":
        unet.unlink()
    elif how == "broken settings":
        (folder / "scheduler/scheduler_config.json").write_text("{'a'")
    elif how == "swapped":
        shutil.copy(folder / "vae/diffusion_pytorch_model.safetensors", unet)
    elif how == "swapped folders":
        shutil.rmtree(folder / "unet")
        shutil.copytree(folder / "vae", folder / "unet")
    elif how == "another latent":
        change("vae/config.json", latent_channels=16)
        (folder / "vae/diffusion_pytorch_model.safetensors").unlink()
        settings = json.loads((folder / "vae/config.json").read_text())
        with tiny_diffusion.quiet_libraries():
            vae = tiny_diffusion.diffusers().AutoencoderKL.from_config(settings)
            vae.save_pretrained(folder / "vae")
    elif how == "another normalizer":
        file = folder / "image_normalizer/diffusion_pytorch_model.safetensors"
        save_file({"mean": torch.zeros(1, 768), "std": torch.ones(1, 768)}, file)
    elif how == "another blur":
        change("image_noising_scheduler/scheduler_config.json", beta_schedule="unheard")
    elif how == "another noise":
        change("scheduler/scheduler_config.json", prediction_type="sample")
    elif how == "another text":
        shutil.rmtree(folder / "tokenizer")
        (folder / "tokenizer").mkdir()
        (folder / "tokenizer/tokenizer.json").write_text("[]")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("no index", "is not a diffusers folder"),
        ("without unet", "part 'unet' is missing"),
        ("without vae", "part 'vae' is missing"),
        ("without scheduler", "part 'scheduler' is missing"),
        ("without image_normalizer", "part 'image_normalizer' is missing"),
        ("without text_encoder", "part 'text_encoder' is missing"),
        ("truncated", "Cannot load"),
        ("web page", "Cannot load"),
        ("empty", "Cannot load"),
        ("no unet weights", "has no weights"),
        ("broken settings", "Cannot read"),
        ("swapped", "of another network"),
        ("swapped folders", "holds AutoencoderKL; needed: UNet2DConditionModel"),
        ("another latent", "does not fit together"),
        ("another normalizer", "needed: mean and std of 1024 numbers"),
        ("another blur", "of no known schedule"),
        ("another noise", "predicts 'sample'"),
        ("another text", "Cannot read the tokenizer"),
    ],
)
def test_bad_folders_are_refused_in_one_line(
    unclip_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], how: str, said: str
) -> None:
    shutil.copytree(unclip_folder, tmp_path / "bad")
    damage(tmp_path / "bad", how)
    capfd.readouterr()
    with pytest.raises(WeightsError) as caught:
        generator = load(tmp_path / "bad")
        generator.draw(draw_noise(generator), EMBEDDING, GenerateOptions(steps=1))
    message = str(caught.value)
    assert said in message and "\n" not in message and len(message) < 600
    assert capfd.readouterr() == ("", "")


def test_a_model_without_image_embeddings_is_refused(diffusion_folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"reads no numbers .* needed: 2048"):
        load(diffusion_folder)


def test_levels_beyond_the_models_schedule_are_refused(unclip_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(unclip_folder, tmp_path / "short")
    file = tmp_path / "short/image_noising_scheduler/scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_train_timesteps": 100}))
    generator = load(tmp_path / "short")
    with pytest.raises(OptionError, match="noise-level is 100; this model allows: 0 to 99"):
        generator.draw(draw_noise(generator), EMBEDDING, GenerateOptions(noise_level=100))
