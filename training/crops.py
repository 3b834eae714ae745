"""Batched crops and colour changes of photos.

Zoom 1 is the whole photo; zoom 2 shows its half of side, enlarged. Training pairs loudness with
zoom, since sound pressure and apparent size fall alike with distance (§5.1).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_ZOOM = 2.0


def random_zoom(count: int, generator: torch.Generator) -> Tensor:
    """Zoom [count], log-uniform in [1, 2]."""
    return MAX_ZOOM ** torch.rand(count, generator=generator)


def crop(
    photos: Tensor, zoom: Tensor, size: int, generator: torch.Generator, wander: float = 0.5
) -> Tensor:
    """Crop photos uint8 [B, 3, S, S] at `zoom` [B] into float32 [B, 3, size, size] in [-1, 1].

    Half of the crops are mirrored; centres wander by up to `wander` of what fits.
    """
    count = len(photos)
    scale = 1 / zoom  # half-width of the crop in normalised coordinates
    room = (1 - scale) * wander
    shift = (torch.rand(count, 2, generator=generator) * 2 - 1) * room[:, None]
    flip = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    return cut(photos, zoom, shift, flip, size)


def cut(photos: Tensor, zoom: Tensor, shift: Tensor, flip: Tensor, size: int) -> Tensor:
    """Cut photos uint8 [B, 3, S, S] into float32 [B, 3, size, size] in [-1, 1], on their device.

    Args:
        photos: to cut.
        zoom: [B], 1 for the whole photo.
        shift: of the centres in half sides of the photo, x and y, [B, 2].
        flip: -1 to mirror, else 1, [B].
        size: side of the result, px.
    """
    count, scale = len(photos), 1 / zoom
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = scale * flip
    theta[:, 1, 1] = scale
    theta[:, :, 2] = shift
    theta = theta.to(photos.device)
    grid = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
    pixels = photos.float().div_(127.5).sub_(1)
    return F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)


def change_colours(images: Tensor, generator: torch.Generator, strength: float = 0.3) -> Tensor:
    """Random brightness, contrast and saturation of images [B, 3, H, W] in [-1, 1]."""
    count = len(images)
    amount = (torch.rand(3, count, 1, 1, 1, generator=generator) * 2 - 1) * strength
    amount = amount.to(images.device)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = (images - mean) * (1 + amount[0]) + mean + amount[1] * 0.7
    grey = images.mean(dim=1, keepdim=True)
    return ((images - grey) * (1 + amount[2]) + grey).clamp(-1, 1)


def soften(images: Tensor, generator: torch.Generator) -> Tensor:
    """Lower the resolution of images [B, 3, H, W] by a random factor of 1 to 2.

    A crop at zoom 2 is blurrier than one at zoom 1; this hides that cue, so that an encoder has
    to look at what is shown, not at how sharp it is.
    """
    size = images.shape[-1]
    factor = 1 + torch.rand(4, generator=generator)
    parts = []
    for part, by in zip(images.chunk(4), factor, strict=False):
        low = F.interpolate(part, size=int(size / by), mode="bilinear", antialias=True)
        parts.append(F.interpolate(low, size=size, mode="bilinear"))
    return torch.cat(parts)


def erase(images: Tensor, generator: torch.Generator, share: float = 0.3) -> Tensor:
    """Blank a random square, up to `share` of the side, in each of images [B, 3, H, W]."""
    count, _, height, width = images.shape
    side = torch.rand(count, generator=generator) * share
    centre = torch.rand(2, count, generator=generator)
    rows = (torch.arange(height) / height)[None] - centre[0, :, None]
    columns = (torch.arange(width) / width)[None] - centre[1, :, None]
    half = side[:, None] / 2
    inside = (rows.abs() < half)[:, :, None] & (columns.abs() < half)[:, None, :]
    return images.masked_fill(inside[:, None].to(images.device), 0.0)
