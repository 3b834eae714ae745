"""A recipe from data to a preset that draws; a killed run goes on as if it had not been killed."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
import torch
from PIL import Image

from s2v_cli.errors import TrainingError
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.presets import load_preset
from s2v_cli.training import loop
from s2v_cli.training.recipe import Recipe, StageOptions, load_recipe
from s2v_cli.training.run import STAGES, Run
from tests.training.drawn_pairs import write_classes, write_pairs

RECIPE = """
name = "tiny"
seed = 3
[stages.image_encoder]
steps = 3
batch = 8
learning_rate = 1e-3
loss_weights = { zoom = 0.5 }
[stages.refine]
steps = 2
batch = 8
learning_rate = 1e-3
loss_weights = { zoom = 0.5 }
[stages.codec]
steps = 2
batch = 2
learning_rate = 1e-3
loss_weights = { pixel = 1.0 }
[stages.sharpen]
steps = 2
batch = 2
learning_rate = 1e-3
loss_weights = { pixel = 1.0, feature = 0.3 }
[stages.polish]
steps = 2
batch = 2
learning_rate = 1e-3
loss_weights = { pixel = 1.0, feature = 0.3, adversarial = 0.05, freeze_encoder = 1 }
[stages.flow]
steps = 3
batch = 4
learning_rate = 1e-3
[stages.distil]
steps = 2
batch = 4
learning_rate = 1e-4
loss_weights = { guidance = 2.0, substeps = 2 }
[stages.sound_encoder]
steps = 2
batch = 4
learning_rate = 1e-3
loss_weights = { classes = 0.5 }
"""

SPEECH = """
[stages.speech_encoder]
steps = 2
batch = 10
learning_rate = 1e-3
"""


@pytest.fixture(scope="module")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_mini_recipe_is_complete() -> None:
    recipe = load_recipe("mini")
    assert {name for name, _ in recipe.stages} == set(STAGES) - {"gan"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed = ", "not valid TOML"),
        ("seed = 1", "no [stages.NAME]"),
        ("[stages.flow]\nstep = 1", "unknown key 'step'"),
        ("[stages.flow]\nsteps = 0\nbatch = 1\nlearning_rate = 1.0", "steps is 0"),
        ("[stages.flow]\nsteps = 1\nbatch = 1\nlearning_rate = 0", "learning_rate is 0"),
        ("[stages.flow]\nsteps = 1", "batch"),
        ("start = 3\n[stages.flow]\nsteps = 1\nbatch = 1\nlearning_rate = 1.0", "start is 3"),
    ],
)
def test_a_malformed_recipe_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(TrainingError, match=r".") as refusal:
        load_recipe(str(path))
    assert says in str(refusal.value)


def test_an_unknown_recipe_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"Known: .*mini"):
        load_recipe(str(tmp_path / "nothing.toml"))


def test_a_run_ends_in_a_preset_that_draws(
    miniature: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    seen: dict[str, int] = {}
    run = Run(
        miniature,
        tmp_path,
        load_recipe(str(tiny_recipe)),
        lambda stage, step, steps, figures: seen.__setitem__(stage, step),
    )
    folder = run.train()
    assert set(STAGES) - {"speech_encoder", "gan"} <= set(seen)  # there is no speech among the data
    model = Sound2Vision.load(folder)
    assert model.space.family == "mini" and model.space != Sound2Vision.load("mini").space
    assert model.sound_encoder.space == model.image_encoder.space == model.space
    (picture,) = model.generate(miniature / "sounds/rain/0.wav", seed=1)
    assert isinstance(picture, Image.Image) and picture.size == (128, 128)
    # The run that is finished has nothing left to do and gives the same weights.
    before = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    assert len(before) == 3
    seen.clear()
    assert Run(miniature, tmp_path, run.recipe, None).train() == folder
    assert {path.name: path.read_bytes() for path in folder.glob("*.safetensors")} == before


def test_a_killed_run_goes_on_to_the_same_weights(
    miniature: Path, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(str(tiny_recipe))
    whole = Run(miniature, tmp_path / "whole", recipe).image_encoder().state_dict()

    class Killed(Exception):
        pass

    def kill(stage: str, step: int, steps: int, figures: dict[str, float]) -> None:
        if step == 2:
            raise Killed

    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", -1.0)  # a checkpoint after every step
    with pytest.raises(Killed):
        Run(miniature, tmp_path / "killed", recipe, kill).image_encoder()
    resumed = Run(miniature, tmp_path / "killed", recipe).image_encoder().state_dict()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


@pytest.mark.slow
def test_every_stage_of_a_prepared_dataset_can_be_killed(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["rain", "fire", "face_male_adult", "face_female_adult", "~wind", "~clock"]
    data = write_classes(tmp_path / "data", names)
    text = tiny_recipe.read_text() + SPEECH
    (tmp_path / "tiny.toml").write_text(text)
    recipe = load_recipe(str(tmp_path / "tiny.toml"))
    assert recipe.names == set(STAGES) - {"gan"}
    whole = Run(data, tmp_path / "whole", recipe).train()

    class Killed(Exception):
        pass

    killed: list[str] = []

    def kill(stage: str, step: int, steps: int, figures: dict[str, float]) -> None:
        if stage in STAGES and stage not in killed and step == 2:  # a checkpoint of 1 is there
            killed.append(stage)
            raise Killed

    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", -1.0)
    for _ in recipe.stages:
        with pytest.raises(Killed):
            Run(data, tmp_path / "killed", recipe, kill).train()
    preset = Run(data, tmp_path / "killed", recipe, kill).train()
    assert set(killed) == recipe.names
    files = sorted(path.name for path in whole.glob("*.safetensors"))
    assert len(files) == 4
    for name in files:
        assert (preset / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.slow
def test_pairs_without_classes_and_without_validation_train_too(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    data = write_pairs(tmp_path / "data", train=10, validation=0)
    preset = Run(data, tmp_path / "run", load_recipe(str(tiny_recipe))).train()
    log = (tmp_path / "run/sound_encoder.csv").read_text()
    assert "loss" in log and "validation" not in log
    wave = 0.1 * torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    soundfile.write(tmp_path / "noise.wav", wave.numpy(), 16_000)
    (picture,) = Sound2Vision.load(preset, device="cpu").generate(tmp_path / "noise.wav", seed=1)
    assert picture.size == (128, 128)


def test_a_recipe_of_one_stage_takes_the_rest_from_its_teacher(
    miniature: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    _, _, last = tiny_recipe.read_text().partition("[stages.sound_encoder]")
    path = tmp_path / "ears.toml"
    path.write_text(f'seed = 1\nteacher = "mini"\n[stages.sound_encoder]{last}')
    preset, mini = Run(miniature, tmp_path / "run", load_recipe(str(path))).train(), "mini"
    new, old = load_preset(preset), load_preset(mini)
    for role in ("image_encoder", "generator", "speech_encoder"):
        assert new.weight(role).sha256 == old.weight(role).sha256
    assert new.weight("sound_encoder").sha256 != old.weight("sound_encoder").sha256
    assert new.generate == old.generate


def test_a_recipe_goes_on_from_the_networks_of_a_preset(
    miniature: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    stages = dict(load_recipe(str(tiny_recipe)).stages)
    names = ("refine", "flow", "distil", "polish", "sound_encoder")
    still = tuple((n, dataclasses.replace(stages[n], learning_rate=1e-9, ema=0.0)) for n in names)
    preset = Run(miniature, tmp_path, Recipe("further", 1, still, start="mini")).train()
    new, old = (Sound2Vision.load(name, device="cpu") for name in (preset, "mini"))
    assert new.space.family == "mini" and new.space != old.space
    for part in ("image_encoder", "generator"):
        weights = dict(getattr(old, part).named_parameters())
        for name, weight in getattr(new, part).named_parameters():
            # What is left of the learning rate is far below half precision.
            assert torch.allclose(weight.float(), weights[name].float(), atol=1e-5), (part, name)


@pytest.mark.parametrize(
    ("start", "teacher", "stages", "says"),
    [
        ("mini", "mini", ["refine"], "names a teacher and a start"),
        ("mini", None, ["flow", "distil", "sound_encoder"], "Add [stages.refine]"),
        ("mini", None, ["refine", "flow", "sound_encoder"], "needs 'distil'"),
        ("mini", None, ["refine", "sound_encoder"], "trains no generator"),
        ("sound2scene", None, ["refine"], "is 'swav-image-encoder'; needed: 'mini-image-encoder'"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(
    miniature: Path, tmp_path: Path, start: str, teacher: str | None, stages: list[str], says: str
) -> None:
    options = tuple((name, StageOptions(1, 2, 1e-3)) for name in stages)
    with pytest.raises(TrainingError) as refusal:
        Run(miniature, tmp_path / "run", Recipe("some", 0, options, teacher, start)).train()
    assert says in str(refusal.value)
    assert not list((tmp_path / "run").glob("*.pt"))


@pytest.mark.parametrize(
    ("stages", "teacher", "says"),
    [
        (["flow"], None, "needs 'codec'. Add [stages.codec]"),
        (["refine"], "mini", "needs 'image_encoder'. Add [stages.image_encoder]"),
        (["sound_encoder", "gan"], None, "trains no image_encoder"),
        (["image_encoder", "gan"], None, "trains no sound_encoder"),
        (["image_encoder", "sound_encoder"], None, "trains no generator"),
        (["image_encoder"], "mini", "would be another space; allowed: one of them"),
        (["codec", "flow", "distil", "gan"], "mini", "two generators"),
        (["sound_encoder"], "sound2scene", "is 'swav-image-encoder'. Allowed with it: 'gan'"),
    ],
)
def test_stages_that_lead_to_no_preset_are_refused(
    miniature: Path, tmp_path: Path, stages: list[str], teacher: str | None, says: str
) -> None:
    options = tuple((name, StageOptions(1, 2, 1e-3)) for name in stages)
    with pytest.raises(TrainingError) as refusal:
        Run(miniature, tmp_path / "run", Recipe("some", 0, options, teacher)).train()
    assert says in str(refusal.value)
    assert not list((tmp_path / "run").glob("*.pt"))


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], "has 0 training photos; needed: 2"),
        (["rain"], "1 have training photos; the sound encoder needs 2 or more"),
        (["rain", "~fire", "~wind"], "1 have training photos"),
    ],
)
def test_data_of_too_few_classes_are_refused(
    tiny_recipe: Path, tmp_path: Path, names: list[str], says: str
) -> None:
    data = write_classes(tmp_path / "data", names)
    with pytest.raises(TrainingError) as refusal:
        Run(data, tmp_path / "run", load_recipe(str(tiny_recipe))).train()
    assert says in str(refusal.value)


def test_a_folder_of_anything_is_to_be_prepared(tiny_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "some.jpg").write_bytes(b"")
    with pytest.raises(TrainingError, match="Run: s2v prepare"):
        Run(tmp_path, tmp_path / "run", load_recipe(str(tiny_recipe)))


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 torn"])
def test_a_damaged_checkpoint_is_named(
    miniature: Path, tiny_recipe: Path, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "image_encoder.pt").write_bytes(content)
    with pytest.raises(TrainingError, match=r"Cannot read the checkpoint .*image_encoder\.pt"):
        Run(miniature, tmp_path, load_recipe(str(tiny_recipe))).image_encoder()


def test_a_checkpoint_of_another_stage_is_named(
    miniature: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    run = Run(miniature, tmp_path, load_recipe(str(tiny_recipe)))
    run.image_encoder()
    (tmp_path / "image_encoder.pt").rename(tmp_path / "codec.pt")
    with pytest.raises(TrainingError, match=r"codec\.pt is of another stage or recipe"):
        run._codec_stage("codec", None, None)


def test_a_vanished_shard_is_named(tiny_recipe: Path, tmp_path: Path) -> None:
    data = write_classes(tmp_path / "data", ["rain", "fire"])
    for shard in (data / "shards").glob("train-*.tar"):
        shard.unlink()
    with pytest.raises(TrainingError, match=r"Cannot read .*train-.*tar.* Run 's2v prepare' again"):
        Run(data, tmp_path / "run", load_recipe(str(tiny_recipe))).train()
    assert not list((tmp_path / "run/cache").iterdir())


def test_a_loss_that_is_not_finite_stops_the_run(
    miniature: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    text = tiny_recipe.read_text().replace("learning_rate = 1e-3\nloss_weights = { zoom", "X", 1)
    path = tmp_path / "hot.toml"
    path.write_text(text.replace("X", "learning_rate = 1e30\nloss_weights = { zoom"))
    with pytest.raises(TrainingError, match="the loss is nan"):
        Run(miniature, tmp_path / "run", load_recipe(str(path))).image_encoder()


@pytest.mark.slow
def test_kill_9_and_the_same_command_again(
    miniature: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = [
        *(sys.executable, "-m", "s2v_cli", "train", str(miniature), "--recipe", str(tiny_recipe)),
        *("--out", str(out), "--threads", "1"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (out / "codec.pt").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(out / "preset")
    assert "image_encoder:" not in done.stderr  # finished before the kill: not trained again
    assert (out / "preset/preset.toml").is_file()
