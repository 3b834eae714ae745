"""`s2v edit`: a photo moved in the direction between two sounds (§5.2, Fig. 13)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2v_cli.abilities import DIFFUSION, require_ability
from s2v_cli.errors import OptionError, OutputError
from s2v_cli.inversion_file import SUFFIX, Origin, encode_inversion, read_inversion
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
from s2v_cli.outputs import plan_outputs
from s2v_cli.presets import Preset, load_preset

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from s2v_cli.audio.read import Sound
    from s2v_cli.editor import Editor
    from s2v_cli.inversion import Inversion, InversionOptions
    from s2v_cli.pipeline import Sound2Vision

TUNE_STEPS = 100
MOST_STRENGTH = 1000.0
HARDLY = 3.0  # of 255: a smaller mean change is hardly seen
INVERTIBLE_GUIDANCE = 1.0  # of diffusion: stronger guidance does not invert well
USUAL_SHIFT = 0.5  # of the embedding's norm: a shift of this share is well seen
# What a diffusion's picture depends on beside noise and embedding.
_WALK = ("steps", "guidance", "prompt", "negative_prompt", "noise_level", "adapter_scale")


@dataclass(frozen=True)
class Edit:
    """What `s2v edit` is asked to make.

    Attributes:
        picture: a photo, or an inversion that was saved (.safetensors).
        sound: z1^A, towards which the picture moves; `-` for standard input.
        sound2: z2^A, away from which it moves; None takes the mean of the sounds that the model
            was taught, or what it makes of a nearly silent room.
        job: everything but the inputs.
        sound_options: which part of the sounds is heard; its gain is not used.
        from_db, to_db: gains of the sound, -120 to 60 dB: with one of them z1 and z2 are the sound
            at `to_db` and at `from_db`, each 0 where it is left out.
        strength: how far to move, lambda of §5.2; 0 is the reconstruction.
        steps: of the inversion; None takes the default of `InversionOptions`, for diffusion that
            of the preset.
        starts: noises that the inversion tries first, likewise; diffusion does not read it.
        guidance: of diffusion; None is 1, none at all, since guidance does not invert well.
        tune: whether a copy of the generator is tuned around what was found.
        show_inversion: whether the picture is a strip of photo, reconstruction and edit.
        save_inversion: where to keep the inversion.
    """

    picture: str
    sound: str
    sound2: str | None = None
    job: Job = field(default_factory=lambda: Job("edit"))
    sound_options: SoundOptions = field(default_factory=SoundOptions)
    from_db: float | None = None
    to_db: float | None = None
    strength: float = 1.0
    steps: int | None = None
    starts: int | None = None
    guidance: float | None = None
    tune: bool = False
    show_inversion: bool = False
    save_inversion: Path | None = None

    def __post_init__(self) -> None:
        if not abs(self.strength) <= MOST_STRENGTH:
            raise OptionError(
                f"strength is {self.strength!r}; allowed: -{MOST_STRENGTH:g} to {MOST_STRENGTH:g}."
            )
        for name in ("from_db", "to_db"):
            gain = getattr(self, name)
            if gain is not None and not -120 <= gain <= 60:
                raise OptionError(f"{name.replace('_', '-')} is {gain!r}; allowed: -120 to 60 dB.")
        if self.gains is not None:
            if self.sound2 is not None:
                raise OptionError("sound2 and from-db or to-db exclude each other; give one.")
            if self.gains[0] == self.gains[1]:
                raise OptionError(f"from-db and to-db are both {self.gains[0]:g}: nothing to do.")
        if self.sound == self.sound2 == "-":
            raise OptionError("sound and sound2 are both '-'; only one can be standard input.")
        if self.save_inversion is not None and self.save_inversion.suffix != SUFFIX:
            raise OptionError(
                f"save-inversion is {str(self.save_inversion)!r}; it ends in {SUFFIX}."
            )

    @property
    def gains(self) -> tuple[float, float] | None:
        """Gains of z2 and z1, dB; None where the level is not what differs."""
        if self.from_db is None and self.to_db is None:
            return None
        return self.from_db or 0.0, self.to_db or 0.0

    @property
    def saved(self) -> bool:
        """Whether the picture is a saved inversion."""
        return Path(self.picture).suffix.lower() == SUFFIX


@dataclass(frozen=True)
class _Heard:
    """The two sounds of an edit, z1^A and z2^A, and what a record says of them."""

    towards: Tensor
    away: Tensor
    records: list[dict[str, Any]]

    @property
    def direction(self) -> Tensor:
        return self.towards - self.away


def draw_edit(edit: Edit, listener: Listener) -> Iterator[Made]:
    """Invert the photo, move its embedding, draw and write the picture.

    Raises:
        OptionError: options that the preset does not take, or an inversion of another model.
        OutputError: a file exists or cannot be written.
        PictureError: the photo or the inversion cannot be read.
        SoundError: a sound cannot be read.
        SpaceError: the inversion lies in another space.
    """
    preset = load_preset(edit.job.preset)
    require_ability(preset, "edit")
    diffusion = preset.weight("generator").network in DIFFUSION
    options = _options(edit, preset, diffusion=diffusion)
    path = _plan(edit, preset)
    walk = {name: getattr(options, name) for name in _WALK} if diffusion else {}
    origin = Origin.of(preset, walk)
    found, photo = _open(edit, origin, listener)
    sounds = _read(edit, preset, listener)
    wanted = None if diffusion else _inversion_options(edit)
    listener.progress(f"Loading {preset.name}")
    job = edit.job if diffusion else replace(edit.job, dtype="float32")  # Adam needs it
    model = job.load()

    from s2v_cli.editor import Editor

    editor = Editor(model, options)
    heard = _listen(edit, model, sounds, listener)
    if found is None:
        assert photo is not None
        found = editor.invert(photo, wanted, _tell("Inverting", listener))
    else:
        editor.check(found)
    if edit.save_inversion is not None:
        from s2v_cli.picture import write_file

        content = encode_inversion(found, origin)
        write_file(content, edit.save_inversion, overwrite=edit.job.overwrite)
    if edit.tune:
        found = editor.tune(found, TUNE_STEPS, _tell("Tuning", listener))
    yield _finish(edit, editor, options, path, found, heard, listener)


def _options(edit: Edit, preset: Preset, *, diffusion: bool) -> GenerateOptions:
    """Options of the picture: noise that was found is not drawn, and its contrast is the photo's.

    Raises:
        OptionError: an option that the generator does not take.
    """
    plain = replace(edit.job.options, truncation=None, contrast=None)
    if not diffusion:
        preset.generate_options(guidance=edit.guidance)
        if edit.job.dtype not in ("auto", "float32"):
            raise OptionError(
                f"dtype is {edit.job.dtype!r}; 'edit' inverts in float32; allowed: auto, float32."
            )
        return plain
    for name in ("starts", "tune"):
        if getattr(edit, name):
            raise OptionError(
                f"{name} is for generators that are inverted by optimisation; "
                f"{edit.job.preset!r} inverts by DDIM. Leave out --{name}."
            )
    return replace(
        plain,
        steps=plain.steps if edit.steps is None else edit.steps,
        guidance=INVERTIBLE_GUIDANCE if edit.guidance is None else edit.guidance,
        sampler="ddim",
    )


def _inversion_options(edit: Edit) -> InversionOptions:
    from s2v_cli.inversion import InversionOptions

    plain = InversionOptions(steps=edit.steps, seed=edit.job.options.seed)
    return plain if edit.starts is None else replace(plain, starts=edit.starts)


def _plan(edit: Edit, preset: Preset) -> Path:
    """Where the picture goes; the place of the inversion is checked too."""
    kept = edit.save_inversion
    if kept is not None and kept.exists() and not edit.job.overwrite:
        raise OutputError(f"{kept} exists; use --force to replace it.")
    if edit.job.target == "-":
        return Path("-")
    ((path,),) = plan_outputs(
        "{stem}-edit.png" if edit.job.target is None else edit.job.target,
        [edit.picture],
        [edit.job.options.seed],
        preset=preset.name,
        window=edit.sound_options.window,
        overwrite=edit.job.overwrite,
    )
    return path


def _open(edit: Edit, origin: Origin, listener: Listener) -> tuple[Inversion | None, Image | None]:
    """A saved inversion, or the photo that is to be inverted."""
    if not edit.saved:
        from s2v_cli.picture import read_picture

        return None, read_picture(edit.picture)
    for name in ("starts", *(() if origin.walk else ("steps",))):
        if getattr(edit, name) is not None:
            listener.note(f"--{name} is not used: {edit.picture} is inverted already.")
    return read_inversion(Path(edit.picture), origin), None


def _read(edit: Edit, preset: Preset, listener: Listener) -> list[Sound]:
    """The sounds that z1 and z2 are made of, one or two, before the model is loaded."""
    import numpy as np

    from s2v_cli.audio.mix import apply_gain
    from s2v_cli.audio.read import read_sound

    read = []
    for source in filter(None, (edit.sound, edit.sound2)):
        listener.progress(f"Reading {source}")
        read.append(
            read_sound(
                source,
                sample_rate=preset.sample_rate,
                window_s=preset.window_s,
                options=replace(edit.sound_options, gain_db=0.0),
            )
        )
    if edit.gains is None:
        return read
    away, towards = edit.gains
    with np.errstate(over="ignore"):  # one reading: the window is the same at both levels
        return [replace(read[0], windows=apply_gain(read[0].windows, db)) for db in (towards, away)]


def _listen(edit: Edit, model: Sound2Vision, sounds: list[Sound], listener: Listener) -> _Heard:
    from s2v_cli.editor import neutral_embedding

    embeddings = [model.encode_sound(sound) for sound in sounds]
    for sound, embedding in list(zip(sounds, embeddings, strict=True))[
        : None if edit.gains is None else 1
    ]:
        note_oddities(sound, embedding, model.preset.name, listener)
    records = [sound_record(s, e) for s, e in zip(sounds, embeddings, strict=True)]
    vectors = [embedding.embedding for embedding in embeddings]
    if len(vectors) == 1:
        vectors.append(neutral_embedding(model))
    return _Heard(vectors[0], vectors[1], records if edit.gains is None else records[:1])


def _tell(label: str, listener: Listener) -> Any:
    """Progress with the loss."""

    def progress(done: int, of: int, loss: float | None) -> None:
        shown = label if loss is None else f"{label} (loss {loss:.4f})"
        listener.progress(shown, done, of)

    return progress


def _finish(
    edit: Edit,
    editor: Editor,
    options: GenerateOptions,
    path: Path,
    found: Inversion,
    heard: _Heard,
    listener: Listener,
) -> Made:
    from s2v_cli.picture import resize, to_image

    listener.progress("Drawing")
    before = editor.draw(found)
    after = editor.draw(editor.moved(found, heard.direction, edit.strength))
    change = float((after - before).abs().mean()) * 127.5
    if edit.strength and change < HARDLY:
        listener.note(_advice(edit, found, heard, change))
    images = [to_image(image) for image in (found.target, before, after)]
    if options.size is not None:
        images = [resize(image, options.size) for image in images]
    image = images[-1]
    if edit.show_inversion:
        image = _strip(edit, images, found)
    figures = {
        "psnr_db": found.psnr_db if math.isfinite(found.psnr_db) else None,
        "loss": found.loss,
        "feature_distance": found.feature_distance,
        "tuned": edit.tune,
    }
    record = edit.job.record(
        editor.model,
        _command_line(edit, options, path),
        image,
        options,
        pictures=[picture_record(Path(edit.picture))],
        sounds=heard.records,
        sound_options=as_record(edit.sound_options),
        gains_db=None if edit.gains is None else list(edit.gains),
        inversion=figures,
        strength=edit.strength,
        mean_change=change,
        nearer_to_direction=editor.nearer(before, after, heard.direction),
    )
    return edit.job.write(path, image, record)


def _advice(edit: Edit, found: Inversion, heard: _Heard, change: float) -> str:
    """What to do about an edit that is hardly seen."""
    moved = f"The picture hardly moves ({change:.1f} of 255 on average)"
    length = float(heard.direction.norm() / found.embedding.norm())
    if length < 1e-6:
        return f"{moved}: both sounds are the same to the model. Give another sound, or --sound2."
    usual = max(USUAL_SHIFT / length, 2 * abs(edit.strength))
    return (
        f"{moved}: try --strength {math.copysign(usual, edit.strength):.2g}, "
        "or 's2v interp' to blend photo and sound."
    )


def _strip(edit: Edit, images: list[Image], found: Inversion) -> Image:
    from s2v_cli.strip import film_strip

    labels = ["photo", f"inverted\n{found.psnr_db:.1f} dB", f"edited\nstrength {edit.strength:g}"]
    return film_strip(images, labels)


def _command_line(edit: Edit, options: GenerateOptions, path: Path) -> list[str]:
    by_walk = options.sampler == "ddim"
    flags: dict[str, object] = {
        "--sound": edit.sound,
        "--sound2": edit.sound2,
        "--from-db": edit.from_db,
        "--to-db": edit.to_db,
        "--strength": edit.strength if edit.strength != 1 else None,
        "--steps": None if by_walk else edit.steps,
        "--starts": edit.starts,
        "--tune": edit.tune,
        "--show-inversion": edit.show_inversion,
        **hearing_flags(replace(edit.sound_options, gain_db=0.0)),
    }
    options = replace(options, sampler=None)  # it is the only one
    return edit.job.command_line([edit.picture], str(path), flags=flags, options=options)
