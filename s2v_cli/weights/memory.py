"""What s2v remembers in its cache beyond the weights: licences said yes to, and known hashes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from s2v_cli.weights.catalogue import Asset
from s2v_cli.weights.jsonfile import read_json, write_json

LICENCES, HASHES = "licences.json", "known_hashes.json"


def licence_accepted(asset: Asset, home: Path) -> bool:
    """Whether the licence needs no yes, or has had one in these words."""
    return asset.commercial or read_json(home / LICENCES).get(asset.name) == asset.licence


def remember_licence(asset: Asset, home: Path) -> None:
    """Keep a yes to an asset's licence.

    Raises:
        OSError: the cache cannot be written.
    """
    write_json(home / LICENCES, {**read_json(home / LICENCES), asset.name: asset.licence})


def known_hashes(asset: Asset, home: Path) -> dict[str, str]:
    """Published file -> SHA-256: those that the catalogue pins, and those recorded before.

    A file counts under the name that its source gives it, so that mirrors may hold the same
    weights in another format; `hf:REPO` has the revision of a repository.
    """
    recorded = read_json(home / HASHES).get(asset.name)
    known = dict(recorded) if isinstance(recorded, dict) else {}
    if asset.file and asset.file.sha256:
        known[asset.file.name] = asset.file.sha256
    return known


def remember_hashes(asset: Asset, hashes: Mapping[str, str], home: Path) -> None:
    """Record hashes of published files; they stay when the weights are removed.

    Raises:
        OSError: the cache cannot be written.
    """
    content = read_json(home / HASHES)
    before = content.get(asset.name)
    merged = {**(before if isinstance(before, dict) else {}), **hashes}
    if merged != before:
        write_json(home / HASHES, {**content, asset.name: merged})
