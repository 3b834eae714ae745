"""Recipes: TOML files that say which stages make a model, and how each is trained."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from s2v_cli.errors import TrainingError

# Loss weights and numbers that a stage reads besides, by stage.
LOSS_WEIGHTS = {
    "image_encoder": ("zoom",),
    "refine": ("zoom",),
    "codec": ("pixel", "feature", "adversarial", "freeze_encoder"),
    "sharpen": ("pixel", "feature", "adversarial", "freeze_encoder"),
    "flow": (),
    "distil": ("guidance", "substeps"),
    "sound_encoder": ("classes",),
    "polish": ("pixel", "feature", "adversarial", "freeze_encoder"),
    "speech_encoder": (),
    "gan": (),
}
RESOLUTIONS = (32, 64, 128, 256)  # px, of a GAN


@dataclass(frozen=True)
class StageOptions:
    """One stage of a recipe.

    Attributes:
        steps: optimiser steps.
        batch: examples a step.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: of AdamW.
        warm_up: share of the steps with rising learning rate, 0 to 1.
        ema: decay of the averaged weights, 0 to switch off.
        temperature: of the contrastive losses.
        loss_weights: weights of the stage's further terms, by name.
        validate_every: steps between validations.
    """

    steps: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.01
    warm_up: float = 0.05
    ema: float = 0.999
    temperature: float = 0.1
    loss_weights: tuple[tuple[str, float], ...] = ()
    validate_every: int = 500

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "validate_every"):
            self._whole(name, 1)
        for name in ("learning_rate", "temperature"):
            value = getattr(self, name)
            if not (_is_number(value) and value > 0):
                raise TrainingError(f"{name} is {value!r}; allowed: a number above 0.")
        self._between("weight_decay", 0, 10)
        self._between("warm_up", 0, 1)
        self._between("ema", 0, 1, open_end=True)
        for name, value in self.loss_weights:
            if not (_is_number(value) and value >= 0):
                raise TrainingError(f"loss_weights.{name} is {value!r}; allowed: 0 or more.")

    def _whole(self, name: str, low: int) -> None:
        value = getattr(self, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise TrainingError(f"{name} is {value!r}; allowed: an integer of {low} or more.")

    def _between(self, name: str, low: float, high: float, *, open_end: bool = False) -> None:
        value = getattr(self, name)
        if not (_is_number(value) and low <= value <= high) or (open_end and value == high):
            end = f"below {high:g}" if open_end else f"{high:g}"
            raise TrainingError(f"{name} is {value!r}; allowed: {low:g} to {end}.")

    def weight(self, name: str) -> float:
        """The weight of a loss term; an unlisted one is 0."""
        return dict(self.loss_weights).get(name, 0.0)


@dataclass(frozen=True)
class GanOptions(StageOptions):
    """Stage `gan` (§3.2; Brock et al., 2019; Casanova et al., 2021).

    Attributes:
        resolution: side of the pictures, px: 32, 64, 128 or 256.
        width: channels of the generator's last block and of the discriminator's first.
        features: size of the condition after the generator's first linear layer.
        chunk: size of the noise that the start and each block get.
        neighbours: k: real pictures are drawn from so many nearest ones of the condition, itself
            among them.
        views: crops of each photo that are conditions; the first is the whole centre square.
        discriminator_ratio: learning rate of the discriminator over that of the generator.
        discriminator_steps: of the discriminator, for each of the generator.
        gradient_penalty: weight of R1 (Mescheder et al., 2018, Eq. 9), 0 to do without.
        augment: whether the discriminator sees augmented pictures (Zhao et al., 2020).
        standing: batches over which the batch norms' statistics are taken in the end.
    """

    weight_decay: float = 0.0
    resolution: int = 64
    width: int = 32
    features: int = 128
    chunk: int = 20
    neighbours: int = 50
    views: int = 1
    discriminator_ratio: float = 2.0
    discriminator_steps: int = 1
    gradient_penalty: float = 0.0
    augment: bool = True
    standing: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resolution not in RESOLUTIONS:
            allowed = ", ".join(map(str, RESOLUTIONS))
            raise TrainingError(f"resolution is {self.resolution!r}; allowed: {allowed}.")
        names = ("features", "chunk", "neighbours", "views", "discriminator_steps", "standing")
        for name in names:
            self._whole(name, 1)
        self._whole("width", 8)  # the attention's keys are an eighth of its channels
        self._whole("batch", 2)  # a batch norm of one picture has no variance
        self._between("discriminator_ratio", 0.01, 100)
        self._between("gradient_penalty", 0, 1000)
        if not isinstance(self.augment, bool):
            raise TrainingError(f"augment is {self.augment!r}; allowed: true, false.")


KINDS: Mapping[str, type[StageOptions]] = {
    name: GanOptions if name == "gan" else StageOptions for name in LOSS_WEIGHTS
}


@dataclass(frozen=True)
class Recipe:
    """A named list of stages with one seed.

    Attributes:
        name: of the recipe.
        seed: of all its stages.
        stages: options by stage.
        teacher: preset, by name or folder, whose networks stand in for stages that are not listed.
        start: preset, by name or folder, from whose image encoder, codec and flow the stages go
            on where no stage before them made one.
    """

    name: str
    seed: int
    stages: tuple[tuple[str, StageOptions], ...]
    teacher: str | None = None
    start: str | None = None

    def stage(self, name: str) -> StageOptions:
        """Options of one stage."""
        found = dict(self.stages).get(name)
        if found is None:
            names = ", ".join(dict(self.stages))
            raise TrainingError(f"Recipe {self.name!r} has no stage {name!r}; it has: {names}.")
        return found

    @property
    def names(self) -> frozenset[str]:
        """Names of its stages."""
        return frozenset(name for name, _ in self.stages)


def read_table(name_or_file: str) -> dict[str, Any]:
    """The TOML of a recipe that comes with the package (`mini`), or of a file.

    Raises:
        TrainingError: no such recipe, or no TOML.
    """
    folder = resources.files("s2v_cli.training") / "recipes"
    known = sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".toml"))
    try:
        if name_or_file in known:
            text = (folder / f"{name_or_file}.toml").read_text(encoding="utf-8")
        elif Path(name_or_file).is_file():
            text = Path(name_or_file).read_text(encoding="utf-8")
        else:
            raise TrainingError(
                f"Unknown recipe {name_or_file!r}.{nearest(name_or_file, known)} Known: "
                f"{', '.join(known)}, or a TOML file's path."
            )
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"Cannot read the recipe {name_or_file!r}: {error}.") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TrainingError(f"Recipe {name_or_file!r} is not valid TOML: {error}.") from None


def has_stages(table: Mapping[str, Any]) -> bool:
    """Whether a recipe's table is one of stages, as `load_recipe` reads, and not of `align`."""
    return "stages" in table


def load_recipe(name_or_file: str) -> Recipe:
    """Read a recipe of stages by its name (`mini`, `gan`) or from a TOML file.

    Raises:
        TrainingError: no such recipe, or an unknown or malformed entry.
    """
    table = read_table(name_or_file)
    stages = table.get("stages", {})
    if not isinstance(stages, dict) or not stages:
        raise TrainingError(f"Recipe {name_or_file!r} has no [stages.NAME] tables.")
    allowed = ("name", "seed", "teacher", "start", "stages")
    _refuse_unknown(table, allowed, f"Recipe {name_or_file!r}")
    seed = table.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise TrainingError(f"seed is {seed!r}; allowed: an integer of 0 or more.")
    presets = {key: table.get(key) for key in ("teacher", "start")}
    for key, preset in presets.items():
        if preset is not None and not (isinstance(preset, str) and preset):
            raise TrainingError(f"{key} is {preset!r}; allowed: a preset's name or folder.")
    for name in stages:
        if name not in LOSS_WEIGHTS:
            raise TrainingError(
                f"Recipe {name_or_file!r} has the unknown stage {name!r}."
                f"{nearest(name, LOSS_WEIGHTS)} Allowed: {', '.join(LOSS_WEIGHTS)}."
            )
    options = tuple((name, _stage(name, entry)) for name, entry in stages.items())
    return Recipe(str(table.get("name", name_or_file)), seed, options, **presets)


def _stage(name: str, entry: Any) -> StageOptions:
    if not isinstance(entry, dict):
        raise TrainingError(f"stages.{name} is {entry!r}; allowed: a table, [stages.{name}].")
    kind = KINDS[name]
    _refuse_unknown(entry, [field.name for field in fields(kind)], f"Stage {name!r}")
    needed = [field.name for field in fields(kind) if field.default is MISSING]
    missing = [key for key in needed if key not in entry]
    if missing:
        raise TrainingError(f"Stage {name!r} lacks {' and '.join(missing)}.")
    weights = entry.get("loss_weights", {})
    if not isinstance(weights, dict):
        raise TrainingError(f"loss_weights is {weights!r}; allowed: a table.")
    _refuse_unknown(weights, LOSS_WEIGHTS[name], f"loss_weights of stage {name!r}")
    try:
        return kind(**{**entry, "loss_weights": tuple(sorted(weights.items()))})
    except TrainingError as error:
        raise TrainingError(f"Stage {name!r}: {error}") from None


def _refuse_unknown(table: Mapping[str, Any], allowed: Iterable[str], where: str) -> None:
    names = list(allowed)
    for key in table:
        if key not in names:
            listed = ", ".join(sorted(names)) or "none"
            raise TrainingError(
                f"{where} has the unknown key {key!r}.{nearest(key, names)} Allowed: {listed}."
            )


def nearest(name: str, names: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or nothing."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
