"""A user's own downloads: recognised by what they hold, then taken in as if they were pulled."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from s2v_cli.errors import WeightsError
from s2v_cli.weights import store
from s2v_cli.weights.catalogue import Asset, Variant, find_asset, read_catalogue
from s2v_cli.weights.checkpoint import extract_members, read_shapes, sniff
from s2v_cli.weights.convert import Converters, find_converter
from s2v_cli.weights.digest import file_sha256
from s2v_cli.weights.disk import require_space
from s2v_cli.weights.fetch import SourceFailed
from s2v_cli.weights.hub import select_files
from s2v_cli.weights.jsonfile import read_json
from s2v_cli.weights.manifest import FileRecord, Manifest
from s2v_cli.weights.obtain import KEPT, STAGING, Order, admit, make_manifest, make_tensors, place
from s2v_cli.weights.pull import (
    Dialogue,
    PullOptions,
    finish,
    locked,
    require_licences,
    writing,
)

INDEX, CONFIG = "model_index.json", "config.json"
GENERATOR = "G_ema*.pth"  # the part of ICGAN's files that tells their size


@dataclass(frozen=True)
class Found:
    """An asset that was recognised.

    Attributes:
        asset: which.
        files: name in the asset -> path.
        variant: precision of a folder's weights.
    """

    asset: Asset
    files: Mapping[str, Path]
    variant: Variant = "full"


def import_weights(
    paths: Sequence[Path],
    converters: Converters,
    options: PullOptions | None = None,
    dialogue: Dialogue | None = None,
    *,
    name: str | None = None,
) -> dict[str, Manifest]:
    """Take in files and folders that a user downloaded; the originals stay.

    Args:
        paths: checkpoints (.pth, .safetensors, .onnx), archives, folders in diffusers' layout, or
            folders of such files.
        converters: of assets.
        options: as for pulling.
        dialogue: who is asked and told.
        name: of the asset that they are; None tells it from what they hold.

    Returns:
        Manifest of each asset that came in.

    Raises:
        WeightsError: not recognised, not whole, or not what `name` says.
    """
    options, dialogue = options or PullOptions(), dialogue or Dialogue()
    manifests: dict[str, Manifest] = {}
    for path in paths:
        for found in recognise(path, name):
            require_licences([found.asset], options.accept_licence, dialogue)
            manifests[found.asset.name] = _adopt(found, path, converters, options, dialogue)
    return manifests


def recognise(path: Path, name: str | None = None) -> list[Found]:
    """Which assets a file or folder holds.

    Raises:
        WeightsError: none; says what can be done.
    """
    if not path.exists():
        raise WeightsError(f"No file or folder at {str(path)!r}.")
    if name is not None:
        asset = find_asset(name)
        return [_as_folder(asset, path) if asset.file is None else _as_file(asset, path)]
    found = _folder_assets(path) if path.is_dir() else _file_assets(path)
    if not found:
        raise WeightsError(
            f"{path} holds no weights that s2v knows. If you know better: --as ASSET; "
            "'s2v weights list' has the names."
        )
    return found


def _adopt(
    found: Found, path: Path, converters: Converters, options: PullOptions, dialogue: Dialogue
) -> Manifest:
    asset = found.asset
    converter = find_converter(asset.name, converters) if asset.kind == "tensors" else None
    root = store.weights_root(options.weights_dir)
    size = sum(file.stat().st_size for file in found.files.values())
    with locked(root, asset.name, dialogue) as folder:
        needed = size if converter is None else asset.converted_bytes + asset.scratch_bytes
        require_space(folder, needed, asset.name)
        with writing(folder):
            (folder / STAGING).mkdir(exist_ok=True)
        order = Order(
            asset=asset,
            folder=folder,
            home=store.cache_folder(),
            stamps=store.stamps_of(folder),
            variant=found.variant,
            accept_changed=options.accept_changed,
            progress=dialogue.progress,
        )
        published = []
        for name, file in found.files.items():
            order.tell("hashing")
            record = FileRecord(name, file.stat().st_size, file_sha256(file), f"import:{path.name}")
            try:
                admit(order, record.path, record.sha256)
            except SourceFailed as refusal:
                raise WeightsError(f"{file} is refused: {refusal.reason}.") from None
            published.append(record)
        if converter is not None:
            files, where = [make_tensors(order, dict(found.files), converter)], "."
        else:
            with writing(folder):
                files, where = _copy(order, found, published), KEPT
        manifest = make_manifest(order, f"import:{path.name}", None, published, where, files)
        return finish(order, manifest)


def _copy(order: Order, found: Found, published: Iterable[FileRecord]) -> list[FileRecord]:
    """Copy files that stay as published; each copy is hashed, so that a bad disk shows."""
    records = []
    for record in published:
        target = (order.folder / KEPT).joinpath(*record.path.split("/"))
        place(found.files[record.path], target, move=False)
        if order.stamps.rehash(target) != record.sha256:
            raise WeightsError(f"{target} differs from its original: import it again.")
        records.append(FileRecord(record.path, record.bytes, record.sha256))
    return records


def _file_assets(path: Path) -> list[Found]:
    kind = sniff(path)
    if kind == "other":
        return [_as_file(asset, path) for asset in _known("marks") if _has_marks(path, asset.marks)]
    if kind == "archive":
        with tempfile.TemporaryDirectory() as folder:
            members = extract_members(path, _is_generator, Path(folder))
            shapes = read_shapes(members[0]) if members else {}
    else:
        shapes = read_shapes(path)
    return [_as_file(asset, path) for asset in _known("signature") if _fits(shapes, asset)]


def _folder_assets(folder: Path) -> list[Found]:
    snapshots = sorted((folder / "snapshots").glob("*"))  # a repository in the hub's cache
    if len(snapshots) == 1:
        return _folder_assets(snapshots[0])
    if (folder / INDEX).is_file():
        pipeline = read_json(folder / INDEX).get("_class_name")
        return [f for f in _whole(_known("pipeline"), folder) if pipeline in f.asset.pipeline]
    if (folder / CONFIG).is_file():
        config = read_json(folder / CONFIG)
        return [
            found
            for found in _whole(_known("config"), folder)
            if all(config.get(key) == value for key, value in found.asset.config.items())
        ]
    generators = sorted(folder.glob(GENERATOR))
    if generators:
        shapes = read_shapes(generators[0])
        return [_as_file(asset, folder) for asset in _known("signature") if _fits(shapes, asset)]
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    return [found for path in files if path.stat().st_size for found in _try_file(path)]


def _try_file(path: Path) -> list[Found]:
    """A file among others: one that cannot be read is none of ours."""
    try:
        return _file_assets(path)
    except WeightsError:
        return []


def _whole(assets: Iterable[Asset], folder: Path) -> Iterable[Found]:
    for asset in assets:
        try:
            yield _as_folder(asset, folder)
        except WeightsError:
            continue


def _as_folder(asset: Asset, folder: Path) -> Found:
    """A folder as an asset; its files get their names in the repository."""
    if not folder.is_dir():
        raise WeightsError(f"{folder} is a file; {asset.name} is a folder.")
    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    inner = f"{asset.subfolder}/" if asset.subfolder else ""
    for prefix in dict.fromkeys((inner, "")):  # the model itself, or the whole repository
        try:
            chosen = select_files([prefix + name for name in names], asset.patterns)
        except SourceFailed as failure:
            reason = failure.reason
            continue
        half = any(".fp16" in PurePosixPath(name).name for name in chosen)
        files = {name: folder / name.removeprefix(prefix) for name in chosen}
        for file in files.values():
            if file.suffix == ".bin":
                raise WeightsError(f"{file} is a pickle: import a folder with safetensors.")
            if file.suffix == ".safetensors":
                read_shapes(file)
        return Found(asset, files, "fp16" if half else "full")
    raise WeightsError(f"{folder} is not {asset.name}: {reason}.")


def _as_file(asset: Asset, path: Path) -> Found:
    """A file as an asset, under its published name; or ICGAN's unpacked files."""
    assert asset.file is not None  # its kind is not a folder
    if path.is_dir():
        files = {file.name: file for file in sorted(path.glob("*.pth"))}
        if not files:
            raise WeightsError(f"{path} has no .pth files; {asset.name} is not in it.")
        return Found(asset, files)
    sniff(path)
    names = [source.file_name for source in asset.file.sources]
    name = path.name if path.name in names else asset.file.name
    return Found(asset, {name: path})


def _known(trait: str) -> list[Asset]:
    return [asset for asset in read_catalogue().values() if getattr(asset, trait)]


def _fits(shapes: Mapping[str, tuple[int, ...]], asset: Asset) -> bool:
    return all(shapes.get(key) == shape for key, shape in asset.signature.items())


def _has_marks(path: Path, marks: Sequence[str]) -> bool:
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return all(text.find(mark.encode()) >= 0 for mark in marks)


def _is_generator(name: str) -> bool:
    return PurePosixPath(name).match(GENERATOR)
