"""Recipes: TOML files that say how each stage of a model is trained."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from s2v_cli.errors import TrainingError


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
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise TrainingError(f"{name} is {value!r}; allowed: an integer of 1 or more.")
        for name in ("learning_rate", "temperature"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or value <= 0:
                raise TrainingError(f"{name} is {value!r}; allowed: a number above 0.")

    def weight(self, name: str) -> float:
        """The weight of a loss term; an unlisted one is 0."""
        return dict(self.loss_weights).get(name, 0.0)


@dataclass(frozen=True)
class Recipe:
    """A named list of stages, run in order, with one seed."""

    name: str
    seed: int
    stages: tuple[tuple[str, StageOptions], ...]

    def stage(self, name: str) -> StageOptions:
        """Options of one stage."""
        found = dict(self.stages).get(name)
        if found is None:
            names = ", ".join(dict(self.stages))
            raise TrainingError(f"Recipe {self.name!r} has no stage {name!r}; it has: {names}.")
        return found


def load_recipe(name_or_file: str) -> Recipe:
    """Read a recipe by its name (`mini`) or from a TOML file.

    Raises:
        TrainingError: no such recipe, or an unknown or malformed entry.
    """
    folder = resources.files("s2v_cli.training") / "recipes"
    known = sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".toml"))
    if name_or_file in known:
        text = (folder / f"{name_or_file}.toml").read_text(encoding="utf-8")
    elif Path(name_or_file).is_file():
        text = Path(name_or_file).read_text(encoding="utf-8")
    else:
        raise TrainingError(
            f"Unknown recipe {name_or_file!r}; known: {', '.join(known)}, or a TOML file's path."
        )
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TrainingError(f"Recipe {name_or_file!r} is not valid TOML: {error}.") from None
    stages = []
    for name, entry in table.get("stages", {}).items():
        stages.append((name, _stage(name, dict(entry))))
    if not stages:
        raise TrainingError(f"Recipe {name_or_file!r} has no [stages.NAME] tables.")
    return Recipe(str(table.get("name", name_or_file)), int(table.get("seed", 0)), tuple(stages))


def _stage(name: str, entry: dict[str, Any]) -> StageOptions:
    allowed = {field.name for field in fields(StageOptions)}
    unknown = sorted(set(entry) - allowed)
    if unknown:
        raise TrainingError(
            f"Stage {name!r} has the unknown key {unknown[0]!r}; allowed: "
            f"{', '.join(sorted(allowed))}."
        )
    weights = entry.pop("loss_weights", {})
    try:
        return StageOptions(**entry, loss_weights=tuple(sorted(weights.items())))
    except TypeError as error:
        raise TrainingError(f"Stage {name!r}: {error}.") from None
