"""`s2v nearest`: the photos of a folder that a sound lies nearest to (Table 1 C)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2v_cli.abilities import require_ability
from s2v_cli.errors import OptionError, PictureError
from s2v_cli.job import (
    Job,
    Listener,
    Made,
    hearing_flags,
    note_oddities,
    picture_record,
    sound_record,
)
from s2v_cli.options import GenerateOptions, SoundOptions, as_record
from s2v_cli.outputs import plan_outputs, sound_stem
from s2v_cli.presets import Preset, load_preset
from s2v_cli.strip import Theme, film_strip

if TYPE_CHECKING:
    from torch import Tensor

    from s2v_cli.pipeline import Sound2Vision

PHOTO_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)
MOST = 1000  # photos that can be asked for
MOST_NOTES = 5  # of photos that cannot be read, told one by one
SAVE_EVERY = 500  # photos, so that little is lost when indexing is stopped
CELL = 160  # px, side of a photo on the contact sheet
INDEX_VERSION = 1  # goes up when the same file would get another embedding
_ENOUGH = 1024  # px: larger photos are reduced before the encoder does it, in whole steps


@dataclass(frozen=True)
class Search:
    """What `s2v nearest` is asked to find.

    Attributes:
        query: a sound file or a photo, or `-` for a sound from standard input.
        folder: of photos.
        job: everything else; its target is the contact sheet, None draws none.
        sound_options: which part of the sound is heard, and how loud.
        count: how many photos, 1 to 1000.
        recursive: whether folders in the folder are searched too.
        theme: of the contact sheet.
    """

    query: str
    folder: Path
    job: Job = field(default_factory=lambda: Job("nearest"))
    sound_options: SoundOptions = field(default_factory=SoundOptions)
    count: int = 8
    recursive: bool = False
    theme: Theme = "light"

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST:
            raise OptionError(f"count is {self.count}; allowed: 1 to {MOST}.")


@dataclass(frozen=True)
class Match:
    """A photo and how near it is.

    Attributes:
        path: of the photo.
        similarity: cosine of its embedding and the query's, -1 to 1.
    """

    path: Path
    similarity: float


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        matches: the nearest first.
        photos: how many were compared.
        sheet: the contact sheet, where one was asked for.
    """

    matches: tuple[Match, ...]
    photos: int
    sheet: Made | None = None


def search(asked: Search, listener: Listener) -> Found:
    """Find the photos that are nearest to a sound, or to a photo.

    Photos that cannot be read are told to the listener and left out.

    Raises:
        OptionError: an option is outside its range.
        PictureError: the folder cannot be read or holds no photo that can be.
        SoundError: the sound cannot be read.
        OutputError: the contact sheet exists or cannot be written.
    """
    preset = load_preset(asked.job.preset)
    require_ability(preset, "nearest")
    path = _plan(asked, preset)
    photos = find_photos(asked.folder, recursive=asked.recursive)
    model, said, query = _encode(asked, preset, listener)
    index = update_index(model, asked.folder, photos, listener)
    if not index.paths:
        raise PictureError(f"No photo in {str(asked.folder)!r} can be read.")
    matches = tuple(index.nearest(query, asked.count))
    if path is None:
        return Found(matches, len(index.paths))
    return Found(matches, len(index.paths), _sheet(asked, model, path, matches, said, listener))


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

    from s2v_cli.errors import OutputError
    from s2v_cli.picture import write_file

    content = save(
        {"embeddings": index.embeddings.contiguous()}, {"entries": json.dumps(index.entries)}
    )
    try:
        write_file(content, place, overwrite=True)
    except OutputError:
        return  # a cache that cannot be written costs time, not the result


def _plan(asked: Search, preset: Preset) -> Path | None:
    job = asked.job
    if job.target in (None, "-"):
        return None if job.target is None else Path("-")
    return plan_outputs(
        job.target,
        [f"{sound_stem(asked.query)}-nearest.png"],
        [job.options.seed],
        preset=preset.name,
        window=asked.sound_options.window,
        overwrite=job.overwrite,
    )[0][0]


def _encode(
    asked: Search, preset: Preset, listener: Listener
) -> tuple[Sound2Vision, dict[str, Any], Tensor]:
    """The model, what a record says of the query, and its embedding [D]."""
    job = asked.job
    listener.progress(f"Reading {asked.query}")
    if Path(asked.query).suffix.lower() in PHOTO_SUFFIXES:
        from s2v_cli.picture import read_picture

        photo = read_picture(asked.query, listener.note)
        model = _load(job, preset, listener)
        said = {"pictures": [picture_record(Path(asked.query))]}
        return model, said, model.encode_image(photo)
    from s2v_cli.audio.read import read_sound

    sound = read_sound(
        asked.query,
        sample_rate=preset.sample_rate,
        window_s=preset.window_s,
        options=asked.sound_options,
    )
    model = _load(job, preset, listener)
    heard = model.encode_sound(sound)
    note_oddities(sound, heard, preset.name, listener)
    return model, {"sounds": [sound_record(sound, heard)]}, heard.embedding


def _load(job: Job, preset: Preset, listener: Listener) -> Sound2Vision:
    listener.progress(f"Loading {preset.name}")  # the first import of torch
    return job.load()


def _sheet(
    asked: Search,
    model: Sound2Vision,
    path: Path,
    matches: Sequence[Match],
    said: dict[str, Any],
    listener: Listener,
) -> Made:
    from PIL import Image, ImageOps

    from s2v_cli.picture import read_picture

    listener.progress("Drawing the contact sheet")
    cells = []
    for match in matches:
        photo = read_picture(match.path)
        cells.append(ImageOps.contain(photo, (CELL, CELL), Image.Resampling.LANCZOS))
    labels = [f"{match.similarity:.3f}\n{match.path.name}" for match in matches]
    sheet = film_strip(
        cells,
        labels,
        caption=f"nearest to {sound_stem(asked.query)}",
        theme=asked.theme,
        columns=math.ceil(math.sqrt(1.3 * len(cells))),
    )
    arguments = _command_line(asked, path)
    record = asked.job.record(
        model,
        arguments,
        sheet,
        GenerateOptions(),
        **said,
        sound_options=as_record(asked.sound_options),
        nearest=[[str(match.path), match.similarity] for match in matches],
    )
    for name in ("seed", "similarity", "generate_options", "resolution", "resampled_from"):
        del record[name]  # of pictures that are drawn
    return asked.job.write(path, sheet, record)


def _command_line(asked: Search, path: Path) -> list[str]:
    """The command line that draws the sheet again; it takes no flags of drawing."""
    flags = {
        **hearing_flags(asked.sound_options),
        "--recursive": asked.recursive,
        "--theme": asked.theme if asked.theme != "light" else None,
    }
    inputs = [asked.query, str(asked.folder)]
    line = asked.job.command_line(inputs, str(path), flags=flags, options=GenerateOptions())
    at = line.index("--seed")
    return [*line[:at], "--count", str(asked.count), *line[at + 2 :]]
