"""An editor of photos for a loaded model: invert, move the embedding, draw again (§5.2, Fig. 13).

editor = Editor(Sound2Vision.load("mini"))
found = editor.invert("boat.jpg")
image = editor.draw(editor.moved(found, loud.embedding - soft.embedding, strength=3))
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from s2v_cli.errors import OptionError
from s2v_cli.inversion import (
    Inversion,
    InversionOptions,
    invert,
    psnr_db,
    shift_embedding,
    tune,
)
from s2v_cli.latent import similarity
from s2v_cli.options import GenerateOptions
from s2v_cli.pipeline import Sound2Vision

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

Progress = Callable[[int, int, float | None], None]  # steps done and in all, the loss if any

NEUTRAL_DB = -60.0  # level of the noise that stands for a quiet room, below full scale
NEUTRAL_SEED = 0


@runtime_checkable
class _KnowsCentres(Protocol):
    """A sound encoder that holds mean embeddings of the sounds that it was taught, [K, D]."""

    centres: Tensor


@runtime_checkable
class _InvertsItself(Protocol):
    """A generator that walks from a picture back to noise: diffusion, by DDIM."""

    def invert(
        self,
        image: Tensor,
        embedding: Tensor,
        options: GenerateOptions,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Noise [B, N] that makes the images [B, 3, R, R] under embeddings [B, D]."""
        ...


class Editor:
    """Inverts photos and draws them again, moved.

    GAN-like generators are inverted by optimisation in float32, with the feature maps of the
    preset's own image encoder; diffusion models by DDIM, under the photo's own embedding.

    Attributes:
        model: whose generator and image encoder take part.
        options: a diffusion's steps, guidance (best 1: strong guidance does not invert well) and
            prompts; its sampler is DDIM.
    """

    def __init__(self, model: Sound2Vision, options: GenerateOptions | None = None) -> None:
        """Use a loaded model.

        Raises:
            OptionError: it is to be inverted by optimisation, and is not in float32.
        """
        self.model, self._generator = model, model.generator
        self.by_walk = isinstance(model.generator, _InvertsItself)
        options = replace(options or model.preset.generate_options(), truncation=None, count=1)
        if self.by_walk:
            options = replace(options, sampler="ddim")
        elif not str(model.dtype).endswith("float32"):
            raise OptionError(f"dtype is {model.dtype}; inversion needs float32.")
        self.options = options

    def invert(
        self,
        photo: str | os.PathLike[str] | Image,
        options: InversionOptions | None = None,
        progress: Progress | None = None,
    ) -> Inversion:
        """Find what makes a photo's centre square.

        Args:
            photo: a file or a picture.
            options: of the optimisation; diffusion does not read them.
            progress: called with the steps done and in all, and the loss (None for diffusion).

        Raises:
            PictureError: the photo cannot be read.
            OptionError: the image encoder has no feature maps.
        """
        from PIL import ImageOps
        from PIL.Image import Resampling

        from s2v_cli.picture import read_picture, to_tensor

        if isinstance(photo, str | os.PathLike):
            photo = read_picture(photo)
        side = self._generator.resolution
        square = ImageOps.fit(photo.convert("RGB"), (side, side), Resampling.LANCZOS)
        target = to_tensor(square)
        if not self.by_walk:
            chosen = options or InversionOptions()
            return invert(self._generator, self.model.image_encoder, target, chosen, progress)
        embedding = self.model.encode_image(square)
        noise = self._walk_back(target, embedding, progress)
        found = Inversion(noise, embedding, target, 0.0)
        return replace(found, psnr_db=psnr_db(self.draw(found), target))

    def _walk_back(self, target: Tensor, embedding: Tensor, progress: Progress | None) -> Tensor:
        generator = self._generator
        assert isinstance(generator, _InvertsItself)

        def tell(done: int, of: int) -> None:
            if progress:
                progress(done, of, None)

        place = self.model.device
        pixels, condition = target[None].to(place), embedding[None].to(place, self.model.dtype)
        return generator.invert(pixels, condition, self.options, tell)[0].float().cpu()

    def tune(self, inversion: Inversion, steps: int, progress: Progress | None = None) -> Inversion:
        """Tune a copy of the generator to an inversion (pivotal tuning); `draw` uses it from then.

        The model's own generator stays as it is.

        Returns:
            The inversion with its new figures.

        Raises:
            OptionError: the generator cannot be tuned.
        """
        if self.by_walk:
            raise OptionError("Cannot tune a diffusion model; leave out --tune.")
        encoder = self.model.image_encoder
        self._generator, tuned = tune(self.model.generator, encoder, inversion, steps, progress)
        return tuned

    def check(self, inversion: Inversion) -> None:
        """Refuse an inversion of another size.

        Raises:
            OptionError: its noise or its picture is not as the generator's.
        """
        own = (self._generator.noise_size, self._generator.resolution)
        given = (len(inversion.noise), inversion.target.shape[-1])
        if own != given:
            raise OptionError(
                f"The inversion has {given[0]} numbers of noise for {given[1]} px; "
                f"{self.model.preset.name} needs {own[0]} for {own[1]} px."
            )

    def moved(self, inversion: Inversion, direction: Tensor, strength: float = 1.0) -> Inversion:
        """z^new = z_inv + strength (z1^A - z2^A), with the same noise; see `shift_embedding`.

        Args:
            inversion: z_inv and its noise.
            direction: [D].
            strength: 0 changes nothing.
        """
        unit = self.model.space.scale == "unit"
        embedding = shift_embedding(inversion.embedding, direction, strength, unit=unit)
        return replace(inversion, embedding=embedding)

    def draw(self, inversion: Inversion) -> Tensor:
        """Image float32 [3, R, R] in [-1, 1], on the CPU, of an inversion as it is or moved."""
        import torch

        place = self.model.device
        noise, embedding = inversion.noise[None], inversion.embedding[None].to(place)
        with torch.no_grad():
            if self.by_walk:
                image = self.model.draw(noise, embedding.to(self.model.dtype), self.options)
            else:
                image = self._generator(noise.to(place), embedding)
        return image[0].float().cpu()

    def nearer(self, before: Tensor, after: Tensor, direction: Tensor) -> float:
        """By how much an image's embedding came nearer to a direction [D], in cosine, -2 to 2."""
        import torch

        with torch.no_grad():
            images = torch.stack([before, after]).to(self.model.device)
            embeddings = self.model.image_encoder(images).float().cpu()
        cosines = similarity(embeddings, direction)
        return float(cosines[1] - cosines[0])


def neutral_embedding(model: Sound2Vision) -> Tensor:
    """z2^A [D] where only one sound is given: what the model takes for no sound in particular.

    The mean of the sounds that it was taught where its sound encoder holds their means, as `mini`
    does. Of unit norm it is not: all sounds have that much in common, and taking off more leads
    away from all pictures. Published encoders hold none: for them it is what they make of a nearly
    silent room, white noise at -60 dB.
    """
    import torch

    encoder = model.sound_encoder
    if isinstance(encoder, _KnowsCentres):
        return encoder.centres.float().mean(dim=0).cpu()
    chance = torch.Generator().manual_seed(NEUTRAL_SEED)
    samples = round(encoder.window_s * encoder.sample_rate)
    noise = torch.randn(1, samples, generator=chance) * 10 ** (NEUTRAL_DB / 20)
    with torch.no_grad():
        return encoder(noise.to(model.device))[0].float().cpu()
