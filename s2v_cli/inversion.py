"""GAN inversion: the noise and the embedding from which a generator makes a given picture (§5.2).

By optimisation (Abdal et al., 2019): Adam lowers the distance between the picture and what the
generator makes, in pixels and in the feature maps of the preset's own image encoder. Several
starts go ahead in one batch, and the best of them goes on alone. Everything is float32.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2v_cli.encoders import ImageEncoder
from s2v_cli.errors import OptionError
from s2v_cli.generators import Generator
from s2v_cli.latent import unit_norm

FEATURE_WEIGHT = 0.02  # of the feature distance, beside the mean square error in [-1, 1]
NOISE_WEIGHT = 0.005  # of the prior: the noise's mean square should be 1, as when it is drawn
LEARNING_RATE = 0.06  # in units of the noise's and of the embedding's own scale
TUNING_RATE = 5e-4
BETAS = (0.9, 0.99)  # of Adam
WARM_UP = 5  # steps
TRIAL = 0.1  # share of the steps that all starts take
GUESSED_STEPS, STEPS = 60, 300  # where the generator guesses a start, and where it does not

Progress = Callable[[int, int, float], None]  # steps done and in all, the loss


@runtime_checkable
class GuessesNoise(Protocol):
    """A generator that can tell roughly which noise makes an image: one of the starts."""

    def guess_noise(self, image: Tensor, embedding: Tensor) -> Tensor:
        """Noise [B, N] that makes about the images [B, 3, R, R] under embeddings [B, D]."""
        ...


@runtime_checkable
class _HasFeatures(Protocol):
    """An image encoder whose feature maps can be compared."""

    def features(self, image: Tensor) -> list[Tensor]: ...


@runtime_checkable
class Tunable(Protocol):
    """A generator that says which of its weights tuning may change."""

    def tunable_parameters(self) -> Iterable[nn.Parameter]:
        """Weights that paint, and not those that read the embedding: edits must go on working."""
        ...


@dataclass(frozen=True)
class InversionOptions:
    """How a picture is inverted.

    Attributes:
        steps: of the optimisation, 1 to 10000; None is 60 for a generator that guesses a start, as
            `mini` does, and 300 for others.
        starts: noises that are tried first, 1 to 64.
        seed: of these noises.
    """

    steps: int | None = None
    starts: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name, most in (("steps", 10_000), ("starts", 64)):
            value = getattr(self, name)
            if name == "steps" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                raise OptionError(f"{name} is {value!r}; allowed: 1 to {most}.")

    def steps_for(self, generator: Generator) -> int:
        """Steps of the optimisation of one generator."""
        if self.steps is not None:
            return self.steps
        return GUESSED_STEPS if isinstance(generator, GuessesNoise) else STEPS


@dataclass(frozen=True)
class Inversion:
    """What makes a picture.

    Attributes:
        noise: z^N, float32 [N], on the CPU.
        embedding: z_inv, float32 [D], on the CPU.
        target: the picture that was inverted, float32 [3, R, R] in [-1, 1], on the CPU.
        psnr_db: of what the generator makes of them against the target.
        loss: of the optimisation at its end; None where there was none.
        feature_distance: part of that loss, before its weight.
    """

    noise: Tensor
    embedding: Tensor
    target: Tensor
    psnr_db: float
    loss: float | None = None
    feature_distance: float | None = None


class _Distance:
    """Distance of images [B, 3, R, R] to one target, by pixels and by feature maps."""

    def __init__(self, encoder: ImageEncoder, target: Tensor) -> None:
        if not isinstance(encoder, _HasFeatures):
            raise OptionError(
                f"Cannot invert in the space {encoder.space}: its image encoder has no feature "
                "maps to compare."
            )
        self.encoder, self.target = encoder, target
        with torch.no_grad():
            self.maps = [F.normalize(m.float(), dim=1) for m in encoder.features(target)]

    def pixels(self, image: Tensor) -> Tensor:
        """Mean square error of each image, [B]."""
        return (image - self.target).square().mean(dim=(1, 2, 3))

    def features(self, image: Tensor) -> Tensor:
        """Squared distance of channel-normalised feature maps, averaged over places, [B].

        Summed over the maps; after Zhang et al., 2018 (LPIPS, Eq. 1), without its learned weights.
        """
        total = image.new_zeros(len(image))
        for own, map_ in zip(self.maps, self.encoder.features(image), strict=True):
            difference = F.normalize(map_.float(), dim=1) - own
            total = total + difference.square().sum(dim=1).mean(dim=(1, 2))
        return total


def psnr_db(image: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio of two images of one shape, in [-1, 1], dB; inf where equal."""
    error = float((image.float() - target.float()).square().mean())
    return math.inf if error == 0 else 10 * math.log10(4 / error)


def shift_embedding(embedding: Tensor, direction: Tensor, strength: float, *, unit: bool) -> Tensor:
    """z^new = z_inv + strength (z1^A - z2^A) for embeddings [..., D] (§5.2).

    In a space of unit norm the sum is brought back to the norm of z_inv, which the paper does not
    say: a generator of such a space has seen no other. Strength 0 returns z_inv bit by bit.
    """
    new = embedding + strength * direction
    if unit:
        new = new * (embedding.norm(dim=-1, keepdim=True) / new.norm(dim=-1, keepdim=True))
    return new


@torch.inference_mode(False)
@torch.enable_grad()
def invert(
    generator: Generator,
    encoder: ImageEncoder,
    target: Tensor,
    options: InversionOptions = InversionOptions(),
    progress: Progress | None = None,
) -> Inversion:
    """Find noise and embedding from which the generator makes a picture (§5.2).

    The embedding starts at what the image encoder makes of the picture; the noise at draws, one of
    which is the generator's own guess where it has one. The weights of both networks stay.

    Args:
        generator: float32, in eval mode.
        encoder: of the same space, likewise, on the same device.
        target: the picture, float32 [3, R, R] in [-1, 1], R being the generator's resolution.
        options: steps, starts and seed.
        progress: called after each step.

    Raises:
        OptionError: the target has another size, or the image encoder has no feature maps.
    """
    size = (3, generator.resolution, generator.resolution)
    if target.shape != size:
        raise OptionError(f"The target has shape {list(target.shape)}; needed: {list(size)}.")
    distance = _distance(encoder, target, _device(generator))
    with torch.no_grad():
        embedding = encoder(distance.target).float()  # [1, D]
    descent = _Descent(
        generator, distance, _starts(generator, distance.target, embedding, options), embedding
    )
    steps = options.steps_for(generator)
    trial = max(1, round(TRIAL * steps))
    for step in range(steps):
        if step == trial and options.starts > 1:
            descent.keep_best()
        descent.step(_rate(step, steps))
        if progress:
            progress(step + 1, steps, float(descent.loss.min()))
    return descent.result()


def _rate(step: int, steps: int) -> float:
    """Share of the learning rate at a step: a short warm-up, then half a cosine."""
    return min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _device(generator: Generator) -> torch.device:
    weights = generator.parameters() if isinstance(generator, nn.Module) else iter(())
    return next((weight.device for weight in weights), torch.device("cpu"))


def _distance(encoder: ImageEncoder, target: Tensor, device: torch.device) -> _Distance:
    batch = target[None].to(device, torch.float32)
    return _Distance(encoder, batch.contiguous(memory_format=torch.channels_last))


def _starts(
    generator: Generator, target: Tensor, embedding: Tensor, options: InversionOptions
) -> Tensor:
    """Noise [S, N] to start from; drawn on the CPU, so that a seed is the same everywhere."""
    chance = torch.Generator().manual_seed(options.seed)
    noise = torch.randn(options.starts, generator.noise_size, generator=chance)
    noise = noise.to(target.device)
    if isinstance(generator, GuessesNoise):
        noise[:1] = generator.guess_noise(target, embedding).float()
    return noise


class _Descent:
    """Adam on the noise and the embedding of several starts, each for itself in one batch.

    Attributes:
        loss: the lowest so far of each start, [S].
    """

    def __init__(
        self, generator: Generator, distance: _Distance, noise: Tensor, embedding: Tensor
    ) -> None:
        """Begin at noise [S, N] and one embedding [1, D]."""
        self.generator, self.distance = generator, distance
        self.norm = embedding.norm() if generator.space.scale == "unit" else None
        self.scale = embedding.square().mean().sqrt()  # so that one rate suits both
        self.noise = noise.clone().requires_grad_()
        free = (embedding / self.scale).expand(len(noise), -1)
        self.free = free.clone().requires_grad_()
        self.adam = torch.optim.Adam([self.noise, self.free], LEARNING_RATE, betas=BETAS)
        self.loss = noise.new_full((len(noise),), math.inf)
        self.features = torch.zeros_like(self.loss)
        self._noise, self._embedding = noise.clone(), embedding.repeat(len(noise), 1)

    def look(self) -> Tensor:
        """Loss of each start, [S], where it stands; the best places are remembered."""
        embedding = self.free * self.scale
        if self.norm is not None:
            embedding = unit_norm(embedding) * self.norm
        image = self.generator(self.noise, embedding).float()
        features = self.distance.features(image)
        prior = (self.noise.square().mean(dim=1) - 1).abs()
        loss = self.distance.pixels(image) + FEATURE_WEIGHT * features + NOISE_WEIGHT * prior
        with torch.no_grad():
            better = loss < self.loss
            self.loss = torch.where(better, loss, self.loss)
            self.features = torch.where(better, features, self.features)
            self._noise = torch.where(better[:, None], self.noise, self._noise)
            self._embedding = torch.where(better[:, None], embedding, self._embedding)
        return loss

    def step(self, rate: float) -> None:
        """Go down once, at a share of the learning rate."""
        self.adam.param_groups[0]["lr"] = rate * LEARNING_RATE
        self.adam.zero_grad()
        self.look().sum().backward()
        self.adam.step()

    def keep_best(self) -> None:
        """Let all starts go but the best."""
        best = self.loss.argmin()[None]
        old = self.adam
        before = (self.noise, self.free)
        self.noise, self.free = (p.detach()[best].requires_grad_() for p in before)
        self.adam = torch.optim.Adam([self.noise, self.free], LEARNING_RATE, betas=BETAS)
        for past, kept in zip(before, (self.noise, self.free), strict=True):
            state = old.state[past]
            self.adam.state[kept] = {
                key: value[best] if value.shape == past.shape else value
                for key, value in state.items()
            }
        self.loss, self.features = self.loss[best], self.features[best]
        self._noise, self._embedding = self._noise[best], self._embedding[best]

    def result(self) -> Inversion:
        """The best place that was looked at."""
        with torch.no_grad():
            self.look()
            best = int(self.loss.argmin())
            noise, embedding = self._noise[best], self._embedding[best]
            image = self.generator(noise[None], embedding[None])
        target = self.distance.target
        return Inversion(
            noise.cpu(),
            embedding.cpu(),
            target[0].cpu().contiguous(),
            psnr_db(image, target),
            float(self.loss[best]),
            float(self.features[best]),
        )


@torch.inference_mode(False)
@torch.enable_grad()
def tune(
    generator: Generator,
    encoder: ImageEncoder,
    inversion: Inversion,
    steps: int,
    progress: Progress | None = None,
) -> tuple[Generator, Inversion]:
    """Tune a copy of the generator until it makes the picture at the point that was found.

    Pivotal tuning (Roich et al., 2022): noise and embedding stay, and weights learn the same
    distance as in `invert`: all of them, or those that a `Tunable` generator names.

    Args:
        generator: as in `invert`.
        encoder: as in `invert`.
        inversion: of this generator.
        steps: of Adam, > 0.
        progress: called after each step.

    Returns:
        The tuned copy, its weights frozen again, and the inversion with its new figures.

    Raises:
        OptionError: the generator is not a network that can be tuned.
    """
    if not isinstance(generator, nn.Module):
        raise OptionError("Cannot tune this preset's generator; leave out --tune.")
    device = _device(generator)
    distance = _distance(encoder, inversion.target, device)
    noise = inversion.noise[None].to(device)
    embedding = inversion.embedding[None].to(device)
    tuned = copy.deepcopy(generator).requires_grad_(False)
    learning = list(
        tuned.tunable_parameters() if isinstance(tuned, Tunable) else tuned.parameters()
    )
    for weight in learning:
        weight.requires_grad_(True)
    adam = torch.optim.Adam(learning, TUNING_RATE, betas=BETAS)
    for step in range(steps):
        adam.param_groups[0]["lr"] = _rate(step, steps) * TUNING_RATE
        image = tuned(noise, embedding).float()
        loss = distance.pixels(image) + FEATURE_WEIGHT * distance.features(image)
        adam.zero_grad()
        loss.sum().backward()
        adam.step()
        if progress:
            progress(step + 1, steps, float(loss.detach()))
    tuned.requires_grad_(False)
    with torch.no_grad():
        image = tuned(noise, embedding).float()
        features = float(distance.features(image))
        loss_now = float(distance.pixels(image)) + FEATURE_WEIGHT * features
    return tuned, replace(
        inversion,
        psnr_db=psnr_db(image, distance.target),
        loss=loss_now,
        feature_distance=features,
    )
