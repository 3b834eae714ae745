"""Plans of ablations: what is read, what is refused, which runs come of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from s2v_cli.errors import TrainingError
from s2v_cli.training.ablation.plan import load_plan, make_plan
from s2v_cli.training.ablation.report import EXPECTATIONS
from s2v_cli.training.align.options import align_recipes, options_from


def table(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "ablation",
        "seeds": [0, 1],
        "shared": {"steps": 5, "loss": "l2-infonce"},
        "studies": {
            "loss": {"L2": {"loss": "l2"}, "whole": {}},
            "duration": {"1 s": {"duration_s": 1.0}, "as it is": {}},
        },
        **changes,
    }


def test_the_shipped_plan_covers_the_paper() -> None:
    plan = load_plan()
    studies = dict(plan.studies)
    assert set(studies) == {"loss", "duration", "selection", "classes"}
    assert {expected.study for expected in EXPECTATIONS} == set(studies)
    runs = list(plan.runs())
    options = [options_from({**dict(run.options), "seed": run.seed}) for run in runs]
    assert {o.loss for o in options} == {"l2", "cosine-infonce", "l2-infonce"}
    assert {o.duration_s for o in options} == {1.0, 5.0, 10.0}
    assert {run.select for run in runs} == {None, "mid", "top1"}
    assert len(plan.seeds) >= 3
    assert "ablation" not in align_recipes()


def test_rows_that_change_nothing_are_one_run() -> None:
    runs = list(make_plan(table(), "x").runs())
    assert len(runs) == 6  # of each seed: L2, 1 s, and the row that both studies share
    assert [run.seed for run in runs] == [0, 0, 0, 1, 1, 1]
    assert len({run.key for run in runs}) == 6
    assert runs[0].key.startswith("l2-0s-seed0-")


def test_a_run_is_named_by_all_that_it_depends_on() -> None:
    keys = {run.key for run in make_plan(table(), "x").runs()}
    longer = table(shared={"steps": 6, "loss": "l2-infonce"})
    assert not keys & {run.key for run in make_plan(longer, "x").runs()}
    assert keys == {run.key for run in make_plan(table(pictures=9), "x").runs()}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kind": "align"}, "kind is 'align'"),
        ({"seed": 1}, "a key is 'seed'"),
        ({"seeds": []}, "seeds is"),
        ({"seeds": [1, 1]}, "seeds is"),
        ({"seeds": [True]}, "seeds is"),
        ({"split": "train"}, "validation, test"),
        ({"pictures": 0}, "pictures is 0"),
        ({"shared": {"seed": 1}}, "shared is"),
        ({"studies": {}}, "studies is"),
        ({"studies": {"loss": {"one": {}}}}, "two rows"),
        ({"studies": {"a": {"x": {"classes": 1}, "y": {}}}}, "studies.a.x.classes is 1"),
        ({"studies": {"a": {"x": {"select": "all"}, "y": {}}}}, "mid, top1"),
        ({"studies": {"a": {"x": {"duration_s": float("nan")}, "y": {}}}}, "finite"),
    ],
)
def test_what_is_malformed_is_named(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(TrainingError, match=told):
        make_plan(table(**changes), "x")


def test_a_plan_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('kind = "ablation"\n[studies.a]\nx = { steps = 3 }\ny = {}\n')
    assert [dict(run.options) for run in load_plan(str(path)).runs()] == [{"steps": 3}, {}]
    path.write_text("kind =")
    with pytest.raises(TrainingError, match="not valid TOML"):
        load_plan(str(path))
    with pytest.raises(TrainingError, match=r"Known: ablation"):
        load_plan("ablatoin")
