"""Runs of an ablation on a miniature dataset: measured, kept, and gone on with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from s2v_cli.errors import S2VError, TrainingError
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.presets import load_preset
from s2v_cli.training.ablation.measure import Yardstick, measure, modality_gap, open_yardstick
from s2v_cli.training.ablation.plan import Plan, make_plan
from s2v_cli.training.ablation.run import ablate, draw_classes, read_result
from s2v_cli.training.dataset import find_photos, load_photos
from s2v_cli.training.evaluation.held_out import HeldOut
from s2v_cli.training.judge import Judge, train_judge
from s2v_cli.training.manifest import Example, read_manifest
from s2v_cli.training.prepare.options import PrepareOptions
from s2v_cli.training.prepare.work import prepare
from s2v_cli.training.recipe import StageOptions

TINY = StageOptions(steps=2, batch=8, learning_rate=1e-3, validate_every=1)


@pytest.fixture(scope="module")
def prepared(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared") / "data"
    prepare(miniature, folder, PrepareOptions(workers=1))
    return folder


@pytest.fixture(scope="module")
def judge(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judge")
    photos = find_photos(miniature)
    train_judge(photos, load_photos(photos), folder, TINY)
    return folder


def plan(**studies: Any) -> Plan:
    studies = studies or {"classes": {"two": {"classes": 2}, "all": {}}}
    return make_plan(
        {"kind": "ablation", "seeds": [3], "split": "test", "pictures": 1, "studies": studies}, "x"
    )


class Trainer:
    """Takes the bundled model for what came of training, and remembers what it was given."""

    def __init__(self, fail_after: int = 99) -> None:
        self.given: list[tuple[Path, dict[str, Any]]] = []
        self.fail_after = fail_after

    def __call__(self, data: Path, run: Path, options: Mapping[str, Any], progress: Any) -> Path:
        if len(self.given) == self.fail_after:
            raise TrainingError("stopped")
        self.given.append((data, dict(options)))
        return load_preset("mini").folder / "mini.toml"


def test_runs_are_measured_kept_and_not_run_again(
    prepared: Path, judge: Path, tmp_path: Path
) -> None:
    chosen = plan()
    first = Trainer(fail_after=1)
    with pytest.raises(TrainingError, match="stopped"):
        ablate(prepared, tmp_path, chosen, judge=judge, align=first)
    assert "1 of 2 runs are done" in (tmp_path / "ablation.md").read_text()
    done = (tmp_path / "results.json").read_text()

    second = Trainer()
    path = ablate(prepared, tmp_path, chosen, judge=judge, align=second, command="s2v x")
    assert len(second.given) == 1 and second.given[0][1]["seed"] == 3
    assert second.given[0][0] == prepared
    results = json.loads((tmp_path / "results.json").read_text())
    assert json.loads(done).items() <= results.items() and len(results) == 2
    assert "runs are done; the rest" not in path.read_text() and "`s2v x`" in path.read_text()
    assert all("r1_of_first" in run and run["cpu_seconds"] > 0 for run in results.values())

    ablate(prepared, tmp_path, chosen, judge=judge, align=Trainer(fail_after=0))
    for setting in chosen.runs():
        assert read_result(tmp_path, setting) == results[setting.key]


def test_a_subset_holds_its_classes_alone(prepared: Path, judge: Path, tmp_path: Path) -> None:
    trainer = Trainer()
    ablate(prepared, tmp_path, plan(), judge=judge, align=trainer)
    subset = trainer.given[0][0]
    examples = list(read_manifest(subset))
    assert len({e.name for e in examples}) == 2
    assert all((subset / e.shard).is_file() for e in examples)
    whole = {e.key: e for e in read_manifest(prepared)}
    assert all(whole[e.key] == e for e in examples)


def test_a_folder_measured_otherwise_is_refused(
    prepared: Path, judge: Path, tmp_path: Path
) -> None:
    chosen = plan()
    ablate(prepared, tmp_path, chosen, judge=judge, align=Trainer())
    other = make_plan(
        {"kind": "ablation", "pictures": 5, "split": "test", "studies": {"a": {"b": {}, "c": {}}}},
        "x",
    )
    with pytest.raises(TrainingError, match="pictures was 1, is 5"):
        ablate(prepared, tmp_path, other, judge=judge, align=Trainer())
    path = next((tmp_path / "runs").rglob("result.json"))
    path.write_text("{")
    with pytest.raises(TrainingError, match="Remove it"):
        ablate(prepared, tmp_path, chosen, judge=judge, align=Trainer())


def test_without_videos_selection_is_left_out(prepared: Path, judge: Path, tmp_path: Path) -> None:
    studies = {
        "selection": {"middle": {"select": "mid"}, "best": {"select": "top1"}},
        "duration": {"1 s": {"duration_s": 1.0}, "all": {}},
    }
    trainer = Trainer()
    text = ablate(prepared, tmp_path, plan(**studies), judge=judge, align=trainer).read_text()
    assert len(trainer.given) == 2 and "left out" in text


def test_unknown_options_are_refused_before_anything_runs(prepared: Path, tmp_path: Path) -> None:
    studies = {"loss": {"a": {"losss": "l2"}, "b": {}}}
    with pytest.raises(TrainingError, match="losss"):
        ablate(prepared, tmp_path / "new", plan(**studies))
    assert not (tmp_path / "new").exists()


def test_more_classes_than_there_are(prepared: Path, judge: Path, tmp_path: Path) -> None:
    studies = {"classes": {"many": {"classes": 9}, "all": {}}}
    with pytest.raises(TrainingError, match="classes is 9"):
        ablate(prepared, tmp_path, plan(**studies), judge=judge, align=Trainer())


def test_classes_are_nested_and_drawn_by_the_seed(prepared: Path, judge: Path) -> None:
    yardstick = open_yardstick(prepared, "mini", "test", judge)
    two, three = draw_classes(yardstick, 3, 2), draw_classes(yardstick, 3, 3)
    assert len(two) == 2 and set(two) < set(three)
    assert len({tuple(draw_classes(yardstick, seed, 1)) for seed in range(20)}) > 1


class Heard(HeldOut):
    """Sounds that are embeddings already."""

    def sound(self, example: Example, model: Any) -> Any:
        return EMBEDDINGS[example.key]


EMBEDDINGS: dict[str, torch.Tensor] = {}


def heard(sounds: dict[str, torch.Tensor]) -> HeldOut:
    """Held-out sounds of these embeddings, the class of each its key's first letter."""
    EMBEDDINGS.update(sounds)
    examples = tuple(Example(key, key, "test", "", name=key[0]) for key in sounds)
    return Heard(Path(), "class", "test", (), examples, (), (), ())


def test_the_gap_is_that_between_class_means() -> None:
    means = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    yardstick = Yardstick(heard({}), ["a", "b"], means, Judge(["a", "b"]))
    embedding = torch.tensor([[1.0, 1.0], [3.0, 1.0], [0.0, 4.0]])  # class means (2, 1), (0, 4)
    gap = modality_gap(embedding, ["a", "a", "b"], yardstick)
    assert gap == pytest.approx(float(torch.tensor([0.5 - 1.0, 0.5 - 2.5]).norm()))


def test_figures_are_closed_form_for_a_judge_of_colours() -> None:
    """A model that paints its embedding, a judge that reads colours: every figure is known."""

    class Painter:
        space = None

        class preset:
            @staticmethod
            def generate_options(seed: int, count: int) -> int:
                return count

        def encode_sound(self, sound: torch.Tensor) -> Any:
            return SimpleNamespace(embedding=sound)

        def generate_from_embedding(self, row: torch.Tensor, count: int) -> list[Any]:
            pixels = np.zeros((96, 96, 3), np.uint8) + (255 * row.numpy()).astype(np.uint8)

            return [SimpleNamespace(image=Image.fromarray(pixels))] * count

    class Colours(Judge):
        def features(self, images: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.pad(images.mean(dim=(2, 3)), (0, 189))

    names = [*"abcdefg"]
    judge = Colours(names)
    with torch.no_grad():
        judge.head.weight.zero_()
        judge.head.weight[:3, :3] = torch.eye(3)
        judge.head.bias.copy_(torch.tensor([0.0, 0, 0, -9, -9, -9, -9]))
    red, green, blue = torch.eye(3)
    sounds = {"a1": red, "b1": green, "c1": green, "c2": blue}
    yardstick = Yardstick(heard(sounds), ["a", "b", "c"], torch.eye(3), judge)
    model: Any = Painter()
    figures = measure(model, yardstick, 2)
    assert figures["r1"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert figures["encoder"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert figures["r5"] == 1.0
    assert figures["sounds"] == 4
    assert figures["chance_r5"] == 1.0
    assert measure(model, yardstick, 1, scored=["c"])["r1"] == 0.5
    assert measure(model, yardstick, 1, first=["a", "c"])["r1_of_first"] == 0.75
    assert "r1_of_first" not in figures


def test_a_preset_is_measured(prepared: Path, judge: Path) -> None:
    yardstick = open_yardstick(prepared, "mini", "test", judge)
    figures = measure(Sound2Vision.load("mini", device="cpu"), yardstick, 1)
    assert 0 <= figures["r1"] <= figures["r5"] <= 1
    assert figures["gap"] > 0


def test_a_judge_that_knows_none_of_the_classes(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(S2VError, match=r"judge\.pt"):
        (tmp_path / "judge.pt").write_bytes(b"no")
        open_yardstick(prepared, "mini", "test", tmp_path)
    torch.save({"modules": {"best": state_of(Judge(["x", "y"]))}}, tmp_path / "judge.pt")
    with pytest.raises(TrainingError, match="that the judge knows"):
        open_yardstick(prepared, "mini", "test", tmp_path)


def state_of(judge: Judge) -> dict[str, Any]:
    return {f"judge.{name}": value for name, value in judge.state_dict().items()}
