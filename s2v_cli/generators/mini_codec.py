"""The latent codec of the bundled model: 128 px pictures <-> latents [16, 8, 8].

Plain residual convolutions without normalisation layers; every latent position has unit root
mean square over its channels, so the latents keep one scale without a penalty.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LATENT_CHANNELS = 16
LATENT_SIZE = 8  # px; a latent position stands for 16x16 px of the picture
WIDTHS = (24, 48, 96, 192)  # encoder channels at 64, 32, 16 and 8 px
DECODER_WIDTHS = (192, 128, 80, 40)  # decoder channels at 8, 16, 32 and 64 px
DECODER_DEPTHS = (2, 1, 1, 1)  # residual blocks at each of them


class ConvBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))), [B, C, H, W]; starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, same shape."""
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))  # type: ignore[no-any-return]


def unit_scale(latent: Tensor) -> Tensor:
    """Divide latents [B, C, H, W] by their root mean square over channels."""
    return latent * torch.rsqrt(latent.square().mean(dim=1, keepdim=True) + 1e-6)


def smooth(image: Tensor) -> Tensor:
    """Binomial filter over 3x3 px of images [B, C, H, W]; same shape.

    It is zero at the finest frequency, where pixel shuffling leaves a grid.
    """
    weights = torch.tensor([0.25, 0.5, 0.25], dtype=image.dtype, device=image.device)
    kernel = (weights[:, None] * weights).expand(image.shape[1], 1, 3, 3)
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, kernel, groups=image.shape[1])


class LatentEncoder(nn.Module):
    """Image [B, 3, 128, 128] in [-1, 1] -> latent [B, 16, 8, 8], unit root mean square."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
        inputs = 12
        for index, width in enumerate(WIDTHS):
            layers.append(nn.Conv2d(inputs, width, 3, 1 if index == 0 else 2, 1))
            layers.append(ConvBlock(width))
            inputs = width
        layers += [nn.SiLU(), nn.Conv2d(inputs, LATENT_CHANNELS, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        """Encode images into latents."""
        return unit_scale(self.layers(image).float())


class LatentDecoder(nn.Module):
    """Latent [B, 16, 8, 8] -> image [B, 3, 128, 128], in [-1, 1] where it was learned well."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(LATENT_CHANNELS, DECODER_WIDTHS[0], 3, 1, 1)]
        inputs = DECODER_WIDTHS[0]
        for index, (width, depth) in enumerate(zip(DECODER_WIDTHS, DECODER_DEPTHS, strict=True)):
            if index:
                layers += [nn.Upsample(scale_factor=2), nn.Conv2d(inputs, width, 3, 1, 1)]
            layers += [ConvBlock(width) for _ in range(depth)]
            inputs = width
        layers += [nn.SiLU(), nn.Conv2d(inputs, 12, 3, 1, 1), nn.PixelShuffle(2)]
        self.layers = nn.Sequential(*layers)

    def forward(self, latent: Tensor) -> Tensor:
        """Decode latents into images."""
        return smooth(self.layers(latent))
