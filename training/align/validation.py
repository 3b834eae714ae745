"""How well a sound encoder finds the pictures of held-out sounds, while it is trained."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2v_cli.training.align.batches import Batches
from s2v_cli.training.losses import AlignmentLoss

MOST = 2000  # sounds that are compared with each other
PHOTOS = 100  # training pictures whose mean stands for a class
FEWEST = 2  # pairs that a loss can be told of


@torch.no_grad()
def validate(
    encoder: nn.Module,
    loss: AlignmentLoss,
    held_out: Batches,
    device: torch.device,
    share: int | None = None,
) -> dict[str, float]:
    """Figures of the validation split.

    Args:
        encoder: in eval mode.
        loss: of the training.
        held_out: batches of the validation split.
        device: where to compute.
        share: sounds that are heard at once; None is a batch.

    Returns:
        `validation_loss`, the mean over batches; `recall_1`, the share of the sounds whose own
        picture is the nearest of all pictures here (§4.1's R@1, of embeddings instead of
        words); where there are classes, `class_accuracy`, the mean over classes of the share of
        sounds that lie nearest to the mean training picture of their class; and `score`, that
        accuracy, or else the negated loss: higher is better; NaN where there is neither.
    """
    sounds, images, examples, losses = [], [], [], []
    for batch in held_out.once():
        image = batch.image_embedding.to(device)
        parts = batch.wave.to(device).split(share or len(batch.wave))
        sound = torch.cat([_hear(encoder, part) for part in parts])
        if len(sound) >= FEWEST:
            losses.append(float(loss(sound, image)))
        sounds.append(sound.cpu())
        images.append(image.cpu())
        examples.append(batch.example.numpy())
        if sum(map(len, sounds)) >= MOST:
            break
    sound, image, example = torch.cat(sounds), torch.cat(images), np.concatenate(examples)
    unit = loss.unit
    figures = {
        "recall_1": float((nearest(sound, image, unit) == torch.arange(len(sound))).float().mean())
    }
    if losses:
        figures["validation_loss"] = sum(losses) / len(losses)
    found = _class_accuracy(sound, example, held_out, unit)
    if found is not None:
        figures["class_accuracy"] = found
    figures["score"] = found if found is not None else -figures.get("validation_loss", math.nan)
    return figures


def _hear(encoder: nn.Module, wave: Tensor) -> Tensor:
    spectrogram = encoder.spectrogram(wave)  # type: ignore[operator]
    feature_map = encoder.feature_map(spectrogram)  # type: ignore[operator]
    embedding: Tensor = encoder.embed(feature_map)  # type: ignore[operator]
    return embedding.float()


def nearest(rows: Tensor, others: Tensor, unit: bool) -> Tensor:
    """The nearest of others [M, D] to each of rows [N, D], int64 [N]; by angle if `unit`."""
    if unit:
        rows, others = F.normalize(rows, dim=1), F.normalize(others, dim=1)
    return torch.cdist(rows, others).argmin(dim=1)


def _class_accuracy(
    sound: Tensor, example: np.ndarray, held_out: Batches, unit: bool
) -> float | None:
    dataset = held_out.dataset
    names = dataset.name[example]
    photos = dataset.images("train")
    photos = photos[~np.isin(photos, held_out.features.bad)]
    groups = {name: photos[dataset.name[photos] == name] for name in np.unique(names) if name >= 0}
    groups = {int(name): group for name, group in groups.items() if len(group)}
    if len(groups) < 2:
        return None
    means = []
    for group in groups.values():
        rows = held_out.features[group[:: -(-len(group) // PHOTOS)]]
        means.append((F.normalize(rows, dim=1) if unit else rows).mean(dim=0))
    guess = nearest(sound, torch.stack(means), unit)
    order = list(groups)
    right = {
        name: cast(float, np.mean([order[int(g)] == name for g in guess[names == name]]))
        for name in order
    }
    return float(np.mean(list(right.values())))
