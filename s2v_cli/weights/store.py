"""Weights on disk: found, checked against size and SHA-256, then read; safetensors only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from s2v_cli.errors import WeightsError
from s2v_cli.presets import Preset, WeightFile

if TYPE_CHECKING:
    from torch import Tensor

WeightsStatus = Literal["here", "missing", "damaged"]

REINSTALL = "Install again: pip install --force-reinstall --no-deps s2v-cli"


def cache_folder() -> Path:
    """Where s2v keeps files of its own: S2V_HOME, else the user's cache folder."""
    home = os.environ.get("S2V_HOME")
    if home:
        return Path(home).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("s2v", appauthor=False)


def weight_path(preset: Preset, role: str, weights_dir: Path | None = None) -> Path:
    """Path of the file that holds the weights for `role`; it is there, but not checked yet.

    Looked for in `weights_dir` alone where that is given (under the preset's relative path or
    the bare file name); else beside the preset's TOML, then in `cache_folder()/weights`.

    Raises:
        WeightsError: the file is missing, or the preset has no such role.
    """
    places = _places(preset, _weight_file(preset, role), weights_dir)
    for place in places:
        if place.is_file():
            return place
    raise WeightsError(
        f"Missing weights: {places[0]} ({role} of preset {preset.name!r}) is not there. "
        f"{_remedy(preset, weights_dir)}"
    )


def verify_weights(preset: Preset, role: str, weights_dir: Path | None = None) -> Path:
    """Check one file of weights against the size and SHA-256 that the preset states.

    Raises:
        WeightsError: missing or damaged; says which file and what to do.
    """
    import hashlib

    path, expected = weight_path(preset, role, weights_dir), _weight_file(preset, role)
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size == expected.bytes:
                actual = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"Cannot read the weights {path}: {error.strerror}.") from error
    if size != expected.bytes:
        problem = f"it has {size} bytes instead of {expected.bytes}"
    elif actual != expected.sha256:
        problem = f"its SHA-256 is {actual[:12]}… instead of {expected.sha256[:12]}…"
    else:
        return path
    raise WeightsError(f"Damaged weights: {path}: {problem}. {_remedy(preset, weights_dir)}")


def load_weights(preset: Preset, role: str, weights_dir: Path | None = None) -> dict[str, Tensor]:
    """Tensors of one checked file by name, in the precision in which they are stored, on the CPU.

    Raises:
        WeightsError: missing, damaged, or not safetensors.
    """
    path = verify_weights(preset, role, weights_dir)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"Cannot read the weights {path}: {error}.") from error


def weights_status(preset: Preset, weights_dir: Path | None = None) -> WeightsStatus:
    """Whether all weights of a preset are there and whole; reads every file once."""
    status: WeightsStatus = "here"
    for weight in preset.weights:
        if not any(place.is_file() for place in _places(preset, weight, weights_dir)):
            return "missing"
        try:
            verify_weights(preset, weight.role, weights_dir)
        except WeightsError:
            status = "damaged"
    return status


def _weight_file(preset: Preset, role: str) -> WeightFile:
    for weight in preset.weights:
        if weight.role == role:
            return weight
    roles = ", ".join(weight.role for weight in preset.weights)
    raise WeightsError(f"Preset {preset.name!r} has no weights for {role!r}; it has: {roles}.")


def _places(preset: Preset, weight: WeightFile, weights_dir: Path | None) -> list[Path]:
    if weights_dir is not None:
        return [weights_dir / weight.file, weights_dir / Path(weight.file).name]
    return [preset.folder / weight.file, cache_folder() / "weights" / weight.file]


def _remedy(preset: Preset, weights_dir: Path | None) -> str:
    if weights_dir is not None:
        return "Check --weights-dir."
    if preset.bundled:
        return REINSTALL
    return f"Put the file there again, or name its folder with --weights-dir ({preset.folder})."
