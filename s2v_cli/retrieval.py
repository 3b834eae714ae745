"""`s2v nearest`: the photos of a folder that a sound lies nearest to (Table 1 C)."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
from s2v_cli.photo_index import PHOTO_SUFFIXES, Match, find_photos, update_index
from s2v_cli.presets import Preset, load_preset
from s2v_cli.strip import Theme, film_strip

if TYPE_CHECKING:
    from torch import Tensor

    from s2v_cli.pipeline import Sound2Vision

MOST = 1000  # photos that can be asked for
CELL = 160  # px, side of a photo on the contact sheet


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
