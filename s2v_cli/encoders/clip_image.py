"""The CLIP ViT-H image encoder: pictures into the space that unCLIP and IP-Adapter read.

Its embeddings are un-normalised, as the sound encoders of that space learned them (§3.3).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from s2v_cli._torchaudio import prepare_torchaudio
from s2v_cli.errors import WeightsError
from s2v_cli.space import CLIP_H_SPACE
from s2v_cli.weights.component import load_part, quiet_libraries

if TYPE_CHECKING:
    from PIL.Image import Image

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of the pictures that CLIP learned from, RGB in 0 to 1
STD = (0.26862954, 0.26130258, 0.27577711)

# Where the encoder lies in what is published: Stable Diffusion unCLIP, h94/IP-Adapter, alone.
_PLACES = ("image_encoder", "models/image_encoder", ".")


class ClipImageEncoder:
    """Image [B, 3, H, W] in [-1, 1] -> z^V [B, 1024], un-normalised.

    Attributes:
        space: of its embeddings.
        size: side of the square that it sees, px; 224 as published.
        network: CLIPVisionModelWithProjection of transformers.
    """

    space = CLIP_H_SPACE

    def __init__(self, network: Any) -> None:
        self.network = network
        self.size = int(network.config.image_size)

    @classmethod
    def load(cls, folder: Path, *, device: torch.device, dtype: torch.dtype) -> ClipImageEncoder:
        """Load from a local folder: the encoder's own, or that of a model that has one.

        Args:
            folder: with `config.json` and `model.safetensors`, or with `image_encoder/`.
            device: where it computes.
            dtype: of the network; for half precision the fp16 file is taken if it is there.

        Raises:
            WeightsError: missing, damaged, or of another network or space.
        """
        place = next((folder / p for p in _PLACES if (folder / p / "config.json").is_file()), None)
        if place is None:
            raise WeightsError(f"{folder} has no image encoder: no image_encoder/config.json.")
        prepare_torchaudio()
        with quiet_libraries():
            from transformers import CLIPVisionModelWithProjection
        network = load_part(CLIPVisionModelWithProjection, place, dtype)
        if network.config.projection_dim != cls.space.dimension:
            raise WeightsError(
                f"The image encoder {place} writes {network.config.projection_dim} numbers; "
                f"needed: {cls.space.dimension}, for the space {cls.space}."
            )
        return cls(network.to(device))

    def prepare(self, image: Image) -> Tensor:
        """CLIP's own view of a picture: float32 [3, S, S] in [-1, 1].

        Bicubic to S px at the shorter side, on 8-bit pixels, then the centre square.
        """
        import numpy as np
        from PIL.Image import Resampling

        image = image.convert("RGB")
        short = min(image.size)
        width, height = (int(self.size * side / short) for side in image.size)
        image = image.resize((width, height), Resampling.BICUBIC)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        image = image.crop((left, top, left + self.size, top + self.size))
        pixels = torch.from_numpy(np.array(image, dtype=np.float32))
        return (pixels / 127.5 - 1).permute(2, 0, 1).contiguous()

    def __call__(self, image: Tensor) -> Tensor:
        """Encode image [B, 3, H, W] in [-1, 1] into z^V, float32 [B, 1024]."""
        weight = self.network.visual_projection.weight
        image = self._centre(image.to(weight.device, torch.float32))
        mean, std = (image.new_tensor(row)[:, None, None] for row in (MEAN, STD))
        pixels = ((image + 1) / 2 - mean) / std
        embedding: Tensor = self.network(pixel_values=pixels.to(weight.dtype)).image_embeds
        return embedding.float()

    def _centre(self, image: Tensor) -> Tensor:
        """The centre square of image [B, 3, H, W] at the encoder's size, [B, 3, S, S]."""
        height, width = image.shape[-2:]
        short = min(height, width)
        if short != self.size:
            height, width = (int(self.size * side / short) for side in (height, width))
            image = F.interpolate(image, (height, width), mode="bicubic", antialias=True)
            image = image.clamp(-1, 1)
        top, left = (height - self.size) // 2, (width - self.size) // 2
        return image[..., top : top + self.size, left : left + self.size]
