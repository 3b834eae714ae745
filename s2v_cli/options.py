"""Options of each task: frozen, checked on construction, stored in PNGs and checkpoints."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from s2v_cli.errors import OptionError

WindowChoice = Literal["loudest", "first", "average"]
DeviceChoice = Literal["auto", "cpu", "cuda", "mps"]
DtypeChoice = Literal["auto", "float32", "float16", "bfloat16"]

MAX_SEED = 2**63 - 1


def _check(ok: bool, name: str, value: object, allowed: str) -> None:
    if not ok:
        raise OptionError(f"{name} is {value!r}; allowed: {allowed}.")


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True)
class SoundOptions:
    """Which part of a sound is heard, and how loud.

    Attributes:
        start_s: where to start reading, seconds, >= 0.
        duration_s: how much to read, seconds, > 0; None reads to the end.
        window: for more sound than the encoder hears at once: the `loudest` window, the
            `first`, or the `average` of the embeddings of all windows.
        gain_db: gain in dB applied before encoding, -120 to 60 (§5.1).
    """

    start_s: float = 0.0
    duration_s: float | None = None
    window: WindowChoice = "loudest"
    gain_db: float = 0.0

    def __post_init__(self) -> None:
        _check(
            _number(self.start_s) and self.start_s >= 0, "start", self.start_s, "0 or more seconds"
        )
        _check(
            self.duration_s is None or (_number(self.duration_s) and self.duration_s > 0),
            "duration",
            self.duration_s,
            "more than 0 seconds",
        )
        choices = get_args(WindowChoice)
        _check(self.window in choices, "window", self.window, ", ".join(choices))
        _check(
            _number(self.gain_db) and -120 <= self.gain_db <= 60,
            "gain-db",
            self.gain_db,
            "-120 to 60 dB",
        )


@dataclass(frozen=True)
class GenerateOptions:
    """How pictures are made from an embedding.

    Attributes:
        seed: of the first picture, 0 to 2**63 - 1; picture i uses seed + i.
        count: number of pictures, 1 to 10000.
        truncation: standard deviation of the noise, > 0 to 2; 1 is the training distribution,
            less is more typical and less diverse. None takes the preset's default.
        best_of: candidates for each picture, 1 to 256; the one whose image embedding lies
            nearest to the condition is kept.
        size: side of the picture in pixels, 16 to 4096, resampled; None keeps the generator's.
    """

    seed: int = 0
    count: int = 1
    truncation: float | None = None
    best_of: int = 1
    size: int | None = None

    def __post_init__(self) -> None:
        _check(
            _integer(self.seed) and 0 <= self.seed <= MAX_SEED,
            "seed",
            self.seed,
            "an integer from 0 to 2**63 - 1",
        )
        _check(
            _integer(self.count) and 1 <= self.count <= 10_000, "count", self.count, "1 to 10000"
        )
        _check(
            self.seed + self.count - 1 <= MAX_SEED,
            "seed + count - 1",
            self.seed + self.count - 1,
            "at most 2**63 - 1",
        )
        _check(
            self.truncation is None or (_number(self.truncation) and 0 < self.truncation <= 2),
            "truncation",
            self.truncation,
            "more than 0, at most 2",
        )
        _check(
            _integer(self.best_of) and 1 <= self.best_of <= 256, "best-of", self.best_of, "1 to 256"
        )
        _check(
            self.size is None or (_integer(self.size) and 16 <= self.size <= 4096),
            "size",
            self.size,
            "16 to 4096 pixels",
        )


def as_record(options: Any) -> dict[str, Any]:
    """Options as a dictionary that JSON can hold."""
    return {field.name: getattr(options, field.name) for field in fields(options)}
