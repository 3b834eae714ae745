"""How a photo takes part in a picture of a sound: blended, kept as layout, or composed (§5.2)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args, runtime_checkable

from s2v_cli.errors import OptionError
from s2v_cli.options import GenerateOptions

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from s2v_cli.audio.read import Sound
    from s2v_cli.pipeline import Sound2Vision
    from s2v_cli.results import Picture

    Draw = Callable[[Tensor, Tensor, GenerateOptions], Tensor]

ModeChoice = Literal["latent", "sdedit", "compose"]
PathChoice = Literal["linear", "spherical"]
Box = tuple[float, float, float, float]

KEEP = 0.6  # of the photo, where `sdedit` is not told


@dataclass(frozen=True)
class PhotoOptions:
    """How a photo and a sound become one picture.

    Attributes:
        mode: `latent` draws from a blend of their embeddings, z^new = w z^V + (1 - w) z^A;
            `sdedit` starts from the photo itself, with noise on it, and draws towards that blend;
            `compose` adds the guided differences of both, each with its weight. The last two need
            a diffusion model.
        path: of `latent` and `sdedit` between the embeddings.
        keep: of `sdedit`, how much of the photo stays, 0 to 1; None takes `KEEP`.
        box: of `sdedit`, what may change: left, top, width and height in shares of the photo's
            centre square.
    """

    mode: ModeChoice = "latent"
    path: PathChoice = "linear"
    keep: float | None = None
    box: Box | None = None

    def __post_init__(self) -> None:
        for name, choices in (("mode", get_args(ModeChoice)), ("path", get_args(PathChoice))):
            if getattr(self, name) not in choices:
                raise OptionError(
                    f"{name} is {getattr(self, name)!r}; allowed: {', '.join(choices)}."
                )
        for name in ("keep", "box"):
            if getattr(self, name) is not None and self.mode != "sdedit":
                raise OptionError(f"{name} belongs to --mode sdedit; the mode is {self.mode!r}.")
        if self.mode == "compose" and self.path != "linear":
            raise OptionError("path belongs to the modes latent and sdedit; the mode is 'compose'.")
        if self.keep is not None and not 0 <= self.keep <= 1:
            raise OptionError(f"keep is {self.keep!r}; allowed: 0 to 1.")
        if self.box is not None:
            left, top, width, height = self.box
            inside = min(left, top) >= 0 and max(left + width, top + height) <= 1 + 1e-6
            if not (inside and min(width, height) > 0):
                raise OptionError(
                    f"box is {','.join(f'{side:g}' for side in self.box)}; allowed: left,top,"
                    "width,height in shares of the side, inside the picture: 0,0,1,0.5 is its "
                    "upper half."
                )

    @property
    def default_weight(self) -> float:
        """The photo's share where none is given: with `sdedit` it is in the picture already."""
        return 0.0 if self.mode == "sdedit" else 0.5


def parse_box(text: str) -> Box:
    """Read `left,top,width,height`.

    Raises:
        OptionError: not four numbers.
    """
    try:
        left, top, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise OptionError(
            f"box is {text!r}; allowed: left,top,width,height in shares of the side, as in "
            "0.25,0.5,0.5,0.5."
        ) from None
    return left, top, width, height


@runtime_checkable
class StartsFromPhotos(Protocol):
    """A generator that can begin with a photo instead of noise alone."""

    def sdedit(
        self,
        image: Tensor,
        noise: Tensor,
        embedding: Tensor,
        keep: float,
        options: GenerateOptions,
        box: Box | None = None,
    ) -> Tensor:
        """Image [B, 3, R, R] from photo [B, 3, H, W], noise [B, N] and embedding [B, D]."""


@runtime_checkable
class Composes(Protocol):
    """A generator that can follow several embeddings at once."""

    def compose(
        self,
        noise: Tensor,
        embeddings: Tensor,
        weights: Sequence[float],
        options: GenerateOptions,
    ) -> Tensor:
        """Image [B, 3, R, R] from noise [B, N] and embeddings [K, B, D] with K weights."""


def start_from(generator: object, photo: Tensor, options: PhotoOptions) -> Draw:
    """A way to draw that starts from a photo [3, H, W] in [-1, 1].

    Raises:
        OptionError: the generator cannot.
    """
    if not isinstance(generator, StartsFromPhotos):
        raise OptionError("mode is 'sdedit'; this generator is no diffusion model.")
    keep = KEEP if options.keep is None else options.keep

    def draw(noise: Tensor, conditions: Tensor, generate: GenerateOptions) -> Tensor:
        photos = photo.to(noise.device).expand(len(noise), -1, -1, -1)
        return generator.sdedit(photos, noise, conditions, keep, generate, options.box)

    return draw


def compose_with(generator: object, image: Tensor, sound: Tensor, weight: float) -> Draw:
    """A way to draw that follows z^V and z^A [D] at once, weighted `weight` and the rest.

    Raises:
        OptionError: the generator cannot.
    """
    if not isinstance(generator, Composes):
        raise OptionError("mode is 'compose'; this generator is no diffusion model.")

    def draw(noise: Tensor, conditions: Tensor, generate: GenerateOptions) -> Tensor:
        import torch

        both = torch.stack([image, sound]).to(conditions)[:, None].expand(-1, len(noise), -1)
        return generator.compose(noise, both, [weight, 1 - weight], generate)

    return draw


def check_weight(weight: float) -> None:
    """Refuse a weight that is no share.

    Raises:
        OptionError: outside 0 to 1, or not a number.
    """
    if not 0 <= weight <= 1:
        raise OptionError(f"weight is {weight!r}; allowed: 0 (the sound) to 1 (the photo).")


def draw_with_photo(
    model: Sound2Vision,
    image: Tensor | str | os.PathLike[str] | Image,
    sound: Tensor | str | os.PathLike[str] | Sound,
    weights: Sequence[float],
    photo: PhotoOptions,
    options: GenerateOptions | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> list[Picture]:
    """Draw a picture for each weight of a photo against a sound; see `Sound2Vision.interpolate`."""
    import torch

    from s2v_cli.latent import interpolate
    from s2v_cli.picture import read_picture, to_tensor

    for weight in weights:
        check_weight(weight)
    if isinstance(image, torch.Tensor) and photo.mode == "sdedit":
        raise OptionError("mode is 'sdedit', which starts from a photo; an embedding was given.")
    if isinstance(image, str | os.PathLike):
        image = read_picture(image)
    first = image if isinstance(image, torch.Tensor) else model.encode_image(image)
    second = sound if isinstance(sound, torch.Tensor) else model.encode_sound(sound).embedding
    blends = interpolate(
        first, second, torch.tensor(weights), unit=model.space.scale == "unit", path=photo.path
    )
    if photo.mode == "compose":
        pictures = []
        for number, (weight, blend) in enumerate(zip(weights, blends, strict=True)):
            composed = compose_with(model.generator, first, second, weight)
            pictures += model.generate_strip(blend[None], options, draw=composed)
            if progress:
                progress(number + 1, len(weights))
        return pictures
    draw: Draw | None = None
    if not isinstance(image, torch.Tensor) and photo.mode == "sdedit":
        draw = start_from(model.generator, to_tensor(image.convert("RGB")), photo)
    return model.generate_strip(blends, options, progress=progress, draw=draw)
