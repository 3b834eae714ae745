"""Training a sound encoder: steps, checkpoints, and what can go wrong."""

from __future__ import annotations

import csv
import dataclasses
import errno
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from s2v_cli.errors import OptionError, TrainingError
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.training.align import trainer as trainer_module
from s2v_cli.training.align.options import AlignOptions
from s2v_cli.training.align.trainer import CHECKPOINT, LOCK, Trainer, align
from s2v_cli.training.losses import AlignmentLoss
from tests.training.align.conftest import Drawn
from tests.training.drawn_pairs import write_classes, write_pairs

OPTIONS = AlignOptions(
    batch=8,
    steps=6,
    validate_every=3,
    duration_s=0.5,
    temperature=0.1,
    workers=0,
    samples=0,
    mix=0.5,
    gain_db=6.0,
    frequency_masks=1,
    close_gap=False,
)


class Crash(Exception):
    """What ends a training without a word, as a kill does."""


def crash_at(step: int) -> Any:
    def progress(stage: str, done: int, steps: int, figures: dict[str, float]) -> None:
        if stage == "align" and done == step:
            raise Crash

    return progress


def state_of(run: Path) -> dict[str, Any]:
    return torch.load(run / CHECKPOINT, weights_only=True)  # type: ignore[no-any-return]


def same_weights(one: Path, other: Path) -> bool:
    a, b = state_of(one), state_of(other)
    kinds = ("encoder", "average", "loss")
    exact = [torch.equal(a[kind][name], b[kind][name]) for kind in kinds for name in a[kind]]
    return a["step"] == b["step"] and len(exact) > 50 and all(exact)


def rows_of(run: Path) -> list[tuple[int, str, float]]:
    with (run / "log.csv").open(newline="", encoding="utf-8") as file:
        return [(int(r["step"]), r["name"], float(r["value"])) for r in csv.DictReader(file)]


@pytest.fixture(scope="module")
def classes(by_class: Drawn) -> Path:
    return by_class[0].folder


@pytest.fixture(scope="module")
def pairs(by_file: Drawn) -> Path:
    return by_file[0].folder


@pytest.fixture(scope="module")
def whole(classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps that nothing interrupted."""
    return align(classes, tmp_path_factory.mktemp("whole") / "run", OPTIONS)


def test_a_run_becomes_a_preset_that_hears_and_draws(classes: Path, tmp_path: Path) -> None:
    told = []
    options = dataclasses.replace(OPTIONS, samples=2, close_gap=True)
    run = align(classes, tmp_path / "run", options, lambda *report: told.append(report))
    assert [step for stage, step, *_ in told if stage == "align"] == [1, 2, 3, 4, 5, 6]
    assert sorted(path.name for path in (run / "samples").iterdir()) == [
        "step-000003.png",
        "step-000006.png",
    ]
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))
    model = Sound2Vision.load(run, device="cpu")
    assert model.preset.window_s == 0.5
    assert model.sound_encoder.window_s == 0.5
    embedding = model.encode_sound("examples/rain.wav").embedding
    assert float(embedding.norm()) == pytest.approx(1, abs=1e-3)
    picture = model.generate_from_embedding(embedding, model.preset.generate_options(seed=1))[0]
    assert picture.image.size == (model.preset.resolution, model.preset.resolution)
    # The map and the prior that are fitted at the end belong to the preset, not to the training.
    assert state_of(run)["average"]["prior_share"] == 0
    assert model.sound_encoder.prior_share > 0  # type: ignore[attr-defined]


def test_the_log_tells_each_figure_of_each_step_once(whole: Path) -> None:
    rows = rows_of(whole)
    assert len({(step, name) for step, name, _ in rows}) == len(rows)
    assert {step for step, _, _ in rows} == {1, 3, 6}
    assert {name for step, name, _ in rows if step == 6} == {
        "loss", "learning_rate", "gradient", "recall_1", "validation_loss", "class_accuracy",
    }  # fmt: skip


@pytest.mark.parametrize("step", [2, 3, 5])
def test_a_crash_changes_nothing(step: int, classes: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(Crash):
        align(classes, run, OPTIONS, crash_at(step))
    assert (run / CHECKPOINT).exists() == (step >= 3)
    align(classes, run, dataclasses.replace(OPTIONS, workers=1))
    assert same_weights(run, whole)
    assert rows_of(run) == rows_of(whole)
    assert (run / "sound_encoder.safetensors").read_bytes() == (
        whole / "sound_encoder.safetensors"
    ).read_bytes()


def test_a_finished_run_is_not_trained_again(whole: Path, classes: Path) -> None:
    before = (whole / CHECKPOINT).stat().st_mtime_ns
    align(classes, whole, OPTIONS, crash_at(6))
    assert (whole / CHECKPOINT).stat().st_mtime_ns == before


def test_figures_behind_the_checkpoint_are_dropped(classes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(Crash):
        align(classes, run, OPTIONS, crash_at(4))
    with (run / "log.csv").open("a", encoding="utf-8") as file:
        file.write("4,loss,77\n5,loss,78\n3,lo")  # the last one torn
    align(classes, run, OPTIONS)
    rows = rows_of(run)
    assert not {77.0, 78.0} & {value for _, _, value in rows}
    assert [step for step, name, _ in rows if name == "loss"] == [1, 3, 6]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 1}, "seed 0, not 1"),
        ({"steps": 12}, "steps 6, not 12"),
        ({"loss": "cosine-infonce"}, "loss 'l2-infonce', not 'cosine-infonce'"),
    ],
)
def test_other_options_are_refused_by_name(
    change: dict[str, Any], told: str, whole: Path, classes: Path
) -> None:
    with pytest.raises(TrainingError, match=told) as caught:
        align(classes, whole, dataclasses.replace(OPTIONS, **change))
    assert "--fresh" in str(caught.value)


def test_another_dataset_is_refused(whole: Path, pairs: Path) -> None:
    with pytest.raises(TrainingError, match="another dataset"):
        align(pairs, whole, OPTIONS)


def test_fresh_begins_again(classes: Path, tmp_path: Path) -> None:
    run = align(classes, tmp_path / "run", dataclasses.replace(OPTIONS, steps=3, samples=1))
    options = dataclasses.replace(OPTIONS, seed=1)
    with pytest.raises(Crash):
        align(classes, run, options, crash_at(2), fresh=True)
    assert not (run / CHECKPOINT).exists()  # the old one would come back at the next start
    assert not list((run / "samples").iterdir())
    align(classes, run, options)
    assert state_of(run)["step"] == 6
    assert {step for step, _, _ in rows_of(run)} == {1, 3, 6}


@pytest.mark.parametrize("damage", [b"", b"no checkpoint", None])
def test_a_damaged_checkpoint_is_named(
    damage: bytes | None, whole: Path, classes: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    content = (whole / CHECKPOINT).read_bytes()
    (run / CHECKPOINT).write_bytes(content[: len(content) // 2] if damage is None else damage)
    with pytest.raises(TrainingError, match=r"checkpoint.*--fresh"):
        align(classes, run, OPTIONS)


def test_a_loss_that_is_not_finite_is_named_and_the_checkpoint_kept(
    classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, compute = tmp_path / "run", AlignmentLoss.forward
    calls = iter(range(100))

    def explode(self: AlignmentLoss, *embeddings: Any) -> torch.Tensor:
        loss = compute(self, *embeddings)
        return loss * math.nan if next(calls) == 5 else loss  # two batches are validated

    monkeypatch.setattr(AlignmentLoss, "forward", explode)
    with pytest.raises(TrainingError, match=r"loss is nan at step 5, with the sounds \w+") as found:
        align(classes, run, OPTIONS)
    assert "last checkpoint is kept" in str(found.value)
    state = state_of(run)
    assert state["step"] == 3
    assert all(bool(torch.isfinite(w).all()) for w in state["encoder"].values())


def test_gradients_that_are_not_finite_never_reach_the_weights(
    classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, backward = tmp_path / "run", Trainer._backward

    def overflow(self: Trainer, *tensors: torch.Tensor) -> torch.Tensor:
        loss = backward(self, *tensors)
        if self.step == 2:  # then a checkpoint follows
            next(self.encoder.parameters()).grad.fill_(math.inf)  # type: ignore[union-attr]
        return loss

    monkeypatch.setattr(Trainer, "_backward", overflow)
    with pytest.raises(TrainingError, match="gradient is inf at step 3"):
        align(classes, run, OPTIONS)
    assert not (run / CHECKPOINT).exists()


def test_patience_keeps_the_best_weights(
    classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.2, 0.6, 0.5, 0.6, 0.9])
    monkeypatch.setattr(
        trainer_module, "validate", lambda *given: {"recall_1": 0.0, "score": next(scores)}
    )
    options = dataclasses.replace(OPTIONS, steps=40, validate_every=1, patience=2, ema=0.0)
    told = []
    run = align(classes, tmp_path / "run", options, lambda *report: told.append(report))
    assert told[-1] == ("early_stop", 4, 40, {"best": 0.6})
    state = state_of(run)
    assert (state["step"], state["best"], state["stale"]) == (4, 0.6, 2)
    best = Sound2Vision.load(run, device="cpu").sound_encoder.state_dict()  # type: ignore[attr-defined]
    torch.testing.assert_close(
        best["head.weight"], state["best_weights"]["head.weight"], atol=1e-3, rtol=1e-3
    )
    assert not torch.equal(best["head.weight"], state["average"]["head.weight"].half().float())
    align(classes, run, options, crash_at(5))  # stopped for good
    assert state_of(run)["step"] == 4


def test_one_validation_pair_does_not_stop_a_training(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data", train=8, validation=1)
    options = dataclasses.replace(OPTIONS, steps=4, validate_every=1, patience=1)
    assert state_of(align(data, tmp_path / "run", options))["step"] == 4


class _Normless(torch.nn.Module):
    """A sound encoder whose rows do not see each other: linear, as `MiniSoundEncoder` is used."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(10, 256)

    def feature_map(self, spectrogram: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(spectrogram, (2, 5)).flatten(1)

    def embed(self, feature_map: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(self.linear(feature_map).tanh(), dim=1)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(
    accumulate: int, pairs: Path, tmp_path: Path
) -> None:
    gradients = []
    for parts in (1, accumulate):
        options = dataclasses.replace(OPTIONS, accumulate=parts, learn_temperature=True)
        trainer = Trainer(Accelerator(cpu=True), pairs, tmp_path / "run", options)
        torch.manual_seed(0)
        normless = _Normless()
        trainer.aligned.encoder = normless
        batch = trainer.batches.at(0)
        with torch.no_grad():
            spectrogram = trainer.encoder.spectrogram(batch.wave)  # type: ignore[operator]
        loss = trainer._backward(spectrogram, batch.image_embedding)
        weights = [*normless.parameters(), trainer.loss.log_temperature]
        gradients.append([loss, *(weight.grad for weight in weights)])
    for one, other in zip(*gradients, strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_parts_leave_running_statistics_as_one_pass_does(pairs: Path, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, accumulate=2, steps=1)
    state = state_of(align(pairs, tmp_path / "run", options))
    assert state["encoder"]["stem.1.num_batches_tracked"] == 2


def test_a_batch_that_does_not_part_evenly_is_refused(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"accumulate is 3; allowed: what divides the 8"):
        align(pairs, tmp_path / "run", dataclasses.replace(OPTIONS, accumulate=3))


def test_a_full_disk_is_named_and_keeps_the_last_checkpoint(
    classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with pytest.raises(Crash):
        align(classes, run, OPTIONS, crash_at(3))

    def full(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(TrainingError, match="No space left on device"):
            align(classes, run, OPTIONS)
    assert not list(run.glob("*.part"))
    assert state_of(run)["step"] == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_ends_while_it_is_read_is_named(workers: int, tmp_path: Path) -> None:
    data = write_classes(tmp_path / "data", ["cat", "dog"], sounds=8)

    def shorten(stage: str, done: int, steps: int, figures: dict[str, float]) -> None:
        for shard in (data / "shards").glob("train-*") if stage == "align" else ():
            shard.write_bytes(shard.read_bytes()[:600])

    options = dataclasses.replace(OPTIONS, workers=workers, steps=30, validate_every=30)
    with pytest.raises(TrainingError, match=r"train-00000\d\.tar"):
        align(data, tmp_path / "run", options, shorten)


def test_a_vanished_shard_is_named(tmp_path: Path) -> None:
    data = write_classes(tmp_path / "data", ["cat", "dog"], sounds=8)
    with pytest.raises(Crash):
        align(data, tmp_path / "run", OPTIONS, crash_at(1))
    (data / "shards" / "train-000001.tar").unlink()
    with pytest.raises(TrainingError, match=r"train-000001\.tar"):
        align(data, tmp_path / "run", OPTIONS)


def test_a_second_training_in_one_folder_is_refused(classes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def again(*told: object) -> None:
        align(classes, run, OPTIONS)

    with pytest.raises(TrainingError, match="Another training is under way"):
        align(classes, run, OPTIONS, again)
    assert (run / LOCK).exists()


def test_folders_of_others_are_refused(classes: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="is a dataset"):
        align(classes, classes, OPTIONS)
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "preset.toml").write_bytes((whole / "preset.toml").read_bytes())
    with pytest.raises(TrainingError, match="not trained there"):
        align(classes, tmp_path / "preset", OPTIONS)
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match=r"Cannot make the folder .*--out"):
        align(classes, tmp_path / "file", OPTIONS)


def test_the_teachers_own_weights_are_a_beginning(classes: Path, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, from_weights=True, steps=1, learning_rate=1e-9)
    own = Sound2Vision.load("mini", device="cpu").sound_encoder.state_dict()  # type: ignore[attr-defined]
    run = align(classes, tmp_path / "run", options)
    model = Sound2Vision.load(run, device="cpu")
    found = model.sound_encoder.state_dict()  # type: ignore[attr-defined]
    torch.testing.assert_close(found["head.weight"], own["head.weight"], atol=1e-3, rtol=1e-2)
    assert found["bridge"].abs().max() == 0
    heard = model.encode_sound("examples/rain.wav")
    assert heard.familiarity is None or heard.familiarity >= 0  # no kinds: none is unfamiliar
    assert model.sound_encoder.familiarity_threshold == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_learnt_temperature_is_logged(precision: Any, pairs: Path, tmp_path: Path) -> None:
    options = dataclasses.replace(
        OPTIONS, steps=3, precision=precision, learn_temperature=True, optimiser="adam"
    )
    found = [value for _, name, value in rows_of(align(pairs, tmp_path / "r", options))
             if name == "temperature"]  # fmt: skip
    assert len(found) == 2
    assert found[-1] != pytest.approx(0.1, abs=1e-5)


def test_the_loss_falls_where_there_is_something_to_learn(pairs: Path, tmp_path: Path) -> None:
    options = AlignOptions(
        batch=12, steps=30, validate_every=30, duration_s=0.3, temperature=0.1, samples=0,
        workers=0, ema=0.9, learning_rate=3e-3, crop="centre", close_gap=False,
    )  # fmt: skip
    losses: list[float] = []

    def note(stage: str, done: int, steps: int, figures: dict[str, float]) -> None:
        losses.extend([figures["loss"]] if stage == "align" else [])

    align(pairs, tmp_path / "run", options, note)
    assert np.mean(losses[-3:]) < 0.75 * np.mean(losses[:3])
