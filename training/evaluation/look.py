"""The networks of an evaluation look at pictures: ranks of classes, features, logits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from s2v_cli.training.evaluation.baselines import Drawn
from s2v_cli.training.evaluation.held_out import class_of
from s2v_cli.training.evaluation.inception import FeatureNetwork
from s2v_cli.training.evaluation.recall import Ranker
from s2v_cli.training.judge import Progress
from s2v_cli.training.metrics import rank_of

AT_ONCE = 16  # pictures that the networks look at together


@dataclass
class Tally:
    """What the networks say of some pictures: an entry for each sound, or real picture.

    Attributes:
        classes: of each.
        sources: of each.
        ranks: of its class among all, int64 [pictures] each; empty where nothing ranks.
        features: [pictures, F] each; empty where nothing takes features.
        logits: [pictures, C] each.
        pictures: of all.
    """

    classes: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    ranks: list[Tensor] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    pictures: int = 0

    def hits(self, k: int) -> list[float]:
        """Share of each sound's pictures that rank k or better."""
        return [float((rank <= k).double().mean()) for rank in self.ranks]

    def repeated(self, values: Sequence[str]) -> list[str]:
        """A value of each sound, repeated for its pictures."""
        return [v for v, rows in zip(values, self.features, strict=True) for _ in range(len(rows))]


@dataclass
class Looker:
    """Looks at pictures.

    Attributes:
        ranker: of class names, if there are any.
        network: whose features are taken, if there is one.
        progress: called with stage, step, steps and figures.
    """

    ranker: Ranker | None
    network: FeatureNetwork | None
    progress: Progress | None = None

    def look(
        self,
        drawn: Iterable[Drawn],
        stage: str,
        total: int,
        *,
        each: int = 1,
        rank: bool = True,
        keep: Callable[[Drawn], None] | None = None,
    ) -> Tally:
        """What the networks say of pictures, a few at a time; the pictures are not held.

        Args:
            drawn: the pictures.
            stage: for progress.
            total: how many sounds or photos there are.
            each: pictures of each.
            rank: whether classes are ranked.
            keep: called with all of them, for a contact sheet.
        """
        tally = Tally()
        for batch in _batches(drawn, max(1, AT_ONCE // each)):
            self._add(tally, batch, rank)
            if keep is not None:
                for one in batch:
                    keep(one)
            if self.progress:
                self.progress(stage, min(len(tally.classes), total), total, {})
        return tally

    def _add(self, tally: Tally, batch: Sequence[Drawn], rank: bool) -> None:
        images = [image for one in batch for image in one.images]
        sizes = [len(one.images) for one in batch]
        classes = [class_of(one.example) for one in batch]
        tally.classes += classes
        tally.sources += [one.example.source for one in batch]
        tally.pictures += len(images)
        if rank and self.ranker is not None:
            names = self.ranker.names
            target = torch.tensor([names.index(name) for name in classes])
            target = target.repeat_interleave(torch.tensor(sizes))
            tally.ranks += rank_of(self.ranker.scores(images), target).split(sizes)
        if self.network is not None:
            features, logits = self.network.look(images)
            tally.features += features.split(sizes)
            tally.logits += logits.split(sizes)


def _batches(drawn: Iterable[Drawn], size: int) -> Iterator[list[Drawn]]:
    rest = iter(drawn)
    while batch := list(itertools.islice(rest, size)):
        yield batch
