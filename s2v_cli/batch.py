"""`s2v gen` and `s2v face` over several sounds: names planned, then pictures one by one."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2v_cli.abilities import require_ability
from s2v_cli.errors import DependencyError, OptionError, SoundError
from s2v_cli.frames import share_of
from s2v_cli.job import Job, Listener, Made, hearing_flags, note_oddities, sound_record
from s2v_cli.options import GenerateOptions, SoundOptions, as_record
from s2v_cli.outputs import plan_outputs, sound_stem
from s2v_cli.presets import Preset, load_preset
from s2v_cli.speech import note_strange_voice, read_speech
from s2v_cli.strip import Theme, check_strip, film_strip

if TYPE_CHECKING:
    from PIL.Image import Image

    from s2v_cli.audio.read import Sound
    from s2v_cli.pipeline import Sound2Vision
    from s2v_cli.results import Picture, SoundEmbedding

CHUNK = 8  # pictures drawn before they are written: bounds memory, and what Ctrl-C loses


@dataclass(frozen=True)
class Batch:
    """What `s2v gen` or `s2v face` is asked to make.

    Attributes:
        sources: sound files, or `-` for standard input.
        job: everything but the sounds.
        sound_options: which part of each sound is heard.
        grid: whether all pictures go on one contact sheet, of several sounds a row each.
        speech: whether the sounds are speech, for the speech encoder.
        any_sound: whether speech may be a sound without a voice.
        theme: of the contact sheet.
    """

    sources: Sequence[str]
    job: Job = field(default_factory=lambda: Job("gen"))
    sound_options: SoundOptions = field(default_factory=SoundOptions)
    grid: bool = False
    speech: bool = False
    any_sound: bool = False
    theme: Theme = "light"

    @property
    def columns(self) -> int:
        """Pictures a row of the contact sheet: the seeds of a sound, or about a square."""
        count = self.job.options.count
        return count if len(self.sources) > 1 else math.ceil(math.sqrt(count))


def find_sources(arguments: Sequence[str]) -> list[str]:
    """Sound files that arguments name: a folder stands for the sounds in it, `-` for itself.

    Raises:
        SoundError: a file is missing, or a folder holds no sound.
        OptionError: no argument, or `-` more than once.
    """
    missing = [name for name in arguments if name != "-" and not os.path.exists(name)]
    if missing:
        raise SoundError(f"No sound at {', '.join(repr(name) for name in missing)}.")
    if not arguments or list(arguments).count("-") > 1:
        raise OptionError("SOUND is missing, or '-' is given more than once.")
    sources: list[str] = []
    for name in arguments:
        if os.path.isdir(name):
            from s2v_cli.audio.read import find_sounds

            sources += [str(path) for path in find_sounds(Path(name))]
        else:
            sources.append(name)
    return sources


def draw_batch(batch: Batch, listener: Listener) -> Iterator[Made]:
    """Draw and write the pictures of a batch, yielding each once it is written.

    Of several sounds one that cannot be read is reported to `listener.error`, the others go on.

    Raises:
        OptionError: two pictures would land on one file, the contact sheet is too large, or the
            preset has no encoder for these sounds.
        OutputError: a file exists or cannot be written.
        SoundError: the only sound cannot be read, or holds no voice where it should be speech.
    """
    preset, job = load_preset(batch.job.preset), batch.job
    require_ability(preset, "face" if batch.speech else "gen")
    plan = _plan(batch, preset)
    model: Sound2Vision | None = None
    heard: list[dict[str, Any]] = []
    cells: list[Picture] = []
    for number, source in enumerate(batch.sources):
        if model is None and batch.speech:  # which knows how its speech encoder hears
            listener.progress(f"Loading {preset.name}")
            model = job.load()
        listener.progress(f"Reading {source}")
        sound = _read(batch, preset, model, source, listener)
        if sound is None:
            continue
        if model is None:  # the first import of torch: a bad sound is told before that
            listener.progress(f"Loading {preset.name}")
            model = job.load()
        if batch.speech:
            embedding = model.encode_speech(sound)
            note_strange_voice(sound, embedding, preset.name, listener)
        else:
            embedding = model.encode_sound(sound)
            note_oddities(sound, embedding, preset.name, listener)
        heard.append(sound_record(sound, embedding))
        for offset, picture in enumerate(_pictures(batch, model, embedding, number, listener)):
            if batch.grid:
                cells.append(picture)
            else:
                yield _finish(batch, model, plan[number][offset], picture, heard[-1:])
    if cells:
        assert model is not None
        yield _finish_sheet(batch, model, plan[0][0], cells, heard)


def _plan(batch: Batch, preset: Preset) -> list[list[Path]]:
    job, sounds = batch.job, len(batch.sources)
    options = job.options
    if batch.grid:
        side = options.size or preset.resolution
        check_strip(sounds * options.count, side, batch.columns)
    if job.target != "-":
        return plan_outputs(
            job.target,
            batch.sources,
            range(options.seed, options.seed + options.count),
            preset=preset.name,
            window=batch.sound_options.window,
            grid=batch.grid,
            overwrite=job.overwrite,
        )
    if not batch.grid and sounds * options.count > 1:
        raise OptionError("output '-' takes a single picture; use --grid or a folder.")
    return [[Path("-")]]


def _read(
    batch: Batch, preset: Preset, model: Sound2Vision | None, source: str, listener: Listener
) -> Sound | None:
    from s2v_cli.audio.read import read_sound

    try:
        if batch.speech:
            assert model is not None
            return read_speech(model, source, batch.sound_options, any_sound=batch.any_sound)
        return read_sound(
            source,
            sample_rate=preset.sample_rate,
            window_s=preset.window_s,
            options=batch.sound_options,
        )
    except (SoundError, OptionError, DependencyError) as error:
        if len(batch.sources) == 1:
            raise
        listener.error(error)
        return None


def _pictures(
    batch: Batch, model: Sound2Vision, embedding: SoundEmbedding, number: int, listener: Listener
) -> Iterator[Picture]:
    options = batch.job.options
    count = options.count
    for offset in range(0, count, CHUNK):
        yield from model.generate_from_embedding(
            embedding.embedding,
            replace(options, seed=options.seed + offset, count=min(CHUNK, count - offset)),
            progress=share_of(
                listener, number * count + offset, options.count, len(batch.sources) * count
            ),
        )


def _finish(
    batch: Batch,
    model: Sound2Vision,
    path: Path,
    picture: Picture,
    sounds: list[dict[str, Any]],
) -> Made:
    options = replace(batch.job.options, seed=picture.seed, count=1)
    record = _record(batch, model, path, picture.image, sounds, options)
    record["similarity"] = picture.similarity
    return batch.job.write(path, picture.image, record)


def _finish_sheet(
    batch: Batch,
    model: Sound2Vision,
    path: Path,
    cells: list[Picture],
    sounds: list[dict[str, Any]],
) -> Made:
    options = batch.job.options
    if len(batch.sources) == 1:
        caption, labels = sound_stem(sounds[0]["source"]), [f"seed {cell.seed}" for cell in cells]
    else:
        caption, stems = None, [sound_stem(sound["source"]) for sound in sounds]
        seeds = [cell.seed for cell in cells[: options.count]]
        more = options.count > 1
        labels = [f"{stem}\nseed {seed}" if more else stem for stem in stems for seed in seeds]
    sheet = film_strip(
        [cell.image for cell in cells],
        labels,
        caption=caption,
        theme=batch.theme,
        columns=batch.columns,
    )
    record = _record(batch, model, path, sheet, sounds, options)
    record["seeds"] = [cell.seed for cell in cells[: options.count]]
    return batch.job.write(path, sheet, record)


def _record(
    batch: Batch,
    model: Sound2Vision,
    path: Path,
    image: Image,
    sounds: list[dict[str, Any]],
    options: GenerateOptions,
) -> dict[str, Any]:
    arguments = batch.job.command_line(
        [sound["source"] for sound in sounds],
        str(path),
        flags={
            **hearing_flags(batch.sound_options),
            "--grid": batch.grid,
            "--theme": batch.theme if batch.theme != "light" else None,
            "--any-sound": batch.any_sound,
        },
        options=options,
    )
    return batch.job.record(
        model,
        arguments,
        image,
        options,
        sounds=sounds,
        sound_options=as_record(batch.sound_options),
    )
