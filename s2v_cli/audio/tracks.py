"""Tracks of a mix as people write them: `rain.wav:0.7`, `sea.ogg:-6dB`, `dog.flac:0.5@2.5s`."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from s2v_cli.duration import parse_duration
from s2v_cli.errors import OptionError, SoundError

ClipChoice = Literal["warn", "cut", "scale", "error"]

STDIN = "-"
MAX_TRACKS = 32
MAX_STEPS = 100  # of a sweep
_GAIN_LIMIT = 1000.0  # of a linear gain, which is 60 dB
_DB_LIMITS = (-120.0, 60.0)  # as of `--gain-db`
_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_SPECIFICATION = re.compile(rf"(?P<weight>{_NUMBER})?(?P<db>\s*[dD][bB])?(?:@(?P<offset>.+))?")
_ALLOWED = "a gain (0.7), one in decibels (-6dB), either with an offset (0.7@2.5s), or @2.5s alone"


@dataclass(frozen=True)
class Track:
    """One sound of a mix.

    Attributes:
        source: a sound file, or `-` for standard input.
        weight: linear gain, -1000 to 1000, or, `in_db`, decibels, -120 to 60. A negative linear
            gain inverts the phase. A track of gain 0 is left out of the mix.
        in_db: whether the weight is in decibels.
        offset_s: where the sound begins in the mix, seconds, >= 0.
    """

    source: str
    weight: float = 1.0
    in_db: bool = False
    offset_s: float = 0.0

    def __post_init__(self) -> None:
        low, high = _DB_LIMITS if self.in_db else (-_GAIN_LIMIT, _GAIN_LIMIT)
        if not (math.isfinite(self.weight) and low <= self.weight <= high):
            unit = " dB" if self.in_db else ""
            raise OptionError(
                f"The weight of {self.source!r} is {self.weight:g}{unit}; allowed: "
                f"{low:g} to {high:g}{unit}."
            )
        if not (math.isfinite(self.offset_s) and self.offset_s >= 0):
            raise OptionError(
                f"The offset of {self.source!r} is {self.offset_s} s; allowed: 0 or more seconds."
            )

    @property
    def gain(self) -> float:
        """Factor of its samples; 6.02 dB is 2."""
        return 10.0 ** (self.weight / 20.0) if self.in_db else self.weight

    @property
    def stem(self) -> str:
        """Name for results: the file's without its suffix, or `stdin`."""
        return "stdin" if self.source == STDIN else Path(self.source).stem

    def __str__(self) -> str:
        """As `parse_track` reads it; the weight always stands there, for names may hold colons."""
        offset = f"@{self.offset_s!r}s" if self.offset_s else ""
        return f"{self.source}:{_shortest(self.weight)}{'dB' if self.in_db else ''}{offset}"


@dataclass(frozen=True)
class MixOptions:
    """How tracks become one sound.

    Attributes:
        pad: whether silence follows a track that ends before the longest one; else it repeats.
        clip: of samples beyond full scale: `warn` leaves them to the model's own front end, which
            may cut them; `cut` cuts them to [-1, 1]; `scale` turns the whole mix down until it
            fits; `error` refuses. All but `error` are told in a note.
        allow_inversion: whether negative gains, which invert the phase, are allowed.
    """

    pad: bool = False
    clip: ClipChoice = "warn"
    allow_inversion: bool = False

    def __post_init__(self) -> None:
        if self.clip not in get_args(ClipChoice):
            raise OptionError(f"clip is {self.clip!r}; allowed: {', '.join(get_args(ClipChoice))}.")


def parse_track(text: str) -> Track:
    """Read `SOUND[:WEIGHT][@OFFSET]`.

    File names and times may hold colons. So a file of the whole name wins; else the last `:` (or
    `@`) divides that has a file before it and a weight, an offset or both behind it; else, so that
    a missing file is told by its name, the last `:` with a weight behind it.

    Raises:
        OptionError: what follows the name of a file is no weight.
    """
    if text == STDIN or os.path.exists(text):
        return Track(text)
    cuts = [index for index, letter in enumerate(text) if letter == ":"][::-1]
    files = [cut for cut in cuts if text[:cut] == STDIN or os.path.isfile(text[:cut])]
    at, _, offset = text.rpartition("@")
    track = _divided(at, f"@{offset}") if os.path.isfile(at) or at == STDIN else None
    for cut in (*files, *cuts):
        track = track or _divided(text[:cut], text[cut + 1 :])
    if track is not None:
        return track
    if files:
        raise OptionError(
            f"{text!r} says {text[files[0] + 1 :]!r} of {text[: files[0]]!r}; allowed: {_ALLOWED}."
        )
    return Track(text)


def _divided(source: str, specification: str) -> Track | None:
    """A track of a name and what stands behind it; None if that is neither weight nor offset."""
    found = _SPECIFICATION.fullmatch(specification.strip())
    if not source or not found or not (found["weight"] or found["offset"]):
        return None
    if found["db"] and not found["weight"]:
        return None
    offset = found["offset"]
    return Track(
        source,
        float(found["weight"] or 1),
        in_db=found["db"] is not None,
        offset_s=parse_duration(offset, f"the offset of {source!r}") if offset else 0.0,
    )


def parse_tracks(texts: Sequence[str]) -> list[Track]:
    """Read the tracks of a mix.

    Raises:
        OptionError: a weight is none, or standard input is named twice.
        SoundError: a file is missing or is a folder.
    """
    tracks = [parse_track(text) for text in texts]
    if sum(track.source == STDIN for track in tracks) > 1:
        raise OptionError("'-' is given more than once: standard input can be read only once.")
    files = [track.source for track in tracks if track.source != STDIN]
    missing = [name for name in files if not os.path.exists(name)]
    if missing:
        raise SoundError(f"No sound at {', '.join(repr(name) for name in missing)}.")
    folder = next((name for name in files if os.path.isdir(name)), None)
    if folder is not None:
        raise SoundError(f"{folder!r} is a folder; a mix takes sound files.")
    return tracks


def check_tracks(tracks: Sequence[Track], options: MixOptions) -> None:
    """Refuse a mix that cannot be heard or was not asked for.

    Raises:
        OptionError: no track or too many, a negative gain that is not allowed, or gains that sum
            to zero.
    """
    if not 1 <= len(tracks) <= MAX_TRACKS:
        raise OptionError(f"A mix of {len(tracks)} sounds; allowed: 1 to {MAX_TRACKS}.")
    for track in tracks:
        if track.gain < 0 and not options.allow_inversion:
            raise OptionError(
                f"The weight of {track.source!r} is {track.weight:g}: a negative one inverts the "
                f"phase; use --allow-inversion if you mean that, or {track.weight:g}dB for "
                "decibels."
            )
    gains = [track.gain for track in tracks]
    if abs(math.fsum(gains)) <= 1e-12 * max(map(abs, gains)):  # 0.1 + 0.2 - 0.3 is not quite 0
        raise OptionError(
            f"The weights {', '.join(f'{track.weight:g}' for track in tracks)} sum to zero; "
            "allowed: any other sum."
        )


def sweep_weights(steps: int) -> list[tuple[float, float]]:
    """Weights of two sounds on the way from the first to the second (Fig. 10).

    They are linear, and add to one.

    Raises:
        OptionError: fewer than 2 steps, or more than `MAX_STEPS`.
    """
    if not 2 <= steps <= MAX_STEPS:
        raise OptionError(f"sweep is {steps}; allowed: 2 to {MAX_STEPS} steps.")
    last = steps - 1
    return [((last - step) / last, step / last) for step in range(steps)]


def check_sweep(tracks: Sequence[Track]) -> None:
    """Refuse a sweep that does not lead from one sound to another.

    Raises:
        OptionError: not two tracks, or one of gain 0.
    """
    if len(tracks) != 2:
        raise OptionError(f"--sweep walks from one sound to another; {len(tracks)} were given.")
    for track in tracks:
        if track.gain == 0:
            raise OptionError(
                f"The weight of {track.source!r} is 0; for --sweep it is the sound's gain at its "
                "end of the walk: allowed: any other."
            )


def _shortest(number: float) -> str:
    """The shortest decimal that is the same float; whole numbers without a point."""
    return str(int(number)) if number.is_integer() else repr(number)


def as_tracks(tracks: Sequence[str | Track]) -> list[Track]:
    """Tracks of which some may still be text; see `parse_tracks`."""
    parsed = iter(parse_tracks([track for track in tracks if isinstance(track, str)]))
    return [next(parsed) if isinstance(track, str) else track for track in tracks]
