"""What a run is measured by: its pictures before a judge, and its embeddings (§4.3, §4.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from s2v_cli.errors import TrainingError
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.training.evaluation.baselines import hear
from s2v_cli.training.evaluation.held_out import HeldOut, class_of, open_held_out
from s2v_cli.training.evaluation.recall import read_classifier, train_classifier
from s2v_cli.training.judge import Judge, look
from s2v_cli.training.metrics import class_mean, rank_of

CHECKPOINT = "judge.pt"
MEAN_IMAGES = 100  # of each class, for its mean z^V

Progress = Callable[[str, int, int, dict[str, float]], None]


@dataclass(frozen=True)
class Yardstick:
    """Held-out sounds that runs are measured on, and what they are measured against.

    Attributes:
        held_out: the sounds.
        classes: all that have training pictures, sorted.
        means: mean z^V of each of these, [C, D], not of unit norm.
        judge: names the classes of pictures.
    """

    held_out: HeldOut
    classes: list[str]
    means: Tensor
    judge: Judge


def open_yardstick(
    folder: Path, teacher: str, split: str, judge_folder: Path, progress: Progress | None = None
) -> Yardstick:
    """Read the sounds of a split, and what is needed to measure a run on them.

    Args:
        folder: prepared dataset with classes.
        teacher: preset whose image encoder the runs learn from.
        split: validation or test.
        judge_folder: with a trained judge, or where one is trained on the dataset's pictures.
        progress: called with stage, step, steps and figures.

    Raises:
        TrainingError: no classes, nothing in a split, or a judge that knows none of them.
    """
    held_out = open_held_out(folder, split)
    classes = sorted({e.name for e in held_out.training if e.name is not None})
    if not held_out.names or not classes:
        raise TrainingError(
            f"{folder} has no classes with training pictures; an ablation needs a dataset of "
            "classes, as 's2v prepare' makes of class folders."
        )
    held_out = _of_classes(held_out, set(classes))
    if (judge_folder / CHECKPOINT).is_file():
        judge = read_classifier(judge_folder / CHECKPOINT)
    else:
        judge = train_classifier(held_out, judge_folder, progress=progress)
    held_out = _of_classes(held_out, set(classes) & set(judge.names))
    means = _class_means(held_out, classes, Sound2Vision.load(teacher, device="cpu"))
    return Yardstick(held_out, classes, means, judge)


def _of_classes(held_out: HeldOut, classes: Set[str]) -> HeldOut:
    """The same with the sounds of some classes alone."""
    sounds = tuple(example for example in held_out.sounds if example.name in classes)
    if not sounds:
        raise TrainingError(
            f"{held_out.folder} has no sounds in the split {held_out.split!r} of classes that have "
            "training pictures and that the judge knows."
        )
    return replace(held_out, sounds=sounds)


def _class_means(held_out: HeldOut, classes: Sequence[str], model: Sound2Vision) -> Tensor:
    means = []
    for name in classes:
        own = [example for example in held_out.training if example.name == name]
        own = own[:: -(-len(own) // MEAN_IMAGES)]
        rows = [model.encode_image(held_out.picture(example)) for example in own]
        means.append(torch.stack(rows).float().mean(dim=0))
    return torch.stack(means)


def measure(
    model: Sound2Vision,
    yardstick: Yardstick,
    pictures: int,
    taught: Sequence[str] | None = None,
    scored: Sequence[str] | None = None,
    first: Sequence[str] = (),
) -> dict[str, float]:
    """Figures of a run on held-out sounds.

    Args:
        model: the preset that came of it.
        yardstick: the sounds.
        pictures: of each sound.
        taught: classes that it was trained on; None is all. Ranks among them are told beside
            those among all classes of the judge.
        scored: classes whose sounds are measured; None is all that were taught.
        first: classes that the runs compared have in common.

    Returns:
        r1, r5, encoder, gap and r1_of_first, the latter with `first` alone (see
        `training.ablation.report.MEANINGS`); r5_of_taught and its chance_r5; sounds.

    Raises:
        TrainingError: no sound of those classes, or one that cannot be read.
    """
    taught = yardstick.classes if taught is None else taught
    scored = taught if scored is None else scored
    held_out = _of_classes(yardstick.held_out, set(scored))
    names = [class_of(example) for example in held_out.sounds]
    embedding = hear(model, held_out).float().cpu()
    logits = judged(model, embedding, yardstick.judge, pictures)
    judge_names = yardstick.judge.names
    target = torch.tensor([judge_names.index(name) for name in names])
    rank = rank_of(logits.flatten(0, 1), target.repeat_interleave(pictures)).view(-1, pictures)
    columns = torch.tensor([i for i, name in enumerate(judge_names) if name in taught])
    among = _rank_among(logits, target, columns)
    unit = F.normalize(yardstick.means, dim=1)
    guess = (F.normalize(embedding, dim=1) @ unit.T).argmax(dim=1)
    own = torch.tensor([yardstick.classes.index(name) for name in names])
    shares = {
        "r1": (rank <= 1).double().mean(dim=1),
        "r5": (rank <= 5).double().mean(dim=1),
        "r5_of_taught": (among <= 5).double().mean(dim=1),
        "encoder": (guess == own).double(),
    }
    figures = {figure: class_mean(values.tolist(), names) for figure, values in shares.items()}
    figures["chance_r5"] = min(1.0, 5 / len(columns))
    figures["gap"] = modality_gap(embedding, names, yardstick)
    common = [i for i, name in enumerate(names) if name in first]
    if common:
        columns = torch.tensor([i for i, name in enumerate(judge_names) if name in first])
        share = (_rank_among(logits[common], target[common], columns) <= 1).double().mean(dim=1)
        figures["r1_of_first"] = class_mean(share.tolist(), [names[i] for i in common])
    return {**figures, "sounds": float(len(names))}


def _rank_among(logits: Tensor, target: Tensor, columns: Tensor) -> Tensor:
    """Rank [N, P] of each target [N] among some columns of logits [N, P, G], from 1."""
    inner = torch.searchsorted(columns, target).repeat_interleave(logits.shape[1])
    return rank_of(logits[..., columns].flatten(0, 1), inner).view(len(logits), -1)


def modality_gap(embedding: Tensor, names: Sequence[str], yardstick: Yardstick) -> float:
    """||E[z^V] - E[z^A]|| (§4.4), each class counting alike in both means."""
    parts = sorted(set(names))
    rows = torch.tensor([parts.index(name) for name in names])
    sound = torch.stack([embedding[rows == i].mean(dim=0) for i in range(len(parts))])
    image = yardstick.means[[yardstick.classes.index(name) for name in parts]]
    return float((image.mean(dim=0) - sound.mean(dim=0)).norm())


def judged(model: Sound2Vision, embedding: Tensor, judge: Judge, pictures: int) -> Tensor:
    """Logits [N, pictures, G] of pictures of embeddings [N, D]; sound i has seeds of its own."""
    found = []
    for number, row in enumerate(embedding):
        options = model.preset.generate_options(seed=number * pictures, count=pictures)
        made = model.generate_from_embedding(row, options)
        arrays = np.stack([np.asarray(picture.image).transpose(2, 0, 1) for picture in made])
        found.append(look(judge, torch.from_numpy(arrays))[1])
    return torch.stack(found)
