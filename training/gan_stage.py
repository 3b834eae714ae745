"""Stage `gan`: a generator under a frozen image encoder's embeddings (§3.2).

BigGAN as ICGAN trains it (Casanova et al., 2021): an embedding stands where a class would, and the
real pictures that the discriminator sees with it are drawn from its k nearest neighbours, so that
the generator learns what pictures like this one look like, and not this one. No labels are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2v_cli.encoders import ImageEncoder, PreparesPictures
from s2v_cli.generators.biggan import BigGan
from s2v_cli.generators.biggan_weights import fold_trained
from s2v_cli.picture import to_image
from s2v_cli.space import EmbeddingSpace
from s2v_cli.training import crops
from s2v_cli.training.gan_networks import Discriminator, TrainedGenerator
from s2v_cli.training.loop import channels_last, load_checkpoint, save_checkpoint
from s2v_cli.training.precision import mixed_precision
from s2v_cli.training.recipe import GanOptions

SEEN = 128  # px, side of the views that an encoder with no way of its own to cut pictures sees
AT_ONCE = 64  # views that are encoded at once
MEASURED = 256  # validation conditions that pictures are drawn under
MOVED = 1 / 8  # of the side: how far the discriminator sees pictures moved at most
CUT = 1 / 2  # of the side: the square that it does not see
CPU = torch.device("cpu")

Progress = Callable[[str, int, int, dict[str, float]], None]


@dataclass
class Conditions:
    """Views of photos, their embeddings, and which of them are near each other.

    Attributes:
        embedding: z^V, float32 [M, D], unit norm.
        photo: index of the photo of each view, int64 [M].
        zoom: of each view, float32 [M].
        shift: of its centre, in half sides of the photo, float32 [M, 2].
        neighbours: the k views of the highest cosine, the view itself first, int64 [M, k].
    """

    embedding: Tensor
    photo: Tensor
    zoom: Tensor
    shift: Tensor
    neighbours: Tensor

    def near(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """For each of the views [B] one of its neighbours, [B]."""
        rank = torch.randint(self.neighbours.shape[1], (len(index),), generator=generator)
        return self.neighbours[index, rank]

    def views(self, pixels: Tensor, index: Tensor, size: int, flip: Tensor) -> Tensor:
        """Views [B] of photos uint8 [N, 3, S, S] as float32 [B, 3, size, size] in [-1, 1]."""
        photos = pixels[self.photo[index]]
        finer = max(1, photos.shape[-1] // (2 * size))  # bilinear samples see two pixels at most
        views = crops.cut(photos, self.zoom[index], self.shift[index], flip, finer * size)
        return F.avg_pool2d(views, finer)


def stored_size(resolution: int) -> int:
    """Side of the photos that views of this side are cut from, px; they are whole multiples."""
    return max(SEEN, 2 * resolution)


@torch.no_grad()
def find_conditions(
    pixels: Tensor,
    index: Tensor,
    encoder: ImageEncoder,
    options: GanOptions,
    seed: int,
    file: Path,
    progress: Progress | None = None,
) -> Conditions:
    """Embed views of some photos and find their neighbours, or read them back from `file`.

    Args:
        pixels: of all photos, uint8 [N, 3, S, S].
        index: of the photos to take, int64 [n].
        encoder: the frozen image encoder.
        options: how many views and neighbours.
        seed: of the views.
        file: where they are kept.
        progress: called with stage, step, steps and figures.

    Raises:
        TrainingError: the file cannot be written or read.
    """
    if not file.is_file():
        generator = torch.Generator().manual_seed(seed)
        count = len(index)
        photo = index.repeat(options.views)
        zoom = torch.ones(len(photo))
        zoom[count:] = crops.random_zoom(len(photo) - count, generator)
        room = (1 - 1 / zoom)[:, None] * 0.6
        shift = (torch.rand(len(photo), 2, generator=generator) * 2 - 1) * room
        found = Conditions(torch.zeros(0), photo, zoom, shift, torch.zeros(0))
        rows, own_cut = [], isinstance(encoder, PreparesPictures)
        side = pixels.shape[-1] if own_cut else SEEN
        for part in torch.arange(len(photo)).split(AT_ONCE):
            views = found.views(pixels, part, side, torch.ones(len(part)))
            rows.append(embed_images(encoder, views))
            if progress:
                progress("conditions", int(part[-1]) + 1, len(photo), {})
        embedding = torch.cat(rows)
        state = {
            "embedding": embedding,
            "photo": photo,
            "zoom": zoom,
            "shift": shift,
            "neighbours": nearest(embedding, options.neighbours),
        }
        save_checkpoint(file, state)
    return Conditions(**load_checkpoint(file, mapped=True))


@torch.no_grad()
def embed_images(encoder: ImageEncoder, images: Tensor) -> Tensor:
    """z^V of images [B, 3, S, S] in [-1, 1], float32 [B, D], unit norm, on the CPU."""
    device = next((p.device for p in cast(nn.Module, encoder).parameters()), CPU)
    if isinstance(encoder, PreparesPictures):
        images = torch.stack([encoder.prepare(to_image(image)) for image in images.float().cpu()])
    return F.normalize(encoder(images.to(device)).float(), dim=1).cpu()


def nearest(embedding: Tensor, count: int) -> Tensor:
    """The rows of the highest cosine to each row of unit embeddings [M, D], int64 [M, k].

    A row is its own first neighbour; k is `count`, or M where there are fewer.
    """
    count = min(count, len(embedding))
    rows = []
    for start in range(0, len(embedding), 1024):
        cosine = embedding[start : start + 1024] @ embedding.T
        own = torch.arange(len(cosine))
        cosine[own, own + start] = 2.0  # before its copies, if it has any
        rows.append(cosine.topk(count, dim=1).indices)
    return torch.cat(rows)


def hinge_of_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of the discriminator's scores [B] (Lim & Ye, 2017; Brock et al., 2019), 0-d."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_of_generator(fake: Tensor) -> Tensor:
    """The generator's side of it: minus the mean score of its pictures, 0-d."""
    return -fake.mean()


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Colour, translation and cutout of images [B, 3, S, S] (Zhao et al., 2020), differentiable.

    The discriminator sees real and drawn pictures so, and cannot learn few photos by heart.
    """
    count, _, side, _ = images.shape
    device = images.device
    amount = torch.rand(3, count, 1, 1, 1, generator=generator).to(device)
    images = images + amount[0] - 0.5
    grey = images.mean(dim=1, keepdim=True)
    images = (images - grey) * (2 * amount[1]) + grey
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = (images - mean) * (0.5 + amount[2]) + mean

    reach = round(side * MOVED)
    moved = torch.randint(2 * reach + 1, (2, count, 1), generator=generator).to(device)
    rows, columns = moved + torch.arange(side, device=device)
    padded = F.pad(images, (reach,) * 4).permute(0, 2, 3, 1)
    number = torch.arange(count, device=device)[:, None, None]
    images = padded[number, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)

    centre = torch.rand(2, count, 1, generator=generator).to(device) * side
    place = torch.arange(side, device=device) + 0.5
    hidden = (place - centre).abs() < side * CUT / 2  # [2, B, S]
    return images.masked_fill((hidden[0, :, :, None] & hidden[1, :, None])[:, None], 0.0)


class GanStage:
    """Trains a `TrainedGenerator` against a `Discriminator`.

    Args:
        pixels: of all photos, uint8 [N, 3, S, S].
        train: conditions of the training photos.
        validation: of the validation photos, if there are any.
        encoder: the frozen image encoder; only looks at pictures when they are validated.
        options: of the training.
        device: where it computes.
    """

    name = "gan"
    averaged: tuple[str, ...] = ("generator",)

    def __init__(
        self,
        pixels: Tensor,
        train: Conditions,
        validation: Conditions | None,
        encoder: ImageEncoder,
        options: GanOptions,
        device: torch.device = CPU,
    ) -> None:
        self.pixels, self.train, self.validation = pixels, train, validation
        self.encoder, self.options, self.device = encoder, options, device
        dimension = train.embedding.shape[1]
        generator = TrainedGenerator(
            dimension, options.resolution, options.width, options.chunk, options.features
        )
        discriminator = Discriminator(dimension, options.resolution, options.width)
        self.modules: dict[str, nn.Module] = {
            "generator": generator.to(device),
            "discriminator": discriminator.to(device),
        }
        channels_last(*self.modules.values())
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.AdamW(
                [{"params": list(module.parameters()), "lr_scale": scale}],
                betas=(0.0, 0.999),
                eps=1e-6,
                weight_decay=options.weight_decay,
            )
            for (name, module), scale in zip(
                self.modules.items(), (1.0, options.discriminator_ratio), strict=True
            )
        }

    def step(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The discriminator's steps, then one of the generator."""
        for _ in range(self.options.discriminator_steps):
            hinge, penalty = self._train_discriminator(generator)
        fooled = self._train_generator(generator)
        return {
            "loss": hinge + fooled + penalty,
            "hinge": hinge,
            "fooled": fooled,
            "penalty": penalty,
        }

    def _draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Indices, embeddings and noise of a batch, the last two on the device."""
        count = self.options.batch
        index = torch.randint(len(self.train.embedding), (count,), generator=generator)
        noise = torch.randn(count, self._generator.noise_size, generator=generator)
        return index, self.train.embedding[index].to(self.device), noise.to(self.device)

    @property
    def _generator(self) -> TrainedGenerator:
        return cast(TrainedGenerator, self.modules["generator"])

    def _seen(self, images: Tensor, generator: torch.Generator) -> Tensor:
        images = augment(images, generator) if self.options.augment else images
        return images.contiguous(memory_format=torch.channels_last)

    def _train_discriminator(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        options, discriminator = self.options, self.modules["discriminator"].train()
        index, embedding, noise = self._draw(generator)
        flip = torch.where(torch.rand(len(index), generator=generator) < 0.5, -1.0, 1.0)
        near = self.train.near(index, generator)
        real = self.train.views(self.pixels, near, options.resolution, flip).to(self.device)
        with torch.no_grad(), mixed_precision():
            fake = self._generator.train()(noise, embedding).float()
        real, fake = self._seen(real, generator), self._seen(fake, generator)
        real.requires_grad_(options.gradient_penalty > 0)
        with mixed_precision():
            score = discriminator(torch.cat([real, fake]), torch.cat([embedding, embedding]))
        of_real, of_fake = score.float().chunk(2)
        hinge = hinge_of_discriminator(of_real, of_fake)
        penalty = torch.zeros((), device=self.device)
        if options.gradient_penalty > 0:
            (slope,) = torch.autograd.grad(of_real.sum(), real, create_graph=True)
            penalty = options.gradient_penalty / 2 * slope.square().sum(dim=(1, 2, 3)).mean()
        self._descend("discriminator", hinge + penalty)
        return hinge.detach(), penalty.detach()

    def _train_generator(self, generator: torch.Generator) -> Tensor:
        discriminator = self.modules["discriminator"].train().requires_grad_(False)
        _, embedding, noise = self._draw(generator)
        with mixed_precision():
            fake = self._generator.train()(noise, embedding).float()
            score = discriminator(self._seen(fake, generator), embedding)
        fooled = hinge_of_generator(score.float())
        self._descend("generator", fooled)
        discriminator.requires_grad_(True)
        return fooled.detach()

    def _descend(self, name: str, loss: Tensor) -> None:
        self.optimisers[name].zero_grad()
        loss.backward()
        self.optimisers[name].step()

    @torch.no_grad()
    def settle(self, generator: nn.Module) -> None:
        """Give an averaged generator its own batch-norm statistics, and put it in eval mode.

        Those that were gathered in training belong to other weights (Brock et al., 2019, App. C,
        "standing statistics").
        """
        random = torch.Generator().manual_seed(0)
        norms = [m for m in generator.modules() if isinstance(m, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean
        generator.train()
        for _ in range(self.options.standing):
            _, embedding, noise = self._draw(random)
            generator(noise, embedding)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        generator.eval()

    def validate(self, averages: Mapping[str, nn.Module]) -> dict[str, float]:
        """How near pictures drawn under validation embeddings come to them, if there are any.

        The mean cosine, and the share of pictures to which their own embedding is the nearest.
        """
        self.settle(averages["generator"])
        if self.validation is None:
            return {}
        random = torch.Generator().manual_seed(0)
        every = max(1, len(self.validation.embedding) // MEASURED)
        wanted = self.validation.embedding[::every][:MEASURED]
        noise = torch.randn(len(wanted), self._generator.noise_size, generator=random)
        got = torch.cat(
            [
                embed_images(
                    self.encoder,
                    averages["generator"](z.to(self.device), by.to(self.device)).float(),
                )
                for z, by in zip(noise.split(AT_ONCE), wanted.split(AT_ONCE), strict=True)
            ]
        )
        cosine = got @ wanted.T
        found = cosine.argmax(dim=1) == torch.arange(len(wanted))
        return {
            "validation_cosine": float(cosine.diagonal().mean()),
            "validation_found": float(found.float().mean()),
        }


def inference_generator(generator: TrainedGenerator, space: EmbeddingSpace) -> BigGan:
    """The same generator, folded: what a preset holds.

    Args:
        generator: in eval mode.
        space: of the embeddings.
    """
    tensors = fold_trained(generator.cpu().published())
    folded = BigGan.like(tensors, space)
    folded.load_state_dict(tensors, assign=True)
    return folded.eval()
