"""The manifest of an asset: where its weights came from, and what they are.

It is written last: without one an asset is not there, whatever files lie in its folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from s2v_cli.errors import WeightsError
from s2v_cli.weights.catalogue import Asset, Variant
from s2v_cli.weights.jsonfile import read_json, write_json

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class FileRecord:
    """One file.

    Attributes:
        path: relative to the manifest's root, with `/`; of a published file that was not kept,
            its name.
        bytes: its size.
        sha256: of the whole file.
        source: where it came from; empty for a converted file.
    """

    path: str
    bytes: int
    sha256: str
    source: str = ""


@dataclass(frozen=True)
class Manifest:
    """What is known of an asset that is here.

    Attributes:
        asset: its name in the catalogue.
        s2v: version that wrote this.
        licence: under which it was taken.
        source: repository, address or path that it came from.
        revision: of the repository.
        variants: `full`, `fp16` or both.
        published: files as they were published.
        root: folder of `files`; `.` is the manifest's own folder.
        files: files that are used.
    """

    asset: str
    s2v: str
    licence: str
    source: str
    revision: str | None
    variants: tuple[Variant, ...]
    published: tuple[FileRecord, ...]
    root: str
    files: tuple[FileRecord, ...]

    def root_folder(self, folder: Path) -> Path:
        """The folder of the files, for a manifest in `folder`."""
        return folder / self.root  # an absolute root stays as it is

    def paths(self, folder: Path) -> dict[Path, FileRecord]:
        """Path -> record of the files that are used."""
        root = self.root_folder(folder)
        return {root.joinpath(*record.path.split("/")): record for record in self.files}


def read_manifest(asset: Asset, folder: Path) -> Manifest | None:
    """The manifest in an asset's folder; None where the asset is not there.

    Raises:
        WeightsError: it is damaged or of another asset.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    content = read_json(path)
    try:
        manifest = Manifest(
            asset=str(content["asset"]),
            s2v=str(content["s2v"]),
            licence=str(content["licence"]),
            source=str(content["source"]),
            revision=content["revision"],
            variants=tuple(content["variants"]),
            published=tuple(_record(entry) for entry in content["published"]),
            root=str(content["root"]),
            files=tuple(_record(entry) for entry in content["files"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"Damaged weights: {path} cannot be read ({type(error).__name__} {error}). "
            f"Get them again: s2v weights rm {asset.name}, then s2v weights pull {asset.name}."
        ) from None
    inside = all(_is_inside(record.path) for record in manifest.files)
    if manifest.asset != asset.name or not inside or not manifest.files:
        raise WeightsError(f"Damaged weights: {path} is not a manifest of {asset.name}.")
    return manifest


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write a manifest; from then on the asset is there.

    Raises:
        OSError: the folder cannot be written.
    """
    write_json(folder / MANIFEST, asdict(manifest))


def _record(entry: Mapping[str, Any]) -> FileRecord:
    return FileRecord(
        str(entry["path"]), int(entry["bytes"]), str(entry["sha256"]), str(entry["source"])
    )


def _is_inside(path: str) -> bool:
    return bool(path) and not path.startswith("/") and ".." not in path.split("/")
