"""The report says of each order of the paper whether the runs show it."""

from __future__ import annotations

import math

import pytest

from s2v_cli.training.ablation.plan import Plan, make_plan
from s2v_cli.training.ablation.report import Estimate, compare, judge_order, report

PLAN = make_plan(
    {
        "kind": "ablation",
        "seeds": [0, 1, 2],
        "studies": {
            "loss": {"L2": {"loss": "l2"}, "cosine": {"loss": "cosine-infonce"}, "total": {}},
            "classes": {"5": {"classes": 5}, "all": {}},
        },
    },
    "drawn",
)


def results(plan: Plan = PLAN) -> dict[str, dict[str, float]]:
    """L2 clearly below cosine; cosine and total alike; more classes, lower R@5."""
    figures = {
        "L2": [0.10, 0.12, 0.11],
        "cosine": [0.40, 0.45, 0.43],
        "total": [0.43, 0.42, 0.44],
        "5": [0.40, 0.42, 0.44],
    }
    found = {}
    for study, rows in plan.studies:
        for row in rows:
            for seed in plan.seeds:
                if row.label in figures:
                    value = figures[row.label][seed]
                    taught = 0.9 if row.label == "5" else 0.6 + 0.01 * seed
                    found[plan.setting(study, row, seed).key] = {
                        "r1": value,
                        "r5": value + 0.3,
                        "r5_of_taught": taught,
                        "gap": 0.5,
                        "encoder": 0.2,
                        "sounds": 40.0,
                    }
    return found


def test_interval_is_students() -> None:
    estimate = Estimate.of([1.0, 2.0, 3.0])
    assert estimate.mean == 2.0
    assert estimate.half == pytest.approx(4.303 * 1 / math.sqrt(3))
    assert str(estimate) == "2.000 ± 2.484"
    assert math.isnan(Estimate.of([1.0]).half) and str(Estimate.of([1.0])) == "1.000"
    assert Estimate.of([0.0, 2.0] * 10).half == pytest.approx(
        2.201 * math.sqrt(20 / 19) / math.sqrt(20)
    )


@pytest.mark.parametrize(
    ("mean", "half", "rises", "verdict"),
    [
        (0.3, 0.2, True, "holds"),
        (-0.3, 0.2, True, "reversed"),
        (0.3, 0.2, False, "reversed"),
        (-0.3, 0.2, False, "holds"),
        (0.1, 0.2, True, "not told apart"),
        (0.2, 0.2, True, "not told apart"),
        (0.5, math.nan, True, "one seed"),
        (0.0, 0.0, True, "not told apart"),
    ],
)
def test_orders_are_judged_by_their_interval(
    mean: float, half: float, rises: bool, verdict: str
) -> None:
    assert judge_order(Estimate(mean, half, 3), rises=rises) == verdict


def test_differences_are_of_equal_seeds() -> None:
    found = {(c.expectation.figure, c.first, c.second): c for c in compare(PLAN, results())}
    clear = found["r1", "L2", "total"]
    assert clear.difference.mean == pytest.approx(0.32)
    assert clear.verdict == "holds"
    assert found["r1", "cosine", "total"].verdict == "not told apart"
    assert found["r5_of_taught", "5", "all"].verdict == "holds"


def test_a_seed_that_one_row_lacks_is_left_out() -> None:
    plan, partial = PLAN, results()
    del partial[plan.setting("loss", dict(plan.studies)["loss"][0], 2).key]
    found = {(c.first, c.second): c for c in compare(plan, partial) if c.expectation.figure == "r1"}
    assert found["L2", "total"].difference.count == 2
    assert found["L2", "total"].difference.mean == pytest.approx((0.33 + 0.30) / 2)


def test_report_tells_tables_orders_and_what_is_missing() -> None:
    text = report(PLAN, results(), {"command": "`s2v train DATA --ablate`"})
    assert "| L2 | 0.110 ± 0.025 | 0.410 ± 0.025 | 0.200 ± 0.000 | 0.500 ± 0.000 |" in text
    assert "R@1 of *total* higher than of *L2* (Table 2 (A), (B), (F)). **Holds**" in text
    assert "**Not told apart**" in text
    assert "runs are done; the rest is missing" not in text
    assert "- command: `s2v train DATA --ablate`" in text
    partial = dict(list(results().items())[:4])
    text = report(PLAN, partial, {})
    assert "**4 of 12 runs are done; the rest is missing here.**" in text
    assert "**0 of 12 runs are done" in report(PLAN, {}, {})
