"""The bundled image encoder f_V: a small residual network into the `mini` space.

Trained contrastively by `training.image_stage`; its feature maps are also the perceptual
distance that the bundled generator was trained with.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2v_cli.space import EmbeddingSpace

# Of the bundled weights; another training of the image encoder makes another space.
MINI_SPACE = EmbeddingSpace(name="mini-2", dimension=256, scale="unit")
IMAGE_SIZE = 128  # px, side of the image that the encoder reads
WIDTHS = (48, 96, 192, 320)  # channels at 32, 16, 8 and 4 px
DEPTHS = (2, 2, 2, 1)  # residual blocks at each of them


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm around a skip, [B, C, H, W] -> [B, C', H/s, W/s]."""

    def __init__(self, inputs: int, outputs: int, stride: int | tuple[int, int] = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        nn.init.zeros_(self.norm2.weight)
        self.skip: nn.Module = nn.Identity()
        if inputs != outputs or stride not in (1, (1, 1)):
            self.skip = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output after its last rectifier."""
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return F.relu(y + self.skip(x))


class MiniImageEncoder(nn.Module):
    """Image [B, 3, H, W] in [-1, 1] -> z^V [B, 256], unit norm."""

    space = MINI_SPACE

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0], 5, 4, 2, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU()
        )
        stages = []
        inputs = WIDTHS[0]
        for index, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
            blocks = [ResidualBlock(inputs, width, 1 if index == 0 else 2)]
            blocks += [ResidualBlock(width, width) for _ in range(depth - 1)]
            stages.append(nn.Sequential(*blocks))
            inputs = width
        self.stages = nn.ModuleList(stages)
        self.head = nn.Linear(inputs, self.space.dimension)

    def features(self, image: Tensor) -> list[Tensor]:
        """Feature maps of the stages: [B, 48, 32, 32], [B, 96, 16, 16], ... [B, 320, 4, 4]."""
        if image.shape[-2:] != (IMAGE_SIZE, IMAGE_SIZE):
            image = F.interpolate(
                image, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", antialias=True
            ).clamp(-1, 1)
        return self.maps(image)

    def maps(self, image: Tensor) -> list[Tensor]:
        """The same of an image [B, 3, S, S] as large as it is; S is a multiple of 32."""
        x = self.stem(image)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def embed(self, features: list[Tensor]) -> Tensor:
        """z^V [B, 256], unit norm, from the maps of `features`."""
        pooled = features[-1].float().mean(dim=(2, 3))
        with torch.autocast(pooled.device.type, enabled=False):
            weight, bias = self.head.weight.float(), self.head.bias.float()
            return F.normalize(F.linear(pooled, weight, bias), dim=-1)

    def forward(self, image: Tensor) -> Tensor:
        """Encode image [B, 3, H, W] in [-1, 1] into z^V [B, 256], unit norm."""
        return self.embed(self.features(image))
