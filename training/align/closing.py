"""What is fitted after training where a sound encoder has a place for it (`mini`'s).

The contrastive loss leaves sounds beside their pictures (§4.4). A linear map, by ridge regression
on the training pairs, closes the rest of the gap, and a small prior draws each sound towards the
mean z^V of the kinds of pictures that it lies nearest to, as `training.bridge` does it for the
bundled model.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from s2v_cli.encoders.mini_sound import PROTOTYPES, MiniSoundEncoder
from s2v_cli.training.align.batches import Batches
from s2v_cli.training.bridge import PRIOR_SHARE, PULL, ridge_to_identity

FEWEST = 20  # pairs that a map is fitted to
MOST = 4000  # pairs or pictures that are looked at
ROUNDS = 20  # of k-means
BATCH = 16  # sounds heard at once


@torch.no_grad()
def close_gap(encoder: MiniSoundEncoder, batches: Batches) -> None:
    """Fill in `bridge`, `bridge_offset`, `prototypes` and `prior_share` from the training split.

    Args:
        encoder: in eval mode.
        batches: of the training split.
    """
    size = encoder.space.dimension
    encoder.bridge, encoder.bridge_offset = (
        torch.zeros_like(encoder.bridge),
        torch.zeros_like(encoder.bridge_offset),
    )
    encoder.prior_share = torch.zeros_like(encoder.prior_share)
    sounds, images, names = [], [], []
    device = encoder.head.weight.device
    for batch in batches.once(BATCH):
        spectrogram = encoder.spectrogram(batch.wave.to(device))
        sounds.append(encoder.embed(encoder.feature_map(spectrogram)).float().cpu())
        images.append(_mean_images(batches, batch.example.numpy()))
        names.append(batches.dataset.name[batch.example.numpy()])
        if sum(map(len, sounds)) >= MOST:
            break
    if sum(map(len, sounds)) < FEWEST:
        return
    weight = _even(np.concatenate(names))
    matrix, offset = ridge_to_identity(torch.cat(sounds), torch.cat(images), weight, PULL)
    encoder.bridge = (matrix - torch.eye(size)).to(device)
    encoder.bridge_offset = offset.to(device)
    encoder.set_prior(prototypes(batches).to(device), PRIOR_SHARE)


def _mean_images(batches: Batches, examples: np.ndarray) -> Tensor:
    """Unit mean z^V [b, D] of up to 32 pictures that each sound may go with."""
    means = []
    for example in examples.tolist():
        partners = batches.dataset.partners(example)
        partners = partners[~np.isin(partners, batches.features.bad)]
        chosen = partners[:: -(-len(partners) // 32)]
        means.append(batches.features[chosen].mean(dim=0))
    return F.normalize(torch.stack(means), dim=1)


def _even(names: np.ndarray) -> Tensor:
    """Weights [N] by which each class counts once, and so does each sound without a class."""
    _, places, counts = np.unique(names, return_inverse=True, return_counts=True)
    return torch.from_numpy(np.where(names < 0, 1.0, 1 / counts[places])).float()


def prototypes(batches: Batches) -> Tensor:
    """Unit z^V [up to 58, D] that stand for kinds of pictures.

    The mean of each class's training pictures where there are 2 to 58 classes; else the centres
    of spherical k-means over the training pictures.
    """
    images = batches.dataset.images("train")
    images = images[~np.isin(images, batches.features.bad)]
    images = images[:: max(1, -(-len(images) // MOST))]
    embedding = F.normalize(batches.features[images], dim=1)
    names = batches.dataset.name[images]
    present = sorted({int(name) for name in names if name >= 0})
    if 2 <= len(present) <= PROTOTYPES and (names >= 0).all():
        rows = [embedding[torch.from_numpy(names == name)].mean(dim=0) for name in present]
        centres = torch.stack(rows)
    else:
        centres = spherical_means(embedding, PROTOTYPES)
    return F.normalize(centres, dim=1)


def spherical_means(rows: Tensor, count: int) -> Tensor:
    """Centres [up to `count`, D] of unit rows [N, D] by k-means over cosines.

    It begins with rows at even distances and is the same for the same rows.
    """
    count = min(count, len(rows))
    centres = rows[torch.linspace(0, len(rows) - 1, count).round().long()]
    for _ in range(ROUNDS):
        nearest = (rows @ centres.T).argmax(dim=1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, rows)
        filled = torch.bincount(nearest, minlength=count) > 0
        centres = torch.where(filled[:, None], F.normalize(sums, dim=1), centres)
    return centres
