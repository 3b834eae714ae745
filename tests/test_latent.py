"""Arithmetic on embeddings."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s2v_cli.latent import interpolate, unit_norm

WEIGHTS = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])


def pair(seed: int, unit: bool) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    both = torch.randn(2, 64, generator=generator) * torch.tensor([[1.0], [3.0]])
    one, other = unit_norm(both) if unit else both
    return one, other


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.booleans(), st.sampled_from(["linear", "spherical"]))
def test_the_ends_come_back_bit_by_bit(seed: int, unit: bool, path: str) -> None:
    first, second = pair(seed, unit)
    row = interpolate(first, second, WEIGHTS, unit=unit, path=path)  # type: ignore[arg-type]
    assert row.shape == (5, 64)
    assert torch.equal(row[0], first)
    assert torch.equal(row[-1], second)
    if unit:
        assert torch.allclose(row.norm(dim=-1), torch.ones(5), atol=1e-6)


def test_a_line_in_a_space_without_norm() -> None:
    first, second = pair(1, unit=False)
    row = interpolate(first, second, WEIGHTS, unit=False)
    assert torch.allclose(row[1], 0.75 * first + 0.25 * second)


def test_a_unit_space_keeps_the_direction_of_the_line() -> None:
    first, second = pair(2, unit=True)
    row = interpolate(first, second, WEIGHTS, unit=True)
    assert torch.allclose(row[3], unit_norm(0.25 * first + 0.75 * second), atol=1e-6)


@pytest.mark.parametrize("unit", [True, False])
def test_an_arc_divides_the_angle_and_the_norm(unit: bool) -> None:
    first, second = pair(3, unit)
    row = interpolate(first, second, WEIGHTS, unit=unit, path="spherical")
    angle = torch.arccos(unit_norm(first) @ unit_norm(second))
    to_first = torch.arccos((unit_norm(row) @ unit_norm(first)).clamp(-1, 1))
    assert torch.allclose(to_first, (1 - WEIGHTS) * angle, atol=2e-3)
    norms = WEIGHTS * first.norm() + (1 - WEIGHTS) * second.norm()
    assert torch.allclose(row.norm(dim=-1), norms, atol=1e-5)


def test_parallel_embeddings() -> None:
    first, _ = pair(4, unit=True)
    row = interpolate(first, first.clone(), WEIGHTS, unit=True, path="spherical")
    assert torch.allclose(row, first.expand(5, -1), atol=1e-6)
    raw = interpolate(first, 3 * first, WEIGHTS, unit=False, path="spherical")
    assert torch.allclose(raw.norm(dim=-1), 3 - 2 * WEIGHTS, atol=1e-5)
