"""The networks of stage `gan` as they are trained: BigGAN, as ICGAN adapts it (§3.2).

What the class embedding is in BigGAN (Brock et al., 2019, App. B), a linear layer of the image's
embedding is here. All weights have spectral norm. `s2v_cli.generators.biggan.BigGan` is the same
generator, folded for inference.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from s2v_cli.generators.biggan import CHANNELS, START, attention_side
from s2v_cli.generators.biggan_weights import NORM_EPSILON, SPECTRAL_EPSILON


def normed(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    """A layer with orthogonal weights, no bias to begin with, and spectral norm."""
    nn.init.orthogonal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return spectral_norm(layer, eps=SPECTRAL_EPSILON)


def convolution(inputs: int, outputs: int, size: int = 3, *, bias: bool = True) -> nn.Module:
    """A convolution with spectral norm that keeps the sides."""
    return normed(nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=bias))


class ConditionalNorm(nn.Module):
    """Batch norm with gain and bias from the condition: x [B, C, H, W], condition [B, F]."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=NORM_EPSILON, affine=False)
        self.gain = normed(nn.Linear(condition, channels, bias=False))
        self.bias = normed(nn.Linear(condition, channels, bias=False))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalise x, then scale and shift it."""
        gain = 1 + self.gain(condition)[:, :, None, None]
        return self.norm(x) * gain + self.bias(condition)[:, :, None, None]  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Self-attention of all pixels to 2x2 maxima (Zhang et al., 2019), [B, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.theta = convolution(channels, channels // 8, 1, bias=False)
        self.phi = convolution(channels, channels // 8, 1, bias=False)
        self.g = convolution(channels, channels // 2, 1, bias=False)
        self.o = convolution(channels // 2, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Add what each pixel attends to."""
        query = self.theta(x).flatten(2)  # [B, C/8, HW]
        key = F.max_pool2d(self.phi(x), 2).flatten(2)  # [B, C/8, HW/4]
        value = F.max_pool2d(self.g(x), 2).flatten(2)  # [B, C/2, HW/4]
        share = torch.softmax(query.mT @ key, dim=-1)
        seen = (value @ share.mT).view(len(x), -1, *x.shape[2:])
        return x + self.gamma * self.o(seen)  # type: ignore[no-any-return]


class GeneratorBlock(nn.Module):
    """Residual block that doubles the sides, [B, C, H, W] -> [B, C', 2H, 2W]."""

    def __init__(self, inputs: int, outputs: int, condition: int) -> None:
        super().__init__()
        self.bn1 = ConditionalNorm(inputs, condition)
        self.conv1 = convolution(inputs, outputs)
        self.bn2 = ConditionalNorm(outputs, condition)
        self.conv2 = convolution(outputs, outputs)
        self.conv_sc = convolution(inputs, outputs, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Make the next map from x under the condition."""
        y = F.interpolate(F.relu(self.bn1(x, condition)), scale_factor=2)
        y = F.relu(self.bn2(self.conv1(y), condition))
        # A 1x1 convolution and the doubling may change places: a quarter of the pixels.
        short = F.interpolate(self.conv_sc(x), scale_factor=2)
        return self.conv2(y) + short  # type: ignore[no-any-return]


class TrainedGenerator(nn.Module):
    """Noise [B, N] and z^V [B, D] -> image [B, 3, R, R] in [-1, 1].

    Args:
        dimension: D.
        resolution: R, 32, 64, 128 or 256.
        width: channels of the last block.
        chunk: size of the noise that the start and each block get.
        features: size of the embedding after the first linear layer.
    """

    def __init__(
        self, dimension: int, resolution: int, width: int, chunk: int, features: int
    ) -> None:
        super().__init__()
        channels = [width * times for times in CHANNELS[resolution]]
        self.chunk, self.noise_size = chunk, chunk * len(channels)
        self.shared_feat = normed(nn.Linear(dimension, features))
        self.linear = normed(nn.Linear(chunk, START * START * channels[0]))
        self.blocks = nn.ModuleList(
            GeneratorBlock(inputs, outputs, features + chunk)
            for inputs, outputs in pairwise(channels)
        )
        place = (attention_side(resolution) // START).bit_length() - 2  # after this block
        self.attention = nn.ModuleDict({str(place): Attention(channels[place + 1])})
        self.norm = nn.BatchNorm2d(width, eps=NORM_EPSILON)
        self.out = convolution(width, 3)

    def forward(self, noise: Tensor, embedding: Tensor) -> Tensor:
        """Make image [B, 3, R, R]; the embedding is brought to unit norm."""
        features = self.shared_feat(F.normalize(embedding, dim=-1))
        first, *chunks = noise.split(self.chunk, dim=1)
        x = self.linear(first).view(len(noise), -1, START, START)
        x = x.contiguous(memory_format=torch.channels_last)
        for index, (block, chunk) in enumerate(zip(self.blocks, chunks, strict=True)):
            x = block(x, torch.cat([features, chunk], dim=1))
            if str(index) in self.attention:
                x = self.attention[str(index)](x)
        return torch.tanh(self.out(F.relu(self.norm(x))))

    def published(self) -> dict[str, Tensor]:
        """Tensors under the names of the published generator, spectral norms within the weights.

        `s2v_cli.generators.biggan_weights.fold_trained` folds them for inference.
        """
        state: dict[str, Tensor] = {}

        def take(name: str, layer: nn.Module) -> None:
            for part in ("weight", "bias"):
                tensor = getattr(layer, part, None)
                if tensor is not None:
                    state[f"{name}.{part}"] = tensor.detach().clone()

        def statistics(name: str, norm: nn.BatchNorm2d) -> None:
            if norm.running_mean is not None and norm.running_var is not None:
                state[f"{name}.stored_mean"] = norm.running_mean.clone()
                state[f"{name}.stored_var"] = norm.running_var.clone()

        take("shared_feat", self.shared_feat)
        take("linear", self.linear)
        for index, block in enumerate(self.blocks):
            for part in ("conv1", "conv2", "conv_sc"):
                take(f"blocks.{index}.0.{part}", getattr(block, part))
            for part in ("bn1", "bn2"):
                norm, name = getattr(block, part), f"blocks.{index}.0.{part}"
                statistics(name, norm.norm)
                take(f"{name}.gain", norm.gain)
                take(f"{name}.bias", norm.bias)
        for place, attention in self.attention.items():
            for part in ("theta", "phi", "g", "o"):
                take(f"blocks.{place}.1.{part}", getattr(attention, part))
            state[f"blocks.{place}.1.gamma"] = cast(Attention, attention).gamma.detach().clone()
        statistics("output_layer.0", self.norm)
        state["output_layer.0.gain"] = self.norm.weight.detach().clone()
        state["output_layer.0.bias"] = self.norm.bias.detach().clone()
        take("output_layer.2", self.out)
        return state


class DiscriminatorBlock(nn.Module):
    """Residual block, [B, C, H, W] -> [B, C', H/2, W/2], or of the same sides."""

    def __init__(self, inputs: int, outputs: int, *, first: bool, halve: bool) -> None:
        super().__init__()
        self.first, self.halve = first, halve
        self.conv1 = convolution(inputs, outputs)
        self.conv2 = convolution(outputs, outputs)
        self.conv_sc = convolution(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Make the next map from x."""
        y = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        if self.halve:
            y, x = F.avg_pool2d(y, 2), F.avg_pool2d(x, 2)
        return y + self.conv_sc(x)  # type: ignore[no-any-return]


class Discriminator(nn.Module):
    """Image [B, 3, R, R] and z^V [B, D] -> score [B], high for a real picture near z^V.

    A projection discriminator (Miyato & Koyama, 2018, Eq. 4).

    Args:
        dimension: D.
        resolution: R.
        width: channels of the first block.
    """

    def __init__(self, dimension: int, resolution: int, width: int) -> None:
        super().__init__()
        widths = [width * times for times in reversed(CHANNELS[resolution])]
        blocks: list[nn.Module] = []
        side, inputs = resolution, 3
        for index, outputs in enumerate(widths):
            halve = index < len(widths) - 1
            blocks.append(DiscriminatorBlock(inputs, outputs, first=index == 0, halve=halve))
            side, inputs = side // 2 if halve else side, outputs
            if side == attention_side(resolution):
                blocks.append(Attention(outputs))
        self.blocks = nn.Sequential(*blocks)
        self.linear = normed(nn.Linear(inputs, 1))
        self.embed = normed(nn.Linear(dimension, inputs))

    def forward(self, image: Tensor, embedding: Tensor) -> Tensor:
        """Score images under embeddings, which are brought to unit norm."""
        pooled = F.relu(self.blocks(image)).sum(dim=(2, 3))
        projected = self.embed(F.normalize(embedding, dim=-1))
        return self.linear(pooled)[:, 0] + (projected * pooled).sum(dim=1)  # type: ignore[no-any-return]
