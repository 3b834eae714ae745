"""Speech and an environment in one picture: two sound embeddings and the way between (§6.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from s2v_cli.errors import OptionError
from s2v_cli.job import Job, Listener, Made, hearing_flags, note_oddities, sound_record
from s2v_cli.options import GenerateOptions, SoundOptions, as_record
from s2v_cli.outputs import plan_outputs, sound_stem
from s2v_cli.presets import load_preset
from s2v_cli.speech import note_strange_voice, read_speech

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from s2v_cli.pipeline import Sound2Vision

MOST_FRAMES = 120


@dataclass(frozen=True)
class Blend:
    """What `s2v blend` is asked to make.

    Attributes:
        speech: file, or `-` for standard input.
        environment: likewise; not both can be `-`.
        job: everything but the sounds.
        sound_options: which part of both sounds is heard, and how loud.
        weight: the environment's share, the paper's lambda, 0 to 1; the rest is the speech's.
        frames: of a film strip from the speech to the environment, 2 to 120, which takes the
            place of `weight`; None makes single pictures.
        path: between the embeddings, `linear` as in the paper, or `spherical`.
        any_sound: whether the speech may be a sound without a voice.
    """

    speech: str
    environment: str
    job: Job = field(default_factory=lambda: Job("blend"))
    sound_options: SoundOptions = field(default_factory=SoundOptions)
    weight: float = 0.5
    frames: int | None = None
    path: Literal["linear", "spherical"] = "linear"
    any_sound: bool = False

    def __post_init__(self) -> None:
        checks = {
            "weight": (0 <= self.weight <= 1, "0 to 1"),
            "frames": (
                self.frames is None or 2 <= self.frames <= MOST_FRAMES,
                f"2 to {MOST_FRAMES}",
            ),
            "path": (self.path in ("linear", "spherical"), "linear, spherical"),
        }
        for name, (ok, allowed) in checks.items():
            if not ok:
                raise OptionError(f"{name} is {getattr(self, name)!r}; allowed: {allowed}.")
        if self.speech == self.environment == "-":
            raise OptionError("speech and env are both '-'; only one can be standard input.")

    @property
    def weights(self) -> list[float]:
        """The environment's share in each frame."""
        if self.frames is None:
            return [self.weight]
        return [index / (self.frames - 1) for index in range(self.frames)]


def draw_blend(blend: Blend, listener: Listener) -> Iterator[Made]:
    """Draw and write a picture, or with `frames` a strip, for each seed.

    Weight 0 gives the picture of `s2v face`, weight 1 that of `s2v gen` of the environment.

    Raises:
        OptionError: the strip would be too large, or two pictures would land on one file.
        OutputError: a file exists or cannot be written.
        SoundError: a sound cannot be read, or the speech holds no voice.
        PresetError: the preset has no speech encoder.
    """
    job = blend.job
    preset = load_preset(job.preset)
    preset.weight("speech_encoder")
    seeds = range(job.options.seed, job.options.seed + job.options.count)
    paths = _plan(blend, seeds, preset.name, job.options.size or preset.resolution)
    listener.progress(f"Loading {preset.name}")
    model = job.load()
    listener.progress(f"Reading {blend.speech}")
    speech = read_speech(model, blend.speech, blend.sound_options, any_sound=blend.any_sound)
    environment = model.read(blend.environment, blend.sound_options)
    voice, place = model.encode_speech(speech), model.encode_sound(environment)
    note_strange_voice(speech, voice, preset.name, listener)
    note_oddities(environment, place, preset.name, listener)
    records = [
        {"part": "speech", **sound_record(speech, voice)},
        {"part": "environment", **sound_record(environment, place)},
    ]
    way = _way(blend, model, voice.embedding, place.embedding)
    for number, (seed, path) in enumerate(zip(seeds, paths, strict=True)):
        options = replace(job.options, seed=seed, count=1)
        total = len(seeds) * len(way) * options.best_of

        def progress(done: int, of: int, number: int = number, total: int = total) -> None:
            listener.progress("Drawing", number * of + done, total)

        pictures = model.generate_strip(way, options, progress=progress)
        image = _strip(blend, [picture.image for picture in pictures])
        record = _record(blend, model, path, image, options, records)
        if blend.frames is None:
            record["similarity"] = pictures[0].similarity
        yield job.write(path, image, record)


def _plan(blend: Blend, seeds: range, preset: str, side: int) -> list[Path]:
    if blend.frames is not None:
        from s2v_cli.strip import check_strip

        check_strip(blend.frames, side)
    if blend.job.target == "-":
        if len(seeds) > 1:
            raise OptionError("output '-' takes a single picture; use a folder.")
        return [Path("-")]
    # The stem of the pictures is that of both sounds.
    name = f"{sound_stem(blend.speech)}-{sound_stem(blend.environment)}.wav"
    (paths,) = plan_outputs(
        blend.job.target,
        [name],
        seeds,
        preset=preset,
        window=blend.sound_options.window,
        overwrite=blend.job.overwrite,
    )
    return paths


def _way(blend: Blend, model: Sound2Vision, voice: Tensor, place: Tensor) -> Tensor:
    """Embeddings of the frames, [F, D]: z^new = w z_E + (1 - w) z_S."""
    import torch

    from s2v_cli.latent import interpolate

    unit = model.space.scale == "unit"
    return interpolate(place, voice, torch.tensor(blend.weights), unit=unit, path=blend.path)


def _strip(blend: Blend, images: list[Image]) -> Image:
    if blend.frames is None:
        return images[0]
    from s2v_cli.strip import film_strip

    speech, environment = sound_stem(blend.speech), sound_stem(blend.environment)
    labels = [f"{weight:.2f}" for weight in blend.weights]
    return film_strip(images, labels, caption=f"{speech} \N{RIGHTWARDS ARROW} {environment}")


def _record(
    blend: Blend,
    model: Sound2Vision,
    path: Path,
    image: Image,
    options: GenerateOptions,
    records: list[dict[str, Any]],
) -> dict[str, Any]:
    flags: dict[str, object] = {
        "--speech": blend.speech,
        "--env": blend.environment,
        "--weight": blend.weight if blend.frames is None else None,
        "--frames": blend.frames,
        "--path": blend.path if blend.path != "linear" else None,
        "--any-sound": blend.any_sound,
        **hearing_flags(blend.sound_options),
    }
    return blend.job.record(
        model,
        blend.job.command_line([], str(path), flags=flags, options=options),
        image,
        options,
        sounds=records,
        sound_options=as_record(blend.sound_options),
        weights_of_environment=blend.weights,
        path_between=blend.path,
    )
