"""Options of `s2v prepare`."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from s2v_cli.errors import OptionError
from s2v_cli.options import DeviceChoice

SelectChoice = Literal["top1", "mid", "random", "all"]

MAX_SIDE = 4096  # px
_NOT_STORED = frozenset({"device", "workers", "part"})  # how it is computed, not what comes out


@dataclass(frozen=True)
class PrepareOptions:
    """How a dataset is made.

    Attributes:
        layout: what lies in the source: a name of `training.prepare.sources.LAYOUTS`, or `auto`.
        duration_s: length of each sound around its moment, seconds, 0.2 to 600; what is shorter
            stays as it is.
        image_size: short side of the pictures, px, 32 to 4096; smaller ones stay as they are.
        select: which moments of a video: `top1` of the highest audio-visual correlation C[t]
            (§3.3), `mid` the middle, `random` ones, or `all` of the grid. Of a sound file longer
            than `duration_s`: the loudest part, the middle, random parts, or all parts.
        top_k: moments of a video for `top1` and `random`, >= 1.
        stride_s: step of the grid of moments, seconds; for `top1` and `random` chosen moments
            are at least so far apart.
        scorer: preset whose encoders tell the correlation for `top1`.
        moments: file of the published top-10 moments of VGGSound, which then replace `select`.
        classes: of a published dataset: a list that its layout knows, such as `50` of VGGSound, or
            a file of class names.
        per_class: (train, test): clips of each class of VEGAS; None takes 800 and 50 (§4.1).
        train: share of the sources that are trained on.
        validation: share for validation.
        test: share for tests; the three add to 1.
        seed: of the splits, the order and `random`.
        shard_mb: a shard is closed when it has so many megabytes, 1 to 100000.
        min_duration_s: sounds shorter than that are skipped, seconds.
        keep_silent: whether silent sounds are kept.
        unpaired: whether sounds of classes without pictures are kept, as negatives.
        device: of the scorer.
        workers: processes; None takes one a core.
        part: (i, n): make the i-th of n parts, 1 <= i <= n.
    """

    layout: str = "auto"
    duration_s: float = 10.0
    image_size: int = 256
    select: SelectChoice = "top1"
    top_k: int = 1
    stride_s: float = 1.0
    scorer: str = "mini"
    moments: str | None = None
    classes: str | None = None
    per_class: tuple[int, int] | None = None
    train: float = 0.85
    validation: float = 0.05
    test: float = 0.1
    seed: int = 0
    shard_mb: float = 64.0
    min_duration_s: float = 0.2
    keep_silent: bool = False
    unpaired: bool = False
    device: DeviceChoice = "auto"
    workers: int | None = None
    part: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        _check(self.select in get_args(SelectChoice), "select", self.select, _list(SelectChoice))
        _check(self.device in get_args(DeviceChoice), "device", self.device, _list(DeviceChoice))
        _between("duration", self.duration_s, 0.2, 600, " s")
        _between("min-duration", self.min_duration_s, 0.01, self.duration_s, " s")
        _between("stride", self.stride_s, 0.01, 600, " s")
        _between("image-size", self.image_size, 32, MAX_SIDE, " px", whole=True)
        _between("top-k", self.top_k, 1, 10_000, whole=True)
        _between("seed", self.seed, 0, 2**63 - 1, whole=True)
        _between("shard-mb", self.shard_mb, 0.001, 100_000)
        if self.workers is not None:
            _between("workers", self.workers, 1, 4096, whole=True)
        shares = (self.train, self.validation, self.test)
        if not (all(0 <= share <= 1 for share in shares) and abs(math.fsum(shares) - 1) < 1e-6):
            raise OptionError(
                f"splits is {','.join(f'{share:g}' for share in shares)}; allowed: three shares "
                "of train, validation and test that add to 1, as in 0.8,0.1,0.1."
            )
        if self.per_class is not None:
            _between("per-class", self.per_class[0], 1, 1_000_000, whole=True)
            _between("per-class", self.per_class[1], 0, 1_000_000, whole=True)
        if self.part is not None and not 1 <= self.part[0] <= self.part[1]:
            raise OptionError(
                f"shard is {self.part[0]}/{self.part[1]}; allowed: i/n with i from 1 to n."
            )

    def stored(self) -> dict[str, Any]:
        """What decides the result, for `dataset.json`."""
        return {
            name: list(value) if isinstance(value, tuple) else value  # as JSON gives it back
            for name, value in asdict(self).items()
            if name not in _NOT_STORED
        }


def differences(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Which options of two datasets differ, in words; empty where none do."""
    names = [field.name for field in fields(PrepareOptions) if field.name not in _NOT_STORED]
    return ", ".join(
        f"{name} was {before.get(name)!r}, is {after.get(name)!r}"
        for name in names
        if before.get(name) != after.get(name)
    )


def parse_splits(text: str) -> tuple[float, float, float]:
    """Read `train,validation,test` as shares (0.8,0.1,0.1) or in percent (80,10,10).

    Raises:
        OptionError: not three numbers.
    """
    try:
        train, validation, test = (float(part) for part in text.replace("/", ",").split(","))
    except ValueError:
        raise OptionError(
            f"splits is {text!r}; allowed: three shares of train, validation and test, as in "
            "0.8,0.1,0.1."
        ) from None
    scale = 100 if train + validation + test > 50 else 1
    return train / scale, validation / scale, test / scale


def parse_per_class(text: str) -> tuple[int, int]:
    """Read `train,test`, numbers of clips.

    Raises:
        OptionError: not two whole numbers.
    """
    first, comma, second = text.partition(",")
    if not (comma and first.strip().isdecimal() and second.strip().isdecimal()):
        raise OptionError(
            f"per-class is {text!r}; allowed: clips to train on and to test, as in 800,50."
        )
    return int(first), int(second)


def parse_part(text: str) -> tuple[int, int]:
    """Read `i/n`.

    Raises:
        OptionError: not two whole numbers.
    """
    first, slash, second = text.partition("/")
    if not (slash and first.strip().isdecimal() and second.strip().isdecimal()):
        raise OptionError(f"shard is {text!r}; allowed: i/n with i from 1 to n, as in 3/8.")
    return int(first), int(second)


def _list(choices: object) -> str:
    return ", ".join(get_args(choices))


def _check(ok: bool, name: str, value: object, allowed: str) -> None:
    if not ok:
        raise OptionError(f"{name} is {value!r}; allowed: {allowed}.")


def _between(
    name: str, value: float, low: float, high: float, unit: str = "", *, whole: bool = False
) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    whole_enough = isinstance(value, int) or not whole
    if number and whole_enough and math.isfinite(value) and low <= value <= high:
        return
    raise OptionError(
        f"{name} is {value!r}; allowed: {'whole numbers from ' if whole else ''}"
        f"{low:g} to {high:g}{unit}."
    )
