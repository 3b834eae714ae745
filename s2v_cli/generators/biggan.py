"""The generator of the GAN route: ICGAN's BigGAN at 128 or 256 px, or one trained here.

The network is the published one, folded for inference when its weights are converted
(`biggan_weights`): spectral norms into the weights, the statistics of each conditional batch norm
into one linear layer that gives its scale and shift, the attention's gain and the last batch norm
into the convolutions before them, and the doubling of each block into its first convolution.
Everything here is [B, H, W, C], the layout in which the convolutions are fastest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2v_cli.generators.repeated import Repeated
from s2v_cli.space import SWAV_SPACE, EmbeddingSpace

WIDTH = 96  # channels of the last block
START = 4  # px, side of the first map
FEATURES = 512  # size of the embedding after the first linear layer
# For each resolution, channels before and after its blocks in units of the width.
CHANNELS = {
    32: (4, 4, 2, 1),
    64: (8, 8, 4, 2, 1),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
}
PUBLISHED = (128, 256)  # the others are only trained here
CHUNKS = {32: 20, 64: 20, 128: 20, 256: 17}  # size of each block's share of the noise
ATTENTION_AT = 64  # px; small pictures have it before their last block
MATRIX_PIXELS = 64  # maps up to so many pixels are convolved as one matrix product


class Convolution(nn.Module):
    """3x3 convolution with zeros around, [B, H, W, C] -> [B, H, W, C'].

    Few pixels under many channels are bound by reading the weights, which a convolution reorders
    each time and a matrix product does not.
    """

    def __init__(self, inputs: int, outputs: int, side: int) -> None:
        super().__init__()
        self.matrix = side * side <= MATRIX_PIXELS
        # Three dimensions: the order in memory must survive a change of memory format.
        self.weight = nn.Parameter(torch.empty(outputs, 9, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x [B, H, W, C]."""
        if self.matrix:
            return F.linear(neighbours(x, 3, 0, 0), self.weight.flatten(1), self.bias)
        outputs, _, inputs = self.weight.shape
        weight = self.weight.view(outputs, 3, 3, inputs).permute(0, 3, 1, 2)
        return F.conv2d(x.permute(0, 3, 1, 2), weight, self.bias, padding=1).permute(0, 2, 3, 1)


class UpConvolution(nn.Module):
    """Doubling by repetition and a 3x3 convolution at once, [B, H, W, C] -> [B, 2H, 2W, C'].

    Each output pixel sees only 2x2 different input pixels, so that 16 products do for four
    outputs instead of 36: a transposed convolution with stride 2 and a 4x4 kernel. On small maps
    it is one matrix product for each of the four positions; on the smallest, with the largest
    weights, the plain convolution, whose weights are half the size.
    """

    def __init__(self, inputs: int, outputs: int, side: int) -> None:
        super().__init__()
        self.kind = up_kind(side)
        shape = {
            "plain": (outputs, 9, inputs),
            "matrix": (4, outputs, 4 * inputs),
            "transposed": (inputs, 16, outputs),
        }[self.kind]
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Double and convolve x [B, H, W, C]."""
        batch, height, width, _ = x.shape
        if self.kind == "plain":
            doubled = x.repeat_interleave(2, 1).repeat_interleave(2, 2)
            return F.linear(neighbours(doubled, 3, 0, 0), self.weight.flatten(1), self.bias)
        if self.kind == "matrix":
            positions = [
                F.linear(neighbours(x, 2, row, column), self.weight[2 * row + column], self.bias)
                for row in (0, 1)
                for column in (0, 1)
            ]
            stacked = torch.stack(positions, dim=3).view(batch, height, width, 2, 2, -1)
            return stacked.transpose(2, 3).reshape(batch, 2 * height, 2 * width, -1)
        inputs, _, outputs = self.weight.shape
        weight = self.weight.view(inputs, 4, 4, outputs).permute(0, 3, 1, 2)
        y = F.conv_transpose2d(x.permute(0, 3, 1, 2), weight, self.bias, stride=2, padding=1)
        return y.permute(0, 2, 3, 1)


def up_kind(side: int) -> str:
    """How an `UpConvolution` of maps with this side stores its weights."""
    if side == START:
        return "plain"
    return "matrix" if side * side <= MATRIX_PIXELS else "transposed"


def neighbours(x: Tensor, size: int, row: int, column: int) -> Tensor:
    """Each pixel's surroundings side by side, zeros outside: [B, H, W, C] -> [B, H, W, size² C].

    The square of `size` begins one pixel up and left of the pixel, moved by `row` and `column`.
    """
    _, height, width, _ = x.shape
    padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    return torch.cat(
        [
            padded[:, row + y : row + y + height, column + z : column + z + width]
            for y in range(size)
            for z in range(size)
        ],
        dim=3,
    )


class Block(nn.Module):
    """Residual block that doubles the sides, [B, H, W, C] -> [B, 2H, 2W, C'].

    Both batch norms are scale and shift by linear layers of the condition [B, features + chunk].
    """

    def __init__(self, inputs: int, outputs: int, side: int, condition: int) -> None:
        super().__init__()
        self.norm1 = nn.Linear(condition, 2 * inputs)
        self.up = UpConvolution(inputs, outputs, side)
        self.norm2 = nn.Linear(condition, 2 * outputs)
        self.conv = Convolution(outputs, outputs, 2 * side)
        self.shortcut = nn.Linear(inputs, outputs, bias=False)  # its bias is within conv's

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Make the next map from x under the condition."""
        batch, height, width, _ = x.shape
        y: Tensor = self.up(modulated(x, self.norm1(condition)))
        y = self.conv(modulated(y, self.norm2(condition)))
        # A 1x1 convolution and the doubling may change places: a quarter of the pixels.
        short: Tensor = self.shortcut(x)
        short = short.view(batch, height, 1, width, 1, -1)
        return (y.reshape(batch, height, 2, width, 2, -1) + short).view(y.shape)


def modulated(x: Tensor, scale_and_shift: Tensor) -> Tensor:
    """Rectified x [B, H, W, C] after a scale and a shift [B, 2C] for each channel."""
    scale, shift = scale_and_shift[:, None, None].chunk(2, dim=3)
    return torch.addcmul(shift, x, scale).relu_()


class Attention(nn.Module):
    """Self-attention of all pixels to 2x2 maxima, added to the map [B, H, W, C]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.key = channels // 8
        self.query = nn.Linear(channels, self.key, bias=False)
        self.key_value = nn.Linear(channels, self.key + channels // 2, bias=False)
        self.out = nn.Linear(channels // 2, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add what each pixel attends to."""
        query = self.query(x).flatten(1, 2)
        pooled = F.max_pool2d(self.key_value(x).permute(0, 3, 1, 2), 2)
        key, value = pooled.flatten(2).mT.split([self.key, pooled.shape[1] - self.key], dim=2)
        # Zeros up to the size of the values do not change the products, and only equal sizes
        # are worked on in blocks, without the whole [4096, 1024] table: twice as fast.
        more = (0, value.shape[2] - self.key)
        heads = (F.pad(query, more)[:, None], F.pad(key, more)[:, None], value[:, None])
        seen = F.scaled_dot_product_attention(*heads, scale=1.0)
        added: Tensor = self.out(seen)
        return x + added.view(x.shape)


def attention_side(resolution: int) -> int:
    """Side of the map that has the attention, px: never the last, whose norm is folded away."""
    return min(ATTENTION_AT, resolution // 2)


class BigGan(nn.Module):
    """Noise [B, N] and z [B, D] -> image [B, 3, R, R] in [-1, 1]; differentiable in both.

    Args:
        resolution: R, 32, 64, 128 or 256.
        width: channels of the last block; the published ones have 96.
        chunk: size of the noise that the start and each block get; 20 or 17.
        features: size of the embedding after the first linear layer.
        space: of the embeddings; that of the published ones is SwAV's, D = 2048.
    """

    space = SWAV_SPACE
    pictures_at_once = 8

    def __init__(
        self,
        resolution: int = 128,
        width: int = WIDTH,
        chunk: int | None = None,
        features: int = FEATURES,
        space: EmbeddingSpace = SWAV_SPACE,
    ) -> None:
        super().__init__()
        self.space = space
        channels = [width * times for times in CHANNELS[resolution]]
        self.resolution = resolution
        self.chunk = CHUNKS[resolution] if chunk is None else chunk
        self.noise_size = self.chunk * len(channels)
        self.embed = nn.Linear(self.space.dimension, features)
        self.start = nn.Linear(self.chunk, START * START * channels[0])
        self.blocks = nn.ModuleList()
        self.attention = nn.ModuleDict()
        for index, (inputs, outputs) in enumerate(pairwise(channels)):
            side = START * 2**index
            self.blocks.append(Block(inputs, outputs, side, features + self.chunk))
            if 2 * side == attention_side(resolution):
                self.attention[str(index)] = Attention(outputs)
        self.out = Convolution(width, 3, resolution)
        self._repeated = Repeated(self._draw)

    @classmethod
    def like(cls, tensors: Mapping[str, Tensor], space: EmbeddingSpace = SWAV_SPACE) -> Self:
        """A network, without weights, of the resolution and widths that `tensors` have.

        Raises:
            KeyError: the tensors are not of such a network.
        """
        blocks = 1 + max(
            (int(key.split(".")[1]) for key in tensors if key.startswith("blocks.")), default=-1
        )
        resolution = START * 2**blocks
        features, chunk = len(tensors["embed.weight"]), tensors["start.weight"].shape[1]
        with torch.device("meta"):
            return cls(resolution, tensors["out.weight"].shape[2], chunk, features, space)

    def forward(self, noise: Tensor, embedding: Tensor) -> Tensor:
        """Make image [B, 3, R, R] in [-1, 1] from noise [B, N] and embedding [B, D].

        The embedding's length does not matter: it is brought to unit norm.
        """
        return self._repeated(noise, embedding, self.out.weight)

    def _draw(self, noise: Tensor, embedding: Tensor) -> Tensor:
        features = self.embed(F.normalize(embedding, dim=-1))
        first, *chunks = noise.split(self.chunk, dim=1)
        x = self.start(first).view(len(noise), START, START, -1)
        for index, (block, chunk) in enumerate(zip(self.blocks, chunks, strict=True)):
            x = block(x, torch.cat([features, chunk], dim=1))
            if str(index) in self.attention:
                x = self.attention[str(index)](x)
        return torch.tanh(self.out(F.relu(x))).permute(0, 3, 1, 2)

    def tunable_parameters(self) -> Iterator[nn.Parameter]:
        """Weights that paint: not those that read noise and embedding, so that edits work on."""
        for name, parameter in self.named_parameters():
            if not name.startswith(("embed.", "start.")) and ".norm" not in name:
                yield parameter

    def truncate(self, noise: Tensor, truncation: float | None) -> Tensor:
        """Noise [B, N] as ICGAN's own demonstration draws it; see `truncated`."""
        return truncated(noise, truncation)


def truncated(noise: Tensor, truncation: float | None) -> Tensor:
    """Draws of N(0, 1) as draws of N(0, 1) cut off at twice the truncation.

    The published demonstration draws them so, at 0.7, from another generator of random numbers;
    here each draw is moved to the same quantile, so that a seed stays the same picture, more
    typical. None or 1 and more leave the noise as it is, as the published Sound2Scene does.

    Args:
        noise: standard normal, any shape.
        truncation: more than 0.
    """
    if truncation is None or truncation >= 1:
        return noise
    exact = noise.double()
    share: Tensor = torch.special.ndtr(exact.new_tensor(-2.0 * truncation))  # below the lower bound
    # The lower half, mirrored: quantiles near 1 would be rounded.
    quantile = share + torch.special.ndtr(-exact.abs()) * (1 - 2 * share)
    depth: Tensor = -torch.special.ndtri(quantile)
    return (depth * exact.sign()).to(noise.dtype)
