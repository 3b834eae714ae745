"""The table of known results."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from s2v_cli.training.evaluation import table


def estimate(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


@pytest.fixture
def results() -> dict[str, Any]:
    row = {
        "title": "from the sound",
        "encoder": "A",
        "generator": "G",
        "pictures": 40,
        "r1": estimate(0.5, 0.25, 0.625),
        "r5": None,
        "fid": 12.345,
        "kid": estimate(0.01234, -0.001, 0.02),
        "inception_score": estimate(3.0, 2.5, 3.5),
    }
    return {
        "preset": "x",
        "data": {
            "split": "test", "folder": "d", "sounds": 10, "recordings": 5, "classes": 2,
            "photos": 300,
        },
        "options": {"seeds": 4},
        "recall": {"told": "CLIP", "by": "clip", "names": 50, "chance": {"r1": 0.02, "r5": 0.1}},
        "inception": {"told": "V3", "by": "vggsound", "features": 2048, "reference": 300},
        "retrieval": {"photos": 3, "of": 9, "bytes": 5_000_000, "generator_bytes": 6_000_000},
        "rows": {"B": row},
        "floor": {"pictures": 40, "fid": 2.0, "kid": estimate(0, 0, 0), "inception_score": None},
        "by_class": {"a|b": {"sounds": 7, "B": {"r1": 0.25, "r5": 1.0}}, "c": {"sounds": 3}},
        "notes": ["Something is left out."],
    }  # fmt: skip


def test_cells(results: dict[str, Any]) -> None:
    first, floor = table.cells(results)
    assert first == [
        "(B) from the sound", "A", "G", "40", "50.0 [25.0, 62.5]", "-", "12.35",
        "12.34 [-1.00, 20.00]", "3.00 [2.50, 3.50]",
    ]  # fmt: skip
    assert floor == [
        "real against real", "-", "-", "40", "-", "-", "2.00", "0.00 [0.00, 0.00]", "-"
    ]  # fmt: skip
    assert len(first) == len(table.HEADINGS)


def test_the_head_names_what_measured_and_the_counts(results: dict[str, Any]) -> None:
    text = "\n".join(table.head(results))
    assert "10 sounds of 5 recordings in 2 classes, 4 pictures each; 300 real pictures" in text
    assert "R@k: by CLIP, among 50 class names (chance 2.0% and 10.0%)" in text
    assert "by V3 (2048 features), against 300 real pictures" in text
    assert "C retrieves from 3 of 9 training pictures: 5.0 MB, where the generator has 6.0 MB" in (
        text
    )
    for part in ("recall", "inception", "retrieval"):
        results[part] = None
    assert len(table.head(results)) == 1


def test_markdown(results: dict[str, Any]) -> None:
    lines = table.markdown(results).splitlines()
    assert "| a\\|b | 7 | 25 | 100 |" in lines and "| c | 3 | - | - |" in lines
    assert "- Something is left out." in lines
    for line in lines:  # every table is as wide all the way down
        if line.startswith("|"):
            assert line.replace("\\|", "").count("|") in (10, 5)


def test_comma_separated(results: dict[str, Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(table.comma_separated(results))))
    found = {(row["row"], row["figure"]): row for row in rows}
    assert set(found) == {
        ("B", "r1"), ("B", "fid"), ("B", "kid"), ("B", "inception_score"), ("floor", "fid"),
        ("floor", "kid"),
    }  # fmt: skip
    assert found["B", "r1"]["value"] == "0.5" and found["B", "r1"]["by"] == "clip"
    assert found["B", "fid"] == {
        "preset": "x", "split": "test", "row": "B", "figure": "fid", "value": "12.345", "low": "",
        "high": "", "pictures": "40", "by": "vggsound",
    }  # fmt: skip
