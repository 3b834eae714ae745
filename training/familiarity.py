"""How familiar a sound is: calibrated on validation sounds with and without photos."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from s2v_cli.encoders.mini_sound import MiniSoundEncoder
from s2v_cli.training.bridge import MOST_FAMILIES, cluster_means
from s2v_cli.training.dataset import OWN, Clip
from s2v_cli.training.sound_stage import embed_clips

CALLED_FAMILIAR = 0.8  # share of the validation sounds of taught kinds that get no warning


def fit_familiarity(
    encoder: MiniSoundEncoder,
    clips: Sequence[Clip],
    waves: Sequence[Tensor],
    called_familiar: float = CALLED_FAMILIAR,
) -> float:
    """Fill in the encoder's `centres` and `calibration`; returns the AUC on validation sounds.

    The share `called_familiar` of the validation sounds of taught kinds will get no warning. To be
    called before the prior is there, since familiarity is heard without it.

    Centres are the mean embeddings of each paired class's training clips. The logistic curve over
    the cosine to the nearest centre and the threshold are fitted on validation sounds, the paired
    classes against the others, both sides weighing the same. Where one side has no validation
    sounds, nothing is fitted, and no sound gets a warning; the AUC is then not a number. Where
    sounds have no classes, or there are very many, clusters of them stand for the classes.
    """
    embedding, kept = embed_clips(encoder, clips, waves, "train")
    names = sorted({clip.sound_class for clip in clips if clip.photo_class})
    if len(names) > MOST_FAMILIES or any(name.startswith(OWN) for name in names):
        own = torch.tensor([clips[i].photo_class is not None for i in kept])
        means = cluster_means(embedding[own], encoder.families)
        centres = torch.zeros(encoder.families, embedding.shape[1])
        centres[: len(means)] = means
    else:
        places = {name: place for place, name in enumerate(names)}
        centres = torch.zeros(max(encoder.families, len(names)), embedding.shape[1])
        for row, index in zip(embedding, kept, strict=True):
            if clips[index].photo_class:
                centres[places[clips[index].sound_class]] += row
    encoder.centres = F.normalize(centres, dim=1)
    embedding, kept = embed_clips(encoder, clips, waves, "validation")
    paired = torch.tensor([clips[i].photo_class is not None for i in kept]).bool()
    if not paired.any() or paired.all():
        return math.nan
    nearest = (embedding @ encoder.centres.T).amax(dim=1)
    encoder.calibration = fit_logistic(nearest, paired, called_familiar)
    return rank_auc(nearest[paired], nearest[~paired])


def fit_logistic(
    score: Tensor, positive: Tensor, called_familiar: float = CALLED_FAMILIAR
) -> Tensor:
    """Scale and offset of a logistic curve over score [N], and the threshold: [3].

    The share `called_familiar` of the positives lies above the threshold.
    """
    weight = torch.where(positive, 0.5 / positive.sum(), 0.5 / (~positive).sum()).double()
    values = torch.stack([score.double(), torch.ones(len(score)).double()], dim=1)
    target = positive.double()
    parameters = torch.zeros(2, dtype=torch.float64)
    for _ in range(50):  # Newton's method; a small ridge keeps separable data finite
        share = torch.sigmoid(values @ parameters)
        gradient = values.T @ (weight * (share - target)) + 1e-4 * parameters
        curvature = (values * (weight * share * (1 - share))[:, None]).T @ values
        step = torch.linalg.solve(curvature + 1e-4 * torch.eye(2).double(), gradient)
        parameters = parameters - step
    share = torch.sigmoid(values @ parameters)
    threshold = torch.quantile(share[positive], 1 - called_familiar)
    return torch.tensor([parameters[0], parameters[1], threshold], dtype=torch.float32)


def rank_auc(positive: Tensor, negative: Tensor) -> float:
    """Chance that one of positive [P] scores above one of negative [N], ties counting half."""
    difference = positive[:, None] - negative[None]
    return float((difference > 0).double().mean() + 0.5 * (difference == 0).double().mean())
