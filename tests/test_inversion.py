"""GAN inversion: it finds pictures again, leaves the networks alone, and tunes copies only."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2v_cli import Sound2Vision
from s2v_cli.encoders import ImageEncoder
from s2v_cli.encoders.swav import SwavResNet50
from s2v_cli.errors import OptionError
from s2v_cli.generators import Generator
from s2v_cli.generators.biggan import BigGan
from s2v_cli.inversion import (
    GuessesNoise,
    Inversion,
    InversionOptions,
    Tunable,
    invert,
    psnr_db,
    shift_embedding,
    tune,
)
from s2v_cli.picture import read_picture, resize, to_tensor
from s2v_cli.space import EmbeddingSpace

BOAT = Path(__file__).parents[1] / "examples" / "boat.jpg"
SIDE, NOISE, DIMENSION = 16, 24, 8


def seeded(module: nn.Module, seed: int) -> nn.Module:
    """The module with weights that depend on the seed alone, frozen."""
    chance = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        scale = 1 / math.sqrt(max(1, weight[0].numel())) if weight.ndim > 1 else 0.1
        weight.data = torch.randn(weight.shape, generator=chance) * scale
    return module.eval().requires_grad_(False)


class TinyGenerator(nn.Module):
    """A generator of two layers without a guess of its own."""

    noise_size, resolution = NOISE, SIDE

    def __init__(self, space: EmbeddingSpace) -> None:
        super().__init__()
        self.space = space
        self.inner = nn.Linear(NOISE + DIMENSION, 48)
        self.outer = nn.Linear(48, 3 * SIDE * SIDE)

    def forward(self, noise: Tensor, embedding: Tensor) -> Tensor:
        x = F.silu(self.inner(torch.cat([noise, 2 * embedding], dim=1)))
        return torch.tanh(self.outer(x)).view(-1, 3, SIDE, SIDE)


class TinyEncoder(nn.Module):
    """An image encoder of two convolutions."""

    def __init__(self, space: EmbeddingSpace) -> None:
        super().__init__()
        self.space = space
        self.first, self.second = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 9, 3, 2, 1)
        self.head = nn.Linear(9, DIMENSION)

    def features(self, image: Tensor) -> list[Tensor]:
        first = F.relu(self.first(image))
        return [first, F.relu(self.second(first))]

    def forward(self, image: Tensor) -> Tensor:
        embedding = self.head(self.features(image)[-1].mean(dim=(2, 3)))
        return F.normalize(embedding, dim=1) if self.space.scale == "unit" else embedding


def tiny(scale: str = "unit") -> tuple[TinyGenerator, TinyEncoder, Tensor]:
    """Generator, encoder, and a picture that the generator can make."""
    space = EmbeddingSpace("tiny", DIMENSION, scale)  # type: ignore[arg-type]
    generator, encoder = seeded(TinyGenerator(space), 1), seeded(TinyEncoder(space), 2)
    assert isinstance(generator, TinyGenerator) and isinstance(encoder, TinyEncoder)
    chance = torch.Generator().manual_seed(3)
    noise = torch.randn(1, NOISE, generator=chance)
    embedding = F.normalize(torch.randn(1, DIMENSION, generator=chance), dim=1)
    return generator, encoder, generator(noise, embedding)[0]


@pytest.fixture(scope="module")
def mini() -> Sound2Vision:
    return Sound2Vision.load("mini", device="cpu")


@pytest.fixture(scope="module")
def boat() -> Tensor:
    return to_tensor(resize(read_picture(BOAT), 128))


@pytest.fixture(scope="module")
def found_boat(mini: Sound2Vision, boat: Tensor) -> Inversion:
    return invert(mini.generator, mini.image_encoder, boat, InversionOptions(steps=2, starts=2))


def rebuilt(generator: Generator, found: Inversion) -> Tensor:
    with torch.no_grad():
        return generator(found.noise[None], found.embedding[None])[0]


@pytest.mark.parametrize("scale", ["unit", "raw"])
def test_a_picture_of_the_generator_is_found_again(scale: str) -> None:
    generator, encoder, target = tiny(scale)
    losses: list[float] = []
    found = invert(
        generator,
        encoder,
        target,
        InversionOptions(steps=120),
        lambda *call: losses.append(call[2]),
    )
    assert isinstance(generator, Generator) and isinstance(encoder, ImageEncoder)
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        start = generator(
            torch.randn(4, NOISE, generator=chance), encoder(target[None]).expand(4, -1)
        )
    before = max(psnr_db(image, target) for image in start)
    assert found.psnr_db > before + 8
    assert found.psnr_db == pytest.approx(psnr_db(rebuilt(generator, found), target), abs=1e-3)
    assert len(losses) == 120 and losses == sorted(losses, reverse=True)  # the best so far
    assert found.loss is not None and found.loss <= losses[-1] < 0.2 * losses[0]
    assert torch.equal(found.target, target)
    if scale == "unit":
        assert float(found.embedding.norm()) == pytest.approx(1, abs=1e-5)


class Guessing(TinyGenerator):
    """A generator that knows which noise makes a picture."""

    answer: Tensor

    def guess_noise(self, image: Tensor, embedding: Tensor) -> Tensor:
        return self.answer.expand(len(image), -1)


def test_the_best_of_several_starts_goes_on() -> None:
    """The generator's guess is one of them, and here the best."""
    generator, encoder, _ = tiny()
    guessing = Guessing(generator.space)
    guessing.load_state_dict(generator.state_dict())
    guessing.requires_grad_(False)
    chance = torch.Generator().manual_seed(11)
    guessing.answer = torch.randn(1, NOISE, generator=chance)
    target = torch.zeros(3, SIDE, SIDE)
    for _ in range(3):  # until the picture is that of its own embedding
        target = guessing(guessing.answer, encoder(target[None]))[0]
    found = invert(guessing, encoder, target, InversionOptions(steps=20, starts=6))
    blind = invert(generator, encoder, target, InversionOptions(steps=20, starts=6))
    assert float((found.noise - guessing.answer[0]).square().mean()) < 0.1
    assert found.psnr_db > blind.psnr_db + 3


def test_more_starts_find_better_places() -> None:
    generator, encoder, target = tiny()

    def loss(starts: int) -> float:
        runs = [InversionOptions(30, starts, seed=100 * seed) for seed in range(4)]
        return sum(invert(generator, encoder, target, run).loss or 0 for run in runs)

    assert loss(12) < loss(1)


def test_the_noise_stays_like_noise_that_is_drawn() -> None:
    generator, encoder, target = tiny()
    found = invert(generator, encoder, target, InversionOptions(steps=120))
    assert 0.6 < float(found.noise.square().mean()) < 1.6


def test_equal_runs_are_equal_and_leave_everything_as_it_was() -> None:
    generator, encoder, target = tiny()
    before = {k: v.clone() for m in (generator, encoder) for k, v in m.state_dict().items()}
    state = torch.get_rng_state()
    with torch.inference_mode():  # the caller's mode does not matter
        first = invert(generator, encoder, target.clone(), InversionOptions(steps=5))
    with torch.no_grad():
        second = invert(generator, encoder, target, InversionOptions(steps=5))
    other = invert(generator, encoder, target, InversionOptions(steps=5, seed=1))
    assert torch.equal(first.noise, second.noise)
    assert torch.equal(first.embedding, second.embedding) and first.loss == second.loss
    assert not torch.equal(first.noise, other.noise)
    assert torch.equal(torch.get_rng_state(), state)
    after = {k: v for m in (generator, encoder) for k, v in m.state_dict().items()}
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any(w.requires_grad for m in (generator, encoder) for w in m.parameters())


def test_a_single_step_is_enough_to_run() -> None:
    generator, encoder, target = tiny()
    found = invert(generator, encoder, target, InversionOptions(steps=1))
    assert math.isfinite(found.psnr_db) and found.noise.shape == (NOISE,)


def test_moving_an_embedding() -> None:
    z = F.normalize(torch.randn(5, generator=torch.Generator().manual_seed(0)), dim=0)
    way = torch.tensor([0.3, -0.2, 0.0, 0.1, 0.5])
    for unit in (True, False):
        assert torch.equal(shift_embedding(z, way, 0.0, unit=unit), z)
    assert torch.equal(shift_embedding(z, way, -2.0, unit=False), z - 2 * way)
    moved = shift_embedding(z, way, 3.0, unit=True)
    assert float(moved.norm()) == pytest.approx(1, abs=1e-6)
    assert float(F.cosine_similarity(moved, z + 3 * way, dim=0)) == pytest.approx(1, abs=1e-6)


def test_tuning_changes_a_copy_only() -> None:
    generator, encoder, _ = tiny()
    target = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(9)) - 0.5
    found = invert(generator, encoder, target, InversionOptions(steps=40))
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    tuned, better = tune(generator, encoder, found, 120)
    assert better.psnr_db > found.psnr_db + 3
    assert psnr_db(rebuilt(tuned, better), target) == pytest.approx(better.psnr_db, abs=1e-3)
    assert torch.equal(better.noise, found.noise) and torch.equal(better.embedding, found.embedding)
    assert all(torch.equal(before[key], value) for key, value in generator.state_dict().items())
    assert isinstance(tuned, nn.Module)
    assert not any(weight.requires_grad for weight in tuned.parameters())


def test_a_generator_that_is_no_module_is_not_tuned() -> None:
    class Plain:
        space, noise_size, resolution = EmbeddingSpace("tiny", DIMENSION, "unit"), NOISE, SIDE

        def __call__(self, noise: Tensor, embedding: Tensor) -> Tensor:
            return (noise @ torch.ones(NOISE, 3 * SIDE * SIDE)).view(-1, 3, SIDE, SIDE).tanh()

    _, encoder, target = tiny()
    found = invert(Plain(), encoder, target, InversionOptions(steps=2))
    with pytest.raises(OptionError, match="--tune"):
        tune(Plain(), encoder, found, 1)


def test_what_cannot_be_inverted_is_refused() -> None:
    generator, encoder, target = tiny()
    with pytest.raises(OptionError, match=r"\[3, 8, 8\]; needed: \[3, 16, 16\]"):
        invert(generator, encoder, target[:, :8, :8], InversionOptions())

    class WithoutMaps:
        space = EmbeddingSpace("tiny", DIMENSION, "unit")

        def __call__(self, image: Tensor) -> Tensor:
            return image.flatten(1)[:, :DIMENSION]

    with pytest.raises(OptionError, match="feature"):
        invert(generator, WithoutMaps(), target, InversionOptions())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"steps": 0}, "steps is 0; allowed: 1 to 10000"),
        ({"steps": True}, "steps is True"),
        ({"starts": 65}, "starts is 65; allowed: 1 to 64"),
    ],
)
def test_options_have_ranges(bad: dict[str, int], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        InversionOptions(**bad)


def test_steps_depend_on_whether_the_generator_guesses() -> None:
    space = EmbeddingSpace("tiny", DIMENSION, "unit")
    plain, guessing = TinyGenerator(space), Guessing(space)
    assert InversionOptions().steps_for(guessing) < InversionOptions().steps_for(plain)
    assert InversionOptions(steps=7).steps_for(plain) == 7


def test_psnr() -> None:
    image = torch.zeros(3, 4, 4)
    assert psnr_db(image + 0.2, image) == pytest.approx(20)
    assert psnr_db(image, image) == math.inf


def test_the_bundled_flow_walks_backwards(mini: Sound2Vision, boat: Tensor) -> None:
    """What the decoder makes of the photo's own latent comes out of the guessed noise."""
    generator = mini.generator
    assert isinstance(generator, GuessesNoise)
    with torch.no_grad():
        z = mini.image_encoder(boat[None])
        codec = generator.decoder(generator.encoder(boat[None]))  # type: ignore[attr-defined]
        image = generator(generator.guess_noise(boat[None], z), z)
    assert psnr_db(image, codec) > 35


def test_a_photo_is_found_again_by_the_bundled_model(
    mini: Sound2Vision, boat: Tensor, found_boat: Inversion
) -> None:
    with torch.no_grad():
        drawn = mini.generator(mini.noise(0, 2), mini.image_encoder(boat[None]).expand(2, -1))
    assert found_boat.psnr_db > max(psnr_db(image, boat) for image in drawn) + 6


def test_tuning_the_bundled_model_leaves_what_follows_sound(
    mini: Sound2Vision, found_boat: Inversion
) -> None:
    assert isinstance(mini.generator, Tunable)
    tuned, better = tune(mini.generator, mini.image_encoder, found_boat, 3)
    assert better.psnr_db > found_boat.psnr_db
    assert isinstance(tuned, nn.Module) and isinstance(mini.generator, nn.Module)
    old = dict(mini.generator.state_dict())
    changed = {key for key, value in tuned.state_dict().items() if not torch.equal(value, old[key])}
    assert changed and all(key.startswith("decoder.") for key in changed)


def test_the_published_architecture_is_inverted() -> None:
    """A narrow BigGAN and a narrow SwAV: gradients reach noise and embedding."""
    narrow = {"stem": 4, "widths": (8, 8, 8, 2048), "inner": (4, 4, 4, 4)}
    generator = seeded(BigGan(128, width=4, features=8), 5)
    encoder = seeded(SwavResNet50(**narrow), 6)  # type: ignore[arg-type]
    assert isinstance(generator, BigGan) and isinstance(encoder, SwavResNet50)
    chance = torch.Generator().manual_seed(7)
    noise = torch.randn(1, generator.noise_size, generator=chance)
    target = generator(noise, F.normalize(torch.rand(1, 2048, generator=chance), dim=1))[0]
    losses: list[float] = []
    found = invert(
        generator,
        encoder,
        target,
        InversionOptions(steps=12, starts=2),
        lambda *call: losses.append(call[2]),
    )
    assert losses[-1] < 0.9 * losses[0]
    assert found.noise.shape == (120,) and found.embedding.shape == (2048,)
    assert float(found.embedding.norm()) == pytest.approx(1, abs=1e-4)
