"""R@k: does a picture rank its sound's class among the first k of all class names (§4.1)?

The paper asks CLIP ViT-B/32, with the category names as texts; neither paper nor published code
tells of words around them. Where CLIP is not at hand a classifier of real photos ranks the classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from s2v_cli.encoders.clip_text import ClipTextImage
from s2v_cli.errors import TrainingError
from s2v_cli.picture import resize, to_tensor
from s2v_cli.training.dataset import PHOTO_SIZE, Photo, hash_share
from s2v_cli.training.evaluation.distances import pool_lone
from s2v_cli.training.evaluation.held_out import HeldOut, centre_square, class_of
from s2v_cli.training.evaluation.options import NAME
from s2v_cli.training.judge import JUDGE_OPTIONS, Judge, Progress, look, train_judge
from s2v_cli.training.manifest import Example, Split
from s2v_cli.training.metrics import bootstrap, class_means, spread
from s2v_cli.training.recipe import StageOptions
from s2v_cli.weights.checkpoint import read_checkpoint
from s2v_cli.weights.store import asset_folder

if TYPE_CHECKING:
    from PIL.Image import Image

CLIP = "clip-vit-b-32"  # its name in the catalogue
MOST_PHOTOS = 10_000  # that a classifier learns from: 0.8 GB
HELD_BACK = 0.1  # of the training photos, where no validation photos may be looked at


class Ranker(Protocol):
    """Scores class names by how well they fit a picture.

    Attributes:
        told: what it is, for people.
        names: of the classes.
    """

    told: str
    names: tuple[str, ...]

    def scores(self, images: Sequence[Image]) -> Tensor:
        """Scores [N, G] of N pictures and G names, on the CPU; the higher, the better they fit."""
        ...


class ClipRanker:
    """CLIP's cosine between a picture and a name."""

    told = "CLIP ViT-B/32"

    def __init__(self, clip: ClipTextImage, names: Sequence[str], template: str = NAME) -> None:
        self.names = tuple(names)
        self._clip = clip
        texts = [template.replace(NAME, name.replace("_", " ")) for name in names]
        self._texts = clip.embed_texts(texts)

    @classmethod
    def load(
        cls,
        names: Sequence[str],
        template: str = NAME,
        *,
        device: torch.device,
        weights_dir: Path | None = None,
    ) -> ClipRanker:
        """Load CLIP from the published weights that were pulled.

        Raises:
            MissingWeightsError: they were not.
            WeightsError: they are damaged.
        """
        folder = asset_folder(CLIP, weights_dir)
        return cls(ClipTextImage.load(folder, device=device), names, template)

    def scores(self, images: Sequence[Image]) -> Tensor:
        """Cosines [N, G]."""
        pixels = torch.stack([self._clip.prepare(image) for image in images])
        return self._clip.embed_images(pixels) @ self._texts.T


class ClassifierRanker:
    """Logits of a classifier, of the dataset's classes alone.

    Raises:
        TrainingError: it does not know a class of the dataset.
    """

    def __init__(self, judge: Judge, names: Sequence[str], told: str) -> None:
        missing = [name for name in names if name not in judge.names]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise TrainingError(
                f"The classifier does not know {missing[0]!r}{more}; it knows "
                f"{', '.join(judge.names[:5])} ... Train one: leave --classifier out."
            )
        self.names, self.told = tuple(names), told
        self._judge = judge
        self._columns = torch.tensor([judge.names.index(name) for name in names])

    def scores(self, images: Sequence[Image]) -> Tensor:
        """Logits [N, G]."""
        return judge_look(self._judge, images)[1][:, self._columns]


def hit_interval(
    hits: Sequence[float], classes: Sequence[str], sources: Sequence[str]
) -> tuple[float, float]:
    """95% interval of R@k: recordings are drawn again within their classes.

    Classes of one recording are drawn among each other; see `pool_lone`.

    Args:
        hits: share of each sound's pictures that rank k or better.
        classes: of each sound.
        sources: the recording of each sound.
    """
    strata = pool_lone(classes, sources)
    counts = Counter(classes)
    shares = Counter(dict(zip(classes, strata, strict=True)).values())  # classes of each stratum
    means = class_means(hits, classes)
    values, drawn_within, recordings = [], [], []
    for row, (name, stratum) in enumerate(zip(classes, strata, strict=True)):
        pooled = shares[stratum] > 1
        if pooled and not counts[name]:
            continue  # of a pooled class the mean counts, once
        counts[name] = 0
        # `bootstrap` gives all strata the same weight; these have as many as they hold classes.
        weight = shares[stratum] * len(shares) / len(means)
        values.append((means[name] if pooled else hits[row]) * weight)
        drawn_within.append(stratum)
        recordings.append(sources[row])
    return bootstrap(values, drawn_within, recordings)


def judge_look(judge: Judge, images: Sequence[Image]) -> tuple[Tensor, Tensor]:
    """Features [N, F] and logits [N, C] that a classifier has of square pictures."""
    pixels = [to_tensor(resize(centre_square(image), PHOTO_SIZE)) for image in images]
    return look(judge, torch.stack(pixels))


def train_classifier(
    data: HeldOut,
    folder: Path,
    options: StageOptions = JUDGE_OPTIONS,
    progress: Progress | None = None,
) -> Judge:
    """Train a classifier on real photos of the training split, or go on from its checkpoint.

    Validation photos choose the moment; where they are what is measured on, or there are none, a
    tenth of the training photos does. A large dataset's photos are not all used: `MOST_PHOTOS`, of
    all classes in turn.

    Args:
        data: of which the photos are.
        folder: of the checkpoint `judge.pt`.
        options: of the training.
        progress: called with stage, step, steps and figures.

    Raises:
        TrainingError: fewer than two classes, or no training photos of a class.
    """
    if len(data.names) < 2:
        raise TrainingError(
            f"{data.folder} has {len(data.names) or 'no'} class names; a classifier needs two or "
            "more, with pictures in the split 'train'."
        )
    known = {class_of(example) for example in data.training}
    if missing := [name for name in data.classes if name not in known]:
        raise TrainingError(
            f"The classifier would not know {missing[0]!r}: {data.folder} has no picture of it in "
            "the split 'train'. Give one with --classifier."
        )
    training = [data.training[i] for i in spread([*map(class_of, data.training)], MOST_PHOTOS)]
    chosen: list[tuple[Example, Split]] = [(example, "train") for example in training]
    validation = [data.validation[i] for i in spread([*map(class_of, data.validation)], 2000)]
    if validation:
        chosen += [(e, "validation") for e in validation if class_of(e) in known]
    else:
        held = {e.key for e in training if hash_share(f"judge/{e.key}") < HELD_BACK}
        held = held or {training[0].key}
        chosen = [(e, "validation" if e.key in held else "train") for e in training]
    photos = [Photo(class_of(e), Path(e.key), e.key, split) for e, split in chosen]
    pixels = torch.empty(len(photos), 3, PHOTO_SIZE, PHOTO_SIZE, dtype=torch.uint8)
    for row, (example, _) in enumerate(chosen):
        image = resize(centre_square(data.picture(example)), PHOTO_SIZE)
        pixels[row] = ((to_tensor(image) + 1) * 127.5).round().byte()
        if progress:
            progress("read photos", row + 1, len(photos), {})
    return train_judge(photos, pixels, folder, options, progress)


def read_classifier(path: Path) -> Judge:
    """Read the classifier in a checkpoint `judge.pt` of `train_classifier` or `train_judge`.

    Raises:
        WeightsError: missing, damaged, or something else.
        TrainingError: it holds no classifier.
    """
    state = read_checkpoint(path)
    try:
        tensors: dict[str, Any] = {
            key.removeprefix("judge."): value
            for key, value in state["modules"]["best"].items()
            if key.startswith("judge.")
        }
        extra = tensors["_extra_state"]
        judge = Judge(extra["names"], extra["trained_on"])
        judge.load_state_dict(tensors)
    except (KeyError, TypeError, AttributeError, RuntimeError):
        raise TrainingError(
            f"{path} holds no classifier; allowed: a judge.pt that 's2v eval' wrote."
        ) from None
    return judge.eval().requires_grad_(False)
