"""An index of photos: what an image encoder saw in them, kept in the cache until a file changes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from s2v_cli.errors import OutputError, PictureError
from s2v_cli.job import Listener

if TYPE_CHECKING:
    from torch import Tensor

    from s2v_cli.pipeline import Sound2Vision

PHOTO_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)
MOST_NOTES = 5  # of photos that cannot be read, told one by one
SAVE_EVERY = 500  # photos, so that little is lost when indexing is stopped
INDEX_VERSION = 1  # goes up when the same file would get another embedding
_ENOUGH = 1024  # px: larger photos are reduced before the encoder does it, in whole steps


@dataclass(frozen=True)
class Match:
    """A photo and how near it is.

    Attributes:
        path: of the photo.
        similarity: cosine of its embedding and the query's, -1 to 1.
    """

    path: Path
    similarity: float


def find_photos(folder: Path, *, recursive: bool = False) -> list[Path]:
    """The photos of a folder, sorted; hidden files and folders are left out.

    Raises:
        PictureError: the folder cannot be read or holds no photo.
    """
    if not folder.is_dir():
        raise PictureError(f"No folder at {str(folder)!r}.")
    found: list[Path] = []

    def refuse(error: OSError) -> None:
        if error.filename == str(folder):
            raise error

    try:
        for place, folders, files in os.walk(folder, onerror=refuse):
            folders[:] = sorted(name for name in folders if name[0] != ".") if recursive else []
            found += [
                Path(place) / name
                for name in sorted(files)
                if name[0] != "." and Path(name).suffix.lower() in PHOTO_SUFFIXES
            ]
    except OSError as error:
        raise PictureError(f"Cannot read {str(folder)!r}: {error.strerror}.") from error
    if not found:
        deeper = "" if recursive else " With --recursive the folders in it are searched too."
        raise PictureError(f"No photo in {str(folder)!r}.{deeper}")
    return found


@dataclass
class Index:
    """Embeddings of photos.

    Attributes:
        entries: size and time of change of each file that is known, and the row of its embedding;
            -1 where it cannot be read.
        embeddings: float32 [N, D], a row each.
        paths: those that a search compares, set by `select`.
    """

    entries: dict[str, tuple[int, int, int]]
    embeddings: Tensor
    paths: list[Path] = field(default_factory=list)

    def select(self, photos: Sequence[Path]) -> None:
        """Compare only these photos, those of them that could be read."""
        self.paths = [path for path in photos if self.entries[_key(path)][2] >= 0]

    def nearest(self, query: Tensor, count: int) -> Iterator[Match]:
        """The `count` selected photos nearest to an embedding [D], the nearest first.

        Of equally near ones the first by path comes first.
        """
        from s2v_cli.latent import similarity

        rows = [self.entries[_key(path)][2] for path in self.paths]
        scores = similarity(self.embeddings[rows], query)
        order = scores.argsort(descending=True, stable=True)[:count]
        for place in order.tolist():
            yield Match(self.paths[place], float(scores[place]))


def update_index(
    model: Sound2Vision, folder: Path, photos: Sequence[Path], listener: Listener
) -> Index:
    """The index of a folder, with every photo that is new or changed encoded anew.

    It lies in the cache, under a name that holds the folder and all that an embedding depends on:
    another model, or other weights, find no index and make their own.
    """
    place = index_path(model, folder)
    index = _read_index(place, model.space.dimension)
    stamps = {_key(path): _stamp(path) for path in photos}
    known = {
        key: entry
        for key, entry in index.entries.items()
        if key not in stamps or stamps[key] == entry[:2]
    }
    missing = [path for path in photos if _key(path) not in known]
    gone = [key for key in known if key not in stamps and not os.path.exists(key)]
    for key in gone:
        del known[key]
    builder = _Builder(index.embeddings, known)
    unreadable: list[str] = []
    for number, path in enumerate(missing):
        listener.progress(f"Looking at the photos in {folder}", number, len(missing))
        try:
            embedding = _look(model, path)
        except PictureError as error:
            builder.add(_key(path), stamps[_key(path)], None)
            unreadable.append(str(error))
        else:
            builder.add(_key(path), stamps[_key(path)], embedding)
        if number % SAVE_EVERY == SAVE_EVERY - 1:
            _write_index(place, builder.build())
    for complaint in unreadable[:MOST_NOTES]:
        listener.note(f"Left out: {complaint}")
    if len(unreadable) > MOST_NOTES:
        listener.note(f"Left out: {len(unreadable) - MOST_NOTES} more that cannot be read.")
    index = builder.build()
    if missing or gone:
        _write_index(place, index)
    index.select(photos)
    return index


def index_path(model: Sound2Vision, folder: Path) -> Path:
    """Where the index of a folder lies, for one image encoder."""
    import hashlib

    from s2v_cli.weights.store import cache_folder

    _ = model.image_encoder  # its weights are known once it is loaded
    weight = model.preset.weight("image_encoder")
    names = ("image_encoder", *weight.assets)
    identity = [
        INDEX_VERSION,
        weight.network,
        {name: model.weights_sha256.get(name) for name in names},
        str(model.space),
        str(model.dtype),
        os.path.realpath(folder),
    ]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "photos" / f"{digest[:32]}.safetensors"


class _Builder:
    """Gathers embeddings, old and new ones, into an index without gaps."""

    def __init__(self, embeddings: Tensor, known: dict[str, tuple[int, int, int]]) -> None:
        self._rows: list[Tensor] = []
        self._entries: dict[str, tuple[int, int, int]] = {}
        for key, (size, changed, row) in known.items():
            self.add(key, (size, changed), None if row < 0 else embeddings[row])
        self._dimension = embeddings.shape[1]

    def add(self, key: str, stamp: tuple[int, int], embedding: Tensor | None) -> None:
        row = -1 if embedding is None else len(self._rows)
        self._entries[key] = (*stamp, row)
        if embedding is not None:
            self._rows.append(embedding)

    def build(self) -> Index:
        import torch

        rows = torch.stack(self._rows) if self._rows else torch.empty(0, self._dimension)
        return Index(dict(self._entries), rows)


def _look(model: Sound2Vision, path: Path) -> Tensor:
    from s2v_cli.picture import read_picture

    photo = read_picture(path)
    return model.encode_image(photo.reduce(max(1, min(photo.size) // _ENOUGH)))


def _key(path: Path) -> str:
    return os.path.abspath(path)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:  # a broken link, or gone meanwhile: reading it says so
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _read_index(place: Path, dimension: int) -> Index:
    """The index at a place; an empty one where there is none, or none that can be used."""
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(place, "pt") as file:
            entries = json.loads(file.metadata()["entries"])
            embeddings = file.get_tensor("embeddings")
        known = {str(key): (int(s), int(c), int(row)) for key, (s, c, row) in entries.items()}
        rows = [row for _, _, row in known.values() if row >= 0]
        if embeddings.shape == (len(rows), dimension) and sorted(rows) == list(range(len(rows))):
            return Index(known, embeddings)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError):
        pass  # not there, or damaged: it is only a cache
    return Index({}, torch.empty(0, dimension))


def _write_index(place: Path, index: Index) -> None:
    from safetensors.torch import save

    from s2v_cli.picture import write_file

    content = save(
        {"embeddings": index.embeddings.contiguous()}, {"entries": json.dumps(index.entries)}
    )
    try:
        write_file(content, place, overwrite=True)
    except OutputError:
        return  # a cache that cannot be written costs time, not the result
