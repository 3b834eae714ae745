"""Looking after weights that are here: where they lie, and whether they are still whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2v_cli.errors import MissingWeightsError, WeightsError
from s2v_cli.presets import Preset
from s2v_cli.weights import store
from s2v_cli.weights.catalogue import find_asset, read_catalogue
from s2v_cli.weights.fetch import Progress
from s2v_cli.weights.manifest import MANIFEST
from s2v_cli.weights.pull import assets_of, pull_command
from s2v_cli.weights.selection import find_preset


@dataclass(frozen=True)
class Check:
    """What was found of one asset, or one file of a preset's own.

    Attributes:
        name: of the asset, or PRESET/ROLE.
        status: `here`, `missing` or `damaged`.
        problem: the whole story, or empty.
    """

    name: str
    status: store.WeightsStatus
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"name": self.name, "status": self.status, "problem": self.problem or None}


def audit(
    names: Sequence[str] | None = None,
    weights_dir: Path | None = None,
    progress: Progress | None = None,
) -> list[Check]:
    """Hash weights again from beginning to end, whatever stamps say.

    Args:
        names: presets or assets; None takes every asset that is here.
        weights_dir: where they lie, if not in the cache.
        progress: hears label, bytes so far and in all.

    Raises:
        PresetError: a name that is neither preset nor asset.
    """
    if not names:
        root = store.weights_root(weights_dir)
        names = [name for name in read_catalogue() if (root / name / MANIFEST).is_file()]
    checks: dict[str, Check] = {}
    for name in names:
        preset = find_preset(name)
        assets = [name] if preset is None else list(assets_of(preset))
        for asset in assets:
            checks[asset] = _check_asset(asset, weights_dir, progress)
        for weight in preset.weights if preset else ():
            if not weight.assets:
                check = _check_own(preset, weight.role, weights_dir)
                checks[check.name] = check
    return list(checks.values())


def locate(
    name: str, weights_dir: Path | None = None, *, everything: bool = False
) -> dict[str, Path]:
    """Where the weights of a preset or asset lie: a file each, or a folder of several.

    Args:
        name: of a preset or an asset.
        weights_dir: where they lie, if not in the cache.
        everything: all networks of a preset, not only those for pictures from sound.

    Raises:
        WeightsError: missing; says how to get them.
    """
    preset = find_preset(name)
    if preset is None:
        return {name: _place(name, weights_dir)}
    found = {
        weight.role: store.weight_path(preset, weight.role, weights_dir)
        for weight in preset.weights
        if not weight.assets
    }
    assets = preset.assets if everything else assets_of(preset)
    missing = [asset for asset in assets if store.asset_status(asset, weights_dir) == "missing"]
    if missing:
        raise store.missing_assets(
            [find_asset(asset) for asset in missing],
            whose=f"preset {preset.name!r}",
            command=pull_command(preset) + (" --all" if everything else ""),
            weights_dir=weights_dir,
        )
    return found | {asset: _place(asset, weights_dir) for asset in assets}


def _place(asset: str, weights_dir: Path | None) -> Path:
    if find_asset(asset).kind == "folder":
        return store.asset_folder(asset, weights_dir)
    return store.asset_file(asset, weights_dir)


def _check_asset(name: str, weights_dir: Path | None, progress: Progress | None) -> Check:
    done = 0

    def heard(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(name, done, None)

    try:
        store.verify_asset(name, weights_dir, reread=True, progress=heard)
    except MissingWeightsError as error:
        return Check(name, "missing", str(error))
    except WeightsError as error:
        return Check(name, "damaged", str(error))
    return Check(name, "here")


def _check_own(preset: Preset | None, role: str, weights_dir: Path | None) -> Check:
    assert preset is not None  # the caller has one
    name = f"{preset.name}/{role}"
    try:
        store.weight_path(preset, role, weights_dir)
    except WeightsError as error:
        return Check(name, "missing", str(error))
    try:
        store.verify_weights(preset, role, weights_dir)
    except WeightsError as error:
        return Check(name, "damaged", str(error))
    return Check(name, "here")
