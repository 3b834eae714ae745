"""Losses: the paper's InfoNCE (Eq. 1-2) and the group-contrastive loss of the image encoder."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(a: Tensor, b: Tensor, temperature: float = 1.0) -> Tensor:
    """InfoNCE over L2 distances, Eq. 1: a [B, D] against b [M, D], M >= B; pair j is (a_j, b_j).

    Rows of b beyond B are further negatives. The paper's temperature is 1.

    Returns:
        Loss of each row of a, [B].
    """
    squared = (
        a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2 * a @ b.T
    )  # [B, M]; expanded, since cdist has no stable gradient at distance 0
    logits = -squared.clamp_min(1e-8).sqrt() / temperature
    return F.cross_entropy(logits, torch.arange(len(a), device=a.device), reduction="none")


def audio_visual_loss(
    sound: Tensor, image: Tensor, temperature: float = 1.0, unpaired: Tensor | None = None
) -> Tensor:
    """Eq. 2: mean over the pairs of (L^A + L^V) / 2, on unit-norm features [B, D].

    Args:
        sound: z^A, one for each pair, [B, D].
        image: z^V, [B, D].
        temperature: divides the distances; 1 in the paper.
        unpaired: embeddings [U, D] of sounds that no photo belongs to: negatives of L^V. A
            departure from the paper, so that strange sounds do not land among the taught ones.
    """
    sound, image = F.normalize(sound, dim=1), F.normalize(image, dim=1)
    others = sound if unpaired is None else torch.cat([sound, F.normalize(unpaired, dim=1)])
    return (info_nce(sound, image, temperature) + info_nce(image, others, temperature)).mean() / 2


def group_contrastive(
    embedding: Tensor, group: Tensor, centres: Tensor, temperature: float = 0.1
) -> Tensor:
    """Contrast unit embeddings [B, D] by group [B], with each other and with centres [G, D].

    Among each other: the supervised contrastive loss (Khosla et al., 2020, Eq. 2), every other
    member of a row's group being a positive. With the centres: the same with the row's own centre
    as its one positive (Proxy-NCA with a softmax; Movshovitz-Attias et al., 2017), which learns
    much faster from small batches. The mean of both.
    """
    logits = embedding @ embedding.T / temperature
    itself = torch.eye(len(embedding), dtype=torch.bool, device=embedding.device)
    positive = (group[:, None] == group[None]) & ~itself
    log_share = logits - logits.masked_fill(itself, float("-inf")).logsumexp(1, keepdim=True)
    count = positive.sum(1)
    mean = (log_share * positive).sum(1) / count.clamp_min(1)
    to_centres = embedding @ F.normalize(centres, dim=1).T / temperature
    return (F.cross_entropy(to_centres, group) - mean[count > 0].mean()) / 2
