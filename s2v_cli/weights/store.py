"""Weights on disk: found, checked against size and SHA-256, then read.

Files of a preset's own lie beside its TOML; published weights (assets) lie in the cache, each in a
folder with a manifest, or where the manifest says.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from s2v_cli.errors import MissingWeightsError, WeightsError
from s2v_cli.presets import Preset, WeightFile
from s2v_cli.weights.catalogue import Asset, Variant, find_asset, human_bytes
from s2v_cli.weights.digest import Stamps
from s2v_cli.weights.manifest import Manifest, read_manifest

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


def weights_status(
    preset: Preset, weights_dir: Path | None = None, roles: Sequence[str] | None = None
) -> WeightsStatus:
    """Whether all weights of a preset are there and whole, or those of some roles.

    Files of its own are read; of published weights those that changed since they were read last.
    """
    status: WeightsStatus = "here"
    wanted = [weight for weight in preset.weights if roles is None or weight.role in roles]
    for asset in dict.fromkeys(name for weight in wanted for name in weight.assets):
        found = asset_status(asset, weights_dir)
        if found == "missing":
            return "missing"
        status = "damaged" if found == "damaged" else status
    for weight in wanted:
        if weight.assets:
            continue
        if not any(place.is_file() for place in _places(preset, weight, weights_dir)):
            return "missing"
        try:
            verify_weights(preset, weight.role, weights_dir)
        except WeightsError:
            status = "damaged"
    return status


def weights_root(weights_dir: Path | None = None) -> Path:
    """The folder that holds a folder for each asset."""
    return cache_folder() / "weights" if weights_dir is None else weights_dir


def stamps_of(folder: Path) -> Stamps:
    """Remembered hashes of an asset's files."""
    return Stamps(cache_folder() / "stamps", folder)


def load_asset(name: str, weights_dir: Path | None = None) -> dict[str, Tensor]:
    """Tensors of a converted asset by name, checked and mapped into memory, on the CPU.

    The pages are read when they are used, and shared with other processes. Never write into them.

    Raises:
        MissingWeightsError: it was not pulled or imported yet.
        WeightsError: damaged, or kept as published.
    """
    path = _only_file(name, weights_dir)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"Cannot read the weights {path}: {error}.") from error


def asset_file(name: str, weights_dir: Path | None = None) -> Path:
    """The one file of an asset, checked.

    Raises:
        MissingWeightsError: it was not pulled or imported yet.
        WeightsError: damaged, or a folder.
    """
    return _only_file(name, weights_dir)


def asset_folder(name: str, weights_dir: Path | None = None) -> Path:
    """The folder of an asset that is kept as a folder; every file in use is checked.

    Raises:
        MissingWeightsError: it was not pulled or imported yet.
        WeightsError: damaged.
    """
    asset = find_asset(name)
    manifest = verify_asset(name, weights_dir)
    return manifest.root_folder(weights_root(weights_dir) / name) / asset.subfolder


def asset_sha256(name: str, weights_dir: Path | None = None) -> str:
    """One hash for an asset as it is here: of its only file, or of all its files' hashes.

    Raises:
        MissingWeightsError: it was not pulled or imported yet.
    """
    import hashlib

    manifest = asset_manifest(name, weights_dir)
    if len(manifest.files) == 1:
        return manifest.files[0].sha256
    lines = sorted(f"{record.sha256}  {record.path}" for record in manifest.files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def asset_manifest(name: str, weights_dir: Path | None = None) -> Manifest:
    """What is recorded of an asset; its files are not looked at.

    Raises:
        MissingWeightsError: it was not pulled or imported yet.
        WeightsError: the manifest is damaged.
    """
    asset = find_asset(name)
    manifest = read_manifest(asset, weights_root(weights_dir) / name)
    if manifest is None:
        raise missing_assets([asset], weights_dir=weights_dir)
    return manifest


def verify_asset(
    name: str,
    weights_dir: Path | None = None,
    *,
    reread: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Check an asset's files against size and SHA-256 of its manifest.

    Args:
        name: of the asset.
        weights_dir: where the weights lie, if not in the cache.
        reread: hash every file again, also those that did not change since the last time.
        progress: hears how many bytes were read since the last call.

    Raises:
        MissingWeightsError: it was not pulled or imported yet, or files are gone.
        WeightsError: damaged; says which file and what to do.
    """
    manifest = asset_manifest(name, weights_dir)
    folder = weights_root(weights_dir) / name
    stamps = stamps_of(folder)
    paths = manifest.paths(folder)
    if not all(path.is_file() for path in paths):
        raise missing_assets([find_asset(name)], weights_dir=weights_dir)
    for path, record in paths.items():
        size = path.stat().st_size
        if size != record.bytes:
            raise _damaged_asset(name, path, f"it has {size} bytes instead of {record.bytes}")
        try:
            actual = (stamps.rehash if reread else stamps.sha256)(path, progress)
        except OSError as error:
            raise WeightsError(f"Cannot read the weights {path}: {error.strerror}.") from error
        if actual != record.sha256:
            problem = f"its SHA-256 is {actual[:12]}… instead of {record.sha256[:12]}…"
            raise _damaged_asset(name, path, problem)
    return manifest


def asset_status(name: str, weights_dir: Path | None = None) -> WeightsStatus:
    """Whether an asset is there and whole; files that did not change are not read again."""
    try:
        verify_asset(name, weights_dir)
    except MissingWeightsError:
        return "missing"
    except WeightsError:
        return "damaged"
    return "here"


def missing_assets(
    assets: Sequence[Asset],
    *,
    whose: str = "",
    command: str = "",
    weights_dir: Path | None = None,
    variant: Variant = "full",
    why: str = "",
) -> MissingWeightsError:
    """The error that says what is missing, how large it is, its licence, and the command.

    Args:
        assets: that are missing, at least one.
        whose: for example the preset that needs them.
        command: that gets them; without one, `s2v weights pull` and their names.
        weights_dir: for the command.
        variant: whose size counts.
        why: nothing can be pulled right now, a sentence.
    """
    total = sum(asset.bytes(variant) for asset in assets)
    about = "about " if any(asset.estimated for asset in assets) else ""
    parts = [
        f"{asset.name} ({human_bytes(asset.bytes(variant))}, {asset.licence_text})"
        for asset in assets
    ]
    whole = f"; {about}{human_bytes(total)} in all" if len(assets) > 1 else ""
    command = command or f"s2v weights pull {' '.join(asset.name for asset in assets)}"
    if weights_dir is not None:
        import shlex

        command += f" --weights-dir {shlex.quote(str(weights_dir))}"
    owner = f" of {whose}" if whose else ""
    return MissingWeightsError(
        f"Missing weights{owner}: {', '.join(parts)}{whole}.{why and ' ' + why} "
        f"Get them: {command}",
        assets=tuple(asset.name for asset in assets),
        bytes=total,
        licences=tuple(asset.licence for asset in assets),
        command=command,
    )


def _only_file(name: str, weights_dir: Path | None) -> Path:
    asset = find_asset(name)
    if asset.kind == "folder":
        raise WeightsError(f"The weights {name} are a folder, not one file.")
    manifest = verify_asset(name, weights_dir)
    return next(iter(manifest.paths(weights_root(weights_dir) / name)))


def _damaged_asset(name: str, path: Path, problem: str) -> WeightsError:
    return WeightsError(
        f"Damaged weights: {path}: {problem}. Get them again: s2v weights pull {name}"
    )


def _weight_file(preset: Preset, role: str) -> WeightFile:
    for weight in preset.weights:
        if weight.role == role:
            if weight.assets:
                raise WeightsError(
                    f"The {role} of preset {preset.name!r} has published weights: "
                    f"{', '.join(weight.assets)}."
                )
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
