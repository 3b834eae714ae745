"""What is fitted after training: the map over the gap, and the prior."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from s2v_cli.encoders.mini_sound import MiniSoundEncoder
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.training.align.batches import Batches
from s2v_cli.training.align.closing import close_gap, prototypes, spherical_means
from s2v_cli.training.align.options import AlignOptions
from s2v_cli.training.bridge import PRIOR_SHARE
from tests.training.align.conftest import Drawn, with_features
from tests.training.drawn_pairs import write_pairs

OPTIONS = AlignOptions(batch=8, duration_s=0.5, workers=0)


def fresh_encoder() -> MiniSoundEncoder:
    torch.manual_seed(0)
    encoder = MiniSoundEncoder().eval().requires_grad_(False)
    encoder.window_s = 0.5
    return encoder


@torch.no_grad()
def gap(encoder: MiniSoundEncoder, batches: Batches) -> float:
    """Distance between the mean sound, before the prior, and the mean picture."""
    found = list(batches.once())
    waves = torch.cat([batch.wave for batch in found])
    images = F.normalize(torch.cat([batch.image_embedding for batch in found]), dim=1)
    heard = encoder.heard(encoder.pooled(encoder.feature_map(encoder.spectrogram(waves))))
    return float((heard.mean(dim=0) - images.mean(dim=0)).norm())


def test_the_map_closes_most_of_the_gap(by_file: Drawn) -> None:
    batches, encoder = Batches(*by_file, OPTIONS), fresh_encoder()
    before = gap(encoder, batches)
    close_gap(encoder, batches)
    assert gap(encoder, batches) < before / 3
    assert float(encoder.prior_share) == np.float32(PRIOR_SHARE)


def test_it_is_the_same_again(by_class: Drawn) -> None:
    batches, encoder = Batches(*by_class, OPTIONS), fresh_encoder()
    close_gap(encoder, batches)
    first = {name: value.clone() for name, value in encoder.state_dict().items()}
    close_gap(encoder, batches)  # what was fitted before plays no part
    assert all(torch.equal(first[name], value) for name, value in encoder.state_dict().items())


def test_too_few_pairs_leave_the_encoder_as_it_is(
    tmp_path: Path, mini_teacher: Sound2Vision
) -> None:
    drawn = with_features(write_pairs(tmp_path / "data", train=10, validation=0), mini_teacher)
    encoder = fresh_encoder()
    close_gap(encoder, Batches(*drawn, dataclasses.replace(OPTIONS, batch=4)))
    assert float(encoder.prior_share) == 0
    assert float(encoder.bridge.abs().max()) == 0


def test_prototypes_are_the_means_of_the_classes(by_class: Drawn) -> None:
    batches = Batches(*by_class, OPTIONS)
    found = prototypes(batches)
    assert found.shape == (3, 256)
    dataset, features = by_class
    images = dataset.images("train")
    for row, name in enumerate(sorted(set(dataset.name[images].tolist()))):
        own = F.normalize(features[images[dataset.name[images] == name]], dim=1)
        torch.testing.assert_close(found[row], F.normalize(own.mean(dim=0), dim=0))


def test_prototypes_of_pairs_are_centres(by_file: Drawn) -> None:
    norms = prototypes(Batches(*by_file, OPTIONS)).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(24))  # as many as there are pictures


def test_spherical_means_find_clusters() -> None:
    generator = torch.Generator().manual_seed(0)
    axes = torch.eye(8)[:3]
    rows = axes.repeat(20, 1) + 0.1 * torch.randn(60, 8, generator=generator)
    centres = spherical_means(F.normalize(rows, dim=1), 3)
    assert bool(((centres @ axes.T).amax(dim=0) > 0.99).all())
    assert len(spherical_means(rows[:2], 5)) == 2
