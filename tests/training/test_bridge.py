"""What brings sounds among their photos: a map, a prior; and how familiar a sound is."""

from __future__ import annotations

import pytest
import torch

from s2v_cli.encoders.mini_sound import MiniSoundEncoder
from s2v_cli.training.bridge import ridge_to_identity
from s2v_cli.training.familiarity import CALLED_FAMILIAR, fit_logistic


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


def test_the_prior_draws_to_the_nearest_kinds_of_photos() -> None:
    encoder = MiniSoundEncoder().eval()
    embedding = torch.nn.functional.normalize(torch.tensor([[0.6, 0.5, 0.3] + [0.0] * 253]), dim=1)
    features = torch.zeros(1, 384)
    drawn = encoder._draw_to_prototypes(embedding, features)
    assert torch.allclose(drawn, embedding)  # not filled in yet
    encoder.set_prior(torch.eye(3, 256), 0.7)
    drawn = encoder._draw_to_prototypes(embedding, features)[0]
    assert float(drawn.norm()) == pytest.approx(1.0)
    assert float(drawn[0]) > 0.9
    assert float(drawn[0]) > float(drawn[1]) > float(drawn[2]) > 0
    between = torch.nn.functional.normalize(torch.tensor([[0.5, 0.5] + [0.0] * 254]), dim=1)
    both = encoder._draw_to_prototypes(between, features)[0]
    assert float(both[0]) == pytest.approx(float(both[1]))  # could be either: stays between


def test_what_the_features_name_decides_between_kinds_that_are_as_near() -> None:
    encoder = MiniSoundEncoder().eval()
    reader = torch.zeros(3, 384)
    reader[1, 7] = 4.0
    encoder.set_prior(torch.eye(3, 256), 0.7, reader, torch.tensor([0.0, -1.0, 0.0]))
    between = torch.nn.functional.normalize(torch.tensor([[0.5, 0.5] + [0.0] * 254]), dim=1)
    features = torch.zeros(2, 384)
    features[1, 7] = 1.0
    silent, named = encoder._draw_to_prototypes(between.repeat(2, 1), features)
    odds = (torch.tensor([0.0, -1.0]).exp(), torch.tensor([0.0, 3.0]).exp())
    for drawn, (first, second) in zip((silent, named), odds, strict=True):
        expected = torch.nn.functional.normalize(torch.stack([first, second]), dim=0)
        left = torch.nn.functional.normalize(0.3 * between[0, :2] + 0.7 * expected, dim=0)
        assert torch.allclose(drawn[:2], left, atol=1e-4)


def test_a_prior_of_more_kinds_than_the_bundled_one_makes_room() -> None:
    encoder = MiniSoundEncoder().eval()
    rows = torch.nn.functional.normalize(torch.randn(70, 256), dim=1)
    encoder.set_prior(rows, 0.5, torch.ones(70, 384), torch.arange(70.0))
    assert torch.equal(encoder.prototypes, rows)
    same = MiniSoundEncoder.like(encoder.state_dict()).to_empty(device="cpu")
    same.load_state_dict(encoder.state_dict())
    assert torch.equal(same.reader_offset, torch.arange(70.0))
    encoder.set_prior(rows[:3], 0.5)
    assert encoder.prototypes.shape == (58, 256) and not encoder.reader.any()


def test_most_taught_sounds_get_no_warning() -> None:
    generator = torch.Generator().manual_seed(0)
    taught = 0.7 + 0.1 * torch.randn(200, generator=generator)
    others = 0.5 + 0.1 * torch.randn(300, generator=generator)
    positive = torch.arange(500) < 200
    scale, offset, threshold = fit_logistic(torch.cat([taught, others]), positive)
    assert float(scale) > 0
    share = (torch.sigmoid(scale * taught + offset) >= threshold).float().mean()
    assert float(share) == pytest.approx(CALLED_FAMILIAR, abs=0.01)
    assert float((torch.sigmoid(scale * others + offset) < threshold).float().mean()) > 0.7


def test_the_prior_changes_the_embedding_and_not_the_familiarity() -> None:
    torch.manual_seed(0)
    encoder = MiniSoundEncoder().eval()
    encoder.centres[0] = 1 / 16
    encoder.calibration.copy_(torch.tensor([5.0, 0.0, 0.5]))
    wave = 0.1 * torch.randn(2, 16_000)
    with torch.no_grad():
        before, share = encoder.recognise(wave)
        encoder.prototypes[0, 3] = 1.0
        encoder.prior_share.fill_(0.7)
        after, same_share = encoder.recognise(wave)
        assert torch.equal(after, encoder(wave))
    assert not torch.allclose(before, after, atol=0.1)
    assert torch.equal(share, same_share)
    assert bool(((share > 0) & (share < 1)).all())
