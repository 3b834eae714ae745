"""A GAN under embeddings: its losses, neighbours, folding and resuming; a preset that draws."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from s2v_cli.encoders.mini_image import MiniImageEncoder
from s2v_cli.errors import PresetError, TrainingError
from s2v_cli.generators.biggan import CHANNELS
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.presets import load_preset
from s2v_cli.space import EmbeddingSpace
from s2v_cli.training import loop
from s2v_cli.training.gan_networks import Discriminator, TrainedGenerator
from s2v_cli.training.gan_stage import (
    Conditions,
    augment,
    embed_images,
    hinge_of_discriminator,
    hinge_of_generator,
    inference_generator,
    nearest,
)
from s2v_cli.training.recipe import load_recipe
from s2v_cli.training.run import Run

SPACE = EmbeddingSpace("tiny", 12, "unit")
RECIPE = """
name = "tiny-gan"
seed = 5
teacher = "mini"
[stages.gan]
resolution = 32
width = 8
features = 8
chunk = 4
steps = 3
batch = 4
learning_rate = 1e-3
neighbours = 3
standing = 2
"""


def random_generator(resolution: int, *, warm: bool = True) -> TrainedGenerator:
    """A small one that has seen some batches, with attention switched on."""
    torch.manual_seed(0)
    generator = TrainedGenerator(12, resolution, 8, 4, 6)
    for attention in generator.attention.values():
        torch.nn.init.constant_(attention.gamma, 0.7)
    torch.nn.init.uniform_(generator.norm.weight, 0.5, 1.5)
    torch.nn.init.uniform_(generator.norm.bias, -0.5, 0.5)
    generator.train()
    for _ in range(4 if warm else 0):
        generator(torch.randn(6, generator.noise_size), torch.randn(6, 12))
    return generator.eval()


def recipe_file(folder: Path, text: str = RECIPE) -> Path:
    path = folder / "gan.toml"
    path.write_text(text)
    return path


def test_hinge_loss_in_closed_form() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 0.5])
    assert hinge_of_discriminator(real, fake).item() == pytest.approx(2.5 / 3 + 2.5 / 3)
    assert hinge_of_discriminator(torch.ones(4), -torch.ones(4)).item() == 0
    assert hinge_of_generator(fake).item() == pytest.approx(2.5 / 3)


def test_nearest_are_those_of_the_highest_cosine_itself_first() -> None:
    angle = torch.tensor([0.0, 0.1, 0.3, 2.0, 2.05, 0.1])  # the last is a copy of the second
    embedding = torch.stack([angle.cos(), angle.sin()], dim=1)
    found = nearest(embedding, 3)
    assert found[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert set(found[0].tolist()) == {0, 1, 5}
    assert found[1, 1] == 5 and found[3, 1] == 4
    assert nearest(embedding, 50).shape == (6, 6)


def test_near_draws_only_neighbours() -> None:
    neighbours = torch.tensor([[0, 2], [1, 2], [2, 0]])
    conditions = Conditions(
        torch.eye(3), torch.arange(3), torch.ones(3), torch.zeros(3, 2), neighbours
    )
    drawn = conditions.near(torch.zeros(60).long(), torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {0, 2}


def test_views_of_a_photo_at_zoom_1_are_its_means() -> None:
    pixels = torch.randint(0, 256, (1, 3, 128, 128), generator=torch.Generator().manual_seed(0))
    pixels = pixels.to(torch.uint8)
    one = torch.zeros(1, dtype=torch.int64)
    conditions = Conditions(torch.eye(1), one, torch.ones(1), torch.zeros(1, 2), one[:, None])
    view = conditions.views(pixels, one, 32, torch.ones(1))
    assert torch.allclose(view, torch.nn.functional.avg_pool2d(pixels / 127.5 - 1, 4), atol=1e-5)


def test_augmented_pictures_pass_gradients_and_are_the_same_for_a_seed() -> None:
    images = torch.rand(4, 3, 32, 32, requires_grad=True)
    first = augment(images, torch.Generator().manual_seed(1))
    again = augment(images, torch.Generator().manual_seed(1))
    other = augment(images, torch.Generator().manual_seed(2))
    assert first.shape == images.shape
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert (first == 0).flatten(1).float().mean(dim=1).min() > 0  # what is cut out
    first.sum().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0


@pytest.mark.parametrize("resolution", [32, 64, 128])
def test_the_folded_generator_draws_the_same(resolution: int) -> None:
    generator = random_generator(resolution)
    noise, embedding = torch.randn(3, generator.noise_size), 5 * torch.randn(3, 12)
    with torch.no_grad():
        expected = generator(noise, embedding)
        folded = inference_generator(generator, SPACE)
        drawn = folded(noise, embedding)
    assert expected.std() > 0.05
    assert (folded.resolution, folded.noise_size) == (resolution, generator.noise_size)
    assert torch.allclose(drawn, expected, atol=1e-5)


def test_the_discriminators_score_is_linear_in_the_projection() -> None:
    torch.manual_seed(0)
    network = Discriminator(12, 32, 8).eval()
    image, one = torch.rand(2, 3, 32, 32), torch.nn.functional.normalize(torch.randn(1, 12))
    with torch.no_grad():
        plus, minus = network(image, one.expand(2, -1)), network(image, -one.expand(2, -1))
        longer = network(image, 7 * one.expand(2, -1))
        pooled = torch.relu(network.blocks(image)).sum(dim=(2, 3))
        expected = (pooled * (one @ network.embed.weight.T)).sum(dim=1)
    assert torch.allclose((plus - minus) / 2, expected, atol=1e-4)
    assert torch.allclose(plus, longer, atol=1e-4)
    assert len(network.embed.weight) == 8 * CHANNELS[32][0]


def test_weights_have_spectral_norm_1() -> None:
    torch.manual_seed(0)
    network = Discriminator(12, 32, 8).train()
    with torch.no_grad():
        for module in network.modules():
            if hasattr(module, "parametrizations"):
                module.parametrizations.weight.original.mul_(9)
        for _ in range(60):
            network(torch.rand(2, 3, 32, 32), torch.randn(2, 12))
    largest = torch.linalg.matrix_norm(network.eval().embed.weight, 2)
    assert largest.item() == pytest.approx(1, abs=0.02)


def test_a_recipe_of_one_stage_makes_a_preset_with_its_teachers_ears(
    miniature: Path, tmp_path: Path
) -> None:
    steps: dict[str, dict[str, float]] = {}
    run = Run(
        miniature,
        tmp_path / "run",
        load_recipe(str(recipe_file(tmp_path))),
        lambda stage, step, steps_, figures: steps.__setitem__(stage, figures),
    )
    folder = run.train()
    assert {"conditions", "gan"} == set(steps)
    assert -1 <= steps["gan"]["validation_cosine"] <= 1
    preset, mini = load_preset(folder), load_preset("mini")
    assert preset.weight("generator").network == "icgan-generator"
    assert preset.weight("sound_encoder").sha256 == mini.weight("sound_encoder").sha256
    assert preset.weight("speech_encoder").sha256 == mini.weight("speech_encoder").sha256
    model = Sound2Vision.load(folder, device="cpu")
    (picture,) = model.generate(miniature / "sounds/rain/0.wav", seed=1)
    assert isinstance(picture, Image.Image) and picture.size == (32, 32)


def test_a_killed_gan_goes_on_to_the_same_weights(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(str(recipe_file(tmp_path)))
    torch.manual_seed(0)
    encoder = MiniImageEncoder().eval()
    whole = Run(miniature, tmp_path / "whole", recipe).gan(encoder).state_dict()

    class Killed(Exception):
        pass

    def kill(stage: str, step: int, steps: int, figures: dict[str, float]) -> None:
        if stage == "gan" and step == 3:  # of step 2 there is a checkpoint
            raise Killed

    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", -1.0)
    with pytest.raises(Killed):
        Run(miniature, tmp_path / "killed", recipe, kill).gan(encoder)
    assert loop.load_checkpoint(tmp_path / "killed/gan.pt")["step"] == 2
    resumed = Run(miniature, tmp_path / "killed", recipe).gan(encoder).state_dict()
    assert len(whole) > 20
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


def test_conditions_are_found_again_only_for_the_same_inputs(
    miniature: Path, tmp_path: Path
) -> None:
    encoder = MiniImageEncoder().eval()
    for text in (RECIPE, RECIPE, RECIPE.replace("neighbours = 3", "neighbours = 2")):
        Run(miniature, tmp_path / "run", load_recipe(str(recipe_file(tmp_path, text)))).gan(encoder)
    files = sorted((tmp_path / "run").glob("conditions-train-*.pt"))
    counts = {loop.load_checkpoint(file)["neighbours"].shape[1] for file in files}
    assert len(files) == 2 and counts == {2, 3}


def test_embeddings_of_a_batch_are_unit() -> None:
    rows = embed_images(MiniImageEncoder().eval(), torch.rand(2, 3, 64, 64) * 2 - 1)
    assert torch.allclose(rows.norm(dim=1), torch.ones(2), atol=1e-5)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("resolution = 32", "resolution = 48", "resolution is 48; allowed: 32, 64, 128, 256"),
        ("batch = 4", "batch = 1", "batch is 1; allowed: an integer of 2 or more"),
        ("width = 8", "width = 4", "width is 4; allowed: an integer of 8 or more"),
        ("neighbours = 3", "neighbors = 3", "unknown key 'neighbors'. Did you mean 'neighbours'?"),
        ("standing = 2", "augment = 1", "augment is 1; allowed: true, false"),
        ('teacher = "mini"', "teacher = 3", "teacher is 3; allowed: a preset's name or folder"),
    ],
)
def test_a_malformed_gan_recipe_is_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(TrainingError) as refusal:
        load_recipe(str(recipe_file(tmp_path, RECIPE.replace(old, new))))
    assert says in str(refusal.value)


def test_an_unknown_teacher_is_named(miniature: Path, tmp_path: Path) -> None:
    text = RECIPE.replace('teacher = "mini"', 'teacher = "mimi"')
    run = Run(miniature, tmp_path / "run", load_recipe(str(recipe_file(tmp_path, text))))
    with pytest.raises(PresetError, match="Did you mean 'mini'"):
        run.train()


def test_the_gan_recipe_is_one_stage_under_mini() -> None:
    recipe = load_recipe("gan")
    assert recipe.teacher == "mini" and recipe.names == {"gan"}


@pytest.mark.slow
def test_kill_9_and_the_same_command_again(miniature: Path, tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path, RECIPE.replace("steps = 3", "steps = 40"))
    script = (
        "import sys, torch; from pathlib import Path; from s2v_cli.training import loop; "
        "from s2v_cli.training.run import Run; from s2v_cli.training.recipe import load_recipe; "
        "torch.set_num_threads(1); loop.CHECKPOINT_EVERY_S = -1.0; "
        "Run(Path(sys.argv[1]), Path(sys.argv[2]), load_recipe(sys.argv[3])).train()"
    )

    def command(out: Path) -> list[str]:
        return [sys.executable, "-c", script, str(miniature), str(out), str(recipe)]

    process = subprocess.Popen(command(tmp_path / "killed"))
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed/gan.pt").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed/preset").exists()
    for out in ("killed", "whole"):
        subprocess.run(command(tmp_path / out), check=True)
    first, second = (
        (tmp_path / out / "preset/generator.safetensors").read_bytes()
        for out in ("killed", "whole")
    )
    assert first == second
