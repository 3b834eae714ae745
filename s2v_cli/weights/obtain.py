"""From the sources of an asset to files that can be used, one source after the other."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from s2v_cli import __version__
from s2v_cli.errors import WeightsError
from s2v_cli.weights.catalogue import Asset, PublishedFile, Source, Variant
from s2v_cli.weights.checkpoint import read_checkpoint
from s2v_cli.weights.convert import Converter, convert_files
from s2v_cli.weights.digest import Stamps, file_sha256
from s2v_cli.weights.disk import require_space
from s2v_cli.weights.drive import fetch_drive
from s2v_cli.weights.fetch import FetchOptions, Progress, SourceFailed, fetch_https
from s2v_cli.weights.hub import (
    HubFile,
    Listing,
    fetch_hub_file,
    is_offline,
    list_repo,
    select_files,
    snapshot_folder,
)
from s2v_cli.weights.jsonfile import read_json, write_json
from s2v_cli.weights.manifest import FileRecord, Manifest
from s2v_cli.weights.memory import known_hashes

STAGING, KEPT = "staging", "files"


@dataclass(frozen=True)
class Order:
    """One asset to get, and how.

    Attributes:
        asset: what.
        folder: of the asset; it is there and locked.
        home: the cache folder, where hashes are remembered.
        stamps: of `folder`.
        variant: which precision of a folder.
        into_hub_cache: whether files of the hub that stay as published go into the hub's cache.
        accept_changed: take a file that differs from the one recorded before.
        fetch: patience.
        progress: hears label, bytes so far and in all.
        present: the manifest of what is here already, if it is whole.
        hashes: filled with what is to be remembered when all is well.
    """

    asset: Asset
    folder: Path
    home: Path
    stamps: Stamps
    variant: Variant = "full"
    into_hub_cache: bool = True
    accept_changed: bool = False
    fetch: FetchOptions = field(default_factory=FetchOptions)
    progress: Progress | None = None
    present: Manifest | None = None
    hashes: dict[str, str] = field(default_factory=dict)

    @property
    def staging(self) -> Path:
        """Folder of what is under way."""
        return self.folder / STAGING

    def tell(self, what: str) -> None:
        """Say what is done, for work without a measure."""
        if self.progress:
            self.progress(f"{self.asset.name}: {what}", 0, None)


def obtain(order: Order, converter: Converter | None) -> Manifest:
    """Get an asset from the first of its sources that gives it; the manifest is not written yet.

    Raises:
        WeightsError: no source gives it, with a reason for each; or the disk is full.
    """
    asset = order.asset
    reasons = []
    for source in asset.file.sources if asset.file else asset.sources:
        try:
            if is_offline() and source.kind != "hf":
                raise SourceFailed("HF_HUB_OFFLINE is set")
            if asset.file is None:
                return _obtain_folder(order, source)
            return _obtain_file(order, asset.file, source, converter)
        except SourceFailed as failure:
            reasons.append(f"{source}: {failure.reason}")
        except OSError as error:
            raise WeightsError(
                f"Cannot get {asset.name}: {error.filename or order.folder}: "
                f"{error.strerror or error}."
            ) from error
    raise WeightsError(
        f"Cannot get {asset.name} ({'; '.join(reasons)}). Try again later, or get it by hand from "
        f"{asset.by_hand or asset.page} and run: s2v weights import PATH --as {asset.name}"
    )


def admit(order: Order, name: str, sha256: str) -> None:
    """Refuse a published file whose hash is not the known one; else note its hash.

    Raises:
        SourceFailed: it differs; shows both hashes.
    """
    known = known_hashes(order.asset, order.home).get(name)
    pinned = order.asset.file is not None and order.asset.file.sha256 == known
    if known is not None and known != sha256 and (pinned or not order.accept_changed):
        way = "" if pinned else "; --accept-changed takes it all the same"
        raise SourceFailed(
            f"{name} is not the known file: its SHA-256 is {sha256} instead of {known}{way}"
        )
    order.hashes[name] = sha256


def make_tensors(order: Order, files: dict[str, Path], converter: Converter) -> FileRecord:
    """Convert published files into the asset's one safetensors file.

    Raises:
        WeightsError: the converter does not know them, or the disk is full.
    """
    order.tell("converting")
    target = order.folder / f"{order.asset.name}.safetensors"
    convert_files(files, target, converter)
    return FileRecord(target.name, target.stat().st_size, order.stamps.rehash(target))


def make_manifest(
    order: Order,
    source: str,
    revision: str | None,
    published: list[FileRecord],
    root: str,
    files: list[FileRecord],
) -> Manifest:
    """The manifest of what was just obtained, with what is here of another variant."""
    before = order.present
    variants: tuple[Variant, ...] = (order.variant,)
    if before is not None and before.root == root and before.revision == revision:
        known = {record.path for record in files}
        files = [*files, *(record for record in before.files if record.path not in known)]
        published = [*published, *(r for r in before.published if r.path not in known)]
        variants = tuple(dict.fromkeys((*before.variants, *variants)))
    return Manifest(
        asset=order.asset.name,
        s2v=__version__,
        licence=order.asset.licence,
        source=source,
        revision=revision,
        variants=variants,
        published=tuple(published),
        root=root,
        files=tuple(files),
    )


def _obtain_file(
    order: Order, file: PublishedFile, source: Source, converter: Converter | None
) -> Manifest:
    name = source.file_name or file.name
    revision, path = None, order.staging / name
    if source.kind == "hf":
        listing = _listing(order, source)
        revision = listing.commit
        keep = order.asset.kind == "file" and order.into_hub_cache
        entry = listing.file(source.path)
        _need(order, entry.bytes)
        path = fetch_hub_file(
            listing,
            entry,
            None if keep else path,
            label=order.asset.name,
            options=order.fetch,
            progress=order.progress,
        )
        digest = _known_etag(entry) or file_sha256(path)
    else:
        digest = _staged(order, file, source, path)
    size = path.stat().st_size
    ours = path.parent == order.staging
    try:
        admit(order, name, digest)
        published = [FileRecord(name, size, digest, str(source))]
        if order.asset.kind == "tensors":
            assert converter is not None  # found before anything was downloaded
            try:
                record = make_tensors(order, {name: path}, converter)
            except WeightsError as error:  # this source's file is of no use; another's may be
                raise SourceFailed(error) from error
            return make_manifest(order, str(source), revision, published, ".", [record])
    except SourceFailed:
        if ours:
            _discard(path)
        raise
    if source.kind == "hf" and order.into_hub_cache:
        root = snapshot_folder(listing)
        inside = path.relative_to(root).as_posix()
        order.stamps.remember(path, digest)
        return make_manifest(
            order, str(source), revision, published, str(root), [FileRecord(inside, size, digest)]
        )
    kept = order.folder / KEPT / name
    place(path, kept, move=ours)
    order.stamps.remember(kept, digest)
    return make_manifest(
        order, str(source), revision, published, KEPT, [FileRecord(name, size, digest)]
    )


def _staged(order: Order, file: PublishedFile, source: Source, path: Path) -> str:
    """Bring a file of the web into the staging folder; returns its SHA-256."""
    done = path.with_name(path.name + ".done.json")
    earlier = read_json(done).get("sha256")
    if path.is_file() and earlier is not None and file_sha256(path) == earlier:
        return str(earlier)  # an earlier run came this far
    path.unlink(missing_ok=True)
    _need(order, file.bytes)
    if source.kind == "drive":
        fetch_drive(
            source.place,
            path,
            label=order.asset.name,
            options=order.fetch,
            progress=order.progress,
        )
    else:
        fetch_https(
            source.place,
            path,
            label=order.asset.name,
            size=None if file.estimated else file.bytes,
            options=order.fetch,
            progress=order.progress,
        )
    order.tell("hashing")
    digest = file_sha256(path)
    write_json(done, {"sha256": digest, "source": str(source)})
    return digest


def _obtain_folder(order: Order, source: Source) -> Manifest:
    listing = _listing(order, source)
    names = select_files((f.path for f in listing.files), order.asset.patterns, order.variant)
    entries = [listing.file(name) for name in names]
    pickled = any(name.endswith(".bin") for name in names)
    own = pickled or not order.into_hub_cache
    root = order.folder / KEPT if own else snapshot_folder(listing)
    places = [root.joinpath(*entry.path.split("/")) for entry in entries]
    total = sum(entry.bytes for entry in entries)
    waiting = [e.bytes for e, path in zip(entries, places, strict=True) if not path.is_file()]
    require_space(root, sum(waiting) + (total if pickled else 0), order.asset.name)
    records, done = [], 0
    for entry, target in zip(entries, places, strict=True):
        path = fetch_hub_file(
            listing,
            entry,
            order.staging / entry.path if own else None,
            label=order.asset.name,
            options=order.fetch,
            progress=_shifted(order.progress, done, total),
        )
        done += entry.bytes
        digest = _known_etag(entry) or file_sha256(path)
        admit(order, entry.path, digest)
        if own:
            place(path, target, move=order.staging in path.parents)
        order.stamps.remember(target, digest)
        records.append(FileRecord(entry.path, target.stat().st_size, digest, str(source)))
    files = [FileRecord(r.path, r.bytes, r.sha256) for r in records]
    if pickled:
        files = [_unpickled(order, root, record) for record in files]
    order.hashes[f"hf:{listing.repo}"] = listing.commit
    where = KEPT if own else str(root)
    return make_manifest(order, str(source), listing.commit, records, where, files)


def _unpickled(order: Order, root: Path, record: FileRecord) -> FileRecord:
    """A pickle of a folder, replaced by safetensors under the name that libraries look for."""
    if not record.path.endswith(".bin"):
        return record
    order.tell("converting")
    path = root.joinpath(*record.path.split("/"))
    name = path.stem.replace("pytorch_model", "model") + ".safetensors"
    target = path.with_name(name)
    convert_files({path.name: path}, target, lambda files: read_checkpoint(files[path.name]))
    path.unlink()
    inside = target.relative_to(root).as_posix()
    return FileRecord(inside, target.stat().st_size, order.stamps.rehash(target))


def _listing(order: Order, source: Source) -> Listing:
    known = None if order.accept_changed else known_hashes(order.asset, order.home)
    revision = source.revision or (known or {}).get(f"hf:{source.place}")
    listing = list_repo(source, revision, order.fetch)
    order.hashes[f"hf:{source.place}"] = listing.commit
    return listing


def _known_etag(entry: HubFile) -> str | None:
    """SHA-256 of a file that was checked against the hub's."""
    return entry.etag if len(entry.etag) == 64 else None


def _need(order: Order, download: int) -> None:
    asset = order.asset
    needed = download + asset.converted_bytes + asset.scratch_bytes
    require_space(order.folder, needed, asset.name)


def place(path: Path, target: Path, *, move: bool) -> None:
    """Put a file to its place, whole or not at all: moved if it is ours, else copied."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if move:
        os.replace(path, target)
        return
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        shutil.copyfile(path, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _discard(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_name(path.name + ".done.json").unlink(missing_ok=True)


def _shifted(progress: Progress | None, done: int, total: int) -> Progress | None:
    """Progress of one file as progress of them all."""
    if progress is None:
        return None
    heard = progress
    return lambda label, part, _: heard(label, done + part, total)
