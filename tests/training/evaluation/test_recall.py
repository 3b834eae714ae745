"""Ranking class names by CLIP and by a classifier."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from s2v_cli.encoders.clip_text import ClipTextImage
from s2v_cli.errors import TrainingError, WeightsError
from s2v_cli.training.evaluation import recall
from s2v_cli.training.evaluation.held_out import class_of, open_held_out
from s2v_cli.training.evaluation.look import Tally
from s2v_cli.training.evaluation.recall import (
    ClassifierRanker,
    ClipRanker,
    hit_interval,
    read_classifier,
    train_classifier,
)
from s2v_cli.training.judge import Judge
from s2v_cli.training.metrics import bootstrap, rank_of
from tests import tiny_diffusion
from tests.training.evaluation.conftest import QUICK


def test_hits_are_shares_of_known_ranks() -> None:
    logits = torch.tensor([[3.0, 2, 1, 0], [0, 1, 2, 3], [1, 1, 1, 1], [0, 5, 1, 2]])
    ranks = rank_of(logits, torch.tensor([0, 0, 2, 3]))
    assert ranks.tolist() == [1, 4, 4, 2]  # ties count against the class
    tally = Tally(ranks=[ranks[:2], ranks[2:]])
    assert tally.hits(1) == [0.5, 0.0]
    assert tally.hits(2) == [0.5, 0.5]
    assert tally.hits(4) == [1.0, 1.0]


def test_intervals_are_of_recordings_within_classes() -> None:
    hits, classes = [1.0, 0.0, 0.5, 1.0, 0.0, 0.25], list("aaabbb")
    sources = list("uvwxyz")
    assert hit_interval(hits, classes, sources) == bootstrap(hits, classes, sources)
    assert hit_interval([0.5, 0.5], ["a", "a"], ["x", "x"]) == (0.5, 0.5)  # nothing is known


def test_classes_of_one_recording_are_drawn_among_each_other() -> None:
    """Of 60 of them half are hit: the deviation is sqrt(0.25 / 60) = 0.0645."""
    hits, names = [0.0, 1.0] * 30, [str(i) for i in range(60)]
    low, high = hit_interval(hits, names, names)
    assert high - low == pytest.approx(2 * 1.96 * 0.0645, abs=0.03)
    assert (low + high) / 2 == pytest.approx(0.5, abs=0.02)
    # Clips of one recording are one; beside them each class of many recordings counts once, too.
    twice = hit_interval([h for h in hits for _ in "12"], [n for n in names for _ in "12"],
                         [n for n in names for _ in "12"])  # fmt: skip
    assert twice == pytest.approx((low, high), abs=0.02)
    more = hit_interval([*hits, *[1.0] * 9], [*names, *["x"] * 9], [*names, *"abcdefghi"])
    assert more == pytest.approx(((60 * low + 1) / 61, (60 * high + 1) / 61), abs=0.02)


class FakeClip(ClipTextImage):
    """Three colours and what they are called: the embedding is the mean colour."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def prepare(self, image: Image.Image) -> Tensor:
        return torch.tensor(image.getpixel((0, 0))).float()

    def embed_images(self, image: Tensor) -> Tensor:
        return torch.nn.functional.normalize(image, dim=1)

    def embed_texts(self, texts: list[str]) -> Tensor:  # type: ignore[override]
        self.read += texts
        return torch.eye(3)[: len(texts)]


def test_clip_reads_the_names_and_ranks_them() -> None:
    clip = FakeClip()
    ranker = ClipRanker(clip, ["red_fire", "green", "blue"])
    assert clip.read == ["red fire", "green", "blue"]
    images = [Image.new("RGB", (4, 4), colour) for colour in ("#0a0aff", "#ff3200")]
    scores = ranker.scores(images)
    assert scores.argsort(dim=1, descending=True).tolist() == [[2, 0, 1], [0, 1, 2]]
    ClipRanker(clip, ["sea"], "a photo of the {}")
    assert clip.read[-1] == "a photo of the sea"


def test_a_real_clip_ranks(tmp_path: Path) -> None:
    """A tiny one with random weights: its scores are cosines of its own two sides."""
    folder = tiny_diffusion.write_clip(tmp_path / "clip")
    clip = ClipTextImage.load(folder, device=torch.device("cpu"))
    images = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue", "white")]
    scores = ClipRanker(clip, ["a_cat", "rain"]).scores(images)
    assert scores.shape == (3, 2) and float(scores.abs().max()) <= 1 + 1e-5
    own = clip.embed_images(torch.stack([clip.prepare(i) for i in images]))
    assert torch.allclose(scores, own @ clip.embed_texts(["a cat", "rain"]).T, atol=1e-6)


def test_a_classifier_ranks_the_dataset_s_classes_alone() -> None:
    judge = Judge(["a", "face", "b", "c"]).eval().requires_grad_(False)
    judge.head.weight.zero_()
    judge.head.bias.copy_(torch.tensor([1.0, 9.0, 3.0, 2.0]))
    ranker = ClassifierRanker(judge, ["a", "b", "c"], "told")
    scores = ranker.scores([Image.new("RGB", (64, 48)), Image.new("RGB", (300, 300))])
    assert torch.allclose(scores, torch.tensor([[1.0, 3.0, 2.0]]).expand(2, 3))
    with pytest.raises(TrainingError, match="does not know 'd' and 1 more; it knows a, face"):
        ClassifierRanker(judge, ["a", "d", "e"], "told")


def test_a_classifier_of_the_dataset_tells_its_pictures(drawn: Path, classifier: Path) -> None:
    data = open_held_out(drawn, "test")
    judge = read_classifier(classifier)
    assert not judge.training and tuple(judge.names) == data.names
    ranker = ClassifierRanker(judge, data.names, "told")
    scores = ranker.scores([data.picture(photo) for photo in data.photos])
    target = torch.tensor([data.names.index(class_of(photo)) for photo in data.photos])
    assert float((scores.argmax(dim=1) == target).float().mean()) > 0.8


def test_it_goes_on_from_its_checkpoint(drawn: Path, classifier: Path, tmp_path: Path) -> None:
    shutil.copy(classifier, tmp_path / "judge.pt")
    steps: list[int] = []
    again = train_classifier(
        open_held_out(drawn, "test"),
        tmp_path,
        QUICK,
        lambda stage, step, *_: steps.append(step) if stage == "judge" else None,
    )
    assert steps == []
    first = read_classifier(classifier)
    assert torch.equal(again.head.weight, first.head.weight)


def test_what_is_measured_on_chooses_nothing(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the validation split is measured, training photos choose the moment instead."""
    seen: list[str] = []

    def spy(photos: list[recall.Photo], *_: object) -> None:
        seen.extend(f"{photo.split} {photo.key}" for photo in photos)

    monkeypatch.setattr(recall, "train_judge", spy)
    data = open_held_out(drawn, "validation")
    train_classifier(data, tmp_path, QUICK)
    training = {example.key for example in data.training}
    assert {line.split()[1] for line in seen} == training
    assert {line.split()[0] for line in seen} == {"train", "validation"}
    assert sum(line.startswith("validation") for line in seen) < 10


def test_classifiers_that_cannot_be(one_class: Path, unnamed: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="has 1 class names; a classifier needs two"):
        train_classifier(open_held_out(one_class, "test"), tmp_path, QUICK)
    with pytest.raises(TrainingError, match="has no class names"):
        train_classifier(open_held_out(unnamed, "test"), tmp_path, QUICK)


def test_files_that_are_no_classifier(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.pt: No such file"):
        read_classifier(tmp_path / "none.pt")
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(TrainingError, match=r"holds no classifier; allowed: a judge\.pt"):
        read_classifier(tmp_path / "other.pt")
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(TrainingError, match="holds no classifier"):
        read_classifier(tmp_path / "list.pt")
