"""What the diffusion models share: latents, the walk from noise to picture, and edits of it.

The walk is the one of diffusers' own pipelines, number for number, over networks and schedulers
of diffusers. It is written out here because the pipelines neither take a noise vector that holds
everything random, nor blend, invert or compose.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from s2v_cli.errors import OptionError
from s2v_cli.generators.diffusion_parts import DiffusionParts
from s2v_cli.generators.sampler import ddim_steps, make_sampler, shorten
from s2v_cli.options import GenerateOptions
from s2v_cli.space import CLIP_H_SPACE

Progress = Callable[[int, int], None]
Box = tuple[float, float, float, float]
_Predict = Callable[[Tensor, Tensor], Tensor]  # scaled latents, timestep -> what the network says

INVERSION_ROUNDS = 3  # evaluations a step when a picture is walked back into noise
PICTURES_AT_ONCE = 4  # on CUDA; elsewhere a batch gains nothing


@dataclass(frozen=True)
class Defaults:
    """What a model takes for options that are None.

    Attributes:
        steps: of the walk.
        guidance: scale of classifier-free guidance.
    """

    steps: int
    guidance: float


class DiffusionGenerator(ABC):
    """Noise [B, N] and embedding [B, 1024] to image [B, 3, R, R] in [-1, 1].

    Gradients flow through the last step of the walk alone; whoever wants none uses
    `torch.no_grad()`, as always.

    Attributes:
        space: of the embeddings that it reads.
        defaults: for options that are None.
        parts: its networks.
        noise_size: size of one noise vector; all that is random about a picture is in it.
        resolution: side of the image, px.
        pictures_at_once: how large a batch should be at most.
    """

    space = CLIP_H_SPACE
    defaults = Defaults(steps=30, guidance=7.5)

    def __init__(self, parts: DiffusionParts) -> None:
        self.parts = parts
        self.resolution = parts.resolution
        self.noise_size = self.latent_size
        roomy = parts.device.type == "cuda" and not parts.offload
        self.pictures_at_once = PICTURES_AT_ONCE if roomy else 1

    @property
    def latent_size(self) -> int:
        """Numbers in the latents of one picture."""
        channels, height, width = self.parts.latent_shape
        return channels * height * width

    @abstractmethod
    def conditions(self, noise: Tensor, embeddings: Tensor, options: GenerateOptions) -> Tensor:
        """What the denoiser is told about the picture, beside the prompt.

        Args:
            noise: float32 [B, N].
            embeddings: float32 [K, B, 1024]; K conditions.
            options: its own options are taken from here.

        Returns:
            [K, B, D], whatever `arguments` then makes of it.
        """

    @abstractmethod
    def arguments(self, conditions: Tensor) -> dict[str, Any]:
        """The denoiser's arguments for conditions [B', D]; zeros stand for no condition."""

    def __call__(self, noise: Tensor, embedding: Tensor) -> Tensor:
        """Make image [B, 3, R, R] in [-1, 1] with the model's defaults."""
        return self.draw(noise, embedding, GenerateOptions())

    def draw(
        self,
        noise: Tensor,
        embedding: Tensor,
        options: GenerateOptions,
        progress: Progress | None = None,
    ) -> Tensor:
        """Make pictures.

        Args:
            noise: standard normal [B, N].
            embedding: of the model's space, [B, 1024].
            options: prompt, steps, guidance, sampler and the model's own.
            progress: called with the steps done and their number.

        Returns:
            image [B, 3, R, R] in [-1, 1], float32.

        Raises:
            OptionError: the prompt is too long, or so many steps do not fit.
        """
        return self.compose(noise, embedding[None], [1.0], options, progress)

    def compose(
        self,
        noise: Tensor,
        embeddings: Tensor,
        weights: Sequence[float],
        options: GenerateOptions,
        progress: Progress | None = None,
    ) -> Tensor:
        """Make pictures of several conditions at once: the sum of their guided differences.

        Composable diffusion (Liu et al., 2022, Eq. 11): e(x) + sum_k w_k g (e(x | c_k) - e(x)),
        with g the guidance. One condition of weight 1 is `draw`.

        Args:
            noise: standard normal [B, N]; all conditions of a picture share it.
            embeddings: float32 [K, B, 1024].
            weights: w_k, K numbers.
            options: as in `draw`.
            progress: as in `draw`.

        Returns:
            image [B, 3, R, R] in [-1, 1], float32.
        """
        sampler = self._sampler(options)
        noise = noise.to(self.parts.device, torch.float32)
        start = self._latents(noise) * sampler.init_noise_sigma
        predict = self._predictor(noise, embeddings, weights, options)
        return self.parts.decode(self._walk(start, sampler, sampler.timesteps, predict, progress))

    def sdedit(
        self,
        image: Tensor,
        noise: Tensor,
        embedding: Tensor,
        keep: float,
        options: GenerateOptions,
        box: Box | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Change a photo towards an embedding and keep its layout (SDEdit; Fig. 19).

        The walk starts part of the way, from the photo's latents with noise on them
        (Meng et al., 2022).

        Args:
            image: photo [B, 3, H, W] in [-1, 1].
            noise: standard normal [B, N].
            embedding: [B, 1024].
            keep: how much of the photo stays: 1 is the photo after the autoencoder, 0 is `draw`.
            options: as in `draw`; `steps` are those of a whole walk.
            box: left, top, width and height of what may change, in shares of the picture's side;
                latents outside stay those of the photo.
            progress: as in `draw`.

        Returns:
            image [B, 3, R, R] in [-1, 1], float32.

        Raises:
            OptionError: `keep` or `box` outside their ranges.
        """
        return self.parts.decode(
            self.edit_latents(image, noise, embedding, keep, options, box, progress)
        )

    def edit_latents(
        self,
        image: Tensor,
        noise: Tensor,
        embedding: Tensor,
        keep: float,
        options: GenerateOptions,
        box: Box | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """The latents [B, C, h, w] that `sdedit` decodes."""
        if not 0 <= keep <= 1:
            raise OptionError(f"keep is {keep!r}; allowed: 0 to 1.")
        inside = None if box is None else self._mask(box)
        photo = self.parts.encode(image)
        if keep == 1:
            return photo
        steps = options.steps or self.defaults.steps
        sampler = self._sampler(options)
        times = shorten(sampler, steps, max(1, round(steps * (1 - keep))))
        noise = noise.to(self.parts.device, torch.float32)
        drawn = self._latents(noise)
        if keep == 0:
            start = drawn * sampler.init_noise_sigma
        else:
            start = sampler.add_noise(photo, drawn, times[:1])
        blend = None
        if inside is not None:

            def blend(latents: Tensor, time: Tensor | None) -> Tensor:
                known = photo if time is None else sampler.add_noise(photo, drawn, time[None])
                return torch.where(inside, latents, known)

        predict = self._predictor(noise, embedding[None], [1.0], options)
        return self._walk(start, sampler, times, predict, progress, blend)

    def invert(
        self,
        image: Tensor,
        embedding: Tensor,
        options: GenerateOptions,
        progress: Progress | None = None,
    ) -> Tensor:
        """The noise from which a deterministic DDIM walk makes a photo (DDIM inversion).

        Each step is turned round exactly but for the network's output, which belongs to a point
        not known yet: it is computed at the last guess of that point, three times (fixed-point
        iteration; Pan et al., 2023). Without `guidance` in the options it is 1, since strong
        guidance does not invert well; the embedding's own noise (unCLIP) is 0.

        Args:
            image: photo [B, 3, H, W] in [-1, 1].
            embedding: [B, 1024] under which the photo is likely, best its own.
            options: as in `draw`, which must get the same `steps`, `guidance` and prompts, and
                the sampler `ddim`, to make the photo again.
            progress: as in `draw`.

        Returns:
            noise float32 [B, N].
        """
        latents = self.parts.encode(image)
        noise = latents.new_zeros(len(latents), self.noise_size)
        if options.guidance is None:
            options = replace(options, guidance=1.0)
        sampler = self._sampler(replace(options, sampler="ddim"))
        steps = ddim_steps(sampler)
        predict = self._predictor(noise, embedding[None], [1.0], options)
        with self.parts.at_work(self.parts.unet), torch.no_grad():
            for index, step in enumerate(reversed(steps)):
                time = torch.tensor(step.time, device=latents.device)
                guess = latents
                for _ in range(INVERSION_ROUNDS):
                    guess = step.backward(latents, predict(guess, time))
                latents = guess
                if progress:
                    progress(index + 1, len(steps))
        noise[:, -self.latent_size :] = latents.flatten(1)
        return noise

    def _sampler(self, options: GenerateOptions) -> Any:
        steps = options.steps or self.defaults.steps
        choice = options.sampler or "default"
        return make_sampler(self.parts.schedule, choice, steps, self.parts.device)

    def _latents(self, noise: Tensor) -> Tensor:
        """The part of noise [B, N] that the walk starts from, [B, C, h, w]."""
        return noise[:, -self.latent_size :].reshape(-1, *self.parts.latent_shape)

    def _predictor(
        self,
        noise: Tensor,
        embeddings: Tensor,
        weights: Sequence[float],
        options: GenerateOptions,
    ) -> _Predict:
        """The guided denoiser for K conditions of B pictures."""
        parts, count = self.parts, embeddings.shape[1]
        given = options.guidance
        guidance = self.defaults.guidance if given is None else given
        alone = guidance <= 1 and len(weights) == 1 and weights[0] == 1
        embeddings = embeddings.to(parts.device, torch.float32)
        known = self.conditions(noise, embeddings, options).flatten(0, 1)  # [K * B, D]
        text = parts.text(options.prompt).expand(len(known), -1, -1)
        if not alone:
            known = torch.cat([torch.zeros_like(known[:count]), known])
            empty = parts.text(options.negative_prompt).expand(count, -1, -1)
            text = torch.cat([empty, text])
        arguments = self.arguments(known.to(parts.dtype))
        copies = len(known) // count
        scale = max(guidance, 1.0)

        def predict(latents: Tensor, time: Tensor) -> Tensor:
            stacked = torch.cat([latents] * copies).to(parts.dtype)
            output: Tensor = parts.unet(
                stacked, time, encoder_hidden_states=text, return_dict=False, **arguments
            )[0].float()
            if alone:
                return output
            free, *guided = output.chunk(copies)
            total: Tensor = free
            for weight, each in zip(weights, guided, strict=True):
                total = total + scale * weight * (each - free)
            return total

        return predict

    def _walk(
        self,
        latents: Tensor,
        sampler: Any,
        times: Tensor,
        predict: _Predict,
        progress: Progress | None = None,
        blend: Callable[[Tensor, Tensor | None], Tensor] | None = None,
    ) -> Tensor:
        """Walk latents [B, C, h, w] along `times`.

        Args:
            latents: at the noise level of the first time.
            sampler: scheduler of diffusers, not stepped yet.
            times: timesteps to visit.
            predict: the guided denoiser.
            progress: called after every step.
            blend: changes latents after a step, given the time that they are at; None is the end.
        """
        with self.parts.at_work(self.parts.unet):
            for index, time in enumerate(times):
                last = index == len(times) - 1
                with torch.set_grad_enabled(torch.is_grad_enabled() and last):
                    output = predict(sampler.scale_model_input(latents, time), time)
                    latents = sampler.step(output, time, latents, return_dict=False)[0]
                if blend:
                    latents = blend(latents, None if last else times[index + 1])
                if progress:
                    progress(index + 1, len(times))
        return latents

    def _mask(self, box: Box) -> Tensor:
        """Where latents may change: bool [h, w], true where a position's centre is in the box."""
        left, top, width, height = box
        if (
            not (width > 0 and height > 0 and left >= 0 and top >= 0)
            or max(left + width, top + height) > 1 + 1e-6
        ):
            raise OptionError(
                f"box is {box}; allowed: left, top, width and height in shares of the side, "
                "inside the picture."
            )
        _, rows, columns = self.parts.latent_shape
        device = self.parts.device
        x = (torch.arange(columns, device=device) + 0.5) / columns
        y = (torch.arange(rows, device=device) + 0.5) / rows
        return ((y >= top) & (y < top + height))[:, None] & ((x >= left) & (x < left + width))
