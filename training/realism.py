"""How near drawn pictures come to real ones, in the judge's features; and what retrieval gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from s2v_cli.training.evaluation.distances import (
    Estimate,
    frechet_distance,
    inception_score,
    kernel_distance,
)


def distances(
    features: Tensor,
    logits: Tensor,
    classes: Sequence[str],
    recordings: Sequence[str],
    reference: Tensor,
    reference_classes: Sequence[str],
    training: Tensor,
) -> dict[str, Any]:
    """FID, KID and IS on a classifier's features, the first two with their floor.

    The floor is the distance of as many training photos as there are real ones from those: what a
    perfect generator would reach. Figures of a small classifier of our own cannot be compared
    with those of an Inception network elsewhere.

    Args:
        features: of the pictures, [N, F].
        logits: of the pictures, [N, C].
        classes: of the pictures.
        recordings: that the pictures were drawn from.
        reference: features of real, held-out photos, [M, F].
        reference_classes: of those.
        training: features of training photos, of the same classes in turn, [M, F].
    """
    own = [str(i) for i in range(len(reference))]
    others = [str(i) for i in range(len(training))]
    kid = kernel_distance(features, reference, classes, recordings, reference_classes, own)
    floor = kernel_distance(training, reference, reference_classes, others, reference_classes, own)
    return {
        "pictures": len(features),
        "real": len(reference),
        "dimension": features.shape[1],
        "fid": frechet_distance(features, reference),
        "fid_floor": frechet_distance(training, reference),
        "kid": _figures(kid),
        "kid_floor": _figures(floor),
        "inception_score": _figures(inception_score(logits, classes, recordings)),
    }


def _figures(estimate: Estimate) -> dict[str, float]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def same_classes(groups: Sequence[str], wanted: Sequence[str], seed: int = 0) -> list[int]:
    """Places in `groups`, drawn without repeats, that hold each class as often as `wanted` does.

    A class that runs out is left short.
    """
    random = torch.Generator().manual_seed(seed)
    members: dict[str, list[int]] = {}
    for place in torch.randperm(len(groups), generator=random).tolist():
        members.setdefault(groups[place], []).append(place)
    found = []
    for name in wanted:
        if members.get(name):
            found.append(members[name].pop())
    return found
