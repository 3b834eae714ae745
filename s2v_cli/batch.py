"""A run over several sounds: names planned first, then pictures one by one with their records."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from s2v_cli.errors import DependencyError, OptionError, SoundError
from s2v_cli.options import DeviceChoice, DtypeChoice, GenerateOptions, SoundOptions, as_record
from s2v_cli.outputs import check_sheet, literal, plan_outputs
from s2v_cli.presets import Preset, load_preset

if TYPE_CHECKING:
    from PIL.Image import Image

    from s2v_cli.audio.read import Sound
    from s2v_cli.pipeline import Picture, Sound2Vision, SoundEmbedding

CHUNK = 8  # pictures drawn before they are written: bounds memory, and what Ctrl-C loses


class Listener(Protocol):
    """Who is told how a batch goes on."""

    def note(self, text: str) -> None:
        """Hear what a person should know, though the run goes on."""

    def error(self, text: object) -> None:
        """Hear that one of several sounds failed."""

    def progress(self, label: str, done: float = 0.0, total: float | None = None) -> None:
        """Hear what is being done; a total of None is unknown."""


@dataclass(frozen=True)
class Batch:
    """What a run is asked to make.

    Attributes:
        sources: sound files, or `-` for standard input.
        target: as in `plan_outputs`; `-` for a single picture that is not written to a file.
        preset: name or path.
        sound_options: which part of each sound is heard.
        options: how the pictures of each sound are made, all values resolved.
        grid: whether all pictures go on one contact sheet, of several sounds a row each.
        device: where to compute.
        dtype: precision.
        weights_dir: where the preset's weights lie, if not where it says.
        overwrite: whether files that exist are replaced.
        metadata: whether files hold their record.
    """

    sources: Sequence[str]
    target: str | None = None
    preset: str = "mini"
    sound_options: SoundOptions = field(default_factory=SoundOptions)
    options: GenerateOptions = field(default_factory=GenerateOptions)
    grid: bool = False
    device: DeviceChoice = "auto"
    dtype: DtypeChoice = "auto"
    weights_dir: Path | None = None
    overwrite: bool = False
    metadata: bool = True


@dataclass(frozen=True)
class Made:
    """A picture that a run made.

    Attributes:
        path: where it was written; None for the target `-`.
        image: the picture.
        record: everything that makes it again.
    """

    path: Path | None
    image: Image
    record: dict[str, Any]

    def encode(self, suffix: str, *, metadata: bool = True) -> bytes:
        """The picture as the bytes of a file."""
        from s2v_cli.picture import encode_picture

        return encode_picture(self.image, suffix, self.record if metadata else None)

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints of it; a contact sheet lists its sounds and seeds."""
        record, sounds = self.record, self.record["sounds"]
        shown = {key: record[key] for key in ("preset", "size")}
        if "seeds" in record:
            shown |= {"seeds": record["seeds"], "sounds": sounds}
        else:
            shown |= {key: record[key] for key in ("seed", "similarity")}
            shown |= {"sound": sounds[0]["source"]}
            shown |= {key: sounds[0][key] for key in ("sha256", "segments", "familiarity")}
        return {"path": None if self.path is None else str(self.path), **shown}


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
        OptionError: two pictures would land on one file, or the contact sheet is too large.
        OutputError: a file exists or cannot be written.
        SoundError: the only sound cannot be read.
    """
    preset = load_preset(batch.preset)
    plan = _plan(batch, preset)
    model: Sound2Vision | None = None
    heard: list[dict[str, Any]] = []
    cells: list[Picture] = []
    for number, source in enumerate(batch.sources):
        listener.progress(f"Reading {source}")
        sound = _read(batch, preset, source, listener)
        if sound is None:
            continue
        if model is None:  # the first import of torch: a bad sound is told before that
            listener.progress(f"Loading {preset.name}")
            model = _load(batch)
        embedding = model.encode_sound(sound)
        _note_oddities(sound, embedding, preset, listener)
        heard.append(_sound_record(sound, embedding))
        for offset, picture in enumerate(_pictures(batch, model, embedding, number, listener)):
            if batch.grid:
                cells.append(picture)
            else:
                yield _finish(batch, model, plan[number][offset], picture, heard[-1:])
    if cells:
        assert model is not None
        yield _finish_sheet(batch, model, plan[0][0], cells, heard)


def remake_command(
    batch: Batch, sources: Sequence[str], output: str, options: GenerateOptions
) -> list[str]:
    """The command line that makes one picture again, whatever run it came from."""
    sound, plain = batch.sound_options, SoundOptions()
    flags: dict[str, object] = {
        "--count": options.count if options.count > 1 else None,
        "--seed": options.seed,
        "--start": sound.start_s if sound.start_s != plain.start_s else None,
        "--duration": sound.duration_s,
        "--window": sound.window if sound.window != plain.window else None,
        "--gain-db": sound.gain_db if sound.gain_db != plain.gain_db else None,
        "--truncation": options.truncation,
        "--best-of": options.best_of if options.best_of != 1 else None,
        "--size": options.size,
        "--preset": batch.preset,
        "--device": batch.device if batch.device != "auto" else None,
        "--dtype": batch.dtype if batch.dtype != "auto" else None,
        "--weights-dir": batch.weights_dir,
    }
    command = ["s2v", "gen", "--output", output if output == "-" else literal(output)]
    for flag, value in flags.items():
        if value is not None:
            command += [flag, str(value)]
    if batch.grid:
        command.append("--grid")
    if any(source.startswith("-") and source != "-" for source in sources):
        command.append("--")
    return [*command, *sources]


def _plan(batch: Batch, preset: Preset) -> list[list[Path]]:
    options, sounds = batch.options, len(batch.sources)
    if batch.grid:
        from s2v_cli.picture import GRID_GAP

        columns = options.count if sounds > 1 else None
        side = options.size or preset.resolution
        check_sheet(sounds * options.count, columns, side, GRID_GAP)
    if batch.target != "-":
        return plan_outputs(
            batch.target,
            batch.sources,
            range(options.seed, options.seed + options.count),
            preset=preset.name,
            window=batch.sound_options.window,
            grid=batch.grid,
            overwrite=batch.overwrite,
        )
    if not batch.grid and sounds * options.count > 1:
        raise OptionError("output '-' takes a single picture; use --grid or a folder.")
    return [[Path("-")]]


def _read(batch: Batch, preset: Preset, source: str, listener: Listener) -> Sound | None:
    from s2v_cli.audio.read import read_sound

    try:
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


def _load(batch: Batch) -> Sound2Vision:
    from s2v_cli.pipeline import Sound2Vision

    return Sound2Vision.load(
        batch.preset, device=batch.device, dtype=batch.dtype, weights_dir=batch.weights_dir
    )


def _note_oddities(
    sound: Sound, embedding: SoundEmbedding, preset: Preset, listener: Listener
) -> None:
    if sound.silent:
        listener.note(f"{sound.source} is silent: the picture shows no sound.")
    elif embedding.familiar is False:
        listener.note(
            f"{sound.source} is unlike the sounds that {preset.name} was taught "
            f"(familiarity {embedding.familiarity:.2f}): do not expect the picture to fit."
        )


def _pictures(
    batch: Batch, model: Sound2Vision, embedding: SoundEmbedding, number: int, listener: Listener
) -> Iterator[Picture]:
    count = batch.options.count
    for offset in range(0, count, CHUNK):
        options = replace(
            batch.options,
            seed=batch.options.seed + offset,
            count=min(CHUNK, count - offset),
        )
        yield from model.generate_from_embedding(
            embedding.embedding,
            options,
            progress=_scaled(
                listener, number * count + offset, options.count, len(batch.sources) * count
            ),
        )


def _scaled(listener: Listener, before: int, count: int, total: int) -> Callable[[int, int], None]:
    """Progress of one chunk as progress of the batch."""

    def progress(done: int, of: int) -> None:
        listener.progress("Drawing", before + count * done / max(of, 1), total)

    return progress


def _finish(
    batch: Batch,
    model: Sound2Vision,
    path: Path,
    picture: Picture,
    sounds: list[dict[str, Any]],
) -> Made:
    options = replace(batch.options, seed=picture.seed, count=1)
    record = _picture_record(batch, model, path, picture.image, sounds, options)
    record["similarity"] = picture.similarity
    return _write(batch, path, picture.image, record)


def _finish_sheet(
    batch: Batch,
    model: Sound2Vision,
    path: Path,
    cells: list[Picture],
    sounds: list[dict[str, Any]],
) -> Made:
    from s2v_cli.picture import make_grid

    columns = batch.options.count if len(batch.sources) > 1 else None
    sheet = make_grid([cell.image for cell in cells], columns)
    record = _picture_record(batch, model, path, sheet, sounds, batch.options)
    record["seeds"] = [cell.seed for cell in cells[: batch.options.count]]
    return _write(batch, path, sheet, record)


def _write(batch: Batch, path: Path, image: Image, record: dict[str, Any]) -> Made:
    from s2v_cli.picture import save_picture

    if batch.target == "-":
        return Made(None, image, record)
    kept = record if batch.metadata else None
    return Made(save_picture(image, path, record=kept, overwrite=batch.overwrite), image, record)


def _sound_record(sound: Sound, embedding: SoundEmbedding) -> dict[str, Any]:
    return {
        "source": sound.source,
        "sha256": sound.sha256,
        "segments": [list(segment) for segment in sound.segments],
        "familiarity": embedding.familiarity,
    }


def _picture_record(
    batch: Batch,
    model: Sound2Vision,
    path: Path,
    image: Image,
    sounds: list[dict[str, Any]],
    options: GenerateOptions,
) -> dict[str, Any]:
    """Everything that makes a picture again; no date, so that equal runs give equal bytes."""
    import shlex

    import torch

    from s2v_cli import __version__

    command = remake_command(batch, [sound["source"] for sound in sounds], str(path), options)
    resolution = model.preset.resolution
    return {
        "command": shlex.join(command),
        "arguments": command,
        "sounds": sounds,
        "sound_options": as_record(batch.sound_options),
        "generate_options": as_record(options),
        "seed": options.seed,
        "similarity": None,
        "preset": model.preset.name,
        "weights": dict(model.weights_sha256),
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "size": list(image.size),
        "resolution": resolution,
        "resampled_from": resolution if options.size not in (None, resolution) else None,
        "versions": {
            "s2v": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
