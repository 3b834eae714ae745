"""Stable Diffusion 2.1 unCLIP, the generator of the paper's LDM route (§3.3), as published.

Number for number what diffusers' StableUnCLIPImg2ImgPipeline makes of `image_embeds`, without its
image encoder, which embeddings of sound do not need.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s2v_cli.errors import OptionError, WeightsError
from s2v_cli.generators.diffusion import Defaults, DiffusionGenerator
from s2v_cli.generators.diffusion_parts import DiffusionParts, load_parts
from s2v_cli.options import GenerateOptions
from s2v_cli.space import CLIP_H_SPACE
from s2v_cli.weights.component import part_folder, quiet_libraries, read_settings, weight_files

SIZE = CLIP_H_SPACE.dimension


class UnclipGenerator(DiffusionGenerator):
    """Noise [B, N] and embedding [B, 1024] to image [B, 3, R, R]; R is 768 as published.

    The noise is what the pipeline of diffusers draws from one generator: 1024 numbers that blur
    the embedding (at level 0 too, a little), then the latents.
    """

    defaults = Defaults(steps=20, guidance=10.0)

    def __init__(self, parts: DiffusionParts, mean: Tensor, std: Tensor, noising: Any) -> None:
        """Put together what `load` loads.

        Args:
            parts: networks that all diffusion models have.
            mean: of embeddings, [1, 1024].
            std: their standard deviation, [1, 1024].
            noising: schedule of the embedding's noise; DDPMScheduler of diffusers.
        """
        super().__init__(parts)
        self.noise_size = SIZE + self.latent_size
        self._mean, self._std = mean.to(parts.device), std.to(parts.device)
        self._noising = noising

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: torch.device,
        dtype: torch.dtype,
        low_vram: bool = False,
        cache: Path | None = None,
    ) -> UnclipGenerator:
        """Load from a local folder in diffusers' layout; see `load_parts`.

        The folder needs neither `image_encoder` nor `feature_extractor`, and once the empty
        prompt is in `cache`, and no other is used, no `text_encoder` and `tokenizer`.

        Raises:
            WeightsError: a part is missing, damaged, or of another kind.
        """
        parts = load_parts(folder, device=device, dtype=dtype, low_vram=low_vram, cache=cache)
        read = parts.unet.config.projection_class_embeddings_input_dim
        if read != 2 * SIZE:
            raise WeightsError(
                f"The unet in {folder} reads {read or 'no'} numbers of an image embedding and its "
                f"noise level; needed: {2 * SIZE}, for the space {CLIP_H_SPACE}."
            )
        mean, std = _read_normalizer(part_folder(folder, "image_normalizer"))
        noising = _read_noising(part_folder(folder, "image_noising_scheduler"))
        return cls(parts, mean, std, noising)

    def conditions(self, noise: Tensor, embeddings: Tensor, options: GenerateOptions) -> Tensor:
        """Blurred embeddings and the level of their noise, [K, B, 2048]."""
        from diffusers.models.embeddings import get_timestep_embedding

        level = options.noise_level or 0
        total = int(self._noising.config.num_train_timesteps)
        if level >= total:
            raise OptionError(f"noise-level is {level}; this model allows: 0 to {total - 1}.")
        levels = torch.full((embeddings.shape[1],), level, device=embeddings.device)
        told = get_timestep_embedding(levels, SIZE, flip_sin_to_cos=True, downscale_freq_shift=0)
        rows = []
        for embedding in embeddings:
            scaled = (embedding - self._mean) / self._std
            blurred = self._noising.add_noise(scaled, noise[:, :SIZE], levels)
            rows.append(torch.cat([blurred * self._std + self._mean, told], dim=1))
        return torch.stack(rows)

    def arguments(self, conditions: Tensor) -> dict[str, Any]:
        """The denoiser's class labels."""
        return {"class_labels": conditions}


def _read_normalizer(place: Path) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of embeddings, float32 [1, 1024] each."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    (file, *_), _ = weight_files(place)
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"Cannot load {place}: {error}.") from error
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != {
        "mean": (1, SIZE),
        "std": (1, SIZE),
    }:
        raise WeightsError(f"{file} is of another network; needed: mean and std of {SIZE} numbers.")
    return tensors["mean"].float(), tensors["std"].float()


def _read_noising(place: Path) -> Any:
    """The schedule of the embedding's noise."""
    with quiet_libraries():
        from diffusers import DDPMScheduler
    kind: Any = DDPMScheduler
    settings = read_settings(place / "scheduler_config.json")
    try:
        with quiet_libraries():
            return kind.from_config(settings)
    except (ValueError, TypeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"The settings in {place} are of no known schedule: {reason}") from error
