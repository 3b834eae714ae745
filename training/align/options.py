"""How a sound encoder is aligned with a frozen image encoder: a frozen dataclass, a TOML table."""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast, get_args

from s2v_cli.errors import OptionError, TrainingError
from s2v_cli.space import EmbeddingSpace

LossChoice = Literal["auto", "l2-infonce", "cosine-infonce", "l2", "raw-infonce"]
OptimiserChoice = Literal["adamw", "adam"]
ScheduleChoice = Literal["cosine", "constant"]
PrecisionChoice = Literal["auto", "float32", "bfloat16", "float16"]
CropChoice = Literal["random", "centre", "loudest"]
CONTRASTIVE = ("l2-infonce", "cosine-infonce", "raw-infonce")  # losses that have negatives

TABLE = "align"  # of a recipe


@dataclass(frozen=True)
class AlignOptions:
    """Options of `s2v train`, and the keys of a recipe's [align] table.

    Attributes:
        teacher: preset whose image encoder and generator are used as they are.
        from_weights: begin with the teacher's own sound encoder instead of random weights.
        loss: `auto` is `l2-infonce` (Eq. 1-2) in unit spaces and `raw-infonce` in raw ones.
        temperature: divides the distances; 1 in the paper.
        learn_temperature: train the temperature, too, from that value on.
        duration_s: how much sound the encoder hears at once, seconds; None as the teacher's.
        batch: pairs a step, over all processes.
        accumulate: parts that a process computes its batch in, one after the other, to save
            memory. Negatives are of the whole batch all the same.
        epochs: passes over the training sounds; counts where `steps` is None.
        steps: optimiser steps.
        optimiser: `adamw`, or `adam` with decay as part of the gradient, as published.
        learning_rate: peak.
        weight_decay: 0 or more.
        schedule: `cosine` to a hundredth of the peak, or `constant`.
        warm_up: share of the steps with rising learning rate, 0 to less than 1.
        ema: decay of the averaged weights, 0 to less than 1; 0 is off.
        clip_norm: longest gradient; 0 is off.
        patience: validations without a better score after which training stops, and the best
            weights are kept; 0 is off, and the last weights are kept.
        validate_every: steps between validations; None is once an epoch, and 50 or more.
        precision: `auto` is bfloat16 where the device has it, else float32.
        compile: compile the encoder with torch.compile.
        seed: of weights, order and augmentation.
        workers: processes that read ahead; 0 reads in the training process.
        samples: sounds of the validation split that pictures are drawn of; 0 is off.
        close_gap: after training, fit what `mini`'s sound encoder has for it: a linear map that
            closes the rest of the modality gap, and a prior towards likely pictures.
        crop: which part of a longer sound is heard in training.
        gain_db: sounds are made louder or softer by up to that much, 0 or more.
        mix: share of the sounds that get another one behind them, 0 to 1.
        mix_db: level of that one from there to there, relative to the sound.
        frequency_masks, time_masks: SpecAugment's blanked bands; 0 is off.
        frequency_mask, time_mask: their largest width as share of the spectrogram, 0 to 1.
    """

    teacher: str = "mini"
    from_weights: bool = False
    loss: LossChoice = "auto"
    temperature: float = 1.0
    learn_temperature: bool = False
    duration_s: float | None = None
    batch: int = 64
    accumulate: int = 1
    epochs: int = 50
    steps: int | None = None
    optimiser: OptimiserChoice = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    schedule: ScheduleChoice = "cosine"
    warm_up: float = 0.05
    ema: float = 0.99
    clip_norm: float = 0.0
    patience: int = 0
    validate_every: int | None = None
    precision: PrecisionChoice = "auto"
    compile: bool = False
    seed: int = 0
    workers: int = 2
    samples: int = 6
    close_gap: bool = True
    crop: CropChoice = "random"
    gain_db: float = 0.0
    mix: float = 0.0
    mix_db: tuple[float, float] = (-26.0, -8.0)
    frequency_masks: int = 0
    frequency_mask: float = 0.15
    time_masks: int = 0
    time_mask: float = 0.1

    def __post_init__(self) -> None:
        if isinstance(cast(object, self.mix_db), list):  # TOML has no tuples
            object.__setattr__(self, "mix_db", tuple(self.mix_db))
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                self._refuse(name, ", ".join(get_args(kind)))
        for name in ("from_weights", "learn_temperature", "compile", "close_gap"):
            if not isinstance(getattr(self, name), bool):
                self._refuse(name, "true or false")
        if not isinstance(self.teacher, str) or not self.teacher:
            self._refuse("teacher", "a preset's name or folder")
        for name, least in _WHOLE.items():
            value = getattr(self, name)
            if name in _OPEN and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                self._refuse(name, f"a whole number of {least} or more")
        if self.duration_s is not None:
            self._check("duration_s", 0.1 <= _number(self.duration_s) <= 60, "0.1 to 60 seconds")
        for name in ("learning_rate", "temperature"):
            value = _number(getattr(self, name))
            self._check(name, 0 < value < math.inf, "a number above 0")
        for name in ("weight_decay", "clip_norm", "gain_db"):
            value = _number(getattr(self, name))
            self._check(name, 0 <= value < math.inf, "a number of 0 or more")
        for name in ("warm_up", "ema"):
            self._check(name, 0 <= _number(getattr(self, name)) < 1, "0 to less than 1")
        for name in ("mix", "frequency_mask", "time_mask"):
            self._check(name, 0 <= _number(getattr(self, name)) <= 1, "0 to 1")
        pair = self.mix_db
        fits = len(pair) == 2 and all(math.isfinite(_number(level)) for level in pair)
        self._check("mix_db", fits and pair[0] <= pair[1], "two levels in dB, the lower first")
        if self.batch < 2 and self.loss != "l2":
            self._refuse("batch", "2 or more, as the loss tells pairs from each other")
        if self.learn_temperature and self.loss == "l2":
            self._refuse("learn_temperature", "false with loss 'l2', which has none")
        if self.batch < self.accumulate:
            self._refuse("accumulate", f"up to the batch, {self.batch}")

    def _check(self, name: str, fits: bool, allowed: str) -> None:
        if not fits:
            self._refuse(name, allowed)

    def _refuse(self, name: str, allowed: str) -> None:
        raise OptionError(f"{name} is {getattr(self, name)!r}; allowed: {allowed}.")

    def resolved(self, space: EmbeddingSpace, window_s: float) -> AlignOptions:
        """The same with `loss` and `duration_s` filled in from the teacher's space and window.

        Raises:
            OptionError: a loss on unit vectors in a raw space, whose lengths would stay unlearned,
                or `raw-infonce` in a unit one.
        """
        loss = self.loss
        if loss == "auto":
            loss = "l2-infonce" if space.scale == "unit" else "raw-infonce"
        if space.scale == "unit" and loss == "raw-infonce":
            raise OptionError(
                f"loss is 'raw-infonce', but {space} is a space of unit vectors; allowed: "
                "l2-infonce, cosine-infonce, l2."
            )
        if space.scale == "raw" and loss in ("l2-infonce", "cosine-infonce"):
            raise OptionError(
                f"loss is {loss!r}, which does not teach the length of embeddings, but {space} is "
                "a raw space; allowed: raw-infonce, l2."
            )
        duration = window_s if self.duration_s is None else float(self.duration_s)
        return dataclasses.replace(self, loss=loss, duration_s=duration)

    def as_table(self) -> dict[str, Any]:
        """The options as JSON keeps them."""
        return {**dataclasses.asdict(self), "mix_db": list(self.mix_db)}


_CHOICES: dict[str, Any] = {
    "loss": LossChoice,
    "optimiser": OptimiserChoice,
    "schedule": ScheduleChoice,
    "precision": PrecisionChoice,
    "crop": CropChoice,
}
_WHOLE = {
    "batch": 1,
    "accumulate": 1,
    "epochs": 1,
    "steps": 1,
    "patience": 0,
    "validate_every": 1,
    "seed": 0,
    "workers": 0,
    "samples": 0,
    "frequency_masks": 0,
    "time_masks": 0,
}
_OPEN = ("steps", "validate_every")  # may be None


def _number(value: object) -> float:
    """A number, or NaN, which lies in no range."""
    return float(value) if isinstance(value, int | float) else math.nan


def align_recipes() -> list[str]:
    """Names of the recipes with an [align] table that come along, sorted."""
    folder = resources.files("s2v_cli.training") / "recipes"
    return sorted(
        Path(file.name).stem
        for file in folder.iterdir()
        if file.name.endswith(".toml") and TABLE in tomllib.loads(file.read_text(encoding="utf-8"))
    )


def load_options(name_or_file: str, **flags: Any) -> AlignOptions:
    """Options merged as defaults < recipe < flags; a flag that is None was not given.

    Args:
        name_or_file: a recipe's name such as `align`, or a TOML file with an [align] table.
        flags: fields of AlignOptions.

    Raises:
        TrainingError: no such recipe, not TOML, or an unknown key.
        OptionError: a value is outside its range.
    """
    folder = resources.files("s2v_cli.training") / "recipes"
    if name_or_file in align_recipes():
        text = (folder / f"{name_or_file}.toml").read_text(encoding="utf-8")
    else:
        try:
            text = Path(name_or_file).read_text(encoding="utf-8")
        except (OSError, ValueError):
            raise TrainingError(
                f"Unknown recipe {name_or_file!r}; known: {', '.join(align_recipes())}, or a TOML "
                "file's path."
            ) from None
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TrainingError(f"Recipe {name_or_file!r} is not valid TOML: {error}.") from None
    entries = table.get(TABLE)
    if not isinstance(entries, Mapping):
        raise TrainingError(f"Recipe {name_or_file!r} has no [{TABLE}] table.")
    return options_from({**entries, **{k: v for k, v in flags.items() if v is not None}})


def options_from(entries: Mapping[str, Any]) -> AlignOptions:
    """Options from a table by name.

    Raises:
        TrainingError: an unknown key, with the nearest known one.
        OptionError: a value is outside its range.
    """
    known = [field.name for field in fields(AlignOptions)]
    for key in entries:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" Allowed: {', '.join(known)}."
            raise TrainingError(f"[{TABLE}] has the unknown key {key!r}.{hint}")
    return AlignOptions(**entries)
