"""Ways to draw with a photo, on a tiny random diffusion model of the published layout."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from s2v_cli.generators.unclip import UnclipGenerator
from s2v_cli.options import GenerateOptions
from s2v_cli.photo import PhotoOptions, compose_with, start_from
from tests import tiny_diffusion

pytestmark = pytest.mark.slow  # diffusers takes seconds to import
OPTIONS = GenerateOptions(steps=3, guidance=2.0)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> UnclipGenerator:
    folder = tmp_path_factory.mktemp("models")
    return UnclipGenerator.load(
        tiny_diffusion.write_unclip(folder / "unclip"),
        device=torch.device("cpu"),
        dtype=torch.float32,
        cache=folder / "cache",
    )


@pytest.fixture(scope="module")
def noise(generator: UnclipGenerator) -> Tensor:
    seeded = torch.Generator().manual_seed(0)
    return torch.randn(2, generator.noise_size, generator=seeded)


@pytest.fixture(scope="module")
def photo() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    patches = torch.rand(1, 3, 4, 4, generator=generator) * 2 - 1
    return torch.nn.functional.interpolate(patches, (64, 64), mode="bilinear")[0]


@torch.no_grad()
def test_composed_with_one_weight_is_plain_drawing(
    generator: UnclipGenerator, noise: Tensor
) -> None:
    image, sound = tiny_diffusion.draw_embedding(2)
    for weight, alone in ((1.0, image), (0.0, sound)):
        draw = compose_with(generator, image, sound, weight)
        composed = draw(noise, torch.zeros(2, 1024), OPTIONS)
        plain = generator.draw(noise, alone.expand(2, -1), OPTIONS)
        assert torch.allclose(composed, plain, atol=1e-4)
    both = compose_with(generator, image, sound, 0.5)(noise, torch.zeros(2, 1024), OPTIONS)
    assert not torch.allclose(both, plain, atol=1e-2)


@torch.no_grad()
def test_sdedit_keeps_what_it_is_told(
    generator: UnclipGenerator, noise: Tensor, photo: Tensor
) -> None:
    sound = tiny_diffusion.draw_embedding(2)
    whole = start_from(generator, photo, PhotoOptions("sdedit", keep=1.0))(noise, sound, OPTIONS)
    assert torch.allclose(whole[0], whole[1], atol=1e-5)  # the photo itself, twice
    moved = []
    for keep in (0.9, 0.0):
        draw = start_from(generator, photo, PhotoOptions("sdedit", keep=keep))
        moved.append(float((draw(noise, sound, OPTIONS) - whole).abs().mean()))
    assert 0 < moved[0] < moved[1]
    half = PhotoOptions("sdedit", keep=0.3, box=(0, 0, 1, 0.5))
    change = (start_from(generator, photo, half)(noise, sound, OPTIONS) - whole).abs()
    rows = change.mean(dim=(0, 1, 3))
    assert float(rows[: len(rows) // 3].mean()) > 3 * float(rows[-len(rows) // 3 :].mean())
