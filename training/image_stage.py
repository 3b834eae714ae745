"""Stage `image_encoder`: f_V by contrastive learning over photo groups.

Photos without a class are groups of their own, or of their video: then each photo of a batch is
seen twice, in two crops (SimCLR; Chen et al., 2020), and no centres are learned. A linear read-out
of the crop's zoom keeps apparent size in the embedding, where the sound's level can later point to
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2v_cli.encoders.mini_image import IMAGE_SIZE, MiniImageEncoder
from s2v_cli.training import crops
from s2v_cli.training.dataset import OWN, Photo
from s2v_cli.training.loop import channels_last
from s2v_cli.training.losses import group_contrastive
from s2v_cli.training.precision import CPU, device_of, mixed_precision
from s2v_cli.training.recipe import StageOptions

# Side of the crops in px, until a share of the steps.
SIZES = {
    "image_encoder": ((0.62, 64), (0.88, 96), (1.0, IMAGE_SIZE)),
    "refine": ((0.86, 96), (1.0, IMAGE_SIZE)),
}
MIXED = 0.3  # share of the images that another one is mixed into, where photos have classes
ERASED = 0.2  # side of the blanked square, up to
COLOURS = 0.2  # strength of the changes of colour
COLOURS_ALONE = 0.4  # the same without classes, where colour would tell each photo from all others


class ImageStage:
    """Trains a `MiniImageEncoder` on photos uint8 [N, 3, 160, 160].

    Stage `refine` goes on from the networks of `image_encoder`, on larger crops that are neither
    mixed nor partly blanked: an encoder that is still unsure of the photos that it was shown
    blurs everything that is learned from their embeddings.

    Args:
        name: "image_encoder" or "refine".
        photos: all of them; only the training split is learned.
        pixels: of the photos.
        options: of the training.
        start: networks to go on from, `encoder` and, where they are known, `centres` and
            `zoom_head`; unknown centres begin as the means of the groups.
        device: where it computes.

    Attributes:
        alone: whether there are photos without a class, so that each is seen twice.
    """

    averaged: tuple[str, ...] = ("encoder", "zoom_head")

    def __init__(
        self,
        name: str,
        photos: Sequence[Photo],
        pixels: Tensor,
        options: StageOptions,
        start: Mapping[str, nn.Module] | None = None,
        device: torch.device = CPU,
    ) -> None:
        self.name, self.options, self.device = name, options, device
        self.pixels = pixels
        groups = sorted({photo.group for photo in photos})
        places = {name: place for place, name in enumerate(groups)}
        self.group = torch.tensor([places[photo.group] for photo in photos])
        self.alone = any(name.startswith(OWN) for name in groups)
        split = [photo.split for photo in photos]
        self.train = torch.tensor([i for i, s in enumerate(split) if s == "train"]).long()
        held = [i for i, s in enumerate(split) if s == "validation"]
        self.validation = torch.tensor(held).long()
        counts = torch.bincount(self.group[self.train], minlength=len(groups)).float()
        self.weights = (1 / counts.sqrt())[self.group[self.train]]  # small groups more often
        encoder = MiniImageEncoder()
        channels_last(encoder)
        size = encoder.space.dimension
        self.modules: dict[str, nn.Module] = {"encoder": encoder}
        if not self.alone:
            self.modules["centres"] = nn.Linear(size, len(groups), bias=False)
        self.modules["zoom_head"] = nn.Linear(size, 1)
        for name, module in (start or {}).items():
            self.modules[name].load_state_dict(module.state_dict())
        if start is not None and not self.alone and "centres" not in start:
            means = self._means(encoder.eval(), torch.Generator().manual_seed(0))
            cast(nn.Linear, self.modules["centres"]).weight.data.copy_(F.normalize(means, dim=1))
        for module in self.modules.values():
            module.to(device)
        parameters = [p for module in self.modules.values() for p in module.parameters()]
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "all": torch.optim.AdamW(parameters, weight_decay=options.weight_decay)
        }

    def _draw(self, generator: torch.Generator) -> Tensor:
        """Indices of the photos of a batch; without classes each is there twice."""
        views = 2 if self.alone else 1
        count = min(max(2, self.options.batch // views), len(self.train))
        chosen = torch.multinomial(self.weights, count, False, generator=generator)
        return self.train[chosen].repeat(views)

    def step(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """One batch of augmented crops."""
        index = self._draw(generator)
        zoom = crops.random_zoom(len(index), generator)
        sizes = SIZES[self.name]
        size = next(size for until, size in sizes if step < until * self.options.steps)
        photos = self.pixels[index].to(self.device)
        images = crops.crop(photos, zoom, IMAGE_SIZE, generator, wander=0.6)
        if size != IMAGE_SIZE:
            images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
        images = crops.change_colours(images, generator, COLOURS_ALONE if self.alone else COLOURS)
        images = crops.soften(images, generator)
        share = torch.zeros(len(index))
        if self.name == "image_encoder":
            images = crops.erase(images, generator, ERASED)
            chosen = torch.rand(len(index), generator=generator) < MIXED
            share = torch.rand(len(index), generator=generator) / 2
            share = share * (chosen & (not self.alone))
        mixed = share[:, None, None, None].to(self.device)
        images = torch.lerp(images, images.roll(1, 0), mixed)
        encoder = cast(MiniImageEncoder, self.modules["encoder"].train())
        head = self.modules["zoom_head"].train()
        with mixed_precision(self.device):
            maps = encoder.maps(images.contiguous(memory_format=torch.channels_last))
        embedding = encoder.embed(maps)
        centres = None if self.alone else cast(nn.Linear, self.modules["centres"]).weight
        group = self.group[index]
        contrast = group_contrastive(
            embedding, group, centres, self.options.temperature, group.roll(1), share
        )
        plain = torch.nonzero(share == 0)[:, 0]
        guess = head(embedding)[:, 0][plain.to(self.device)]
        zoom_error = F.mse_loss(guess, (zoom[plain].log2() * 2 - 1).to(self.device))
        loss = contrast + self.options.weight("zoom") * zoom_error
        optimiser = self.optimisers["all"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return {"loss": loss.detach(), "zoom_error": zoom_error.detach()}

    def validate(self, averages: Mapping[str, nn.Module]) -> dict[str, float]:
        """Nearest group mean on validation photos; rank of the zoom read-out.

        Without classes, the share of validation photos of which one crop lies nearest to another
        of the same group. Nothing where there are no validation photos.
        """
        encoder = cast(MiniImageEncoder, averages["encoder"])
        generator = torch.Generator().manual_seed(0)
        if len(self.validation) < 2:
            return {}
        own = self.group[self.validation]
        if self.alone:
            first, second = (
                embed_crops(
                    encoder,
                    self.pixels[self.validation],
                    crops.random_zoom(len(own), generator),
                    generator,
                )
                for _ in range(2)
            )
            right = own[(first @ second.T).argmax(1)] == own
        else:
            means = F.normalize(self._means(encoder, generator), dim=1)
            embedding = embed_crops(
                encoder, self.pixels[self.validation], torch.ones(len(own)), generator
            )
            right = (embedding @ means.T).argmax(1) == own
        zoom = crops.random_zoom(len(own), generator)
        embedding = embed_crops(encoder, self.pixels[self.validation], zoom, generator)
        guess = averages["zoom_head"](embedding.to(self.device))[:, 0].cpu()
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
    """z^V [N, 256], on the CPU, of photos uint8 [N, 3, S, S], cropped at zoom [N]."""
    rows, device = [], device_of(encoder)
    for part, by in zip(pixels.split(128), zoom.split(128), strict=True):
        images = crops.crop(part.to(device), by, IMAGE_SIZE, generator)
        with mixed_precision(device):
            found = encoder(images.contiguous(memory_format=torch.channels_last))
        rows.append(found.float().cpu())
    return torch.cat(rows)
