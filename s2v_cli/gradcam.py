"""Grad-CAM (Selvaraju et al., 2017): which parts of a sound a generated picture owes to (§4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from s2v_cli.errors import OptionError
from s2v_cli.generators import DrawsWithOptions
from s2v_cli.latent import mean_embedding
from s2v_cli.options import GenerateOptions

if TYPE_CHECKING:
    from s2v_cli.audio.read import Sound
    from s2v_cli.pipeline import Sound2Vision

STEPS = 8  # points on the way from silence to the sound
FEW_STEPS = 3  # the same for generators that walk a long way to each picture


@runtime_checkable
class Convolutional(Protocol):
    """A sound encoder whose last convolution can be looked at.

    Attributes:
        frame_s: from one column of its spectrogram to the next, seconds.
    """

    frame_s: float

    @property
    def frequencies_hz(self) -> Tensor:
        """Of the spectrogram's rows, [F]."""
        ...

    def spectrogram(self, wave: Tensor) -> Tensor:
        """[B, 1, F, T] of wave [B, samples]."""
        ...

    def feature_map(self, spectrogram: Tensor) -> Tensor:
        """[B, C, f, t] after the last convolution."""
        ...

    def embed(self, feature_map: Tensor) -> Tensor:
        """z^A [B, D]."""
        ...


@dataclass(frozen=True)
class Heat:
    """Where in a sound's windows the picture comes from.

    Attributes:
        heat: float32 [W, f, t], 0 to 1; the largest is 1 unless all are 0.
        spectrogram: float32 [W, F, T], what the encoder hears.
        image: float32 [3, R, R] in [-1, 1]: the picture that is explained.
    """

    heat: Tensor
    spectrogram: Tensor
    image: Tensor


def explain(
    model: Sound2Vision,
    sound: Sound,
    options: GenerateOptions,
    *,
    other: Sound | None = None,
) -> Heat:
    """Grad-CAM of a generated picture over the last convolution of the sound encoder.

    The scalar that is differentiated is the cosine s(A) = cos(f_V(G(z^N, e(A))), f_V(x)) of two
    image embeddings: of the picture x that is explained, held fixed, and of the picture that the
    generator makes of the feature map A with the same noise. Each channel of A is weighted by the
    mean of ds/dA over all windows, frequencies and times; the heat is the rectified sum of the
    weighted channels. The paper does not say which scalar it took.

    Where x is the sound's own picture, s is at its maximum and its gradient vanishes; where the
    encoder is sure of what it hears, it is small for other pictures, too. So it is the mean over
    `STEPS` points on the straight line from the feature map of silence to A (Integrated Grad-CAM,
    Sattarzadeh et al., 2021): what brings the picture of silence nearer to x.

    A generator of many steps is differentiated through its last one.

    Args:
        model: with a convolutional sound encoder and an image encoder.
        sound: that is heard; of several windows the mean embedding is drawn.
        options: seed and more of the picture.
        other: the sound whose picture is explained; None explains the sound's own.

    Raises:
        OptionError: the sound encoder is not convolutional.
    """
    encoder = model.sound_encoder
    if not isinstance(encoder, Convolutional):
        raise OptionError(
            f"preset is {model.preset.name!r}, whose sound encoder has no convolution to look at."
        )
    noise = model.noise(options.seed)
    with torch.no_grad():
        spectrogram = encoder.spectrogram(_windows(model, sound))
        heard = encoder.feature_map(spectrogram)  # [W, C, f, t]
        shown = heard if other is None else _heard(model, encoder, other)
        image = _draw(model, encoder, shown[None], noise, options)
        target = model.image_encoder(image.to(_dtype(model))).float()
    silence = torch.zeros_like(_windows(model, sound))
    with torch.no_grad():
        base = encoder.feature_map(encoder.spectrogram(silence))
    if torch.equal(base, heard):  # of silence nothing is left to explain
        return _finish(torch.zeros_like(heard).sum(dim=1), spectrogram, image)
    steps = FEW_STEPS if isinstance(model.generator, DrawsWithOptions) else STEPS
    shares = (torch.arange(steps, device=heard.device) + 0.5) / steps
    points = [torch.lerp(base, heard, share) for share in shares.to(heard.dtype)]
    at_once = getattr(model.generator, "pictures_at_once", STEPS)
    gradient = torch.zeros_like(heard)
    for first in range(0, len(points), at_once):
        some = torch.stack(points[first : first + at_once]).requires_grad_()  # [P, W, C, f, t]
        images = _draw(model, encoder, some, noise.expand(len(some), -1), options)
        embeddings = model.image_encoder(images.to(_dtype(model))).float()
        scalar = torch.cosine_similarity(embeddings, target).sum()
        gradient += torch.autograd.grad(scalar, some)[0].sum(dim=0)
    weights = gradient.mean(dim=(0, 2, 3))  # [C]
    heat = torch.einsum("c,wcft->wft", weights.float(), heard.float()).relu()
    return _finish(heat, spectrogram, image)


def _finish(heat: Tensor, spectrogram: Tensor, image: Tensor) -> Heat:
    largest = heat.amax()
    if bool(largest > 0):
        heat = heat / largest
    return Heat(heat.float().cpu(), spectrogram[:, 0].float().cpu(), image[0].float().cpu())


def _windows(model: Sound2Vision, sound: Sound) -> Tensor:
    return torch.from_numpy(sound.windows).to(model.device)


def _heard(model: Sound2Vision, encoder: Convolutional, sound: Sound) -> Tensor:
    return encoder.feature_map(encoder.spectrogram(_windows(model, sound)))


def _draw(
    model: Sound2Vision,
    encoder: Convolutional,
    feature_maps: Tensor,
    noise: Tensor,
    options: GenerateOptions,
) -> Tensor:
    """Images [P, 3, R, R] of feature maps [P, W, C, f, t] and noise [P, N]; differentiable."""
    unit = model.space.scale == "unit"
    conditions = [mean_embedding(encoder.embed(maps).float(), unit=unit) for maps in feature_maps]
    return model.draw(noise, torch.stack(conditions).to(model.dtype), options)


def _dtype(model: Sound2Vision) -> torch.dtype:
    return torch.float32 if model.dtype == torch.float16 else model.dtype
