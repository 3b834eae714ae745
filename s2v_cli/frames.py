"""Walks: several pictures of one seed become a film strip, or a file each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2v_cli.errors import OptionError
from s2v_cli.job import Job, Listener, Made
from s2v_cli.outputs import plan_outputs
from s2v_cli.presets import load_preset
from s2v_cli.strip import Theme, check_strip, film_strip

if TYPE_CHECKING:
    from s2v_cli.pipeline import Sound2Vision
    from s2v_cli.results import Picture


@dataclass(frozen=True)
class Description:
    """What a record says of a picture, beside what all records say.

    Attributes:
        inputs: positional arguments that make it again.
        flags: the command's own, likewise.
        entries: of the record: what went in, and what was measured.
    """

    inputs: Sequence[str]
    flags: dict[str, object]
    entries: dict[str, Any]


MAX_FRAMES = 100


def check_frames(weight: float | None, frames: int | None, separate: bool) -> None:
    """Refuse flags of a walk between two embeddings that contradict each other.

    Raises:
        OptionError: `weight` beside `frames`, frames outside 2 to `MAX_FRAMES`, or `separate`
            without frames.
    """
    if frames is None:
        if separate:
            raise OptionError(f"--separate belongs to --frames, 2 to {MAX_FRAMES} of them.")
        return
    if weight is not None:
        raise OptionError("--weight makes one picture and --frames several: give one.")
    if not 2 <= frames <= MAX_FRAMES:
        raise OptionError(f"frames is {frames}; allowed: 2 to {MAX_FRAMES}.")


Describe = Callable[["int | None"], Description]  # of one frame, or of the strip


@dataclass(frozen=True)
class Walk:
    """A walk of several pictures.

    Attributes:
        job: everything but the inputs.
        stem: for names of files.
        labels: of the pictures, in their order.
        caption: of the strip.
        theme: of the strip.
        separate: whether each picture is a file of its own.
    """

    job: Job
    stem: str
    labels: Sequence[str]
    caption: str
    theme: Theme = "light"
    separate: bool = False

    def plan(self, window: str = "") -> list[list[Path]]:
        """Paths by seed and, of separate pictures, by frame; checked before any work.

        Raises:
            OptionError: the strip is too large, or two pictures would land on one file.
            OutputError: a file exists and may not be replaced, or its folder cannot be written.
        """
        job, preset = self.job, load_preset(self.job.preset)
        options = job.options
        if not self.separate:
            check_strip(len(self.labels), options.size or preset.resolution)
        if job.target == "-":
            if self.separate or options.count > 1:
                raise OptionError("output '-' takes a single picture; leave out --separate and -n.")
            return [[Path("-")]]
        stems = [f"{self.stem}-strip"]
        if self.separate:
            digits = len(str(len(self.labels)))
            stems = [f"{self.stem}-{n:0{digits}}" for n in range(1, len(self.labels) + 1)]
        by_frame = plan_outputs(
            job.target,
            [f"{stem}.frame" for stem in stems],
            range(options.seed, options.seed + options.count),
            preset=preset.name,
            window=window,
            overwrite=job.overwrite,
        )
        return [list(paths) for paths in zip(*by_frame, strict=True)]

    def write(
        self,
        model: Sound2Vision,
        pictures: Sequence[Picture],
        paths: Sequence[Path],
        describe: Describe,
    ) -> Iterator[Made]:
        """Write the pictures of one seed."""
        options = replace(self.job.options, seed=pictures[0].seed, count=1)
        images = [picture.image for picture in pictures]
        frames: list[int | None] = [None]
        if self.separate:
            frames = list(range(len(pictures)))
        else:
            images = [film_strip(images, self.labels, caption=self.caption, theme=self.theme)]
        for frame, image, path in zip(frames, images, paths, strict=True):
            made = describe(frame)
            flags = dict(made.flags)
            if frame is None and self.theme != "light":
                flags["--theme"] = self.theme
            line = self.job.command_line(made.inputs, str(path), flags=flags, options=options)
            record = self.job.record(model, line, image, options, **made.entries)
            if frame is not None:
                record["similarity"] = pictures[frame].similarity
            yield self.job.write(path, image, record)


def write_single(
    job: Job, model: Sound2Vision, picture: Picture, path: Path, made: Description
) -> Made:
    """Write one picture."""
    options = replace(job.options, seed=picture.seed, count=1)
    line = job.command_line(made.inputs, str(path), flags=made.flags, options=options)
    record = job.record(model, line, picture.image, options, **made.entries)
    record["similarity"] = picture.similarity
    return job.write(path, picture.image, record)


def share_of(listener: Listener, before: float, count: float, total: float) -> Callable[..., None]:
    """Progress of one part of the work as progress of the whole, in pictures."""

    def progress(done: int, of: int) -> None:
        listener.progress("Drawing", before + count * done / max(of, 1), total)

    return progress
