"""An evaluation as a whole, on drawn data: its rows, figures, notes and files."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from s2v_cli.encoders.mini_image import MINI_SPACE
from s2v_cli.errors import (
    MissingWeightsError,
    OptionError,
    OutputError,
    PresetError,
    SpaceError,
    TrainingError,
    WeightsError,
)
from s2v_cli.networks import converters
from s2v_cli.presets import load_preset
from s2v_cli.training.evaluation.options import EvalOptions
from s2v_cli.training.evaluation.score import evaluate_preset
from s2v_cli.weights.adopt import import_weights
from tests import tiny_diffusion
from tests.training.evaluation.conftest import QUICK


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No published weights are here."""
    monkeypatch.setenv("S2V_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def mini_without(folder: Path, *roles: str, name: str = "mini") -> Path:
    """The preset mini in a folder of its own, without some of its networks."""
    source = load_preset("mini").folder
    shutil.copytree(source / "mini", folder / "mini")
    head, *parts = (source / "mini.toml").read_text().split("[[weights]]")
    kept = [part for part in parts if not any(f'"{role}"' in part for role in roles)]
    text = "[[weights]]".join([head.replace('name = "mini"', f'name = "{name}"'), *kept])
    (folder / "preset.toml").write_text(text)
    return folder


def evaluate(data: Path, folder: Path, preset: Any = "mini", **options: Any) -> dict[str, Any]:
    chosen = EvalOptions(**{"seeds": 2, **options})
    return evaluate_preset(preset, data, folder, chosen, device="cpu", judge_options=QUICK)


@pytest.fixture(scope="module")
def whole(
    drawn: Path, classifier: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("whole")
    before, os.environ["S2V_HOME"] = os.environ.get("S2V_HOME"), str(folder / "home")
    try:
        return evaluate(drawn, folder, classifier=classifier), folder
    finally:
        del os.environ["S2V_HOME"]
        if before is not None:
            os.environ["S2V_HOME"] = before


def test_every_row_has_its_counts(whole: tuple[dict[str, Any], Path]) -> None:
    results, _ = whole
    counts = {row: (r["sounds"], r["pictures"]) for row, r in results["rows"].items()}
    assert counts == {"A": (9, 18), "B": (9, 18), "C": (9, 9), "D": (0, 12)}
    assert results["floor"]["pictures"] == 18
    assert results["inception"]["reference"] == 12 and results["inception"]["by"] == "classifier"
    assert results["retrieval"]["photos"] == results["retrieval"]["of"] == 30
    data = results["data"]
    assert (data["sounds"], data["recordings"], data["classes"]) == (9, 9, 3)
    assert results["recall"]["names"] == 3
    assert results["recall"]["chance"] == {"r1": pytest.approx(1 / 3), "r5": 1.0}


def test_figures_are_where_they_belong(whole: tuple[dict[str, Any], Path]) -> None:
    results, _ = whole
    rows = results["rows"]
    assert all(row["fid"] is None for row in rows.values())  # 12 pictures, 192 features
    assert (
        "18 pictures against 12 real ones are fewer than the 192 features"
        in (rows["B"]["fid_left_out"])
    )
    assert rows["D"]["kid"] is None and all(rows[name]["kid"] for name in "ABC")
    for row in rows.values():
        for figure in ("r1", "r5", "inception_score"):
            found = row[figure]
            assert found["low"] <= found["value"] <= found["high"]
        assert row["r5"]["value"] == 1  # of three classes
    assert rows["D"]["r1"]["value"] > 0.8  # the classifier knows real pictures
    # Real pictures are nearer to real ones than what mini draws of tones.
    assert results["floor"]["kid"]["value"] < rows["B"]["kid"]["value"]
    assert results["by_class"]["red"]["sounds"] == 3
    assert set(results["by_class"]["red"]) == {"sounds", *"ABCD"}


def test_the_class_mean_is_of_the_classes(whole: tuple[dict[str, Any], Path]) -> None:
    results, _ = whole
    for row in "ABCD":
        means = [entry[row]["r1"] for entry in results["by_class"].values()]
        assert results["rows"][row]["r1"]["value"] == pytest.approx(sum(means) / 3)


def test_notes_say_what_was_left_out(whole: tuple[dict[str, Any], Path]) -> None:
    results, _ = whole
    assert any("FID is left out: 18 pictures against 12" in n for n in results["notes"])
    assert not any("\n" in note for note in results["notes"])


def test_files_hold_the_same_figures(whole: tuple[dict[str, Any], Path]) -> None:
    results, folder = whole
    stored = json.loads((folder / "mini-test.json").read_text())
    assert stored == results
    rows = list(csv.DictReader((folder / "mini-test.csv").read_text().splitlines()))
    found = {(row["row"], row["figure"]): row for row in rows}
    kid = results["floor"]["kid"]
    assert float(found["floor", "kid"]["value"]) == kid["value"]
    assert float(found["floor", "kid"]["high"]) == kid["high"]
    assert found["B", "r1"]["pictures"] == "18" and found["B", "r1"]["by"] == "classifier"
    assert ("D", "kid") not in found and ("B", "fid") not in found
    page = (folder / "mini-test.md").read_text()
    assert "| (B) from the sound | A | G | 18 |" in page and "| real against real |" in page
    assert "FID is left out" in page
    with Image.open(folder / "mini-test-pictures.png") as sheet:
        assert sheet.width == 6 * (128 + 8) + 8  # real, 2 of A, 2 of B, C
        assert sheet.height > 3 * 128
    assert sorted(map(Path, results["files"])) == sorted(folder.glob("mini-test*"))


def test_figures_of_a_classifier_that_sees_nothing(
    drawn: Path, classifier: Path, tmp_path: Path
) -> None:
    """All features alike and one class always first: every figure is known."""
    state = torch.load(classifier, weights_only=True)
    best = state["modules"]["best"]
    for key in [key for key in best if key.endswith((".weight", ".bias"))]:
        best[key] = torch.zeros_like(best[key])
    best["judge.head.bias"] = torch.tensor([1.0, 3.0, 2.0])  # green, red, blue_sea
    torch.save(state, tmp_path / "judge.pt")
    results = evaluate(drawn, tmp_path / "out", classifier=tmp_path / "judge.pt", force_fid=True)
    nothing = {"value": pytest.approx(0), "low": pytest.approx(0), "high": pytest.approx(0)}
    for name, row in results["rows"].items():
        assert list(row["r1"].values()) == [pytest.approx(1 / 3)] * 3
        assert [results["by_class"][c][name]["r1"] for c in ("blue_sea", "green", "red")] == [
            0,
            1,
            0,
        ]
        assert list(row["inception_score"].values()) == [pytest.approx(1)] * 3
        assert row["kid"] == (None if name == "D" else nothing)
        assert row["fid"] == (pytest.approx(0, abs=1e-9) if name in "AB" else None)
    assert results["floor"]["kid"] == nothing
    assert results["floor"]["fid"] == pytest.approx(0, abs=1e-9)


def test_a_second_run_gives_the_same(drawn: Path, classifier: Path, tmp_path: Path) -> None:
    one, other = (
        evaluate(drawn, tmp_path / name, classifier=classifier, rows="BC", limit=4)
        for name in ("one", "other")
    )
    for part in ("rows", "floor", "by_class"):
        assert one[part] == other[part]
    moved = evaluate(drawn, tmp_path / "moved", classifier=classifier, rows="B", limit=4, seed=99)
    assert moved["rows"]["B"]["kid"] != one["rows"]["B"]["kid"]


def test_fid_can_be_forced(drawn: Path, classifier: Path, tmp_path: Path) -> None:
    results = evaluate(drawn, tmp_path / "out", classifier=classifier, rows="BD", force_fid=True)
    assert results["rows"]["B"]["fid"] > results["floor"]["fid"] >= 0
    assert results["rows"]["D"]["fid"] is None
    assert set(results["rows"]) == {"B", "D"} and results["retrieval"] is None
    assert not any("FID" in note for note in results["notes"])


def test_the_classifier_is_trained_where_none_is_given(drawn: Path, tmp_path: Path) -> None:
    results = evaluate(drawn, tmp_path / "out", rows="D", limit=3)
    assert (tmp_path / "out" / "classifier" / "judge.pt").is_file()
    assert "trained on the training pictures" in results["recall"]["told"]
    assert any("CLIP is not here" in note for note in results["notes"])
    assert results["floor"] is None and results["seconds_per_picture"] is None
    assert any("3 of 3 classes have sounds of one recording only" in n for n in results["notes"])


def test_clip_ranks_where_it_was_pulled(
    drawn: Path, classifier: Path, tmp_path: Path, home: Path
) -> None:
    folder = tiny_diffusion.write_clip(tmp_path / "clip")
    import_weights([folder], converters(), name="clip-vit-b-32")
    results = evaluate(drawn, tmp_path / "out", rows="D", inception="classifier", recall="clip",
                       classifier=classifier, template="a {}")  # fmt: skip
    assert results["recall"]["by"] == "clip" and results["recall"]["template"] == "a {}"
    assert results["inception"]["by"] == "classifier"
    page = (tmp_path / "out" / "mini-test.md").read_text()
    assert "by CLIP ViT-B/32, among 3 class names" in page


def test_a_preset_without_an_image_encoder(drawn: Path, classifier: Path, tmp_path: Path) -> None:
    blind = mini_without(tmp_path / "blind", "image_encoder", name="blind")
    results = evaluate(drawn, tmp_path / "out", blind, classifier=classifier, limit=3)
    assert set(results["rows"]) == {"B", "D"}
    told = "A and C are left out: preset 'blind' has no image encoder."
    assert told in results["notes"]
    assert (tmp_path / "out" / "blind-test.json").is_file()
    with pytest.raises(OptionError, match=r"rows is 'AC'.*allowed: B, D"):
        evaluate(drawn, tmp_path / "out", blind, classifier=classifier, rows="AC")


def test_a_dataset_without_classes(unnamed: Path, classifier: Path, tmp_path: Path) -> None:
    """Nothing can be ranked; features of a given classifier are compared all the same."""
    results = evaluate(unnamed, tmp_path / "out", classifier=classifier)
    assert results["recall"] is None and results["rows"]["B"]["r1"] is None
    assert results["rows"]["B"]["kid"] is not None and results["rows"]["A"]["pictures"] == 10
    assert (
        "R@k is left out: the dataset has no class names; it needs two or more."
        in (results["notes"])
    )
    assert "R@k:" not in (tmp_path / "out" / "mini-test.md").read_text()
    with pytest.raises(TrainingError, match="s2v weights pull inception-vggsound"):
        evaluate(unnamed, tmp_path / "out")
    with pytest.raises(TrainingError, match="has no class names; a classifier needs two"):
        evaluate(unnamed, tmp_path / "out", inception="classifier")


def test_one_class_ranks_nothing(one_class: Path, classifier: Path, tmp_path: Path) -> None:
    results = evaluate(one_class, tmp_path / "out", classifier=classifier, rows="BD")
    assert results["recall"] is None and results["rows"]["B"]["kid"] is not None
    assert any("the dataset has one class name" in note for note in results["notes"])


def without(data: Path, folder: Path, *words: str) -> Path:
    """A copy of a dataset, without the rows in which all of these words are."""
    shutil.copytree(data, folder)
    manifest = folder / "manifest.jsonl"
    lines = manifest.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not all(word in line for word in words)]
    assert 0 < len(kept) < len(lines)
    manifest.write_text("".join(kept))
    return folder


def test_a_class_that_has_sounds_alone(drawn: Path, classifier: Path, tmp_path: Path) -> None:
    """Its sounds are ranked, as a given classifier knows it; only A has nothing to see."""
    data = without(drawn, tmp_path / "data", '"image"', '"name": "red"')
    results = evaluate(data, tmp_path / "out", classifier=classifier, rows="ABD")
    rows = results["rows"]
    assert [rows[row]["pictures"] for row in "ABD"] == [12, 18, 8]
    assert set(results["by_class"]["red"]) == {"sounds", "B"}
    assert "A leaves out 3 sounds whose class has no picture in the split." in results["notes"]
    with pytest.raises(TrainingError, match="The classifier would not know 'red'"):
        evaluate(data, tmp_path / "out")


def test_a_class_that_a_trained_classifier_cannot_know(drawn: Path, tmp_path: Path) -> None:
    """It is not among what is measured, and is left out of the names."""
    two = without(drawn, tmp_path / "two", '"sound"', '"name": "red"')
    data = without(two, tmp_path / "data", '"split": "train"', '"name": "red"')
    results = evaluate(data, tmp_path / "out", rows="D")
    assert results["recall"]["names"] == 2 and results["data"]["classes"] == 2
    told = "Class names without training pictures are not ranked: 1 of 3, such as 'red'."
    assert told in results["notes"]


def test_a_folder_that_cannot_be_written_is_told_at_once(
    drawn: Path, classifier: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("")
    seen: list[str] = []
    for given in (classifier, None):
        with pytest.raises(OutputError, match=r"Cannot write to .*out: .*Choose another --out"):
            evaluate_preset(
                "mini", drawn, tmp_path / "out", EvalOptions(classifier=given),
                lambda stage, *_: seen.append(stage), device="cpu", judge_options=QUICK,
            )  # fmt: skip
    assert seen == []


def test_a_raw_folder_is_prepared_first(tmp_path: Path, classifier: Path) -> None:
    from tests.training.evaluation.conftest import draw_classes

    source = draw_classes(tmp_path / "source", ["green", "red"])
    for split in ("train", "validation", "test"):  # names differ, so that no pairs are seen
        for path in (source / split / "sounds").rglob("*.wav"):
            path.rename(path.with_name(f"s{path.name}"))
    results = evaluate(source, tmp_path / "out", classifier=classifier, rows="D", limit=2)
    assert results["data"]["folder"] == str(tmp_path / "out" / "data")


def test_bad_input_is_refused_before_anything_is_drawn(
    drawn: Path, classifier: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="Nothing to prepare"):
        evaluate(tmp_path / "empty", folder)
    with pytest.raises(TrainingError, match="No file or folder"):
        evaluate(tmp_path / "nowhere", folder)
    with pytest.raises(MissingWeightsError, match="s2v weights pull clip-vit-b-32"):
        evaluate(drawn, folder, recall="clip")
    with pytest.raises(MissingWeightsError, match="s2v weights pull inception-fid"):
        evaluate(drawn, folder, classifier=classifier, inception="imagenet")
    with pytest.raises(WeightsError, match=r"none\.pt"):
        evaluate(drawn, folder, classifier=tmp_path / "none.pt")
    with pytest.raises(PresetError, match="Unknown preset 'mimi'"):
        evaluate(drawn, folder, "mimi", classifier=classifier)


def test_a_preset_whose_networks_are_of_two_spaces(
    drawn: Path, classifier: Path, tmp_path: Path
) -> None:
    mixed = mini_without(tmp_path / "mixed")
    text = (mixed / "preset.toml").read_text()
    (mixed / "preset.toml").write_text(
        text.replace(f'[space]\nname = "{MINI_SPACE.name}"', '[space]\nname = "x"')
    )
    with pytest.raises(SpaceError, match="are different embedding spaces"):
        evaluate(drawn, tmp_path / "out", mixed, classifier=classifier, limit=1)


def test_a_preset_that_gives_no_numbers(drawn: Path, classifier: Path, tmp_path: Path) -> None:
    from s2v_cli.pipeline import Sound2Vision

    model = Sound2Vision.load("mini", device="cpu")
    encoder = model.sound_encoder
    assert isinstance(encoder, torch.nn.Module)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"embedding of the sound 'test_.*' is not finite"):
        evaluate(drawn, tmp_path / "out", model, classifier=classifier, rows="B")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"split": "dev"}, "split is 'dev'; allowed: train, validation, test"),
        ({"seeds": 0}, "seeds is 0; allowed: 1 to 64"),
        ({"limit": 0}, "limit is 0; allowed: 1 or more"),
        ({"rows": ""}, "rows is ''; allowed: letters of ABCD"),
        ({"rows": "BX"}, "rows is 'BX'; allowed: letters of ABCD"),
        ({"rows": "BB"}, "rows is 'BB'; allowed: letters of ABCD, each once"),
        ({"recall": "clap"}, "recall is 'clap'; allowed: auto, clip, classifier"),
        ({"inception": "coco"}, "inception is 'coco'; allowed: auto, vggsound, imagenet"),
        ({"template": "a photo"}, r"template is 'a photo'; allowed: a text with \{\} in it"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_options_are_checked(options: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        EvalOptions(**options)
