"""Removing published weights; what was learnt of them (hashes, licences) stays."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2v_cli.errors import WeightsError
from s2v_cli.weights import store
from s2v_cli.weights.catalogue import find_asset
from s2v_cli.weights.hub import remove_from_cache
from s2v_cli.weights.manifest import Manifest, read_manifest
from s2v_cli.weights.pull import Dialogue, locked, writing


@dataclass(frozen=True)
class Removal:
    """An asset that is removed, or would be.

    Attributes:
        asset: its name.
        bytes: of its files.
        folder: where they lie.
        shared: whether they lie in the hub's cache, where other programs find them too.
    """

    asset: str
    bytes: int
    folder: Path
    shared: bool

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "asset": self.asset,
            "bytes": self.bytes,
            "folder": str(self.folder),
            "shared": self.shared,
        }


def plan_removal(names: Sequence[str], weights_dir: Path | None = None) -> list[Removal]:
    """What removing these assets would free; assets that are not here are left out.

    Raises:
        WeightsError: an unknown name.
    """
    planned = []
    for name in dict.fromkeys(names):
        folder = store.weights_root(weights_dir) / name
        find_asset(name)
        manifest = _readable(name, folder)
        own = [path for path in folder.rglob("*") if path.is_file()]
        if not own:
            continue
        shared = manifest is not None and Path(manifest.root).is_absolute()
        files = {*own, *(manifest.paths(folder) if manifest else ())}
        size = sum(path.stat().st_size for path in files if path.is_file())
        place = manifest.root_folder(folder) if shared and manifest else folder
        planned.append(Removal(name, size, place, shared))
    return planned


def remove_assets(
    names: Sequence[str], weights_dir: Path | None = None, dialogue: Dialogue | None = None
) -> list[Removal]:
    """Remove assets: manifest first, so that a run that is stopped leaves nothing to be trusted.

    Raises:
        WeightsError: an unknown name, or a folder that cannot be written.
    """
    removed = plan_removal(names, weights_dir)
    root = store.weights_root(weights_dir)
    for removal in removed:
        with locked(root, removal.asset, dialogue or Dialogue()) as folder, writing(folder):
            manifest = _readable(removal.asset, folder)
            (folder / "manifest.json").unlink(missing_ok=True)
            if manifest is not None and Path(manifest.root).is_absolute():
                for path in manifest.paths(folder):
                    remove_from_cache(path)
            shutil.rmtree(folder)
            store.stamps_of(folder).forget()
    return removed


def _readable(name: str, folder: Path) -> Manifest | None:
    """The manifest, or None where it is missing or damaged; both are removed alike."""
    try:
        return read_manifest(find_asset(name), folder)
    except WeightsError:
        return None
