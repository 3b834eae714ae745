"""Scores of a user study whose answers are known, in closed form."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s2v_cli.errors import TrainingError
from s2v_cli.training.evaluation.study_score import (
    Key,
    binomial_test,
    find_answers,
    interval,
    read_answers,
    read_key,
    report,
    score_study,
)

# Two questions of preference (o: ours, t: the other's, d: of another sound), two of precision.
PICTURES = {
    "pa": {"o1": True, "o2": True, "t1": True, "t2": True, "d1": False, "d2": False},
    "pb": {"o3": True, "o4": True, "t3": True, "t4": True, "d3": False, "d4": False},
    "qa": {"r1": True, "w1": False, "w2": False, "w3": False},
    "qb": {"r2": True, "w4": False, "w5": False, "w6": False},
}


def write_key(folder: Path) -> Path:
    questions = [
        {
            "question": token,
            "part": "preference" if token[0] == "p" else "precision",
            "sound": f"sounds/{token}.wav",
            "source": token,
            "name": "rain",
            "pictures": [
                {
                    "picture": name,
                    "method": "other" if name[0] == "t" else "ours",
                    "of": "somewhere",
                    "name": "rain" if right else "train",
                    "seed": 0,
                    "right": right,
                }
                for name, right in pictures.items()
            ],
        }
        for token, pictures in PICTURES.items()
    ]
    described = {"preset": "mini", "weights_sha256": {}}
    content = {
        "format": "s2v-study-key",
        "version": 1,
        "study": "0123456789abcdef",
        "methods": {"ours": described | {"from": "sound"}, "other": described | {"from": "image"}},
        "questions": questions,
    }
    path = folder / "study.key.json"
    path.write_text(json.dumps(content))
    return path


def answers(participant: str, **chosen: Sequence[str]) -> dict[str, Any]:
    """As the page saves them; 30 seconds a question."""
    full: Mapping[str, Sequence[str]] = {"pa": ["o1"], "pb": ["o3"], "qa": ["r1"], "qb": ["r2"]}
    return {
        "format": "s2v-study-answers",
        "version": 1,
        "study": "0123456789abcdef",
        "participant": participant,
        "started": "2024-05-01T10:00:00.000Z",
        "finished": "2024-05-01T10:05:00.000Z",
        "answers": [
            {"question": token, "shown": [*PICTURES[token]], "chosen": [*picked], "seconds": 30}
            for token, picked in (full | chosen).items()
        ],
    }


def write(folder: Path, *given: dict[str, Any]) -> list[Path]:
    files = []
    for number, content in enumerate(given):
        files.append(folder / f"{number}.json")
        files[-1].write_text(json.dumps(content))
    return files


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return read_key(write_key(tmp_path))


def test_recall_and_precision_of_known_answers(key: Key, tmp_path: Path) -> None:
    """Ann takes all of ours; Ben one of each, and a picture of another sound."""
    ann = answers("ann", pa=["o1", "o2"], pb=["o3", "o4"], qa=["r1"], qb=["r2"])
    ben = answers("ben", pa=["o1", "t1"], pb=["t3", "d3"], qa=["r1"], qb=["w5"])
    found = score_study(key, read_answers(key, write(tmp_path, ann, ben)))
    assert found["participants"] == 2
    assert found["minutes"] == pytest.approx(2)
    preference = found["preference"]
    assert preference["ours"]["value"] == pytest.approx((1 + 1 + 0.5 + 0) / 4)
    assert preference["other"]["value"] == pytest.approx((0 + 0 + 0.5 + 0.5) / 4)
    assert preference["difference"]["value"] == pytest.approx(0.375)
    assert preference["distractors"]["value"] == pytest.approx(0.5 / 4)
    counts = ("more_of_ours", "more_of_other", "equal", "answers", "questions")
    assert [preference[name] for name in counts] == [2, 1, 1, 4, 2]
    assert preference["p_value"] == pytest.approx(1)  # 2 of 3: no outcome is likelier
    precision = found["precision"]
    assert precision["precision"]["value"] == pytest.approx(3 / 4)
    assert (precision["right"], precision["answers"], precision["chance"]) == (3, 4, 0.25)
    assert precision["p_value"] == pytest.approx(13 / 256)  # 4 * 3 + 1 outcomes of 256
    rows = {row["question"]: row for row in found["questions"]}
    assert rows["pb"]["ours"] == 0.5 and rows["pb"]["other"] == rows["pb"]["distractors"] == 0.25
    assert rows["qb"]["precision"] == 0.5 and rows["qb"]["taken_for"] == {"train": 1}
    json.dumps(found, allow_nan=False)


def test_choosing_everything_prefers_nobody(key: Key, tmp_path: Path) -> None:
    everything = answers("eve", pa=[*PICTURES["pa"]], pb=[*PICTURES["pb"]])
    found = score_study(key, read_answers(key, write(tmp_path, everything)))["preference"]
    assert found["ours"]["value"] == found["other"]["value"] == found["distractors"]["value"] == 1
    assert found["difference"] == {"value": 0, "low": 0, "high": 0}
    assert found["equal"] == 2 and found["p_value"] == 1


def test_guessing_at_random_is_at_chance(key: Key, tmp_path: Path) -> None:
    """Each of four pictures is taken by one of four people."""
    people = [
        answers(f"p{i}", qa=[[*PICTURES["qa"]][i]], qb=[[*PICTURES["qb"]][i]]) for i in range(4)
    ]
    found = score_study(key, read_answers(key, write(tmp_path, *people)))["precision"]
    assert found["precision"]["value"] == found["chance"] == 0.25
    assert found["p_value"] == pytest.approx(1)


def test_an_interval_without_differences_has_no_width() -> None:
    found = interval(np.full((3, 5), 0.5))
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_an_interval_over_people_who_differ() -> None:
    """Of 100 people half choose all of the pictures; questions do not matter: sd is 0.05."""
    table = np.repeat([[0.0], [1.0]], 50, axis=0).repeat(4, axis=1)
    found = interval(table, resamples=8000)
    assert found.low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.01)
    assert found.high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.01)


def test_an_interval_over_questions_that_differ() -> None:
    """A hundred people who agree are no more certain than one: the questions were chosen, too."""
    alone = interval(np.repeat([[0.0, 1.0]], 10, axis=1), resamples=8000)
    crowd = interval(np.repeat([[0.0, 1.0]], 10, axis=1).repeat(100, axis=0), resamples=8000)
    assert crowd.low == pytest.approx(alone.low, abs=0.03)
    assert crowd.low == pytest.approx(0.5 - 1.96 * math.sqrt(0.25 / 20), abs=0.03)


@pytest.mark.parametrize(
    ("hits", "trials", "chance", "expected"),
    [
        (0, 0, 0.5, 1.0),
        (5, 10, 0.5, 1.0),
        (10, 10, 0.5, 2 / 1024),
        (0, 10, 0.5, 2 / 1024),
        (9, 10, 0.5, 22 / 1024),
        (4, 4, 0.25, 1 / 256),
        (20, 20, 0.25, 0.25**20),
    ],
)
def test_the_binomial_test(hits: int, trials: int, chance: float, expected: float) -> None:
    assert binomial_test(hits, trials, chance) == pytest.approx(expected)


def test_the_binomial_test_agrees_with_that_of_scipy() -> None:
    from scipy.stats import binomtest

    for hits in range(0, 61, 7):
        expected = binomtest(hits, 60, 0.3).pvalue
        assert binomial_test(hits, 60, 0.3) == pytest.approx(expected, rel=1e-9)


def broken(how: str) -> Any:
    content = answers("ann")
    rows = content["answers"]
    changed: dict[str, Any] = {
        "another study": content | {"study": "fedcba9876543210"},
        "open": content | {"answers": rows[:3]},
        "empty": answers("ann", pa=[]),
        "unfinished": content | {"finished": None},
        "twice": content | {"answers": [*rows, rows[0]]},
        "unknown question": content | {"answers": [*rows, rows[0] | {"question": "zz"}]},
        "unknown picture": answers("ann", pa=["r1"]),
        "several": answers("ann", qa=["r1", "w1"]),
        "nobody": content | {"participant": ""},
        "no rows": content | {"answers": 3},
        "endless": content | {"answers": [rows[0] | {"seconds": math.inf}, *rows[1:]]},
        "version": content | {"version": 2},
        "other JSON": {"answers": 3},
        "list": [1, 2],
    }
    return changed[how]


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("another study", "it answers another study"),
        ("open", "incomplete: 1 of 4 questions are open"),
        ("empty", "incomplete: 1 of 4 questions are open"),
        ("unfinished", "incomplete: 0 of 4 questions are open"),
        ("twice", "it answers a question twice"),
        ("unknown question", "it answers questions that the study does not ask"),
        ("unknown picture", "it chooses pictures that the study does not show"),
        ("several", "it chooses several pictures where one is allowed"),
        ("nobody", "it names no participant"),
        ("no rows", "it is damaged"),
        ("endless", "it is damaged"),
        ("version", "its version is 2, not 1"),
        ("other JSON", "it holds no answers of a study"),
        ("list", "it holds no answers of a study"),
    ],
)
def test_what_cannot_be_scored_is_left_out(key: Key, tmp_path: Path, how: str, says: str) -> None:
    bad, good = write(tmp_path, broken(how), answers("ben"))
    first, second = read_answers(key, [bad, good])
    assert first.reason == says and first.answers is None
    found = score_study(key, [first, second])
    assert found["participants"] == 1
    assert f"  left out: {bad}: {says}" in report(key, found)
    with pytest.raises(TrainingError, match=f"None of 1 files can be scored; of .*: {says}"):
        score_study(key, [first])


@pytest.mark.parametrize("content", [b"", b"\xff\xfe{", b"[" * 100_000, b"<html>"])
def test_files_that_are_no_json(key: Key, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    (reading,) = read_answers(key, [path])
    assert reading.reason in ("it is not JSON", "it is damaged")


def test_the_last_answers_of_a_participant_count(key: Key, tmp_path: Path) -> None:
    later = answers("ann", qa=["w1"]) | {"finished": "2024-05-01T11:00:00.000Z"}
    files = write(tmp_path, answers("ann"), later, later)
    read = read_answers(key, files)
    assert [reading.answers is not None for reading in read] == [False, True, False]
    assert read[0].reason == f"the same participant as {files[1]}, which counts"
    assert score_study(key, read)["precision"]["right"] == 1


def test_folders_of_answers(tmp_path: Path) -> None:
    write_key(tmp_path)
    files = write(tmp_path, answers("ann"), answers("ben"))
    assert find_answers([tmp_path, files[0]]) == files
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match=r"No .json file in .*empty"):
        find_answers([tmp_path / "empty"])
    with pytest.raises(TrainingError, match="No answers at 'nowhere'"):
        find_answers([Path("nowhere")])


def test_a_key_that_is_none(tmp_path: Path) -> None:
    (path,) = write(tmp_path, answers("ann"))
    with pytest.raises(TrainingError, match="is of format 's2v-study-answers', version 1"):
        read_key(path)
    path.write_text("[]")
    with pytest.raises(TrainingError, match=r"Cannot read the key .* lies beside the page"):
        read_key(path)
    with pytest.raises(TrainingError, match="No such file"):
        read_key(tmp_path / "missing.json")


def test_the_report_for_people(key: Key, tmp_path: Path) -> None:
    ann = answers("ann", pa=["o1", "o2"], pb=["o3", "o4"], qa=["r1"], qb=["w5"])
    lines = report(key, score_study(key, read_answers(key, write(tmp_path, ann))))
    assert lines[0] == "1 files: 1 participants scored, 0 left out; median 2.0 minutes"
    assert "Preference: recall in 2 questions" in lines
    assert "  ours (mini, from the sound)   100.0% [100.0, 100.0]" in lines
    assert "  other (mini, from the image)  0.0% [0.0, 0.0]" in lines
    assert any(line.startswith("Precision in 2 questions: 50.0%") for line in lines)
    assert any("most often taken for train (1)" in line for line in lines)
