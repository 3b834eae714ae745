"""Losses: the paper's InfoNCE (Eq. 1-2) and the group-contrastive loss of the image encoder."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2v_cli.errors import OptionError

LOSSES = ("l2-infonce", "cosine-infonce", "raw-infonce", "l2")  # of `AlignmentLoss`
TEMPERATURES = (0.01, 100.0)  # that a learnt one stays between


def info_nce(
    a: Tensor, b: Tensor, temperature: float | Tensor = 1.0, target: Tensor | None = None
) -> Tensor:
    """InfoNCE over L2 distances, Eq. 1: a [B, D] against b [M, D], M >= B; pair j is (a_j, b_j).

    Args:
        a: features of the pairs.
        b: those that they are told from; rows beyond B are further negatives.
        temperature: divides the distances; 1 in the paper.
        target: what share of a_j each row of b belongs to, [B, M], rows sum to 1; or the row of b
            that is its one positive, int64 [B]; None is row j, as in the paper.

    Returns:
        Loss of each row of a, [B].
    """
    squared = (
        a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2 * a @ b.T
    )  # [B, M]; expanded, since cdist has no stable gradient at distance 0
    logits = -squared.clamp_min(1e-8).sqrt() / temperature
    if target is None:
        target = torch.arange(len(a), device=a.device)
    return F.cross_entropy(logits, target, reduction="none")


def audio_visual_loss(
    sound: Tensor,
    image: Tensor,
    temperature: float = 1.0,
    unpaired: Tensor | None = None,
    shares: Tensor | None = None,
) -> Tensor:
    """Eq. 2: mean over the pairs of (L^A + L^V) / 2, on unit-norm features [B, D].

    Args:
        sound: z^A, one for each pair, [B, D].
        image: z^V, [B, D].
        temperature: divides the distances; 1 in the paper.
        unpaired: embeddings [U, D] of sounds that no photo belongs to: negatives of L^V. A
            departure from the paper, so that strange sounds do not land among the taught ones.
        shares: where sounds are mixtures, how much of sound j belongs to image k, [B, B], rows
            sum to 1 and columns to more than 0. Both losses then have several positives in these
            proportions (after between-class learning; Tokozume et al., 2018, Eq. 2). A
            departure too; None is the paper's loss.
    """
    sound, image = F.normalize(sound, dim=1), F.normalize(image, dim=1)
    others = sound if unpaired is None else torch.cat([sound, F.normalize(unpaired, dim=1)])
    to_sounds = None
    if shares is not None:
        to_sounds = shares.T / shares.sum(dim=0)[:, None]
        to_sounds = F.pad(to_sounds, (0, len(others) - len(sound)))
    of_sounds = info_nce(sound, image, temperature, shares)
    of_images = info_nce(image, others, temperature, to_sounds)
    return (of_sounds + of_images).mean() / 2


def group_contrastive(
    embedding: Tensor,
    group: Tensor,
    centres: Tensor | None,
    temperature: float = 0.1,
    partner: Tensor | None = None,
    share: Tensor | None = None,
) -> Tensor:
    """Contrast unit embeddings [B, D] by group [B], with each other and with centres [G, D].

    Among each other: the supervised contrastive loss (Khosla et al., 2020, Eq. 2), every other
    member of a row's group being a positive. With the centres: the same with the row's own centre
    as its one positive (Proxy-NCA with a softmax; Movshovitz-Attias et al., 2017), which learns
    much faster from small batches. The mean of both; without centres, the first alone.

    Rows of mixed images (mixup; Zhang et al., 2018) have a second group, their partner's [B], to
    which a share [B] of them belongs, 0 to 1. They are contrasted with the centres alone.
    Groups and shares may lie on the CPU.
    """
    plain = torch.arange(len(group))
    device = embedding.device
    if centres is not None:
        to_centres = embedding @ F.normalize(centres, dim=1).T / temperature
        own = F.cross_entropy(to_centres, group.to(device), reduction="none")
        if partner is not None and share is not None:
            other = F.cross_entropy(to_centres, partner.to(device), reduction="none")
            own = torch.lerp(own, other, share.to(device))
            plain = torch.nonzero(share == 0)[:, 0]
    embedding, group = embedding[plain.to(device)], group[plain].to(device)
    logits = embedding @ embedding.T / temperature
    itself = torch.eye(len(embedding), dtype=torch.bool, device=embedding.device)
    positive = (group[:, None] == group[None]) & ~itself
    log_share = logits - logits.masked_fill(itself, float("-inf")).logsumexp(1, keepdim=True)
    count = positive.sum(1)
    mean = log_share.where(positive, 0.0).sum(1) / count.clamp_min(1)
    # In a small batch no row may have a partner.
    among = -mean.sum() / (count > 0).sum().clamp_min(1)
    return among if centres is None else (own.mean() + among) / 2


class AlignmentLoss(nn.Module):
    """The losses of §3.1 and Table 2, on the rows of one process against those of all.

    - `l2-infonce`: Eq. 1-2, InfoNCE over L2 distances of unit-norm features.
    - `cosine-infonce`: L_nce, the same over cosine similarities.
    - `raw-infonce`: Eq. 1-2 on features as they are, as the published code trains its diffusion
      route.
    - `l2`: the mean L2 distance of the pairs, ``|z^V - z^A|``, without negatives.

    Args:
        kind: one of these.
        temperature: divides distances or similarities; 1 in the paper.
        learn: train the temperature, too: its logarithm, put back into 0.01 to 100 before each
            step where it has left it.
        unit: whether `l2` compares unit-norm features.
    """

    def __init__(
        self, kind: str, temperature: float = 1.0, *, learn: bool = False, unit: bool = True
    ) -> None:
        super().__init__()
        if kind not in LOSSES:
            raise OptionError(f"loss is {kind!r}; allowed: {', '.join(LOSSES)}.")
        self.kind, self.unit = kind, unit
        logarithm = torch.tensor(math.log(temperature))
        self.log_temperature = nn.Parameter(logarithm, requires_grad=learn)

    @property
    def temperature(self) -> Tensor:
        """What divides distances or similarities, 0-d."""
        return torch.exp(self.log_temperature)

    def forward(
        self,
        sound: Tensor,
        image: Tensor,
        sounds: Tensor | None = None,
        images: Tensor | None = None,
        first: int = 0,
    ) -> Tensor:
        """Mean loss of own pairs, 0-d.

        Args:
            sound: z^A of this process's pairs, [b, D].
            image: z^V of them, [b, D].
            sounds: z^A of all processes' pairs, [B, D]; None where these are all.
            images: z^V likewise.
            first: row of this process's first pair among all.
        """
        if self.log_temperature.requires_grad:
            with torch.no_grad():  # not a clamp in the graph, behind which it would learn no more
                self.log_temperature.clamp_(*map(math.log, TEMPERATURES))
        if self.kind != "raw-infonce" and (self.unit or self.kind != "l2"):
            sound, image = F.normalize(sound, dim=1), F.normalize(image, dim=1)
            sounds = None if sounds is None else F.normalize(sounds, dim=1)
            images = None if images is None else F.normalize(images, dim=1)
        if self.kind == "l2":
            distance: Tensor = torch.linalg.vector_norm(sound - image, dim=1)
            return distance.mean()
        sounds = sound if sounds is None else sounds
        images = image if images is None else images
        own = torch.arange(len(sound), device=sound.device) + first
        if self.kind == "cosine-infonce":
            of_sounds = F.cross_entropy(sound @ images.T / self.temperature, own)
            of_images = F.cross_entropy(image @ sounds.T / self.temperature, own)
            return (of_sounds + of_images) / 2
        of_sounds = info_nce(sound, images, self.temperature, own)
        of_images = info_nce(image, sounds, self.temperature, own)
        return (of_sounds + of_images).mean() / 2
