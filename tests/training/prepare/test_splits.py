"""Splits by source, duplicates, order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from s2v_cli.errors import TrainingError
from s2v_cli.training.prepare.options import PrepareOptions
from s2v_cli.training.prepare.sources import Item
from s2v_cli.training.prepare.splits import (
    ORDER,
    Duplicates,
    Prints,
    assign_splits,
    in_order,
    split_of,
)

OPTIONS = PrepareOptions(train=0.7, validation=0.1, test=0.2)


def item(name: str, **fields: object) -> Item:
    return replace(Item(name, name, name, name), **fields)  # type: ignore[arg-type]


def test_shares_are_kept() -> None:
    splits = [split_of(f"source {number}", OPTIONS) for number in range(4000)]
    for split, share in (("train", 0.7), ("validation", 0.1), ("test", 0.2)):
        assert splits.count(split) / 4000 == pytest.approx(share, abs=0.025)


def test_added_data_moves_nothing() -> None:
    few = [item(f"source {number}") for number in range(50)]
    many = [*(item(f"another {number}") for number in range(50)), *few]
    before, after = assign_splits(few, OPTIONS), assign_splits(many, OPTIONS)
    assert {name: after[name] for name in before} == before


def test_the_seed_moves_the_splits() -> None:
    items = [item(f"source {number}") for number in range(200)]
    first = assign_splits(items, OPTIONS)
    assert first == assign_splits(items, OPTIONS)
    assert first != assign_splits(items, replace(OPTIONS, seed=1))


def test_items_of_one_source_share_a_split() -> None:
    items = [item(f"{s}/{n}", source=s) for s in map(str, range(40)) for n in range(3)]
    placed = in_order(items, assign_splits(items, OPTIONS), 0)
    sources = [{entry.source for _, entry in placed[split]} for split in ORDER]
    assert all(sources) and not any(a & b for a in sources for b in sources if a is not b)


def test_a_given_split_holds_for_all_of_its_source() -> None:
    items = [item("a", key="1"), item("a", key="2", split="validation"), item("b", split="test")]
    assert assign_splits(items, OPTIONS) == {"a": "validation", "b": "test"}


def test_splits_that_leak_are_refused_with_both_places() -> None:
    items = [
        item("a", split="train", where="line 4 of x.csv"),
        item("a", split="test", where="line 9 of x.csv"),
    ]
    with pytest.raises(
        TrainingError, match=r"'a' is in train \(line 4 of x.csv\) and in test \(line 9 of x.csv\)"
    ):
        assign_splits(items, OPTIONS)


def test_places_do_not_depend_on_the_order_of_the_items() -> None:
    items = [item(f"source {number}") for number in range(50)]
    splits = assign_splits(items, OPTIONS)
    placed = in_order(items, splits, 0)
    assert placed == in_order(items[::-1], splits, 0)
    places = [place for split in ORDER for place, _ in placed[split]]
    assert places == list(range(50))
    assert [entry.key for _, entry in placed["train"]] != sorted(e.key for _, e in placed["train"])


def test_duplicates_within_a_split_and_across() -> None:
    duplicates = Duplicates()
    assert duplicates.check("a", "test", Prints("ab", ("a", "b"))) is None
    assert duplicates.check("b", "test", Prints("ab", ("a", "b"))) == "the same as a"
    assert (
        duplicates.check("c", "test", Prints("ac", ("a", "c"))) is None
    )  # one picture, two sounds
    found = duplicates.check("d", "train", Prints("cd", ("c", "d")))
    assert found == "shares a picture or sound with c in test"
    assert duplicates.check("e", "train", Prints("e", ("e",))) is None


def test_a_duplicate_counts_whether_it_was_kept_or_not() -> None:
    duplicates = Duplicates()
    duplicates.check("a", "test", Prints("a", ("a",)))
    assert duplicates.check("b", "validation", Prints("b", ("a", "b"))) is not None
    assert duplicates.check("c", "train", Prints("c", ("b",))) is not None  # b was left out
