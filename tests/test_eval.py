"""`s2v eval`: what the command prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.training.evaluation.conftest import QUICK, TINTS, draw_classes, prepared

if TYPE_CHECKING:
    from conftest import RunHere


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("eval")
    return prepared(draw_classes(root / "source", list(TINTS)), root / "data", "classes")


@pytest.fixture
def home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No published weights, and a classifier that is trained in a moment."""
    from s2v_cli.training.evaluation import score

    monkeypatch.setenv("S2V_HOME", str(folder / "home"))
    monkeypatch.setattr(score.evaluate_preset, "__kwdefaults__", {
        **score.evaluate_preset.__kwdefaults__, "judge_options": QUICK,
    })  # fmt: skip


def test_the_table_is_the_result(data: Path, home: None, s2v: RunHere) -> None:
    ran = s2v("eval", "mini", data, "--out", "out", "--seeds", "1", "--limit", "3")
    assert ran.status == 0, ran.err
    assert ran.lines[0].startswith(f"mini, split test of {data}: 3 sounds of 3 recordings")
    rows = [line for line in ran.lines if line.strip().startswith(("(", "real"))]
    assert [row.split()[0] for row in rows] == ["(A)", "(B)", "(C)", "(D)", "real"]
    assert "R@1 %" in ran.out and "KID x 1000" in ran.out
    notes = ran.complaints
    assert any("CLIP is not here, so a classifier ranks" in line for line in notes)
    assert any("Written: out/mini-test-pictures.png, out/mini-test.md" in line for line in notes)
    assert all(line.startswith("s2v: note: ") for line in notes)
    again = s2v("eval", "mini", data, "--classifier", "out/classifier/judge.pt", "--rows", "D",
                "--json", "--quiet")  # fmt: skip
    assert again.status == 0 and again.err == ""
    results = json.loads(again.out)
    assert set(results["rows"]) == {"D"} and results["options"]["rows"] == "D"
    assert Path("runs/eval/mini-test.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["mini", "DATA", "--split", "dev"], 2, "split is 'dev'; allowed: train"),
        (["mini", "DATA", "--rows", "E"], 2, "rows is 'E'"),
        (["mimi", "DATA"], 2, "Unknown preset 'mimi'"),
        (["mini", "nowhere"], 1, "No file or folder at 'nowhere'"),
        (["mini", "DATA", "--recall", "clip"], 1, "s2v weights pull clip-vit-b-32"),
        (["sound2scene", "DATA"], 1, "Missing weights of preset 'sound2scene'"),
    ],
)
def test_bad_input_is_one_line(
    data: Path, home: None, s2v: RunHere, arguments: list[str], status: int, told: str
) -> None:
    ran = s2v("eval", *[str(data) if word == "DATA" else word for word in arguments])
    assert ran.status == status and ran.out == ""
    assert len(ran.complaints) == 1 and told in ran.complaints[0], ran.err
    assert not Path("runs").exists()
