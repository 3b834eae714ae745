"""Inversions as files: safetensors that know which model they belong to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2v_cli.errors import OptionError, PictureError
from s2v_cli.space import EmbeddingSpace, require_same_space

if TYPE_CHECKING:
    from torch import Tensor

    from s2v_cli.inversion import Inversion
    from s2v_cli.presets import Preset

SUFFIX = ".safetensors"
FORMAT = 1  # rises when an older s2v could not read a file rightly
KEY = "s2v-inversion"
_ROLES = ("generator", "image_encoder")


@dataclass(frozen=True)
class Origin:
    """What an inversion belongs to; with another one it would make another picture.

    Attributes:
        preset: name of the model.
        space: of the embedding.
        weights: SHA-256 of the networks that took part, or names of published weights, by role.
        walk: options that the picture depends on, such as a diffusion's steps.
    """

    preset: str
    space: EmbeddingSpace
    weights: Mapping[str, str]
    walk: Mapping[str, Any]

    @classmethod
    def of(cls, preset: Preset, walk: Mapping[str, Any]) -> Origin:
        """The origin of inversions made with a preset."""
        weights = {role: preset.weight(role) for role in _ROLES}
        names = {role: w.sha256 or "+".join(w.assets) for role, w in weights.items()}
        return cls(preset.name, preset.space, names, walk)


def encode_inversion(inversion: Inversion, origin: Origin) -> bytes:
    """An inversion as the bytes of a safetensors file; equal input gives equal bytes."""
    from safetensors.torch import save

    about = {
        "format": FORMAT,
        **asdict(origin),
        "psnr_db": inversion.psnr_db,
        "loss": inversion.loss,
        "feature_distance": inversion.feature_distance,
    }
    tensors = {name: getattr(inversion, name).contiguous() for name in _shapes(origin.space, 0)}
    return save(tensors, {KEY: json.dumps(about, sort_keys=True)})


def read_inversion(path: Path, origin: Origin) -> Inversion:
    """Read an inversion that belongs to `origin`.

    Raises:
        PictureError: missing, damaged, or no inversion.
        SpaceError: it lies in another embedding space.
        OptionError: it belongs to another preset, to other weights or options, or was written by a
            newer s2v.
    """
    from safetensors import SafetensorError, safe_open

    from s2v_cli.inversion import Inversion

    if not path.is_file():
        raise PictureError(f"No inversion at {str(path)!r}.")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise PictureError(f"Cannot read the inversion {str(path)!r}: {error}.") from error
    if not isinstance(about, dict):
        raise PictureError(
            f"{str(path)!r} holds no inversion; 's2v edit --save-inversion' writes one."
        )
    _check_origin(path, about, origin)
    _check_tensors(path, tensors, origin.space)
    psnr = _number(about, "psnr_db")
    if psnr is None:
        raise PictureError(f"The inversion {str(path)!r} is damaged: it tells no PSNR.")
    return Inversion(
        tensors["noise"],
        tensors["embedding"],
        tensors["target"],
        psnr,
        _number(about, "loss"),
        _number(about, "feature_distance"),
    )


def _number(about: Mapping[str, Any], name: str) -> float | None:
    value = about.get(name)
    return float(value) if isinstance(value, float | int) else None


def _check_origin(path: Path, about: Mapping[str, Any], origin: Origin) -> None:
    what = f"The inversion {str(path)!r}"
    if about.get("format") != FORMAT:
        raise OptionError(
            f"{what} has format {about.get('format')!r}; this s2v reads {FORMAT}. "
            "Invert the photo again."
        )
    try:
        space = EmbeddingSpace(**about["space"])
    except (KeyError, TypeError):
        raise PictureError(f"{what} is damaged: it names no embedding space.") from None
    require_same_space(space, origin.space, f"use the inversion {str(path)!r}")
    made = _table(about, "weights")
    for role, name in origin.weights.items():
        if made.get(role) != name:
            raise OptionError(
                f"{what} was made with preset {about.get('preset')!r} "
                f"({role} {_short(made.get(role))}), not with {origin.preset!r} "
                f"({role} {_short(name)}). Invert the photo again."
            )
    walk = _table(about, "walk")
    for name, value in origin.walk.items():
        if walk.get(name) != value:
            raise OptionError(
                f"{what} was made with {name} {walk.get(name)!r}, not {value!r}. "
                "Give the same or invert the photo again."
            )


def _table(about: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = about.get(name)
    return table if isinstance(table, dict) else {}


def _check_tensors(path: Path, tensors: Mapping[str, Tensor], space: EmbeddingSpace) -> None:
    what = f"The inversion {str(path)!r} is damaged"
    target = tensors.get("target")
    shapes = _shapes(space, target.shape[-1] if target is not None and target.ndim else 0)
    for name, shape in shapes.items():
        if name not in tensors or not _fits(tensors[name], shape):
            raise PictureError(f"{what}: its {name} is not usable.")
    for name in tensors:
        if name not in shapes:
            raise PictureError(f"{what}: {name!r} is unknown.")


def _fits(tensor: Tensor, shape: tuple[int | None, ...]) -> bool:
    """Whether a tensor is float32, finite and of a shape."""
    right = len(tensor.shape) == len(shape) and all(
        wanted in (None, size) for size, wanted in zip(tensor.shape, shape, strict=True)
    )
    return right and str(tensor.dtype) == "torch.float32" and bool(tensor.isfinite().all())


def _shapes(space: EmbeddingSpace, side: int) -> dict[str, tuple[int | None, ...]]:
    """Tensors of a file; None is any size."""
    return {"noise": (None,), "embedding": (space.dimension,), "target": (3, side, side)}


def _short(name: object) -> str:
    text = str(name)
    return f"{text[:12]}…" if len(text) == 64 else text
