"""`s2v blend`: speech and an environment in one picture, or the walk between them (§6.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2v_cli.abilities import require_ability
from s2v_cli.errors import OptionError
from s2v_cli.frames import Description, Walk, check_frames, share_of, write_single
from s2v_cli.job import Job, Listener, Made, hearing_flags, note_oddities, sound_record
from s2v_cli.options import SoundOptions, as_record
from s2v_cli.outputs import sound_stem
from s2v_cli.photo import PathChoice
from s2v_cli.presets import load_preset
from s2v_cli.speech import note_strange_voice, read_speech
from s2v_cli.strip import Theme

if TYPE_CHECKING:
    from torch import Tensor

    from s2v_cli.pipeline import Sound2Vision


@dataclass(frozen=True)
class Blend:
    """What `s2v blend` is asked to make.

    Attributes:
        speech: a sound file, or `-` for standard input.
        environment: likewise; not both can be `-`.
        job: everything but the sounds.
        sound_options: which part of both sounds is heard, and how loud.
        weight: the environment's share, the paper's lambda, 0 to 1; the rest is the speech's.
            None takes 0.5.
        frames: pictures on the way from the speech to the environment; None makes one picture.
        separate: whether each of them is a file of its own; else they are one film strip.
        theme: of the strip.
        path: between the two embeddings.
        any_sound: whether the speech may be a sound without a voice.
    """

    speech: str
    environment: str
    job: Job = field(default_factory=lambda: Job("blend"))
    sound_options: SoundOptions = field(default_factory=SoundOptions)
    weight: float | None = None
    frames: int | None = None
    separate: bool = False
    theme: Theme = "light"
    path: PathChoice = "linear"
    any_sound: bool = False

    def __post_init__(self) -> None:
        if self.speech == self.environment == "-":
            raise OptionError("speech and env are both '-'; one of them can be standard input.")
        if self.path not in ("linear", "spherical"):
            raise OptionError(f"path is {self.path!r}; allowed: linear, spherical.")
        if self.weight is not None and not 0 <= self.weight <= 1:
            raise OptionError(
                f"weight is {self.weight!r}; allowed: 0 (the speech) to 1 (the environment)."
            )
        check_frames(self.weight, self.frames, self.separate)

    @property
    def weights(self) -> list[float]:
        """The environment's share in each picture, from the speech to the environment."""
        if self.frames is not None:
            return [step / (self.frames - 1) for step in range(self.frames)]
        return [0.5 if self.weight is None else self.weight]

    @property
    def stem(self) -> str:
        """For names of files."""
        return f"{sound_stem(self.speech)}-{sound_stem(self.environment)}"[:120]


def blend_embeddings(
    model: Sound2Vision,
    voice: Tensor,
    environment: Tensor,
    weights: list[float],
    path: PathChoice = "linear",
) -> Tensor:
    """z^new = w z_E + (1 - w) z_S for each weight, [F, D] (§6.2); 0 keeps the voice, 1 the other.

    Args:
        model: whose space both embeddings [D] lie in.
        voice: z_S.
        environment: z_E.
        weights: the environment's shares, 0 to 1.
        path: `linear` as in the paper, or `spherical`.
    """
    import torch

    from s2v_cli.latent import interpolate

    unit = model.space.scale == "unit"
    return interpolate(environment, voice, torch.tensor(weights), unit=unit, path=path)


def draw_blend(asked: Blend, listener: Listener) -> Iterator[Made]:
    """Draw and write the pictures, yielding each once it is written.

    Weight 0 gives the picture of `s2v face`, weight 1 that of `s2v gen` of the environment.

    Raises:
        OptionError: a preset that cannot blend, or two pictures would land on one file.
        OutputError: a file exists or cannot be written.
        SoundError: a sound cannot be read, or the speech holds no voice.
    """
    job, preset = asked.job, load_preset(asked.job.preset)
    require_ability(preset, "blend")
    walk = _walk(asked)
    window = asked.sound_options.window
    if walk is None:
        plan = [[path] for path in job.plan(f"{asked.stem}.blend", window)]
    else:
        plan = walk.plan(window)
    listener.progress(f"Loading {preset.name}")
    model = job.load()
    listener.progress(f"Reading {asked.speech}")
    speech = read_speech(model, asked.speech, asked.sound_options, any_sound=asked.any_sound)
    listener.progress(f"Reading {asked.environment}")
    environment = model.read(asked.environment, asked.sound_options)
    voice, place = model.encode_speech(speech), model.encode_sound(environment)
    note_strange_voice(speech, voice, preset.name, listener)
    note_oddities(environment, place, preset.name, listener)
    way = blend_embeddings(model, voice.embedding, place.embedding, asked.weights, asked.path)
    sounds = [
        {"part": "speech", **sound_record(speech, voice)},
        {"part": "environment", **sound_record(environment, place)},
    ]
    facts = _Facts(asked, sounds)
    for number, paths in enumerate(plan):
        options = replace(job.options, seed=job.options.seed + number, count=1)
        progress = share_of(listener, number * len(way), len(way), len(plan) * len(way))
        pictures = model.generate_strip(way, options, progress=progress)
        if walk is not None:
            yield from walk.write(model, pictures, paths, facts.describe)
        else:
            yield write_single(job, model, pictures[0], paths[0], facts.describe(0))


def _walk(asked: Blend) -> Walk | None:
    if asked.frames is None:
        return None
    speech, environment = sound_stem(asked.speech), sound_stem(asked.environment)
    if speech == environment:
        speech, environment = Path(asked.speech).name, Path(asked.environment).name
    labels = [f"{speech} {1 - share:.2f}\n{environment} {share:.2f}" for share in asked.weights]
    caption = f"{speech} → {environment}"
    return Walk(asked.job, asked.stem, labels, caption, asked.theme, asked.separate)


@dataclass(frozen=True)
class _Facts:
    """What the records of all pictures say."""

    asked: Blend
    sounds: list[dict[str, Any]]

    def describe(self, frame: int | None) -> Description:
        """Of one picture, or, None, of the strip."""
        asked = self.asked
        flags: dict[str, object] = {
            "--speech": asked.speech,
            "--env": asked.environment,
            "--path": asked.path if asked.path != "linear" else None,
            "--any-sound": asked.any_sound,
            **hearing_flags(asked.sound_options),
        }
        weights: list[float] | float = asked.weights
        if frame is None:
            flags["--frames"] = asked.frames
        else:
            flags["--weight"] = weights = asked.weights[frame]
        entries = {
            "sounds": self.sounds,
            "weight": weights,
            "way": asked.path,
            "sound_options": as_record(asked.sound_options),
        }
        return Description([], flags, entries)
