"""From the words on a command line to assets: names of presets, of folders, or of assets."""

from __future__ import annotations

from collections.abc import Sequence

from s2v_cli.errors import PresetError
from s2v_cli.presets import Preset, list_presets, load_preset, preset_names
from s2v_cli.weights import store
from s2v_cli.weights.catalogue import read_catalogue
from s2v_cli.weights.pull import GEN_ROLES, assets_of


def find_assets(names: Sequence[str], roles: Sequence[str] | None = GEN_ROLES) -> list[str]:
    """Published weights behind names, each once.

    Args:
        names: of presets (or their folders), or of assets. A preset's name comes first.
        roles: networks of the presets that count; None counts all.

    Raises:
        PresetError: a name that is neither.
    """
    found: list[str] = []
    for name in names:
        found += [name] if (preset := find_preset(name)) is None else _assets(preset, roles)
    return list(dict.fromkeys(found))


def find_preset(name: str) -> Preset | None:
    """The preset of a name or path; None where an asset has that name.

    Raises:
        PresetError: it is neither.
    """
    if name not in preset_names() and name in read_catalogue():
        return None
    try:
        return load_preset(name)
    except PresetError as error:
        raise PresetError(f"{error} Or name published weights: 's2v weights list'.") from None


def presets_of(asset: str) -> list[str]:
    """Names of the presets that come with the package and need an asset."""
    return [preset.name for preset in list_presets() if asset in preset.assets]


def in_use(names: Sequence[str], doomed: Sequence[str]) -> dict[str, str]:
    """Assets among `doomed` that another preset still needs, and the preset's name.

    A preset counts if it is none of `names` and all that its pictures need is here.
    """
    kept: dict[str, str] = {}
    for preset in list_presets():
        needed = assets_of(preset)
        if preset.name in names or not needed:
            continue
        if all(store.asset_status(asset) == "here" for asset in needed):
            kept |= dict.fromkeys((asset for asset in doomed if asset in needed), preset.name)
    return {asset: preset for asset, preset in kept.items() if asset not in names}


def _assets(preset: Preset, roles: Sequence[str] | None) -> list[str]:
    return list(preset.assets) if roles is None else assets_of(preset, roles)
