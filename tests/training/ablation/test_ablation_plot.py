"""The picture of an ablation."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from s2v_cli.training.ablation.plan import make_plan
from s2v_cli.training.ablation.plot import plot

PLAN = make_plan(
    {
        "kind": "ablation",
        "seeds": [0, 1],
        "studies": {
            "loss": {"L2": {"loss": "l2"}, "whole": {}},
            "classes": {"2": {"classes": 2}, "all": {}},
        },
    },
    "drawn",
)


def drawn(value: float) -> np.ndarray:
    results = {
        run.key: {"r5": value + 0.1 * run.seed, "r5_of_taught": value, "chance_r5": 0.2}
        for run in PLAN.runs()
    }
    return np.asarray(Image.open(io.BytesIO(plot(PLAN, results))).convert("RGB")).astype(int)


def test_higher_figures_are_drawn_higher() -> None:
    def height(picture: np.ndarray) -> float:
        blue = np.abs(picture - (0x25, 0x63, 0xA8)).sum(axis=2) < 60
        return float(np.flatnonzero(blue.any(axis=1)).mean())

    low, high = drawn(0.2), drawn(0.7)
    assert low.shape == high.shape
    assert height(high) < height(low) - 20


def test_nothing_done_is_an_empty_frame() -> None:
    with Image.open(io.BytesIO(plot(PLAN, {}))) as picture:
        assert picture.width > picture.height
