"""The networks that every latent diffusion model has, and what each of them does alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from s2v_cli._torchaudio import prepare_torchaudio
from s2v_cli.errors import WeightsError
from s2v_cli.generators.prompt import PromptEncoder
from s2v_cli.weights.component import load_part, part_folder, quiet_libraries, read_settings


@dataclass(frozen=True)
class DiffusionParts:
    """A loaded latent diffusion model.

    Attributes:
        unet: denoises latents; UNet2DConditionModel of diffusers.
        vae: pictures into latents and back; AutoencoderKL of diffusers.
        schedule: settings of the model's own scheduler.
        prompts: its text encoder.
        device: where it computes.
        dtype: of the networks; latents are float32.
        offload: networks are on the device only while they are used.
    """

    unet: Any
    vae: Any
    schedule: dict[str, Any]
    prompts: PromptEncoder
    device: torch.device
    dtype: torch.dtype
    offload: bool

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents of one picture."""
        side = int(self.unet.config.sample_size)
        return int(self.unet.config.in_channels), side, side

    @property
    def resolution(self) -> int:
        """Side of the picture, px."""
        halvings = len(self.vae.config.block_out_channels) - 1
        return int(self.unet.config.sample_size) << halvings

    def text(self, prompt: str) -> Tensor:
        """Embedding of a prompt [1, tokens, C] on the device, in the networks' precision.

        Raises:
            OptionError: the prompt is longer than the text encoder reads.
            WeightsError: the text encoder is missing, damaged, or does not fit the denoiser.
        """
        text = self.prompts(prompt)
        width = self.unet.config.cross_attention_dim
        if text.shape[-1] != width:
            raise WeightsError(
                f"{self.prompts.folder} does not fit together: its text encoder writes "
                f"{text.shape[-1]} numbers a token, its unet reads {width}."
            )
        return text.to(self.device, self.dtype)

    def encode(self, image: Tensor) -> Tensor:
        """Latents [B, C, h, w], scaled, of image [B, 3, H, W] in [-1, 1]; the mean, not a draw."""
        image = image.to(self.device, torch.float32)
        size = (self.resolution, self.resolution)
        if image.shape[-2:] != size:
            image = F.interpolate(image, size, mode="bicubic", antialias=True).clamp(-1, 1)
        with self.at_work(self.vae), torch.no_grad():
            latents: Tensor = self.vae.encode(image.to(self.vae.dtype)).latent_dist.mode().float()
        return latents * self.vae.config.scaling_factor  # type: ignore[no-any-return]

    def decode(self, latents: Tensor) -> Tensor:
        """Image [B, 3, R, R] in [-1, 1], float32, of scaled latents [B, C, h, w]."""
        vae = self.vae
        latents = latents / vae.config.scaling_factor
        with self.at_work(vae):
            image: Tensor = vae.decode(latents.to(vae.dtype), return_dict=False)[0].float()
            if vae.dtype == torch.float16 and not bool(image.isfinite().all()):
                vae.float()  # some pictures overflow half precision; from now on none does
                image = vae.decode(latents.float(), return_dict=False)[0]
        return image.clamp(-1, 1)

    @contextlib.contextmanager
    def at_work(self, network: Any) -> Iterator[None]:
        """Have a network on the device; where it is offloaded, only for the time being."""
        if not self.offload:
            yield
            return
        network.to(self.device)
        try:
            yield
        finally:
            network.to("cpu")


def load_parts(
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    low_vram: bool = False,
    cache: Path | None = None,
) -> DiffusionParts:
    """Load a diffusion model from a local folder in diffusers' layout.

    Args:
        folder: with `model_index.json`, `unet`, `vae`, `scheduler`, `tokenizer`, `text_encoder`.
        device: where it computes.
        dtype: of its networks; for half precision the fp16 files are taken if they are there.
        low_vram: save graphics memory at the price of time.
        cache: folder to keep the empty prompt's embedding in.

    Raises:
        WeightsError: a part is missing, damaged, or of another kind.
    """
    schedule = read_settings(part_folder(folder, "scheduler") / "scheduler_config.json")
    prepare_torchaudio()
    with quiet_libraries():
        from diffusers import AutoencoderKL, UNet2DConditionModel
    # Queries and keys of Stable Diffusion 2.1 overflow float16 in plain attention.
    upcast = {"upcast_attention": True} if dtype == torch.float16 else {}
    unet = load_part(UNet2DConditionModel, part_folder(folder, "unet"), dtype, **upcast)
    vae = load_part(AutoencoderKL, part_folder(folder, "vae"), dtype)
    if not isinstance(unet.config.sample_size, int) or (
        unet.config.in_channels != vae.config.latent_channels
    ):
        raise WeightsError(
            f"{folder} does not fit together: its unet reads {unet.config.in_channels} channels "
            f"of side {unet.config.sample_size}, its vae writes {vae.config.latent_channels}."
        )
    if low_vram:
        vae.enable_tiling()
        vae.enable_slicing()
    if device.type == "mps":  # without it pictures of 768 px do not fit into 16 GB
        unet.set_attention_slice("auto")
    offload = low_vram and device.type == "cuda"  # elsewhere the memory is one
    if not offload:
        unet.to(device)
        vae.to(device)
    prompts = PromptEncoder(folder, device=device, cache=cache)
    return DiffusionParts(unet, vae, schedule, prompts, device, dtype, offload)
