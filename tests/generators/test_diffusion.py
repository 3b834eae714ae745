"""Edits by diffusion: part of the way, inside a box, several conditions, back into noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from s2v_cli.errors import OptionError
from s2v_cli.generators.ip_adapter import IpAdapterGenerator
from s2v_cli.generators.unclip import UnclipGenerator
from s2v_cli.options import GenerateOptions
from tests import tiny_diffusion

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
EMBEDDING = tiny_diffusion.draw_embedding()
FEW = GenerateOptions(steps=4, guidance=3.0)
SAMPLERS = ("default", "ddim", "dpm++", "euler", "heun", "pndm", "unipc")


@pytest.fixture(scope="module")
def generator(unclip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> UnclipGenerator:
    return UnclipGenerator.load(
        unclip_folder, device=CPU, dtype=torch.float32, cache=tmp_path_factory.mktemp("cache")
    )


@pytest.fixture(scope="module")
def noise(generator: UnclipGenerator) -> Tensor:
    return torch.randn(1, generator.noise_size, generator=torch.Generator().manual_seed(0))


def options(**given: Any) -> GenerateOptions:
    return GenerateOptions(**{"steps": 4, "guidance": 3.0, **given})


def test_keeping_all_is_the_photo_and_keeping_nothing_is_a_plain_picture(
    generator: UnclipGenerator, photo: Tensor, noise: Tensor
) -> None:
    kept = generator.sdedit(photo, noise, EMBEDDING, 1.0, FEW)
    assert torch.equal(kept, generator.parts.decode(generator.parts.encode(photo)))
    drawn = generator.sdedit(photo, noise, EMBEDDING, 0.0, FEW)
    assert torch.equal(drawn, generator.draw(noise, EMBEDDING, FEW))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_more_is_kept_the_nearer_is_the_photo(
    generator: UnclipGenerator, photo: Tensor, noise: Tensor, sampler: str
) -> None:
    latents = generator.parts.encode(photo)
    taken = options(sampler=sampler)
    distances = [
        float((generator.edit_latents(photo, noise, EMBEDDING, keep, taken) - latents).norm())
        for keep in (0.8, 0.5, 0.25, 0.0)
    ]
    assert distances == sorted(distances)
    assert distances[0] < 0.75 * distances[-1]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_outside_the_box_latents_stay_those_of_the_photo(
    generator: UnclipGenerator, photo: Tensor, noise: Tensor, sampler: str, keep: float
) -> None:
    photo_latents = generator.parts.encode(photo)
    box = (0.25, 0.5, 0.5, 0.25)  # columns 4 to 11 and rows 8 to 11 of 16
    edited = generator.edit_latents(
        photo, noise, EMBEDDING, keep, options(sampler=sampler), box=box
    )
    moved = (edited - photo_latents).abs().amax(dim=(0, 1))
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[8:12, 4:12] = True
    assert float(moved[~inside].max()) == 0
    assert float(moved[inside].min()) > 1e-3


def test_what_is_in_the_box_fits_to_what_is_around_it(
    generator: UnclipGenerator, photo: Tensor, noise: Tensor
) -> None:
    """The denoiser sees the noised photo around the box, so the inside is no cut of `draw`."""
    box = (0.25, 0.25, 0.5, 0.5)
    inside = (..., slice(4, 12), slice(4, 12))
    edited = generator.edit_latents(photo, noise, EMBEDDING, 0.0, FEW, box=box)
    free = generator.edit_latents(photo, noise, EMBEDDING, 0.0, FEW)
    assert (edited[inside] - free[inside]).abs().mean() > 1e-3


@pytest.mark.parametrize(
    "box", [(0, 0, 0, 1), (0.5, 0, 0.6, 1), (-0.1, 0, 0.5, 0.5), (0, 0, float("nan"), 1)]
)
def test_boxes_outside_the_picture_are_refused(
    generator: UnclipGenerator, photo: Tensor, noise: Tensor, box: tuple[float, ...]
) -> None:
    with pytest.raises(OptionError, match="box is"):
        generator.sdedit(photo, noise, EMBEDDING, 0.5, FEW, box=box)  # type: ignore[arg-type]


@pytest.mark.parametrize("keep", [-0.1, 1.1, float("nan")])
def test_shares_outside_their_range_are_refused(
    generator: UnclipGenerator, photo: Tensor, noise: Tensor, keep: float
) -> None:
    with pytest.raises(OptionError, match=r"keep is .*; allowed: 0 to 1"):
        generator.sdedit(photo, noise, EMBEDDING, keep, FEW)


def test_photos_of_another_size_are_resized(
    generator: UnclipGenerator, photo: Tensor, noise: Tensor
) -> None:
    large = torch.nn.functional.interpolate(photo, (96, 96), mode="bilinear")
    found, expected = (generator.parts.encode(image) for image in (large, photo))
    assert found.shape == (1, 4, 16, 16)
    assert (found - expected).norm() < 0.1 * expected.norm()


def test_one_condition_composed_is_a_plain_picture(
    generator: UnclipGenerator, noise: Tensor
) -> None:
    drawn = generator.draw(noise, EMBEDDING, FEW)
    assert torch.equal(generator.compose(noise, EMBEDDING[None], [1.0], FEW), drawn)


def test_conditions_are_weighed(generator: UnclipGenerator, noise: Tensor) -> None:
    other = tiny_diffusion.draw_embedding(seed=9)
    pair = torch.stack([EMBEDDING, other])
    first, second = (generator.draw(noise, one, FEW) for one in (EMBEDDING, other))
    for weights, expected in (([1.0, 0.0], first), ([0.0, 1.0], second)):
        assert (generator.compose(noise, pair, weights, FEW) - expected).abs().max() < 1e-4
    halves = generator.compose(noise, pair, [0.5, 0.5], FEW)
    apart = (first - second).norm()
    assert (halves - first).norm() < apart and (halves - second).norm() < apart
    twice = generator.compose(noise, torch.stack([EMBEDDING, EMBEDDING]), [0.5, 0.5], FEW)
    assert (twice - first).abs().max() < 1e-4


def test_a_batch_is_composed_as_its_pictures_alone(generator: UnclipGenerator) -> None:
    seeded = torch.Generator().manual_seed(1)
    noise = torch.randn(2, generator.noise_size, generator=seeded)
    embeddings = torch.stack([tiny_diffusion.draw_embedding(2, seed) for seed in (2, 3)])
    together = generator.compose(noise, embeddings, [0.7, 0.6], FEW)
    for index in range(2):
        alone = generator.compose(noise[index, None], embeddings[:, index, None], [0.7, 0.6], FEW)
        assert (together[index] - alone[0]).abs().max() < 1e-4


@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
def test_inversion_finds_the_noise_that_makes_the_photo(
    tmp_path: Path, photo: Tensor, prediction: str
) -> None:
    folder = tiny_diffusion.write_unclip(tmp_path / "model", prediction=prediction)
    generator = UnclipGenerator.load(folder, device=CPU, dtype=torch.float32)
    # A trained denoiser changes little where its input does; a random one must be made so.
    generator.parts.unet.conv_out.weight.mul_(0.1)
    generator.parts.unet.conv_out.bias.mul_(0.1)
    taken = GenerateOptions(steps=10, guidance=1.0, sampler="ddim", prompt="a cat")
    noise = generator.invert(photo, EMBEDDING, taken)
    assert noise.shape == (1, generator.noise_size)
    reconstruction = generator.parts.decode(generator.parts.encode(photo))
    found = generator.draw(noise, EMBEDDING, taken)
    assert (found - reconstruction).abs().mean() < 0.005
    other = generator.draw(noise.flip(1), EMBEDDING, taken)
    assert (other - reconstruction).abs().mean() > 0.1


def test_inversion_is_without_guidance_unless_told(
    generator: UnclipGenerator, photo: Tensor
) -> None:
    plain = generator.invert(photo, EMBEDDING, GenerateOptions(steps=2))
    for guidance, same in ((1.0, True), (4.0, False)):
        told = generator.invert(photo, EMBEDDING, GenerateOptions(steps=2, guidance=guidance))
        assert torch.equal(told, plain) is same


def test_edits_count_their_steps(generator: UnclipGenerator, photo: Tensor, noise: Tensor) -> None:
    seen: list[tuple[int, int]] = []
    count = lambda done, total: seen.append((done, total))  # noqa: E731
    taken = options(sampler="ddim")
    generator.sdedit(photo, noise, EMBEDDING, 0.5, taken, progress=count)
    generator.invert(photo, EMBEDDING, taken, progress=count)
    assert seen == [(1, 2), (2, 2), (1, 4), (2, 4), (3, 4), (4, 4)]


def test_edits_work_on_ip_adapter_too(
    diffusion_folder: Path, adapter_file: Path, photo: Tensor, tmp_path: Path
) -> None:
    generator = IpAdapterGenerator.load(
        diffusion_folder, adapter_file, device=CPU, dtype=torch.float32, cache=tmp_path
    )
    noise = generator.invert(photo, EMBEDDING, GenerateOptions(steps=2))
    assert noise.shape == (1, generator.noise_size)
    kept = generator.sdedit(photo, noise, EMBEDDING, 1.0, FEW)
    half = generator.sdedit(photo, noise, EMBEDDING, 0.5, FEW)
    drawn = generator.draw(noise, EMBEDDING, FEW)
    assert (half - kept).norm() < (drawn - kept).norm()
    pair = torch.stack([EMBEDDING, tiny_diffusion.draw_embedding(seed=9)])
    composed = generator.compose(noise, pair, [1.0, 0.0], FEW)
    assert (composed - drawn).abs().max() < 1e-3
