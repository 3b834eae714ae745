"""Stage `image_encoder`: f_V by supervised contrastive learning over photo groups.

A linear read-out of the crop's zoom keeps apparent size in the embedding, where the sound's level
can later point to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2v_cli.encoders.mini_image import IMAGE_SIZE, MiniImageEncoder
from s2v_cli.training import crops
from s2v_cli.training.dataset import Photo
from s2v_cli.training.loop import channels_last
from s2v_cli.training.losses import group_contrastive
from s2v_cli.training.precision import mixed_precision
from s2v_cli.training.recipe import StageOptions


class ImageStage:
    """Trains a `MiniImageEncoder` on photos uint8 [N, 3, 160, 160]."""

    name = "image_encoder"
    averaged: tuple[str, ...] = ("encoder", "zoom_head")

    def __init__(self, photos: Sequence[Photo], pixels: Tensor, options: StageOptions) -> None:
        self.options = options
        self.pixels = pixels
        groups = sorted({photo.group for photo in photos})
        self.group = torch.tensor([groups.index(photo.group) for photo in photos])
        split = [photo.split for photo in photos]
        self.train = torch.tensor([i for i, s in enumerate(split) if s == "train"])
        self.validation = torch.tensor([i for i, s in enumerate(split) if s == "validation"])
        counts = torch.bincount(self.group[self.train], minlength=len(groups)).float()
        self.weights = (1 / counts.sqrt())[self.group[self.train]]  # small groups more often
        encoder = MiniImageEncoder()
        channels_last(encoder)
        self.modules: dict[str, nn.Module] = {
            "encoder": encoder,
            "centres": nn.Linear(encoder.space.dimension, len(groups), bias=False),
            "zoom_head": nn.Linear(encoder.space.dimension, 1),
        }
        parameters = [p for module in self.modules.values() for p in module.parameters()]
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "all": torch.optim.AdamW(parameters, weight_decay=options.weight_decay)
        }

    def step(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """One batch of augmented crops."""
        chosen = torch.multinomial(self.weights, self.options.batch, False, generator=generator)
        index = self.train[chosen]
        zoom = crops.random_zoom(len(index), generator)
        images = crops.crop(self.pixels[index], zoom, IMAGE_SIZE, generator, wander=0.6)
        images = crops.change_colours(images, generator, 0.2)
        images = crops.erase(crops.soften(images, generator), generator, 0.2)
        encoder, head = self.modules["encoder"].train(), self.modules["zoom_head"].train()
        with mixed_precision():
            embedding = encoder(images.contiguous(memory_format=torch.channels_last))
        centres = cast(nn.Linear, self.modules["centres"]).weight
        contrast = group_contrastive(
            embedding, self.group[index], centres, self.options.temperature
        )
        zoom_error = F.mse_loss(head(embedding)[:, 0], zoom.log2() * 2 - 1)
        loss = contrast + self.options.weight("zoom") * zoom_error
        optimiser = self.optimisers["all"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return {"loss": loss.detach(), "zoom_error": zoom_error.detach()}

    def validate(self, averages: Mapping[str, nn.Module]) -> dict[str, float]:
        """Nearest group mean on validation photos; rank of the zoom read-out."""
        encoder = cast(MiniImageEncoder, averages["encoder"])
        generator = torch.Generator().manual_seed(0)
        means = F.normalize(self._means(encoder, generator), dim=1)
        embedding = embed_crops(
            encoder, self.pixels[self.validation], torch.ones(len(self.validation)), generator
        )
        right = (embedding @ means.T).argmax(1) == self.group[self.validation]
        zoom = crops.random_zoom(len(self.validation), generator)
        embedding = embed_crops(encoder, self.pixels[self.validation], zoom, generator)
        guess = averages["zoom_head"](embedding)[:, 0]
        correlation = torch.corrcoef(torch.stack([guess, zoom.log2()]))[0, 1]
        return {
            "validation_accuracy": float(right.float().mean()),
            "zoom_correlation": float(correlation),
        }

    def _means(self, encoder: MiniImageEncoder, generator: torch.Generator) -> Tensor:
        some = self.train[torch.randperm(len(self.train), generator=generator)[:3000]]
        embedding = embed_crops(encoder, self.pixels[some], torch.ones(len(some)), generator)
        sums = torch.zeros(int(self.group.max()) + 1, embedding.shape[1])
        return sums.index_add_(0, self.group[some], embedding)


@torch.no_grad()
def embed_crops(
    encoder: MiniImageEncoder, pixels: Tensor, zoom: Tensor, generator: torch.Generator
) -> Tensor:
    """z^V [N, 256] of photos uint8 [N, 3, S, S], cropped at zoom [N]."""
    rows = []
    for part, by in zip(pixels.split(128), zoom.split(128), strict=True):
        images = crops.crop(part, by, IMAGE_SIZE, generator)
        with mixed_precision():
            rows.append(encoder(images.contiguous(memory_format=torch.channels_last)).float())
    return torch.cat(rows)
