"""The bundled generator G(z^N, z): a few steps of the latent flow, then the decoder."""

from __future__ import annotations

from collections.abc import Iterator
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
ROUNDS = 20  # of the fixed-point iteration that turns a step round
DAMPING = 0.5  # of each of them: whole ones need not converge


def walk(flow: LatentFlow, noise: Tensor, embedding: Tensor) -> Tensor:
    """Latent [B, 16, 8, 8] that the distilled flow leads noise [B, 1024] to under z [B, 256]."""
    x = noise.view(-1, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
    for start, end in pairwise(shifted_times(STEPS, SHIFT)):
        time = torch.full((len(x),), start, device=x.device)
        x = x + (end - start) * flow(x, time, embedding)
    return unit_scale(x)


def walk_back(flow: LatentFlow, latent: Tensor, embedding: Tensor) -> Tensor:
    """Noise [B, 1024] that `walk` leads to about a latent [B, 16, 8, 8] under z [B, 256].

    A step's velocity belongs to the point that is looked for, so each step is turned round by
    fixed-point iteration. The noise of a photo may be larger than noise that is drawn.
    """
    x = latent
    for start, end in reversed(list(pairwise(shifted_times(STEPS, SHIFT)))):
        time = torch.full((len(x),), start, device=x.device)
        before = x
        for _ in range(ROUNDS):
            guess = x - (end - start) * flow(before, time, embedding)
            before = torch.lerp(before, guess, DAMPING)
        x = before
    return x.flatten(1)


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

    @torch.no_grad()
    def guess_noise(self, image: Tensor, embedding: Tensor) -> Tensor:
        """Noise [B, 1024] that makes about the images [B, 3, 128, 128] under z [B, 256]."""
        return walk_back(self.flow, self.encoder(image), embedding)

    def tunable_parameters(self) -> Iterator[nn.Parameter]:
        """Weights of the decoder; the flow is what follows the embedding."""
        return self.decoder.parameters()
