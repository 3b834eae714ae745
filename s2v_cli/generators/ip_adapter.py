"""IP-Adapter (Ye et al., 2023) on Stable Diffusion 1.5, told by embeddings instead of pictures.

Number for number what diffusers' StableDiffusionPipeline makes of `ip_adapter_image_embeds`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from s2v_cli.errors import WeightsError
from s2v_cli.generators.diffusion import Defaults, DiffusionGenerator
from s2v_cli.generators.diffusion_parts import DiffusionParts, load_parts
from s2v_cli.options import GenerateOptions
from s2v_cli.space import CLIP_H_SPACE
from s2v_cli.weights.component import quiet_libraries

TOKENS = 4  # that an embedding becomes beside those of the prompt; "plus" adapters have more
DEFAULT_SCALE = 1.0  # alone, without a prompt, the adapter should decide


class IpAdapterGenerator(DiffusionGenerator):
    """Noise [B, N] and embedding [B, 1024] to image [B, 3, R, R]; R is 512 as published."""

    defaults = Defaults(steps=30, guidance=7.5)

    def __init__(self, parts: DiffusionParts, set_scale: Callable[[float], None]) -> None:
        """Put together what `load` loads.

        Args:
            parts: networks that all diffusion models have, the adapter in them.
            set_scale: sets the weight of the adapter's attention.
        """
        super().__init__(parts)
        self._set_scale = set_scale

    @classmethod
    def load(
        cls,
        sd_folder: Path,
        adapter_file: Path,
        *,
        device: torch.device,
        dtype: torch.dtype,
        low_vram: bool = False,
        cache: Path | None = None,
    ) -> IpAdapterGenerator:
        """Load Stable Diffusion from a local folder and an adapter for ViT-H from a file.

        Args:
            sd_folder: in diffusers' layout; see `load_parts`.
            adapter_file: safetensors, as published.
            device: where it computes.
            dtype: of its networks.
            low_vram: save graphics memory at the price of time.
            cache: folder to keep the empty prompt's embedding in.

        Raises:
            WeightsError: a part or the adapter is missing, damaged, or of another kind.
        """
        tensors = _read_adapter(adapter_file)
        parts = load_parts(sd_folder, device=device, dtype=dtype, low_vram=low_vram, cache=cache)
        return cls(parts, _attach(parts.unet, tensors, adapter_file))

    def conditions(self, noise: Tensor, embeddings: Tensor, options: GenerateOptions) -> Tensor:
        """The embeddings themselves, [K, B, 1024]; sets the adapter's scale."""
        given = options.adapter_scale
        self._set_scale(DEFAULT_SCALE if given is None else given)
        return embeddings

    def arguments(self, conditions: Tensor) -> dict[str, Any]:
        """The denoiser's list of adapter embeddings, each [B', 1, 1024]."""
        return {"added_cond_kwargs": {"image_embeds": [conditions[:, None]]}}


def _read_adapter(file: Path) -> dict[str, dict[str, Tensor]]:
    """Tensors of an adapter file by group, `image_proj` and `ip_adapter`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(file)
    except FileNotFoundError:
        raise WeightsError(f"Missing weights: there is no {file}.") from None
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"Cannot read the weights {file}: {error}.") from error
    groups: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, tensor in tensors.items():
        group, _, name = key.partition(".")
        groups.setdefault(group, {})[name] = tensor
    projection = groups["image_proj"].get("proj.weight")
    if len(groups) > 2 or projection is None or not groups["ip_adapter"]:
        raise WeightsError(
            f"{file} is not a plain IP-Adapter: needed are image_proj.proj.weight and ip_adapter.*;"
            " adapters called plus, full or FaceID are of another kind."
        )
    if projection.shape[-1] != CLIP_H_SPACE.dimension:
        raise WeightsError(
            f"The adapter {file} reads embeddings of {projection.shape[-1]} numbers; needed: "
            f"{CLIP_H_SPACE.dimension}, for the space {CLIP_H_SPACE}."
        )
    return groups


def _attach(unet: Any, groups: dict[str, dict[str, Tensor]], file: Path) -> Callable[[float], None]:
    """Put an adapter into a denoiser; returns what sets its scale."""
    width = int(unet.config.cross_attention_dim)
    found = groups["image_proj"]["proj.weight"].shape[0]
    if found != TOKENS * width:
        raise WeightsError(
            f"The adapter {file} writes tokens of {found // TOKENS} numbers; this Stable Diffusion "
            f"reads {width}."
        )
    with quiet_libraries():
        from diffusers.loaders.ip_adapter import IPAdapterMixin
    adapters: Any = IPAdapterMixin
    holder = SimpleNamespace(unet=unet)  # as much of a pipeline as takes an adapter
    try:
        with quiet_libraries():
            adapters.load_ip_adapter(
                holder,
                groups,
                subfolder="",
                weight_name="",
                image_encoder_folder=None,
                local_files_only=True,
            )
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"The adapter {file} does not fit this model: {reason}") from error
    unet.eval().requires_grad_(False)

    def set_scale(scale: float) -> None:
        adapters.set_ip_adapter_scale(holder, scale)

    return set_scale
