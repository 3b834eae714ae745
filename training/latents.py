"""Crops of all photos, encoded once: latents, image embeddings, zoom and group.

The codec and the image encoder are frozen when the flow and the sound encoder are trained, so
their outputs never change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from s2v_cli.encoders.mini_image import MiniImageEncoder
from s2v_cli.generators.mini_codec import LatentEncoder
from s2v_cli.training import crops
from s2v_cli.training.dataset import Photo
from s2v_cli.training.loop import channels_last, load_checkpoint, save_checkpoint
from s2v_cli.training.precision import device_of, mixed_precision

CROPS = 6  # crops of each photo
WANDER = 0.3  # of their centres: what a photo shows is mostly in its middle
NEIGHBOURS = 0.15  # share of a group's crops that counts as "of like zoom", to each side


@dataclass
class CropTable:
    """Encoded crops, ordered by group and, within a group, by zoom.

    Attributes:
        latent: float16 [N, 16, 8, 8].
        embedding: z^V, float32 [N, 256], unit norm.
        zoom: float32 [N], 1 to 2.
        group: int64 [N], an index into `names`.
        first, count: where each group starts and how many crops it has, int64 [G].
        names: of the groups.
    """

    latent: Tensor
    embedding: Tensor
    zoom: Tensor
    group: Tensor
    first: Tensor
    count: Tensor
    names: list[str]

    def like(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """For each crop of index [B] one of the same group and of like zoom, [B]."""
        group = self.group[index]
        reach = (self.count[group] * NEIGHBOURS).clamp_min(1)
        step = (torch.rand(len(index), generator=generator) * 2 - 1) * reach
        low = self.first[group]
        moved = index + step.round().long()
        return torch.maximum(low, torch.minimum(moved, low + self.count[group] - 1))

    def at_zoom(self, group: Tensor, zoom: Tensor, generator: torch.Generator) -> Tensor:
        """A crop of each group [B] near each zoom [B], as an index [B]."""
        share = zoom.log2().clamp(0, 1)  # zooms are log-uniform, so this is the rank
        rank = (share * (self.count[group] - 1)).round().long()
        return self.like(self.first[group] + rank, generator)


@torch.no_grad()
def encode_crops(
    photos: Sequence[Photo],
    pixels: Tensor,
    index: Tensor,
    image_encoder: MiniImageEncoder,
    latent_encoder: LatentEncoder | None,
    seed: int,
    file: Path,
    progress: Callable[[str, int, int, dict[str, float]], None] | None = None,
) -> CropTable:
    """Encode the crops of some photos where the encoders lie, or read them back from `file`.

    Args:
        photos: to encode.
        pixels: of all photos, uint8 [M, 3, 160, 160].
        index: where among them the photos are, int64 [N].
        image_encoder: f_V.
        latent_encoder: of the codec; without it the latents are empty, [N, 0].
        seed: of the crops.
        file: where they are kept.
        progress: called with stage, step, steps and figures.

    Raises:
        TrainingError: the file cannot be written or read.
    """
    names = sorted({photo.group for photo in photos})
    places = {name: place for place, name in enumerate(names)}
    if not file.is_file():
        channels_last(image_encoder.eval(), *([latent_encoder.eval()] if latent_encoder else []))
        generator, device = torch.Generator().manual_seed(seed), device_of(image_encoder)
        group = torch.tensor([places[photo.group] for photo in photos])
        latents, embeddings, zooms = [], [], []
        for turn in range(CROPS):
            zoom = crops.random_zoom(len(index), generator)
            for part, by in zip(index.split(128), zoom.split(128), strict=True):
                images = crops.crop(pixels[part].to(device), by, 128, generator, WANDER)
                images = images.contiguous(memory_format=torch.channels_last)
                with mixed_precision(device):
                    latents.append(
                        latent_encoder(images).half().cpu()
                        if latent_encoder
                        else torch.zeros(len(part), 0, dtype=torch.float16)
                    )
                    embeddings.append(image_encoder(images).float().cpu())
            zooms.append(zoom)
            if progress:
                progress("encode", turn + 1, CROPS, {})
        group = group.repeat(CROPS)
        zoom = torch.cat(zooms)
        order = torch.argsort(group.double() * 10 + zoom.double())
        state = {
            "latent": torch.cat(latents)[order].contiguous(),
            "embedding": torch.cat(embeddings)[order].contiguous(),
            "zoom": zoom[order],
            "group": group[order],
        }
        save_checkpoint(file, state)
    state = load_checkpoint(file, mapped=True)
    count = torch.bincount(state["group"], minlength=len(names))
    first = count.cumsum(0) - count
    return CropTable(**state, first=first, count=count, names=names)


def blended_embedding(
    table: CropTable, index: Tensor, members: int, generator: torch.Generator
) -> Tensor:
    """Unit mean of the z^V of `members` crops like each of index [B]: [B, 256].

    A sound says less than a photo does, so its embedding lies near such means; a generator that
    has seen them draws from it what it would from a photo's.
    """
    rows = [table.embedding[index]]
    rows += [table.embedding[table.like(index, generator)] for _ in range(members - 1)]
    return F.normalize(torch.stack(rows).mean(dim=0), dim=1)
