"""The map that closes the modality gap: from the mean shift to least squares."""

from __future__ import annotations

import pytest
import torch

from s2v_cli.training.bridge import ridge_to_identity


@pytest.fixture
def rows() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(200, 5, generator=generator)
    turn = torch.randn(5, 5, generator=generator)
    return source, source @ turn + torch.arange(5.0)


def test_much_pull_leaves_the_mean_gap(rows: tuple[torch.Tensor, torch.Tensor]) -> None:
    source, target = rows
    matrix, offset = ridge_to_identity(source, target, torch.full((200,), 0.005), 1e6)
    assert torch.allclose(matrix, torch.eye(5), atol=1e-3)
    assert torch.allclose(offset, (target - source).mean(dim=0), atol=1e-3)


def test_hardly_any_pull_finds_the_map(rows: tuple[torch.Tensor, torch.Tensor]) -> None:
    source, target = rows
    matrix, offset = ridge_to_identity(source, target, torch.full((200,), 0.005), 1e-9)
    assert torch.allclose(source @ matrix + offset, target, atol=1e-3)


def test_between_them_the_error_falls_with_the_pull(
    rows: tuple[torch.Tensor, torch.Tensor],
) -> None:
    source, target = rows
    errors = []
    for pull in (10.0, 1.0, 0.1):
        matrix, offset = ridge_to_identity(source, target, torch.full((200,), 0.005), pull)
        errors.append(float((source @ matrix + offset - target).square().mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 2


def test_rows_of_no_weight_do_not_count(rows: tuple[torch.Tensor, torch.Tensor]) -> None:
    source, target = rows
    weight = torch.cat([torch.ones(100), torch.zeros(100)])
    half = ridge_to_identity(source[:100], target[:100], torch.ones(100), 1.0)
    spoilt = torch.cat([target[:100], target[100:] + 50])
    for found, expected in zip(ridge_to_identity(source, spoilt, weight, 1.0), half, strict=True):
        assert torch.allclose(found, expected, atol=1e-5)
