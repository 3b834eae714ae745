"""The networks whose features FID and KID compare, and whose classes the Inception Score counts.

The paper's FID and IS look through an Inception that was trained on VGGSound; most others' through
the one of ImageNet. Figures of two networks cannot be compared, so every table names its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from s2v_cli.encoders.inception import FEATURES, InceptionV3
from s2v_cli.picture import to_tensor
from s2v_cli.training.evaluation.options import InceptionKind
from s2v_cli.training.evaluation.recall import judge_look
from s2v_cli.training.judge import Judge
from s2v_cli.weights.store import asset_status, load_asset

if TYPE_CHECKING:
    from PIL.Image import Image

ASSETS: dict[str, str] = {"vggsound": "inception-vggsound", "imagenet": "inception-fid"}
_TOLD = {
    "vggsound": "Inception V3 trained on VGGSound",
    "imagenet": "Inception V3 of ImageNet (pytorch-fid)",
}
BATCH = 16  # pictures at once


class FeatureNetwork(Protocol):
    """Looks at pictures.

    Attributes:
        kind: what `--inception` calls it.
        told: what it is, for people.
        dimension: numbers of its features.
    """

    kind: InceptionKind
    told: str
    dimension: int

    def look(self, images: Sequence[Image]) -> tuple[Tensor, Tensor]:
        """Features [N, F] and logits [N, C] of square pictures, float32, on the CPU."""
        ...


class InceptionFeatures:
    """Inception V3: 2048 features of its last average pool, logits of its classes."""

    dimension = FEATURES

    def __init__(self, kind: InceptionKind, network: InceptionV3, device: torch.device) -> None:
        self.kind: InceptionKind = kind
        self.told = _TOLD[kind]
        self._device = device
        self._network = network.to(device)
        if device.type == "cpu":  # convolutions are faster so
            self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def load(
        cls, kind: InceptionKind, *, device: torch.device, weights_dir: Path | None = None
    ) -> InceptionFeatures:
        """Load the published weights that were pulled.

        Raises:
            MissingWeightsError: they were not.
            WeightsError: they are damaged.
        """
        tensors = load_asset(ASSETS[kind], weights_dir)
        return cls(kind, InceptionV3.load(tensors, fid=kind == "imagenet"), device)

    @torch.inference_mode()
    def look(self, images: Sequence[Image]) -> tuple[Tensor, Tensor]:
        """Features [N, 2048] and logits [N, C]."""
        features, logits = [], []
        for batch in _alike(images):
            found = self._network(torch.stack([to_tensor(i) for i in batch]).to(self._device))
            features.append(found[0].float().cpu())
            logits.append(found[1].float().cpu())
        return torch.cat(features), torch.cat(logits)


class ClassifierFeatures:
    """The dataset's own classifier: 192 features, logits of its classes."""

    kind: InceptionKind = "classifier"

    def __init__(self, judge: Judge, told: str) -> None:
        self.told, self._judge = told, judge
        self.dimension = judge.trunk.size

    def look(self, images: Sequence[Image]) -> tuple[Tensor, Tensor]:
        """Features [N, 192] and logits [N, C]."""
        return judge_look(self._judge, images)


def at_hand(weights_dir: Path | None = None) -> InceptionKind:
    """The network to take where none is asked for: the paper's, if it was pulled; else ImageNet's.

    Without either of them the dataset's classifier is left.
    """
    kinds: tuple[InceptionKind, ...] = ("vggsound", "imagenet")
    for kind in kinds:
        if asset_status(ASSETS[kind], weights_dir) == "here":
            return kind
    return "classifier"


def _alike(images: Sequence[Image]) -> list[list[Image]]:
    """Pictures in order, in batches of one size."""
    batches: list[list[Image]] = []
    for image in images:
        last = batches[-1] if batches else []
        if not last or last[0].size != image.size or len(last) == BATCH:
            batches.append(last := [])
        last.append(image)
    return batches
