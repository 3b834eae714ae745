"""The published image encoder of the GAN route: SwAV's ResNet-50 up to its average pool."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2v_cli.encoders.resnet import ResNet, network_tensors, read_state, stage_widths
from s2v_cli.errors import WeightsError
from s2v_cli.space import SWAV_SPACE

if TYPE_CHECKING:
    from PIL.Image import Image

STEM = 64
INNER = (64, 128, 256, 512)
WIDTHS = (256, 512, 1024, 2048)
SQUASHED = 256  # px, side that a user's picture is squashed to
SEEN = 224  # px, side that the network sees
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
# Parts of published files that only training needs.
UNUSED = ("projection_head.", "prototypes.", "fc.")


class SwavResNet50(nn.Module):
    """Image [B, 3, H, W] in [-1, 1] -> z^V [B, 2048], not negative, unit norm."""

    space = SWAV_SPACE

    def __init__(
        self,
        stem: int = STEM,
        widths: tuple[int, ...] = WIDTHS,
        inner: tuple[int, ...] = INNER,
    ) -> None:
        super().__init__()
        self.trunk = ResNet(3, stem, widths, inner)

    @classmethod
    def like(cls, tensors: Mapping[str, Tensor]) -> Self:
        """A network, without weights, of the widths that `tensors` have.

        Raises:
            KeyError: the tensors are not of such a network.
        """
        state = {key.removeprefix("trunk."): tensor for key, tensor in tensors.items()}
        with torch.device("meta"):
            return cls(
                len(state["conv1.weight"]),
                tuple(stage_widths(state, "conv3")),
                tuple(stage_widths(state, "conv1")),
            )

    def prepare(self, image: Image) -> Tensor:
        """A user's picture as the published code takes it: float32 [3, 256, 256] in [-1, 1].

        The whole picture is squashed into the square, not cropped.
        """
        from PIL.Image import Resampling

        squashed = image.convert("RGB").resize((SQUASHED, SQUASHED), Resampling.BILINEAR)
        pixels = np.asarray(squashed, dtype=np.float32) / 127.5 - 1
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()

    def features(self, image: Tensor) -> list[Tensor]:
        """Maps of the stages: [B, 256, 56, 56], [B, 512, 28, 28], ... [B, 2048, 7, 7].

        Args:
            image: [B, 3, H, W] in [-1, 1]; resampled to 224 px (bicubic, corners aligned).
        """
        mean = image.new_tensor(IMAGENET_MEAN)[:, None, None]
        deviation = image.new_tensor(IMAGENET_DEVIATION)[:, None, None]
        standardised = (image * 0.5 + 0.5 - mean) / deviation
        seen = F.interpolate(standardised, (SEEN, SEEN), mode="bicubic", align_corners=True)
        return self.trunk.stages(seen)

    def embed(self, features: list[Tensor]) -> Tensor:
        """z^V [B, 2048] in float32, unit norm, from the maps of `features`."""
        return F.normalize(features[-1].float().mean(dim=(2, 3)), dim=-1)

    def forward(self, image: Tensor) -> Tensor:
        """Encode image [B, 3, H, W] in [-1, 1] into z^V [B, 2048], unit norm."""
        return self.embed(self.features(image))


def convert(files: Mapping[str, Path]) -> dict[str, Tensor]:
    """Tensors of `SwavResNet50` from the published file `swav_800ep_pretrain.pth.tar`.

    Raises:
        WeightsError: the file is not that checkpoint.
    """
    (path,) = files.values()
    what = f"SwAV's ResNet-50 ({path.name})"
    state = {
        f"trunk.{key}": tensor
        for key, tensor in read_state(path, what, "module.").items()
        if not key.startswith(UNUSED)
    }
    tensors = network_tensors(state, SwavResNet50.like, what)
    dimension = len(tensors["trunk.layer4.0.conv3.weight"])
    if dimension != SWAV_SPACE.dimension:
        raise WeightsError(
            f"This is not {what}: its embeddings have {dimension} numbers; "
            f"needed: {SWAV_SPACE.dimension}."
        )
    return tensors
