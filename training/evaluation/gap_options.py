"""Options of `s2v analyze`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from s2v_cli.errors import OptionError
from s2v_cli.presets import load_preset
from s2v_cli.strip import Theme
from s2v_cli.training.manifest import SPLITS

Scale = Literal["unit", "own"]

MOST_PRESETS = 6  # rows of the plots
MOST_MAPPED = 5000  # pairs, for t-SNE


@dataclass(frozen=True)
class AnalyzeOptions:
    """What is analysed, and how it is drawn.

    Attributes:
        split: train, validation or test.
        limit: sounds at most, of all classes in turn, >= 2; None takes all.
        scale: `unit` divides each embedding by its norm, as the paper does; `own` takes it as it
            is.
        mapped: pairs of the t-SNE at most, of all classes in turn, 0 to 5000; 0 leaves it out.
        perplexity: of the t-SNE, 2 to 100; lowered where there are few pairs.
        seed: of the bootstrap and the t-SNE.
        theme: of the plots.
    """

    split: str = "test"
    limit: int | None = None
    scale: Scale = "unit"
    mapped: int = 500
    perplexity: float = 30.0
    seed: int = 0
    theme: Theme = "light"

    def __post_init__(self) -> None:
        _check(self.split in SPLITS, "split", self.split, ", ".join(SPLITS))
        _check(self.limit is None or self.limit >= 2, "limit", self.limit, "2 or more")
        _check(self.scale in get_args(Scale), "scale", self.scale, ", ".join(get_args(Scale)))
        _check(0 <= self.mapped <= MOST_MAPPED, "mapped", self.mapped, f"0 to {MOST_MAPPED}")
        _check(2 <= self.perplexity <= 100, "perplexity", self.perplexity, "2 to 100")
        _check(0 <= self.seed < 2**32, "seed", self.seed, "0 to 2^32 - 1")
        _check(self.theme in get_args(Theme), "theme", self.theme, ", ".join(get_args(Theme)))


def preset_labels(presets: Sequence[str]) -> list[str]:
    """What tells presets apart: their names, else their files' names, else what was typed.

    Raises:
        OptionError: too many, the same twice, or one without an image encoder.
        PresetError: an unknown preset.
    """
    if not 1 <= len(presets) <= MOST_PRESETS:
        raise OptionError(f"There are {len(presets)} presets; allowed: 1 to {MOST_PRESETS}.")
    twice = next((name for name in presets if list(presets).count(name) > 1), None)
    if twice is not None:
        raise OptionError(f"Preset {twice!r} is named twice; allowed: each once.")
    names = []
    for entry in presets:
        preset = load_preset(entry)
        names.append(preset.name)
        if all(weight.role != "image_encoder" for weight in preset.weights):
            raise OptionError(
                f"preset is {preset.name!r}, which has no image encoder: there is no gap to "
                "measure. Choose another from 's2v presets'."
            )
    files = [Path(entry).name for entry in presets]
    for labels in (names, files):
        if len(set(labels)) == len(labels):
            return labels
    return list(presets)


def _check(ok: bool, name: str, value: object, allowed: str) -> None:
    if not ok:
        raise OptionError(f"{name} is {value!r}; allowed: {allowed}.")
