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
from s2v_cli.weights.component import load_part, part_folder, quiet_libraries, read_settings

SIZE = CLIP_H_SPACE.dimension


class UnclipGenerator(DiffusionGenerator):
    """Noise [B, N] and embedding [B, 1024] to image [B, 3, R, R]; R is 768 as published.

    The noise is what the pipeline of diffusers draws from one generator: 1024 numbers that blur
    the embedding (at level 0 too, a little), then the latents.
    """

    defaults = Defaults(steps=20, guidance=10.0)

    def __init__(self, parts: DiffusionParts, normalizer: Any, noising: Any) -> None:
        """Put together what `load` loads.

        Args:
            parts: networks that all diffusion models have.
            normalizer: mean and standard deviation of embeddings.
            noising: schedule of the embedding's noise.
        """
        super().__init__(parts)
        self.noise_size = SIZE + self.latent_size
        self._mean = normalizer.mean.float().to(parts.device)
        self._std = normalizer.std.float().to(parts.device)
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
        with quiet_libraries():
            from diffusers import DDPMScheduler
            from diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer
        place = part_folder(folder, "image_normalizer")
        normalizer = load_part(StableUnCLIPImageNormalizer, place, torch.float32)
        if normalizer.mean.shape != (1, SIZE):
            raise WeightsError(
                f"{place} is for embeddings of {normalizer.mean.shape[-1]} numbers; needed: {SIZE}."
            )
        place = part_folder(folder, "image_noising_scheduler")
        settings = read_settings(place / "scheduler_config.json")
        with quiet_libraries():
            noising = DDPMScheduler.from_config(settings)
        return cls(parts, normalizer, noising)

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
