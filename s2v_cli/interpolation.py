"""`s2v interp`: a photo and a sound as one picture, or the walk between them (§5.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2v_cli.abilities import require_ability
from s2v_cli.frames import Description, Walk, check_frames, share_of, write_single
from s2v_cli.job import (
    Job,
    Listener,
    Made,
    hearing_flags,
    note_oddities,
    picture_record,
    sound_record,
)
from s2v_cli.options import SoundOptions, as_record
from s2v_cli.outputs import sound_stem
from s2v_cli.photo import PhotoOptions, check_weight, draw_with_photo
from s2v_cli.presets import load_preset
from s2v_cli.strip import Theme

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from s2v_cli.audio.read import Sound
    from s2v_cli.pipeline import Sound2Vision
    from s2v_cli.results import Picture, SoundEmbedding


@dataclass(frozen=True)
class Interpolation:
    """What `s2v interp` is asked to make.

    Attributes:
        photo: a picture file.
        sound: a sound file, or `-` for standard input.
        job: everything but the two.
        sound_options: which part of the sound is heard, and how loud.
        photo_options: how the two become one picture.
        weight: the photo's share, 0 to 1; None takes the mode's default.
        frames: pictures on the way from the photo to the sound; None makes one picture.
        separate: whether each of them is a file of its own; else they are one film strip.
        theme: of the strip.
    """

    photo: Path
    sound: str
    job: Job = field(default_factory=lambda: Job("interp"))
    sound_options: SoundOptions = field(default_factory=SoundOptions)
    photo_options: PhotoOptions = field(default_factory=PhotoOptions)
    weight: float | None = None
    frames: int | None = None
    separate: bool = False
    theme: Theme = "light"

    def __post_init__(self) -> None:
        if self.weight is not None:
            check_weight(self.weight)
        check_frames(self.weight, self.frames, self.separate)

    @property
    def weights(self) -> list[float]:
        """The photo's share in each picture, from the photo to the sound."""
        if self.frames is not None:
            last = self.frames - 1
            return [(last - step) / last for step in range(self.frames)]
        return [self.photo_options.default_weight if self.weight is None else self.weight]


def draw_interpolation(asked: Interpolation, listener: Listener) -> Iterator[Made]:
    """Draw and write the pictures, yielding each once it is written.

    Raises:
        OptionError: a mode that the preset cannot do, or two pictures would land on one file.
        OutputError: a file exists or cannot be written.
        PictureError: the photo cannot be read.
        SoundError: the sound cannot be read.
    """
    from s2v_cli.audio.read import read_sound
    from s2v_cli.picture import read_picture

    job, preset = asked.job, load_preset(asked.job.preset)
    mode = asked.photo_options.mode
    require_ability(preset, "interp" if mode == "latent" else mode)
    walk = _walk(asked)
    window = asked.sound_options.window
    if walk is None:
        plan = [[path] for path in job.plan(f"{_stem(asked)}.interp", window)]
    else:
        plan = walk.plan(window)
    photo = read_picture(asked.photo, listener.note)
    photo_said = picture_record(asked.photo)
    listener.progress(f"Reading {asked.sound}")
    sound = read_sound(
        asked.sound,
        sample_rate=preset.sample_rate,
        window_s=preset.window_s,
        options=asked.sound_options,
    )
    listener.progress(f"Loading {preset.name}")  # the first import of torch
    model = job.load()
    heard = model.encode_sound(sound)
    note_oddities(sound, heard, preset.name, listener)
    seen: Image | Tensor = photo if mode == "sdedit" else model.encode_image(photo)
    facts = _Facts(asked, photo_said, sound, heard)
    for number, paths in enumerate(plan):
        pictures = _draw(asked, model, seen, heard, number, listener)
        if walk is not None:
            yield from walk.write(model, pictures, paths, facts.describe)
        else:
            yield write_single(job, model, pictures[0], paths[0], facts.describe(0))


def _draw(
    asked: Interpolation,
    model: Sound2Vision,
    seen: Image | Tensor,
    heard: SoundEmbedding,
    number: int,
    listener: Listener,
) -> list[Picture]:
    """The pictures of one seed."""
    options, steps = asked.job.options, len(asked.weights)
    return draw_with_photo(
        model,
        seen,
        heard.embedding,
        asked.weights,
        asked.photo_options,
        replace(options, seed=options.seed + number, count=1),
        progress=share_of(listener, number * steps, steps, options.count * steps),
    )


def _stem(asked: Interpolation) -> str:
    return f"{asked.photo.stem}-{sound_stem(asked.sound)}"[:120]


def _walk(asked: Interpolation) -> Walk | None:
    if asked.frames is None:
        return None
    photo, sound = asked.photo.stem, sound_stem(asked.sound)
    if photo == sound:
        photo, sound = asked.photo.name, f"{sound}{Path(asked.sound).suffix}"
    labels = [f"{photo} {weight:.2f}\n{sound} {1 - weight:.2f}" for weight in asked.weights]
    return Walk(asked.job, _stem(asked), labels, f"{photo} → {sound}", asked.theme, asked.separate)


@dataclass(frozen=True)
class _Facts:
    """What the records of all pictures say."""

    asked: Interpolation
    photo: dict[str, Any]
    sound: Sound
    heard: SoundEmbedding

    def describe(self, frame: int | None) -> Description:
        """Of one picture, or, None, of the strip."""
        asked, how = self.asked, self.asked.photo_options
        box = None if how.box is None else ",".join(repr(side) for side in how.box)
        flags: dict[str, object] = {
            "--mode": how.mode if how.mode != "latent" else None,
            "--path": how.path if how.path != "linear" else None,
            "--keep": how.keep,
            "--box": box,
            **hearing_flags(asked.sound_options),
        }
        weights: Sequence[float] | float = asked.weights
        if frame is None:
            flags["--frames"] = asked.frames
        else:
            flags["--weight"] = weights = asked.weights[frame]
        entries = {
            "pictures": [self.photo],
            "sounds": [sound_record(self.sound, self.heard)],
            "weight": weights,
            "photo_options": as_record(how),
            "sound_options": as_record(asked.sound_options),
        }
        return Description([str(asked.photo), asked.sound], flags, entries)
