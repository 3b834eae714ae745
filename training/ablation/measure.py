"""What a run is measured by: its pictures before a judge, and its embeddings (§4.3, §4.4)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from s2v_cli.encoders import PreparesPictures
from s2v_cli.errors import TrainingError
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.training.dataset import PHOTO_SIZE, Photo
from s2v_cli.training.judge import Judge, look, train_judge
from s2v_cli.training.manifest import SAMPLE_RATE, Example, Part, read_manifest
from s2v_cli.training.metrics import class_mean, rank_of
from s2v_cli.training.sound_stage import loudest_window

CHECKPOINT = "judge.pt"
MEAN_IMAGES = 100  # of each class, for its mean z^V


@dataclass(frozen=True)
class HeldOut:
    """Sounds that runs are measured on, and what they are measured against.

    Attributes:
        waves: float32 [T] each, 16 kHz.
        names: class of each.
        classes: all of the dataset that have training pictures, sorted.
        means: mean z^V of each class, [C, D], not of unit norm.
        judge: names the classes of pictures.
    """

    waves: list[Tensor]
    names: list[str]
    classes: list[str]
    means: Tensor
    judge: Judge


def read_part(folder: Path, example: Example, part: Part) -> bytes:
    """A picture or sound out of its shard.

    Raises:
        TrainingError: the shard is gone or too short.
    """
    path = folder / example.shard
    try:
        with path.open("rb") as shard:
            shard.seek(part.offset)
            content = shard.read(part.size)
    except OSError as error:
        raise TrainingError(f"Cannot read {path}: {error.strerror}.") from None
    if len(content) != part.size:
        raise TrainingError(f"{path} ends too early. Run 's2v prepare' again.")
    return content


def read_wave(folder: Path, example: Example) -> Tensor:
    """The sound of an example, float32 [T], 16 kHz."""
    import soundfile

    assert example.sound is not None
    content = read_part(folder, example, example.sound)
    wave, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    return torch.from_numpy(wave)


def read_image(folder: Path, example: Example) -> Image.Image:
    """The picture of an example, RGB."""
    assert example.image is not None
    content = read_part(folder, example, example.image)
    return Image.open(io.BytesIO(content)).convert("RGB")


def hold_out(
    folder: Path, teacher: str, split: str, judge_folder: Path, progress: Any = None
) -> HeldOut:
    """Read the sounds of a split, and what is needed to measure a run on them.

    Args:
        folder: prepared dataset with classes.
        teacher: preset whose image encoder the runs learn from.
        split: validation or test.
        judge_folder: with a trained judge, or where one is trained on the dataset's pictures.
        progress: called with stage, step, steps and figures.

    Raises:
        TrainingError: no classes, or nothing in a split.
    """
    examples = [e for e in read_manifest(folder) if e.name and not e.name.startswith("~")]
    images = [e for e in examples if e.image is not None]
    training = [e for e in images if e.split == "train"]
    if not training:
        raise TrainingError(
            f"{folder} has no classes with training pictures; an ablation needs a dataset of "
            "classes, as 's2v prepare' makes of class folders."
        )
    judge = find_judge(judge_folder) or _train_judge(folder, images, judge_folder, progress)
    classes = sorted({str(e.name) for e in training})
    sounds = [e for e in examples if e.sound is not None and e.split == split]
    sounds = [e for e in sounds if e.name in classes and e.name in judge.names]
    if not sounds:
        raise TrainingError(f"{folder} has no sounds of known classes in the split {split!r}.")
    means = _class_means(folder, training, classes, Sound2Vision.load(teacher, device="cpu"))
    waves = [read_wave(folder, example) for example in sounds]
    return HeldOut(waves, [str(e.name) for e in sounds], classes, means, judge)


def find_judge(folder: Path) -> Judge | None:
    """The judge whose checkpoint lies in a folder, in eval mode; None where there is none.

    Raises:
        TrainingError: the checkpoint is damaged.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        stored = torch.load(path, weights_only=True)["modules"]["best"]
        state = {
            key.removeprefix("judge."): value
            for key, value in stored.items()
            if key.startswith("judge.")
        }
        told = state["_extra_state"]
        judge = Judge(told["names"], told["trained_on"])
        judge.load_state_dict(state)
    except Exception as error:  # a pickle of anything
        raise TrainingError(f"{path} is not a judge's checkpoint: {error}.") from None
    return judge.eval().requires_grad_(False)


def _train_judge(folder: Path, images: Sequence[Example], target: Path, progress: Any) -> Judge:
    photos = [Photo(str(e.name), Path(e.origin), e.key, e.split) for e in images]
    pixels = np.empty((len(images), 3, PHOTO_SIZE, PHOTO_SIZE), np.uint8)
    for row, example in zip(pixels, images, strict=True):
        image = ImageOps.fit(read_image(folder, example), (PHOTO_SIZE, PHOTO_SIZE))
        row[:] = np.asarray(image).transpose(2, 0, 1)
    return train_judge(photos, torch.from_numpy(pixels), target, progress=progress)


@torch.inference_mode()
def _class_means(
    folder: Path, training: Sequence[Example], classes: Sequence[str], model: Sound2Vision
) -> Tensor:
    from s2v_cli.picture import to_tensor

    encoder = model.image_encoder
    prepare = encoder.prepare if isinstance(encoder, PreparesPictures) else to_tensor
    means = []
    for name in classes:
        own = [e for e in training if e.name == name]
        own = own[:: -(-len(own) // MEAN_IMAGES)]
        rows = [encoder(prepare(read_image(folder, e))[None]).float() for e in own]
        means.append(torch.cat(rows).mean(dim=0))
    return torch.stack(means)


@torch.inference_mode()
def embed(model: Sound2Vision, waves: Sequence[Tensor]) -> Tensor:
    """z^A [N, D] of the loudest window of each wave [T], 16 kHz."""
    encoder = model.sound_encoder
    samples = round(encoder.window_s * SAMPLE_RATE)
    rows = [encoder(loudest_window(wave, samples)[None]).float() for wave in waves]
    return torch.cat(rows).cpu()


def measure(
    model: Sound2Vision,
    held_out: HeldOut,
    pictures: int,
    taught: Sequence[str] | None = None,
    scored: Sequence[str] | None = None,
    first: Sequence[str] = (),
) -> dict[str, float]:
    """Figures of a run on held-out sounds.

    Args:
        model: the preset that came of it.
        held_out: the sounds.
        pictures: of each sound.
        taught: classes that it was trained on; None is all. Ranks among them are told beside
            those among all classes of the judge.
        scored: classes whose sounds are measured; None is all that were taught.
        first: classes that the runs compared have in common.

    Returns:
        r1, r5, encoder, gap and r1_of_first, the latter with `first` alone (see
        `training.ablation.report.MEANINGS`); r5_of_taught and its chance_r5; sounds.

    Raises:
        TrainingError: no sound of those classes.
    """
    taught = held_out.classes if taught is None else taught
    scored = taught if scored is None else scored
    kept = [i for i, name in enumerate(held_out.names) if name in scored]
    if not kept:
        raise TrainingError("No sound of the measured split is of a class that was trained on.")
    names = [held_out.names[i] for i in kept]
    embedding = embed(model, [held_out.waves[i] for i in kept])
    logits = judged(model, embedding, held_out.judge, pictures)
    judge_names = held_out.judge.names
    target = torch.tensor([judge_names.index(name) for name in names])
    rank = rank_of(logits.flatten(0, 1), target.repeat_interleave(pictures)).view(-1, pictures)
    columns = torch.tensor([i for i, name in enumerate(judge_names) if name in taught])
    among = _rank_among(logits, target, columns)
    unit = F.normalize(held_out.means, dim=1)
    guess = (F.normalize(embedding, dim=1) @ unit.T).argmax(dim=1)
    own = torch.tensor([held_out.classes.index(name) for name in names])
    shares = {
        "r1": (rank <= 1).double().mean(dim=1),
        "r5": (rank <= 5).double().mean(dim=1),
        "r5_of_taught": (among <= 5).double().mean(dim=1),
        "encoder": (guess == own).double(),
    }
    figures = {figure: class_mean(values.tolist(), names) for figure, values in shares.items()}
    figures["chance_r5"] = min(1.0, 5 / len(columns))
    figures["gap"] = modality_gap(embedding, names, held_out)
    common = [i for i, name in enumerate(names) if name in first]
    if common:
        columns = torch.tensor([i for i, name in enumerate(judge_names) if name in first])
        share = (_rank_among(logits[common], target[common], columns) <= 1).double().mean(dim=1)
        figures["r1_of_first"] = class_mean(share.tolist(), [names[i] for i in common])
    return {**figures, "sounds": float(len(kept))}


def _rank_among(logits: Tensor, target: Tensor, columns: Tensor) -> Tensor:
    """Rank [N, P] of each target [N] among some columns of logits [N, P, G], from 1."""
    inner = torch.searchsorted(columns, target).repeat_interleave(logits.shape[1])
    return rank_of(logits[..., columns].flatten(0, 1), inner).view(len(logits), -1)


def modality_gap(embedding: Tensor, names: Sequence[str], held_out: HeldOut) -> float:
    """||E[z^V] - E[z^A]|| (§4.4), each class counting alike in both means."""
    parts = sorted(set(names))
    rows = torch.tensor([parts.index(name) for name in names])
    sound = torch.stack([embedding[rows == i].mean(dim=0) for i in range(len(parts))])
    image = held_out.means[[held_out.classes.index(name) for name in parts]]
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
