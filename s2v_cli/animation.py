"""`s2v animate`: a window slides over a sound, and what it hears becomes a moving picture."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2v_cli.abilities import require_ability
from s2v_cli.errors import OptionError
from s2v_cli.job import Job, Listener, Made
from s2v_cli.options import MAX_SEED, SoundOptions, as_record
from s2v_cli.outputs import plan_outputs
from s2v_cli.presets import Preset, load_preset
from s2v_cli.video import VIDEO_SUFFIXES, SoundTrack, check_format, open_writer

if TYPE_CHECKING:
    from PIL.Image import Image

    from s2v_cli.audio.decode import Decoder
    from s2v_cli.motion import Motion
    from s2v_cli.pipeline import Sound2Vision

MAX_FPS = 60
WINDOW_S = 2.5  # shorter ones follow faster, and hear less
STILL_DB = -90.0  # what is softer throughout counts as silence


@dataclass(frozen=True)
class AnimateOptions:
    """How a sound becomes a moving picture.

    Attributes:
        fps: frames a second, 1 to 60.
        window_s: how much sound each moment hears, around it, 0.1 seconds to what the model hears
            at once; None takes the smaller of `WINDOW_S` and that.
        smooth_s: over how much time embeddings are averaged, 0 to 60 seconds: twice the standard
            deviation of a Gaussian; 0 leaves them.
        drift: how far the noise goes each second, 0 to 10: 1 is from one seed's noise to that of
            the next.
    """

    fps: int = 24
    window_s: float | None = None
    smooth_s: float = 1.0
    drift: float = 0.2

    def __post_init__(self) -> None:
        checks = {
            "fps": (1 <= self.fps <= MAX_FPS, f"1 to {MAX_FPS}"),
            "smooth": (0 <= self.smooth_s <= 60, "0 to 60 seconds"),
            "drift": (0 <= self.drift <= 10, "0 to 10 seeds a second"),
        }
        values = {"fps": self.fps, "smooth": self.smooth_s, "drift": self.drift}
        for name, (ok, allowed) in checks.items():
            if not ok:
                raise OptionError(f"{name} is {values[name]!r}; allowed: {allowed}.")


@dataclass(frozen=True)
class Animation:
    """What `s2v animate` is asked to make.

    Attributes:
        sound: a sound file, or `-` for standard input.
        job: everything but the sound.
        sound_options: which part of it is seen, and how loud the model hears it; `window` is not
            used.
        options: how it moves.
    """

    sound: str
    job: Job = field(default_factory=lambda: Job("animate"))
    sound_options: SoundOptions = field(default_factory=SoundOptions)
    options: AnimateOptions = field(default_factory=AnimateOptions)


def draw_animation(animation: Animation, listener: Listener) -> Iterator[Made]:
    """Draw and write the moving picture, and yield it once it is written.

    Memory does not grow with the sound: it is read twice, window by window for the embeddings and
    block by block for the file's own sound, and frames are written as they are drawn.

    Raises:
        OptionError: an option is outside its range.
        OutputError: the file exists or cannot be written.
        SoundError: the sound cannot be read.
        DependencyError: a .mp4 needs PyAV.
    """
    from s2v_cli.audio.decode import open_decoder
    from s2v_cli.audio.read import local_file, sound_sha256
    from s2v_cli.picture import whole_file

    job, preset = animation.job, load_preset(animation.job.preset)
    require_ability(preset, "animate")
    path = _plan(animation, preset)
    listener.progress(f"Reading {animation.sound}")
    with (
        local_file(animation.sound) as (file, name, shown),
        closing(open_decoder(file, shown)) as decoder,
    ):
        span = _span(decoder, animation.sound_options)
        frames = max(1, round((span[1] - span[0]) / decoder.rate * animation.options.fps))
        _check_seeds(animation, frames)
        listener.progress(f"Loading {preset.name}")  # the first import of torch
        motion = _motion(animation, job.load(), frames, listener)
        motion.hear(decoder, span)
        if motion.peak < 10 ** (STILL_DB / 20):
            listener.note(f"{name} is silent: the pictures show no sound.")
        said = {"source": name, "sha256": sound_sha256(file)}
        with whole_file(path, overwrite=job.overwrite) as temporary:
            made = _write(animation, motion, decoder, span, path, temporary, said)
    if path.suffix.lower() != ".mp4":
        listener.note(f"A {path.suffix} holds no sound; a .mp4 does.")
    yield made


def _plan(animation: Animation, preset: Preset) -> Path:
    job = animation.job
    if job.target == "-":
        raise OptionError("output is '-'; a moving picture needs a file (.mp4, .gif or .webp).")
    path = plan_outputs(
        job.target,
        [animation.sound],
        [job.options.seed],
        preset=preset.name,
        window=animation.sound_options.window,
        overwrite=job.overwrite,
        suffixes=VIDEO_SUFFIXES,
    )[0][0]
    window_s = animation.options.window_s
    if window_s is not None and not 0.1 <= window_s <= preset.window_s:
        raise OptionError(
            f"window is {window_s:g} s; allowed: 0.1 to {preset.window_s:g} seconds, which is what "
            f"{preset.name} hears at once."
        )
    side = job.options.size or preset.resolution
    check_format(path.suffix.lower(), animation.options.fps, side)
    return path


def _span(decoder: Decoder, options: SoundOptions) -> tuple[int, int]:
    """First and last sample of the file that are seen, the last exclusive."""
    length_s = decoder.length / decoder.rate
    if options.start_s >= length_s:
        raise OptionError(
            f"start is {options.start_s:g} s, but {decoder.name} is {length_s:.4g} s long; "
            f"allowed: 0 to less than {length_s:.4g} s."
        )
    start, end = round(options.start_s * decoder.rate), decoder.length
    if options.duration_s is not None:
        end = min(end, start + round(options.duration_s * decoder.rate))
    if end - start < 2:
        raise OptionError(
            f"start {options.start_s:g} s and duration {options.duration_s} leave no sound of "
            f"{decoder.name} ({length_s:.4g} s)."
        )
    return start, end


def _check_seeds(animation: Animation, frames: int) -> None:
    seed, options = animation.job.options.seed, animation.options
    last = seed + math.ceil(options.drift * frames / options.fps) + 1
    if last > MAX_SEED:
        raise OptionError(f"seed is {seed}; the noise would drift beyond seed 2**63 - 1.")


def _motion(animation: Animation, model: Sound2Vision, frames: int, listener: Listener) -> Motion:
    from s2v_cli.motion import Motion

    options = animation.options
    window_s = options.window_s or min(WINDOW_S, model.sound_encoder.window_s)
    return Motion(
        model,
        animation.job.options,
        frames=frames,
        fps=options.fps,
        window_s=window_s,
        smooth_s=options.smooth_s,
        drift=options.drift,
        gain_db=animation.sound_options.gain_db,
        progress=listener.progress,
    )


def _write(
    animation: Animation,
    motion: Motion,
    decoder: Decoder,
    span: tuple[int, int],
    path: Path,
    temporary: Path,
    sound: dict[str, Any],
) -> Made:
    import json

    suffix, job, fps = path.suffix.lower(), animation.job, animation.options.fps
    pictures = motion.draw()
    first = next(pictures)
    said = {**sound, "segments": [[n / decoder.rate for n in (span[0], span[1] - span[0])]]}
    record = _record(animation, motion, path, first, said)
    track = sound_track(decoder, span) if suffix == ".mp4" else None
    with open_writer(
        temporary,
        suffix,
        fps=fps,
        sound=track,
        comment=json.dumps(record, sort_keys=True) if job.metadata else None,
    ) as writer:
        writer.add(first)
        for picture in pictures:
            writer.add(picture)
    return Made(path, first, record)


def sound_track(decoder: Decoder, span: tuple[int, int]) -> SoundTrack:
    """The sound of samples `span` of a file; of more than two channels their mean."""
    start, stop = span
    first = next(decoder.channels(start, start + 1))
    if first.shape[1] <= 2:
        return SoundTrack(decoder.channels(start, stop), decoder.rate, first.shape[1], stop - start)
    blocks = (block[:, None] for block in decoder.blocks(start, stop))
    return SoundTrack(blocks, decoder.rate, 1, stop - start)


def _record(
    animation: Animation, motion: Motion, path: Path, image: Image, sound: dict[str, Any]
) -> dict[str, Any]:
    job, options, hear = animation.job, animation.options, animation.sound_options
    flags = {
        "--start": hear.start_s or None,
        "--duration": hear.duration_s,
        "--gain-db": hear.gain_db or None,
        "--fps": options.fps,
        "--window": options.window_s,
        "--smooth": options.smooth_s,
        "--drift": options.drift,
    }
    line = job.command_line([sound["source"]], str(path), flags=flags)
    return job.record(
        motion.model,
        line,
        image,
        job.options,
        sounds=[sound],
        sound_options=as_record(hear),
        animate_options={**as_record(options), "window_s": motion.window_s},
        frames=motion.frames,
        duration_s=motion.frames / options.fps,
    )
