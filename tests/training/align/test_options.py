"""Options of training, and the recipes that hold them."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from s2v_cli.errors import OptionError, S2VError, TrainingError
from s2v_cli.space import EmbeddingSpace
from s2v_cli.training.align.options import AlignOptions, align_recipes, load_options, options_from

ROOT = Path(__file__).parents[3]
UNIT = EmbeddingSpace("mini", 256, "unit")
RAW = EmbeddingSpace("openclip-vit-h", 1024, "raw")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("loss", "l3"),
        ("optimiser", "sgd"),
        ("precision", "int8"),
        ("crop", "left"),
        ("schedule", "step"),
        ("teacher", ""),
        ("temperature", 0.0),
        ("learning_rate", float("nan")),
        ("learning_rate", "fast"),
        ("duration_s", 0.01),
        ("duration_s", 100),
        ("batch", 1),
        ("batch", 2.5),
        ("batch", True),
        ("epochs", 0),
        ("steps", 0),
        ("accumulate", 65),
        ("warm_up", 1.0),
        ("ema", 1.0),
        ("ema", -0.1),
        ("mix", 1.5),
        ("mix_db", (0.0, -6.0)),
        ("mix_db", (0.0,)),
        ("gain_db", -1),
        ("clip_norm", float("inf")),
        ("seed", -1),
        ("seed", None),
        ("workers", -1),
        ("compile", "yes"),
        ("close_gap", 1),
    ],
)
def test_a_value_outside_its_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=rf"{name} is .*; allowed: ") as caught:
        AlignOptions(**{name: value})
    assert repr(value) in str(caught.value) or name == "accumulate"


def test_a_temperature_that_the_loss_lacks_cannot_be_learnt() -> None:
    with pytest.raises(OptionError, match="learn_temperature is True"):
        AlignOptions(loss="l2", learn_temperature=True)


def test_the_space_decides_the_loss_and_the_teacher_the_duration() -> None:
    options = AlignOptions()
    assert options.resolved(UNIT, 5.0).loss == "l2-infonce"
    assert options.resolved(RAW, 10.0).loss == "raw-infonce"
    assert options.resolved(UNIT, 5.0).duration_s == 5.0
    given = dataclasses.replace(options, duration_s=1, loss="l2")
    assert given.resolved(RAW, 10.0) == dataclasses.replace(given, duration_s=1.0)


@pytest.mark.parametrize(
    ("loss", "space"), [("raw-infonce", UNIT), ("l2-infonce", RAW), ("cosine-infonce", RAW)]
)
def test_a_loss_that_does_not_fit_the_space_is_refused(loss: Any, space: EmbeddingSpace) -> None:
    with pytest.raises(OptionError, match=rf"loss is '{loss}'.*{space.name}.*allowed: "):
        AlignOptions(loss=loss).resolved(space, 5.0)


def test_a_table_and_back() -> None:
    options = AlignOptions(mix_db=(-20.0, -10.0), steps=7)
    assert options_from(options.as_table()) == options


@pytest.mark.parametrize("name", ["align", "align-published"])
def test_recipes_load(name: str) -> None:
    assert name in align_recipes()
    load_options(name)


def test_the_published_settings() -> None:
    options = load_options("align-published")
    found = (options.optimiser, options.learning_rate, options.weight_decay, options.batch)
    assert found == ("adam", 1e-3, 1e-5, 64)
    assert (options.epochs, options.patience, options.temperature) == (50, 5, 1.0)


def test_flags_win_over_recipes_and_recipes_over_defaults(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[align]\nbatch = 12\nema = 0.5\nmix_db = [-20, -3]\n", encoding="utf-8")
    options = load_options(str(recipe), batch=6, seed=None)
    assert (options.batch, options.ema, options.seed) == (6, 0.5, 0)
    assert options.mix_db == (-20, -3)
    assert options.learning_rate == AlignOptions().learning_rate


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "Unknown recipe .*align, align-published"),
        (b"[align", "not valid TOML"),
        (b"\xff\xfe", "Unknown recipe|not valid"),
        (b"[stages.image]\nsteps = 1\n", r"no \[align\] table"),
        (b"align = 3\n", r"no \[align\] table"),
        (b"[align]\nlearnin_rate = 1\n", "unknown key 'learnin_rate'.*'learning_rate'"),
        (b"[align]\nzzz = 1\n", "unknown key 'zzz'. Allowed: teacher"),
    ],
)
def test_a_recipe_that_cannot_be_read_is_named(
    content: bytes | None, told: str, tmp_path: Path
) -> None:
    recipe = tmp_path / "mine.toml"
    if content is not None:
        recipe.write_bytes(content)
    with pytest.raises(S2VError, match=told) as caught:
        load_options(str(recipe))
    assert isinstance(caught.value, TrainingError)


def test_the_docs_list_every_key_with_its_default() -> None:
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]*`) \| ([^|]*) \|", text, re.MULTILINE)
    told = {}
    for keys, default in rows:
        names = re.findall(r"`(\w+)`", keys)
        told |= dict(zip(names, default.split(", ", len(names) - 1) * len(names), strict=False))
    for field in dataclasses.fields(AlignOptions):
        assert field.name in told, field.name
        if isinstance(field.default, bool | int | float):
            first = told[field.name].split()[0].strip("`,")
            assert json.loads(first) == field.default, field.name
