"""Tiny random models in the folders and files that published diffusion models come in.

Everything is seeded and small: a folder takes well below a second to write. The layouts are those
of Stable Diffusion 2.1 unCLIP, of Stable Diffusion 1.5 and of an IP-Adapter file; only the widths
are smaller. Embeddings keep their published size of 1024 numbers, so that the models read and
write the real space.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from s2v_cli._torchaudio import prepare_torchaudio
from s2v_cli.weights.component import quiet_libraries

EMBEDDING = 1024
CONTEXT = 32  # width of the text embedding
TOKENS = 16  # tokens of a prompt, its two ends included
LATENT_SIZE = 16
RESOLUTION = 32  # px; the VAE below halves once
WORDS = ("a", "cat", "dog", "in", "oil", "photo", "rain", "the")

PNDM: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def diffusers() -> Any:
    """The module diffusers."""
    prepare_torchaudio()
    with quiet_libraries():
        return import_module("diffusers")


def transformers() -> Any:
    """The module transformers."""
    prepare_torchaudio()
    with quiet_libraries():
        return import_module("transformers")


def write_unclip(
    folder: Path,
    *,
    prediction: str = "v_prediction",
    image_encoder: bool = True,
    variant: str | None = None,
    seed: int = 0,
) -> Path:
    """Write a tiny Stable Diffusion 2.1 unCLIP: what the hub's folder of it holds."""
    unet = {
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": 2 * EMBEDDING,
    }
    _write_shared(folder, unet, prediction, variant, seed)

    def normalizer() -> Any:
        module = diffusers().pipelines.stable_diffusion.StableUnCLIPImageNormalizer(EMBEDDING)
        with torch.no_grad():
            module.mean.normal_(std=0.2)
            module.std.uniform_(0.5, 1.5)
        return module

    _save(normalizer, folder / "image_normalizer", variant, seed + 3)
    noising = diffusers().DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    noising.save_pretrained(folder / "image_noising_scheduler")
    if image_encoder:
        write_image_encoder(folder / "image_encoder", seed=seed + 4)
        transformers().models.clip.CLIPImageProcessorPil(
            size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
        ).save_pretrained(folder / "feature_extractor")
    _write_index(folder, "StableUnCLIPImg2ImgPipeline")
    return folder


def write_stable_diffusion(folder: Path, *, variant: str | None = None, seed: int = 10) -> Path:
    """Write a tiny Stable Diffusion 1.5, without safety checker."""
    _write_shared(folder, {}, "epsilon", variant, seed)
    _rename(folder / "vae", _old_attention)
    _write_index(folder, "StableDiffusionPipeline")
    return folder


def write_ip_adapter(
    file: Path, folder: Path, *, dimension: int = EMBEDDING, seed: int = 20
) -> Path:
    """Write an IP-Adapter file for the model in `folder`, names and shapes as published."""
    with quiet_libraries():
        unet = diffusers().UNet2DConditionModel.from_pretrained(folder / "unet")
    draw = _drawer(seed)
    tensors = {
        "image_proj.proj.weight": draw(4 * CONTEXT, dimension, scale=0.1),
        "image_proj.proj.bias": draw(4 * CONTEXT, scale=0.1),
        "image_proj.norm.weight": 1 + draw(CONTEXT, scale=0.1),
        "image_proj.norm.bias": draw(CONTEXT, scale=0.1),
    }
    for index, name in enumerate(unet.attn_processors):
        if name.endswith("attn2.processor"):
            attention = unet.get_submodule(name.removesuffix(".processor"))
            width = attention.to_k.weight.shape[0]
            for kind in ("to_k_ip", "to_v_ip"):
                key = f"ip_adapter.{index}.{kind}.weight"
                tensors[key] = draw(width, CONTEXT, scale=0.5)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file)
    return file


def write_image_encoder(folder: Path, *, dimension: int = EMBEDDING, seed: int = 30) -> Path:
    """Write a tiny CLIP image encoder for pictures of 28 px."""

    def model() -> Any:
        config = transformers().CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            projection_dim=dimension,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=28,
            patch_size=7,
        )
        return transformers().CLIPVisionModelWithProjection(config)

    _save(model, folder, None, seed)
    _rename(folder, str, {"vision_model.embeddings.position_ids": torch.arange(17)[None]})
    return folder


def write_clip(folder: Path, *, seed: int = 50) -> Path:
    """Write a tiny CLIP with both sides, as the hub's folder of ViT-B/32 has it."""

    def model() -> Any:
        shared = {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        }
        config = transformers().CLIPConfig(
            text_config={
                **shared,
                "vocab_size": len(_vocabulary()),
                "max_position_embeddings": TOKENS,
                "bos_token_id": 0,
                "eos_token_id": 1,
                "pad_token_id": 1,
            },
            vision_config={**shared, "image_size": 28, "patch_size": 7},
            projection_dim=24,
        )
        return transformers().CLIPModel(config)

    _save(model, folder, None, seed)
    _write_tokenizer(folder)
    return folder


def draw_embedding(count: int = 1, seed: int = 40) -> Tensor:
    """Embeddings [count, 1024] with a norm as those of CLIP ViT-H have it, about 20."""
    return _drawer(seed)(count, EMBEDDING, scale=20 / EMBEDDING**0.5)


def _write_shared(
    folder: Path, unet: dict[str, Any], prediction: str, variant: str | None, seed: int
) -> None:
    _save(
        lambda: diffusers().UNet2DConditionModel(
            sample_size=LATENT_SIZE,
            block_out_channels=(16, 32),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=CONTEXT,
            attention_head_dim=8,
            norm_num_groups=8,
            use_linear_projection=True,
            **unet,
        ),
        folder / "unet",
        variant,
        seed,
    )
    _save(
        lambda: diffusers().AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
            latent_channels=4,
            sample_size=RESOLUTION,
            scaling_factor=3.0,  # brings latents of photos to about one, as the published one does
        ),
        folder / "vae",
        variant,
        seed + 1,
    )
    config = transformers().CLIPTextConfig(
        vocab_size=len(_vocabulary()),
        hidden_size=CONTEXT,
        intermediate_size=2 * CONTEXT,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    _save(lambda: transformers().CLIPTextModel(config), folder / "text_encoder", variant, seed + 2)
    _rename(
        folder / "text_encoder",
        lambda name: f"text_model.{name.removeprefix('text_model.')}",
        {"text_model.embeddings.position_ids": torch.arange(TOKENS)[None]},
    )
    diffusers().PNDMScheduler(**PNDM, prediction_type=prediction).save_pretrained(
        folder / "scheduler"
    )
    _write_tokenizer(folder / "tokenizer")


def _vocabulary() -> dict[str, int]:
    """Byte letters and whole words, so that any lower-case text has tokens."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    tokens += [f"{word}</w>" for word in WORDS if len(word) > 1]
    tokens += ["ca", "do", "oi", "ph", "pho", "phot", "ra", "rai", "th"]
    return {token: index for index, token in enumerate(tokens)}


def _write_tokenizer(folder: Path) -> None:
    """Write `vocab.json` and `merges.txt` in the published layout."""
    folder.mkdir(parents=True, exist_ok=True)
    merges = ["#version: 0.2"]
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            merges.append(f"{pieces[0]} {pieces[1]}")
            pieces[:2] = ["".join(pieces[:2])]
    (folder / "merges.txt").write_text("\n".join(dict.fromkeys(merges)) + "\n", encoding="utf-8")
    (folder / "vocab.json").write_text(json.dumps(_vocabulary()), encoding="utf-8")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": TOKENS,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _write_index(folder: Path, pipeline: str) -> None:
    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": "0.42.0"}
    classes = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "image_normalizer": ["stable_diffusion", "StableUnCLIPImageNormalizer"],
        "image_noising_scheduler": ["diffusers", "DDPMScheduler"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "safety_checker": [None, None],
    }
    for name, entry in classes.items():
        if (folder / name).is_dir() or (name == "safety_checker" and "UnCLIP" not in pipeline):
            index[name] = entry
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")


def _save(build: Callable[[], Any], folder: Path, variant: str | None, seed: int) -> None:
    with torch.random.fork_rng(devices=[]), quiet_libraries():
        torch.manual_seed(seed)
        module = build()
        _stir(module)
        if variant == "fp16":
            module = module.half()
        module.save_pretrained(folder, variant=variant, safe_serialization=True)


def _rename(
    folder: Path, change: Callable[[str], str], more: Mapping[str, Tensor] | None = None
) -> None:
    """Give tensors the names that published files have, older than the libraries' own today."""
    for file in folder.glob("*.safetensors"):
        tensors = {change(name): tensor for name, tensor in load_file(file).items()}
        save_file({**tensors, **(more or {})}, file, {"format": "pt"})


def _old_attention(name: str) -> str:
    """Names of the attention layers in autoencoders that were published in 2022."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, former in old.items():
        name = name.replace(f".{new}.", f".{former}.")
    return name


def _stir(module: Any) -> None:
    """Random numbers where layers start at zero or one, so that every tensor counts."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim == 1 and name.split(".")[-1] in ("weight", "bias"):
                parameter.add_(torch.randn_like(parameter), alpha=0.1)


def _drawer(seed: int) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float) -> Tensor:
        return scale * torch.randn(*shape, generator=generator)

    return draw
