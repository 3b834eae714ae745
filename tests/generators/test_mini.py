"""The parts of the bundled generator: the decoder's last filter, the flow's times and inputs."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from s2v_cli.generators.mini_codec import LatentDecoder, LatentEncoder, smooth, unit_scale
from s2v_cli.generators.mini_flow import LatentFlow, shifted_times


def test_smoothing_keeps_flat_pictures_and_takes_the_finest_grid() -> None:
    flat = torch.full((1, 3, 16, 16), 0.3)
    assert torch.allclose(smooth(flat), flat)
    grid = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1
    inner = smooth(grid.expand(1, 3, 16, 16))[:, :, 1:-1, 1:-1]
    assert inner.abs().max() < 1e-6


def test_smoothing_keeps_channels_apart_and_the_place_of_things() -> None:
    image = torch.zeros(1, 3, 9, 9)
    image[0, 1, 4, 4] = 16.0
    expected = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]])
    out = smooth(image)
    assert torch.equal(out[0, 1, 3:6, 3:6], expected)
    assert float(out.sum()) == pytest.approx(16.0)


def test_the_codec_keeps_its_shapes() -> None:
    image = torch.zeros(2, 3, 128, 128)
    latent = LatentEncoder()(image)
    assert latent.shape == (2, 16, 8, 8)
    assert LatentDecoder()(latent).shape == image.shape


def test_latents_have_one_scale_at_every_position() -> None:
    latent = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    scaled = unit_scale(5 * latent)
    assert torch.allclose(scaled.square().mean(dim=1), torch.ones(2, 8, 8), atol=1e-4)
    assert torch.allclose(scaled, unit_scale(latent), atol=1e-4)


def test_the_flow_hears_time_place_and_condition() -> None:
    torch.manual_seed(0)
    flow = LatentFlow(256)
    for parameter in flow.parameters():  # it starts at zero velocity
        torch.nn.init.normal_(parameter, std=0.1)
    latent, embedding = torch.randn(1, 16, 8, 8), torch.randn(1, 256) / 16
    with torch.no_grad():
        out = flow(latent, torch.tensor([0.5]), embedding)
        assert out.shape == latent.shape
        assert not torch.allclose(out, flow(latent, torch.tensor([0.9]), embedding), atol=1e-3)
        assert not torch.allclose(out, flow(latent, torch.tensor([0.5]), -embedding), atol=1e-3)
        moved = latent.roll((2, 2), dims=(2, 3))
        far = flow(moved, torch.tensor([0.5]), embedding).roll((-2, -2), dims=(2, 3))
        assert not torch.allclose(out, far, atol=1e-3)


@pytest.mark.parametrize("shift", [1.0, 2.0, 3.0])
def test_times_fall_from_one_to_zero_and_a_shift_keeps_them_near_the_noise(shift: float) -> None:
    times = shifted_times(4, shift)
    assert times[0] == 1.0 and times[-1] == 0.0
    assert all(a > b for a, b in pairwise(times))
    assert times[2] == pytest.approx(shift / (1 + shift))
