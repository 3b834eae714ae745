"""The latent flow of the bundled model: noise into latents, a few Euler steps of a velocity field.

Rectified flow (Liu et al., 2023; Lipman et al., 2023): x_t = (1 - t) x_0 + t noise, so the field
is v = noise - x_0, and sampling walks from t = 1 to 0. The network is a small transformer with
convolutional feed-forward layers over tokens of 2x2 latent positions, between two convolutional
blocks that see every position; time and embedding steer it through one shared modulation
(adaLN-single, Chen et al., 2024). Tokens of 2x2 cost a quarter, and what a picture shows as a
whole is learned from fewer steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2v_cli.generators.mini_codec import LATENT_CHANNELS, LATENT_SIZE, ConvBlock

PATCH = 2  # latent positions to each side of a token
TOKENS = LATENT_SIZE // PATCH  # tokens to each side
FINE_WIDTH = 96  # channels at the latent positions, before and after the transformer
WIDTH = 256
DEPTH = 6
HEADS = 4
EXPANSION = 2  # hidden channels of the gated feed-forward layer, in units of WIDTH
FREQUENCIES = 64  # sinusoids that encode the time
QUERY_SCALE = 10.0  # of the cosines between queries and keys


class Attention(nn.Module):
    """Self-attention over all positions of x [B, H, W, C]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend; same shape."""
        batch, height, width, channels = x.shape
        qkv = self.project_in(x).reshape(
            batch, height * width, 3, self.heads, channels // self.heads
        )
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, heads, H*W, C/heads]
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        # Written out: for 64 positions this trains much faster on CPUs than the fused kernel.
        share = (q @ k.transpose(-1, -2) * QUERY_SCALE).softmax(dim=-1)
        out = (share @ v).transpose(1, 2).reshape(batch, height, width, channels)
        return self.project_out(out)  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """Gated feed-forward layer with a 3x3 depthwise convolution, x [B, H, W, C]."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, 2 * hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden)
        self.contract = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Transform; same shape."""
        value, gate = self.expand(x).chunk(2, dim=-1)
        value = self.depthwise(value.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.contract(value * F.silu(gate))  # type: ignore[no-any-return]


class FlowBlock(nn.Module):
    """Attention and feed-forward, each shifted, scaled and gated by the modulation."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.feed_forward = FeedForward(width, EXPANSION * width)
        self.offsets = nn.Parameter(torch.zeros(6, width))

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """Map x [B, H, W, C] under modulation [B, 6, C]; same shape."""
        steer = (modulation + self.offsets)[:, :, None, None]  # [B, 6, 1, 1, C]
        shift1, scale1, gate1, shift2, scale2, gate2 = steer.unbind(1)
        size = (x.shape[-1],)
        x = x + gate1 * self.attention(F.layer_norm(x, size) * (1 + scale1) + shift1)
        y = self.feed_forward(F.layer_norm(x, size) * (1 + scale2) + shift2)
        return x + gate2 * y  # type: ignore[no-any-return]


class LatentFlow(nn.Module):
    """Velocity of latents [B, 16, 8, 8] at time t [B] under an embedding [B, D]."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.embedding_scale = math.sqrt(dimension)  # unit embeddings come in at unit variance
        self.fine_in = nn.Sequential(
            nn.Conv2d(LATENT_CHANNELS, FINE_WIDTH, 3, 1, 1), ConvBlock(FINE_WIDTH)
        )
        self.project_in = nn.Linear(PATCH * PATCH * FINE_WIDTH, WIDTH)
        self.position = nn.Parameter(torch.zeros(TOKENS, TOKENS, WIDTH))
        self.time = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH)
        )
        self.embedding = nn.Sequential(
            nn.Linear(dimension, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH)
        )
        self.no_embedding = nn.Parameter(torch.zeros(dimension))  # stands for "any picture"
        self.modulation = nn.Linear(WIDTH, 6 * WIDTH)
        self.blocks = nn.ModuleList(FlowBlock(WIDTH, HEADS) for _ in range(DEPTH))
        self.project_out = nn.Linear(WIDTH, PATCH * PATCH * FINE_WIDTH)
        self.out_modulation = nn.Linear(WIDTH, 2 * FINE_WIDTH)
        last = nn.Conv2d(FINE_WIDTH, LATENT_CHANNELS, 3, 1, 1)
        nn.init.zeros_(last.weight)
        self.fine_out = nn.Sequential(ConvBlock(FINE_WIDTH), nn.SiLU(), last)
        nn.init.zeros_(self.modulation.weight)
        with torch.no_grad():
            self.modulation.bias.zero_()
            gates = self.modulation.bias.view(6, WIDTH)
            gates[2].fill_(0.1)
            gates[5].fill_(0.1)

    def forward(self, latent: Tensor, time: Tensor, embedding: Tensor) -> Tensor:
        """Velocity [B, 16, 8, 8] at latent [B, 16, 8, 8], time [B] in [0, 1], embedding [B, D]."""
        frequency = torch.exp(
            torch.arange(FREQUENCIES, device=time.device) * (-math.log(1000) / FREQUENCIES)
        )
        angle = 1000 * time[:, None] * frequency
        wave = torch.cat([angle.cos(), angle.sin()], dim=1).to(embedding.dtype)
        steer = F.silu(self.time(wave) + self.embedding(embedding * self.embedding_scale))
        modulation = self.modulation(steer).unflatten(1, (6, WIDTH))
        fine = self.fine_in(latent)  # [B, 96, 8, 8]
        x = F.pixel_unshuffle(fine, PATCH).permute(0, 2, 3, 1)  # [B, 4, 4, 384]
        x = self.project_in(x) + self.position
        for block in self.blocks:
            x = block(x, modulation)
        x = self.project_out(F.layer_norm(x, (WIDTH,))).permute(0, 3, 1, 2)
        fine = fine + F.pixel_shuffle(x, PATCH)
        shift, scale = self.out_modulation(steer)[:, :, None, None].chunk(2, dim=1)
        return self.fine_out(fine * (1 + scale) + shift)  # type: ignore[no-any-return]


def shifted_times(steps: int, shift: float) -> list[float]:
    """Times 1 = t_0 > ... > t_steps = 0; shift > 1 spends more of them near the noise."""
    even = [1 - i / steps for i in range(steps + 1)]
    return [shift * t / (1 + (shift - 1) * t) for t in even]
