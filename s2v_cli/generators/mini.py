"""The bundled generator G(z^N, z): a few steps of the latent flow, then the decoder."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from s2v_cli.encoders.mini_image import MINI_SPACE
from s2v_cli.generators.mini_codec import (
    LATENT_CHANNELS,
    LATENT_SIZE,
    LatentDecoder,
    LatentEncoder,
    unit_scale,
)
from s2v_cli.generators.mini_flow import LatentFlow, shifted_times

STEPS = 3  # of the distilled flow
SHIFT = 2.0  # more than 1 spends more of the walk near the noise


def walk(flow: LatentFlow, noise: Tensor, embedding: Tensor) -> Tensor:
    """Latent [B, 16, 8, 8] that the distilled flow leads noise [B, 1024] to under z [B, 256]."""
    x = noise.view(-1, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
    for start, end in pairwise(shifted_times(STEPS, SHIFT)):
        time = torch.full((len(x),), start, device=x.device)
        x = x + (end - start) * flow(x, time, embedding)
    return unit_scale(x)


class MiniGenerator(nn.Module):
    """Noise [B, 1024] and z [B, 256] -> image [B, 3, 128, 128]; differentiable in both."""

    space = MINI_SPACE
    noise_size = LATENT_CHANNELS * LATENT_SIZE * LATENT_SIZE
    resolution = 128

    def __init__(self) -> None:
        super().__init__()
        self.flow = LatentFlow(self.space.dimension)
        self.decoder = LatentDecoder()
        self.encoder = LatentEncoder()  # photos into latents: where inversion starts

    def latent(self, noise: Tensor, embedding: Tensor) -> Tensor:
        """Latent [B, 16, 8, 8] that noise [B, 1024] walks to under z [B, 256]."""
        return walk(self.flow, noise, embedding)

    def forward(self, noise: Tensor, embedding: Tensor) -> Tensor:
        """Make image [B, 3, 128, 128] in [-1, 1]."""
        return self.decoder(self.latent(noise, embedding)).clamp(-1, 1)  # type: ignore[no-any-return]
