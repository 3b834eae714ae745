"""`s2v study`: the questions that are asked, and a whole study of `mini` on drawn pictures."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from s2v_cli.errors import OptionError, TrainingError
from s2v_cli.training.evaluation.held_out import open_held_out
from s2v_cli.training.evaluation.study import Planned, plan_questions
from s2v_cli.training.evaluation.study_options import StudyOptions

if TYPE_CHECKING:
    from conftest import RunHere

GROUPS = [name for name in "abcdefgh" for _ in range(10)]


def page_study(page: Path) -> dict[str, Any]:
    text = page.read_text(encoding="utf-8")
    block = text.split('<script type="application/json" id="study">')[1].split("</script>")[0]
    found: dict[str, Any] = json.loads(block)
    return found


def of(planned: list[Planned], part: str) -> list[Planned]:
    return [entry for entry in planned if entry.part == part]


def test_the_paper_s_questions() -> None:
    """Two pictures by each model, and others by either; one of four by our model."""
    planned = plan_questions(GROUPS, StudyOptions())
    assert len(of(planned, "preference")) == len(of(planned, "precision")) == 20
    for entry in of(planned, "preference"):
        own = Counter(choice.method for choice in entry.choices if choice.place == entry.place)
        assert own == {"ours": 2, "other": 2}
        others = [choice for choice in entry.choices if choice.place != entry.place]
        assert len({GROUPS[choice.place] for choice in others}) == 2
        assert GROUPS[entry.place] not in {GROUPS[choice.place] for choice in others}
    for entry in of(planned, "precision"):
        assert {choice.method for choice in entry.choices} == {"ours"}
        assert len({GROUPS[choice.place] for choice in entry.choices}) == 4
        assert [choice.place for choice in entry.choices].count(entry.place) == 1
    drawn = [choice.seed for entry in planned for choice in entry.choices]
    assert len(set(drawn)) == len(drawn)


def test_the_sounds_are_of_all_groups_and_asked_about_once() -> None:
    planned = plan_questions(GROUPS, StudyOptions(questions=16))
    assert len({entry.place for entry in planned}) == 32
    for part in ("preference", "precision"):
        counts = Counter(GROUPS[entry.place] for entry in of(planned, part))
        assert set(counts.values()) == {2} and len(counts) == 8


def test_a_seed_decides_and_the_right_picture_is_anywhere() -> None:
    options = StudyOptions(questions=80, parts="precision")
    assert plan_questions(GROUPS, options) == plan_questions(GROUPS, options)
    assert plan_questions(GROUPS, options) != plan_questions(
        GROUPS, StudyOptions(questions=80, parts="precision", seed=1)
    )
    places = Counter(
        [choice.place for choice in entry.choices].index(entry.place)
        for entry in plan_questions(GROUPS, options)
    )
    assert len(places) == 4 and min(places.values()) >= 8


def test_fewer_groups_than_pictures_are_used_again() -> None:
    planned = plan_questions([*"ab"], StudyOptions(questions=2, choices=4))
    for entry in of(planned, "precision"):
        assert [choice.place for choice in entry.choices].count(entry.place) == 1


def test_too_few_sounds() -> None:
    with pytest.raises(TrainingError, match=r"has 3 sounds of 3 classes .* of 20 questions"):
        plan_questions([*"abc"], StudyOptions())
    with pytest.raises(TrainingError, match="has 30 sounds of 1 classes"):
        plan_questions(["a"] * 30, StudyOptions())
    alone = StudyOptions(parts="preference", distractors=0)
    assert len(plan_questions(["a"] * 30, alone)) == 20


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"parts": "all"}, "parts is 'all'; allowed: both, preference, precision."),
        ({"questions": 0}, "questions is 0; allowed: 1 to 100."),
        ({"pictures": 5}, "pictures is 5; allowed: 1 to 4."),
        ({"distractors": 7}, "distractors is 7; allowed: 0 to 6."),
        ({"choices": 1}, "choices is 1; allowed: 2 to 8."),
        ({"split": "dev"}, "split is 'dev'; allowed: train, validation, test."),
        ({"seed": -1}, "seed is -1; allowed: 0 to 2^62 - 1."),
        ({"size": 8}, "size is 8; allowed: 32 to 1024 px."),
        ({"title": " "}, "title is ' '; allowed: 1 to 100 characters."),
        ({"note": "x" * 2001}, "note is '2001 characters'; allowed: up to 2000 characters."),
    ],
)
def test_options_are_checked(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError) as error:
        StudyOptions(**wrong)
    assert str(error.value) == says


def test_a_study_from_the_page_to_the_scores(s2v: RunHere, drawn: Path, folder: Path) -> None:
    ran = s2v("study", "make", "mini", drawn, "-o", "out", "--questions", "2", "--size", "64")
    assert ran.status == 0, ran.err
    page, key = folder / "out/study.html", folder / "out/study.key.json"
    assert ran.lines == ["out/study.html", "out/study.key.json"]
    study, secret = page_study(page), json.loads(key.read_text())
    assert study["study"] == secret["study"]
    asked = [question for part in study["parts"] for question in part["questions"]]
    assert [q["id"] for q in asked] == [q["question"] for q in secret["questions"]]
    for shown, known in zip(asked, secret["questions"], strict=True):
        tokens = [picture["id"] for picture in shown["pictures"]]
        assert tokens == [picture["picture"] for picture in known["pictures"]]
        assert all((p["of"] == known["sound"]) == p["right"] for p in known["pictures"])

    perfect = {
        q["question"]: [p["picture"] for p in q["pictures"] if p["right"] and p["method"] == "ours"]
        for q in secret["questions"]
    }
    answers = {
        "format": "s2v-study-answers",
        "version": 1,
        "study": study["study"],
        "participant": "ann",
        "finished": "2024-05-01T10:00:00.000Z",
        "answers": [{"question": name, "chosen": chosen} for name, chosen in perfect.items()],
    }
    (folder / "sent").mkdir()
    (folder / "sent/ann.json").write_text(json.dumps(answers))
    ran = s2v("study", "score", key, "sent", "--json")
    found = json.loads(ran.out)
    assert found["preference"]["difference"]["value"] == 1
    assert found["precision"]["precision"]["value"] == 1
    ran = s2v("study", "score", key, "sent")
    assert "Precision in 2 questions: 100.0% [100.0, 100.0]" in ran.lines

    again = s2v("study", "make", "mini", drawn, "-o", "out", "--questions", "2")
    assert again.status == 1 and "study.html exists; use --force" in again.err
    ran = s2v(
        *("study", "make", "mini", drawn, "-o", "again", "--questions", "2", "--size", "64", "-q")
    )
    assert (folder / "again/study.html").read_bytes() == page.read_bytes()
    assert (folder / "again/study.key.json").read_bytes() == key.read_bytes()


def test_the_page_tells_nothing_of_the_key(s2v: RunHere, drawn: Path, folder: Path) -> None:
    """Neither in its text nor in its files: no names, no records, sounds of one loudness."""
    ran = s2v(
        *("study", "make", "mini", drawn, "-o", "out", "--questions", "2", "--note", "Thanks")
    )
    assert ran.status == 0, ran.err
    study = page_study(folder / "out/study.html")
    assert study.keys() == {"study", "note", "parts"} and study["note"] == "Thanks"
    sides, tokens = set(), []
    for part in study["parts"]:
        assert part.keys() == {"several", "questions"}
        for question in part["questions"]:
            assert question.keys() == {"id", "sound", "pictures"}
            tokens.append(question["id"])
            content = base64.b64decode(question["sound"].partition(",")[2])
            with soundfile.SoundFile(io.BytesIO(content)) as sound:
                assert sound.copy_metadata() == {}
                assert np.abs(sound.read()).max() == pytest.approx(0.7, abs=1e-3)
            for picture in question["pictures"]:
                assert picture.keys() == {"id", "source"}
                tokens.append(picture["id"])
                content = base64.b64decode(picture["source"].partition(",")[2])
                with Image.open(io.BytesIO(content)) as image:
                    sides.add(image.size)
                    assert not image.getexif() and "comment" not in image.info
    assert len(sides) == 1
    assert len(set(tokens)) == len(tokens) and {len(token) for token in tokens} == {8}
    page = (folder / "out/study.html").read_text(encoding="utf-8")
    for example in open_held_out(drawn, "test").sounds:
        assert example.key not in page and f'"{example.name}"' not in page
    for word in ("blue_sea", "preference", "precision", '"ours"', '"right"', '"method"'):
        assert word not in page


def test_against_another_preset(s2v: RunHere, drawn: Path, folder: Path) -> None:
    ran = s2v(
        *("study", "make", "mini", drawn, "-o", "out", "--against", "mini", "--json"),
        *("--parts", "preference", "--questions", "2", "--distractors", "0", "--pictures", "1"),
    )
    assert ran.status == 0, ran.err
    secret = json.loads((folder / json.loads(ran.out)["key"]).read_text())
    assert secret["methods"]["other"]["from"] == "sound"
    assert secret["methods"]["other"]["weights_sha256"]["sound_encoder"]
    for question in secret["questions"]:
        assert {p["method"] for p in question["pictures"]} == {"ours", "other"}
        assert all(p["right"] for p in question["pictures"])


def test_pairs_of_files_without_classes(s2v: RunHere, unnamed: Path, folder: Path) -> None:
    ran = s2v("study", "make", "mini", unnamed, "-o", "out", "--questions", "2", "--choices", "3")
    assert ran.status == 0, ran.err
    secret = json.loads((folder / "out/study.key.json").read_text())
    for question in secret["questions"]:
        others = [p["of"] for p in question["pictures"] if not p["right"]]
        assert question["name"] is None and len(set(others)) == 2


def test_a_preset_without_an_image_encoder(s2v: RunHere, drawn: Path, folder: Path) -> None:
    source = Path(__file__).parents[3] / "presets"
    head, *weights = (source / "mini.toml").read_text().split("[[weights]]")
    kept = [part for part in weights if "image_encoder" not in part]
    (folder / "mini").symlink_to(source / "mini")
    (folder / "deaf.toml").write_text("[[weights]]".join([head, *kept]))
    ran = s2v("study", "make", "./deaf.toml", drawn, "-o", "out", "--questions", "2")
    assert ran.status == 2
    assert "no image encoder to compare with. Name another preset with --against" in ran.err
    assert not (folder / "out").exists()
    ran = s2v(
        *("study", "make", "./deaf.toml", drawn, "-o", "out", "--questions", "2"),
        *("--parts", "precision"),
    )
    assert ran.status == 0, ran.err


def test_too_many_questions_for_the_data(s2v: RunHere, drawn: Path, folder: Path) -> None:
    ran = s2v("study", "make", "mini", drawn, "-o", "out")
    assert ran.status == 1
    assert "has 9 sounds of 3 classes with a picture; a study of 20 questions needs" in ran.err
    assert not (folder / "out").exists()
