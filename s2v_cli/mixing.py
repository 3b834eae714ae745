"""`s2v mix`: several sounds as one, a picture of it, or a walk from one to the other (§5.1)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2v_cli.audio.tracks import (
    MAX_STEPS,
    MixOptions,
    Track,
    check_sweep,
    check_tracks,
    sweep_weights,
)
from s2v_cli.errors import OptionError, OutputError
from s2v_cli.frames import Description, Walk, share_of, write_single
from s2v_cli.job import Job, Listener, Made, hearing_flags, note_oddities
from s2v_cli.options import SoundOptions, as_record
from s2v_cli.presets import load_preset
from s2v_cli.strip import Theme

if TYPE_CHECKING:
    from s2v_cli.audio.mixdown import Mixdown
    from s2v_cli.pipeline import Sound2Vision
    from s2v_cli.results import SoundEmbedding

AUDIO_SUFFIXES = (".wav", ".mp3")
CHUNK = 8  # pictures drawn before they are written: bounds memory, and what Ctrl-C loses


@dataclass(frozen=True)
class Mixing:
    """What `s2v mix` is asked to make.

    Attributes:
        tracks: the sounds; of a sweep, their weights are those at their end of the walk.
        job: everything but the sounds.
        sound_options: which part of the mix is heard, and how loud it is.
        mix_options: what becomes of short tracks and of samples beyond full scale.
        sweep: steps of a walk from the first of two sounds to the second; None mixes once.
        frame: the only step of it that is drawn, from 1; None draws all.
        separate: whether each step is a file of its own; else they are one film strip.
        theme: of the strip.
        save_audio: where to write what is heard; None does not.
    """

    tracks: Sequence[Track]
    job: Job = field(default_factory=lambda: Job("mix"))
    sound_options: SoundOptions = field(default_factory=SoundOptions)
    mix_options: MixOptions = field(default_factory=MixOptions)
    sweep: int | None = None
    frame: int | None = None
    separate: bool = False
    theme: Theme = "light"
    save_audio: Path | None = None

    @property
    def weights(self) -> list[tuple[float, float]] | None:
        """Of the two tracks at each step; None without a sweep."""
        return None if self.sweep is None else sweep_weights(self.sweep)

    @property
    def stem(self) -> str:
        """For names of files: those of the sounds, as far as they fit."""
        return "-".join(track.stem for track in self.tracks)[:120]


def draw_mix(mixing: Mixing, listener: Listener) -> Iterator[Made]:
    """Draw and write the pictures of a mix, yielding each once it is written.

    Raises:
        OptionError: weights that are not allowed or sum to zero, or two pictures would land on
            one file.
        OutputError: a file exists or cannot be written.
        SoundError: a sound cannot be read.
    """
    from s2v_cli.audio.mixdown import mix_sounds

    _check(mixing)
    job, preset = mixing.job, load_preset(mixing.job.preset)
    walk = _walk(mixing)
    window = mixing.sound_options.window
    plan = [job.plan(f"{mixing.stem}.mix", window)] if walk is None else walk.plan(window)
    listener.progress("Reading the sounds")
    mixed = mix_sounds(
        mixing.tracks,
        sample_rate=preset.sample_rate,
        window_s=preset.window_s,
        options=mixing.sound_options,
        mixing=mixing.mix_options,
        sweep=mixing.weights,
    )
    if mixing.frame is not None:  # mixed with the others: window and level are those of all
        mixed = replace(mixed, sounds=mixed.sounds[mixing.frame - 1 : mixing.frame])
    _note(mixing, mixed, listener)
    listener.progress(f"Loading {preset.name}")  # the first import of torch
    model = job.load()
    heard = [model.encode_sound(sound) for sound in mixed.sounds]
    strange = all(sound.silent for sound in mixed.sounds) or all(
        embedding.familiar is False for embedding in heard
    )
    if strange:
        note_oddities(mixed.sounds[0], heard[0], preset.name, listener)
    if walk is None:
        yield from _draw_one(mixing, model, mixed, heard[0], plan[0], listener)
    else:
        yield from _draw_walk(mixing, walk, model, mixed, heard, plan, listener)
    if mixing.save_audio is not None:
        _save_audio(mixing, mixed)
        listener.note(f"What is heard of the mix is in {mixing.save_audio}.")


def _check(mixing: Mixing) -> None:
    check_tracks(mixing.tracks, mixing.mix_options)
    if mixing.sweep is not None:
        check_sweep(mixing.tracks)
        sweep_weights(mixing.sweep)
    for name, given in (("frame", mixing.frame is not None), ("separate", mixing.separate)):
        if given and mixing.sweep is None:
            raise OptionError(f"--{name} belongs to --sweep, of 2 to {MAX_STEPS} steps.")
    if mixing.frame is not None:
        assert mixing.sweep is not None
        if not 1 <= mixing.frame <= mixing.sweep:
            raise OptionError(f"frame is {mixing.frame}; allowed: 1 to {mixing.sweep}.")
        if mixing.separate:
            raise OptionError("--frame draws one picture of a sweep; leave out --separate.")
    if mixing.save_audio is not None:
        _check_audio(mixing, mixing.save_audio)


def _check_audio(mixing: Mixing, path: Path) -> None:
    if mixing.sweep is not None and mixing.frame is None:
        raise OptionError("--save-audio writes one mix; of a sweep, choose it with --frame.")
    if path.suffix.lower() not in AUDIO_SUFFIXES:
        raise OptionError(
            f"Cannot write {path.name!r}: its suffix is {path.suffix!r}; "
            f"allowed: {', '.join(AUDIO_SUFFIXES)}."
        )
    if path.is_dir():
        raise OutputError(f"Cannot write {path}: it is a folder.")
    if any(
        os.path.exists(t.source) and path.exists() and path.samefile(t.source)
        for t in mixing.tracks
    ):
        raise OutputError(f"{path} is one of the sounds; --save-audio needs another name.")
    if path.exists() and not mixing.job.overwrite:
        raise OutputError(f"{path} exists; use --force to replace.")


def _walk(mixing: Mixing) -> Walk | None:
    weights = mixing.weights
    if weights is None or mixing.frame is not None:
        return None
    first, second = mixing.tracks
    labels = [
        f"{first.stem} {_number(first.gain * one)}\n{second.stem} {_number(second.gain * other)}"
        for one, other in weights
    ]
    return Walk(
        mixing.job,
        mixing.stem,
        labels,
        f"{first.stem} → {second.stem}",
        mixing.theme,
        mixing.separate,
    )


def _number(gain: float) -> str:
    """A gain for a label: two decimals, or two digits where these would say nothing."""
    return f"{gain:.2f}" if abs(gain) >= 0.095 or gain == 0 else f"{gain:.2g}"


def _note(mixing: Mixing, mixed: Mixdown, listener: Listener) -> None:
    for track in mixing.tracks:
        if not track.gain:
            listener.note(f"{track.source} has weight 0 and is left out.")
    if not mixed.beyond:
        return
    what = {
        "warn": "the model hears them as they are, or cuts them; see --clip",
        "cut": "they are cut",
        "scale": f"the mix is turned down by {mixed.turned_down_db:.1f} dB",
    }[mixing.mix_options.clip]
    listener.note(f"{mixed.beyond} samples of the mix are beyond full scale: {what}.")


def _draw_one(
    mixing: Mixing,
    model: Sound2Vision,
    mixed: Mixdown,
    heard: SoundEmbedding,
    paths: Sequence[Path],
    listener: Listener,
) -> Iterator[Made]:
    options = mixing.job.options
    made = _describe(mixing, mixed, [heard], mixing.frame)
    for first in range(0, options.count, CHUNK):
        some = min(CHUNK, options.count - first)
        pictures = model.generate_from_embedding(
            heard.embedding,
            replace(options, seed=options.seed + first, count=some),
            progress=share_of(listener, first, some, options.count),
        )
        for picture, path in zip(pictures, paths[first:], strict=False):
            yield write_single(mixing.job, model, picture, path, made)


def _draw_walk(
    mixing: Mixing,
    walk: Walk,
    model: Sound2Vision,
    mixed: Mixdown,
    heard: Sequence[SoundEmbedding],
    plan: Sequence[Sequence[Path]],
    listener: Listener,
) -> Iterator[Made]:
    import torch

    options, steps = mixing.job.options, len(heard)
    conditions = torch.stack([embedding.embedding for embedding in heard])
    for number, paths in enumerate(plan):
        pictures = model.generate_strip(
            conditions,
            replace(options, seed=options.seed + number, count=1),
            progress=share_of(listener, number * steps, steps, options.count * steps),
        )
        yield from walk.write(
            model,
            pictures,
            paths,
            lambda frame: _describe(mixing, mixed, heard, None if frame is None else frame + 1),
        )


def _describe(
    mixing: Mixing, mixed: Mixdown, heard: Sequence[SoundEmbedding], frame: int | None
) -> Description:
    """For the record: all steps of a walk, or its step `frame`, from 1."""
    chosen = heard if frame is None or len(heard) == 1 else [heard[frame - 1]]
    familiarity: Any = [embedding.familiarity for embedding in chosen]
    mix = mixing.mix_options
    flags = {
        **hearing_flags(mixing.sound_options),
        "--pad": mix.pad,
        "--clip": mix.clip if mix.clip != MixOptions().clip else None,
        "--allow-inversion": mix.allow_inversion,
        "--sweep": mixing.sweep,
        "--frame": frame,
    }
    entries: dict[str, Any] = {
        "sounds": [
            {
                "source": track.source,
                "sha256": digest,
                "weight": track.weight,
                "in_db": track.in_db,
                "offset_s": track.offset_s,
            }
            for track, digest in zip(mixed.tracks, mixed.sha256, strict=True)
        ],
        "segments": [list(segment) for segment in mixed.sounds[0].segments],
        "familiarity": familiarity if len(chosen) > 1 else familiarity[0],
        "beyond_full_scale": mixed.beyond,
        "turned_down_db": mixed.turned_down_db,
        "sound_options": as_record(mixing.sound_options),
        "mix_options": as_record(mix),
    }
    if mixing.sweep is not None:
        weights = sweep_weights(mixing.sweep)
        entries["sweep"] = [list(pair) for pair in weights]
        if frame is not None:
            entries["frame"], entries["sweep"] = frame, list(weights[frame - 1])
    return Description([str(track) for track in mixing.tracks], flags, entries)


def _save_audio(mixing: Mixing, mixed: Mixdown) -> None:
    from s2v_cli.audio.mixdown import encode_sound_file
    from s2v_cli.picture import write_file

    assert mixing.save_audio is not None
    content = encode_sound_file(mixed.sounds[0], mixing.save_audio.suffix)
    write_file(content, mixing.save_audio, overwrite=mixing.job.overwrite)
