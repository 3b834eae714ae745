"""`s2v gen --gain-db -20:20:5`: one seed, several volumes of a sound, one film strip (Fig. 8)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from s2v_cli.errors import DependencyError, OptionError, SoundError
from s2v_cli.frames import Description, Walk, share_of
from s2v_cli.job import Job, Listener, Made, hearing_flags, note_oddities, sound_record
from s2v_cli.options import SoundOptions, as_record
from s2v_cli.outputs import sound_stem
from s2v_cli.presets import Preset, load_preset
from s2v_cli.strip import Theme

if TYPE_CHECKING:
    from s2v_cli.audio.read import Sound
    from s2v_cli.pipeline import Sound2Vision

MAX_STEPS = 100


@dataclass(frozen=True)
class Volumes:
    """What `s2v gen` is asked to make of several volumes.

    Attributes:
        sources: sound files, or `-` for standard input; a strip for each, and each seed.
        gains_db: of the pictures of a strip.
        job: everything but the sounds.
        sound_options: which part of each sound is heard; its gain is not used.
        separate: whether each picture is a file of its own.
        theme: of the strips.
    """

    sources: Sequence[str]
    gains_db: Sequence[float]
    job: Job = field(default_factory=lambda: Job("gen"))
    sound_options: SoundOptions = field(default_factory=SoundOptions)
    separate: bool = False
    theme: Theme = "light"


def parse_gains(text: str) -> list[float]:
    """Gains in dB: one, or `start:stop:count`, evenly spaced.

    Raises:
        OptionError: neither, or a gain or count outside its range.
    """
    parts = text.split(":")
    try:
        if len(parts) == 1:
            gains = [float(text)]
        else:
            start, stop, steps = float(parts[0]), float(parts[1]), int(parts[2])
            if len(parts) > 3 or not 2 <= steps <= MAX_STEPS or start == stop:
                raise ValueError
            last = steps - 1
            gains = [(start * (last - step) + stop * step) / last for step in range(steps)]
    except (ValueError, IndexError, OverflowError):
        raise OptionError(
            f"gain-db is {text!r}; allowed: dB (-6), or start:stop:count of 2 to {MAX_STEPS} "
            "different volumes (-20:20:5)."
        ) from None
    for gain in gains:
        SoundOptions(gain_db=gain)  # checks the range
    return gains


def draw_volumes(volumes: Volumes, listener: Listener) -> Iterator[Made]:
    """Draw and write the strips, yielding each once it is written.

    The window is chosen once for all volumes; the gain comes after it. Of several sounds one that
    cannot be read is reported to `listener.error`, the others go on.

    Raises:
        OptionError: a strip is too large, or two pictures would land on one file.
        OutputError: a file exists or cannot be written.
        SoundError: the only sound cannot be read.
    """
    preset, job = load_preset(volumes.job.preset), volumes.job
    walks = [_walk(volumes, source) for source in volumes.sources]
    plans = [walk.plan(volumes.sound_options.window) for walk in walks]
    paths = [path for plan in plans for row in plan for path in row]
    if len(set(paths)) < len(paths):
        raise OptionError(
            "Several strips would land on one file; output may be a folder or a template with "
            "{stem}, {seed} or {index}."
        )
    model: Sound2Vision | None = None
    for number, (source, walk, plan) in enumerate(zip(volumes.sources, walks, plans, strict=True)):
        listener.progress(f"Reading {source}")
        sound = _read(volumes, preset, source, listener)
        if sound is None:
            continue
        if model is None:  # the first import of torch: a bad sound is told before that
            listener.progress(f"Loading {preset.name}")
            model = job.load()
        yield from _draw(volumes, model, sound, walk, plan, number, listener)


def _walk(volumes: Volumes, source: str) -> Walk:
    stem = sound_stem(source)
    labels = [gain_label(gain) for gain in volumes.gains_db]
    return Walk(volumes.job, stem, labels, stem, volumes.theme, volumes.separate)


def gain_label(gain_db: float) -> str:
    """A gain for a label, with a sign that is as wide as a plus."""
    if not round(gain_db, 2):
        return "0 dB"
    return f"{round(gain_db, 2):+g} dB".replace("-", "\N{MINUS SIGN}")


def _read(volumes: Volumes, preset: Preset, source: str, listener: Listener) -> Sound | None:
    from s2v_cli.audio.read import read_sound

    try:
        return read_sound(
            source,
            sample_rate=preset.sample_rate,
            window_s=preset.window_s,
            options=replace(volumes.sound_options, gain_db=0.0),
        )
    except (SoundError, OptionError, DependencyError) as error:
        if len(volumes.sources) == 1:
            raise
        listener.error(error)
        return None


def _draw(
    volumes: Volumes,
    model: Sound2Vision,
    sound: Sound,
    walk: Walk,
    plan: Sequence[Sequence[Path]],
    number: int,
    listener: Listener,
) -> Iterator[Made]:
    import torch

    from s2v_cli.audio.mix import apply_gain

    options, steps = volumes.job.options, len(volumes.gains_db)
    heard = [
        model.encode_sound(replace(sound, windows=apply_gain(sound.windows, gain)))
        for gain in volumes.gains_db
    ]
    if sound.silent or all(embedding.familiar is False for embedding in heard):
        note_oddities(sound, heard[-1], model.preset.name, listener)
    conditions = torch.stack([embedding.embedding for embedding in heard])

    def describe(frame: int | None) -> Description:
        flags = hearing_flags(replace(volumes.sound_options, gain_db=0.0))
        first, last = volumes.gains_db[0], volumes.gains_db[-1]
        if frame is None:
            flags["--gain-db"] = f"{first!r}:{last!r}:{steps}"
            said = {**sound_record(sound), "familiarity": [e.familiarity for e in heard]}
            entries = {"gains_db": list(volumes.gains_db)}
        else:
            flags["--gain-db"] = volumes.gains_db[frame]
            said, entries = sound_record(sound, heard[frame]), {}
        gain = volumes.sound_options.gain_db if frame is None else volumes.gains_db[frame]
        heard_as = as_record(replace(volumes.sound_options, gain_db=gain))
        return Description(
            [sound.source], flags, {"sounds": [said], "sound_options": heard_as, **entries}
        )

    for offset, paths in enumerate(plan):
        before = (number * options.count + offset) * steps
        pictures = model.generate_strip(
            conditions,
            replace(options, seed=options.seed + offset, count=1),
            progress=share_of(
                listener, before, steps, len(volumes.sources) * options.count * steps
            ),
        )
        yield from walk.write(model, pictures, paths, describe)
