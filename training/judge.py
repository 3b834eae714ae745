"""The judge: a photo classifier that measures pictures and takes no part in making them.

It is trained on real photos of the training split alone, over all photo groups, with a network of
its own. No stage of the model sees it: it trains, ranks and selects nothing, so what it says of a
picture is not what the picture was made for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2v_cli.errors import TrainingError
from s2v_cli.training import crops
from s2v_cli.training.dataset import Photo
from s2v_cli.training.loop import channels_last, run_stage
from s2v_cli.training.precision import mixed_precision
from s2v_cli.training.recipe import StageOptions

SIZE = 96  # px, side of the picture that the judge sees
SMALL_SIZE = 64  # px, in the first part of its training; a network that pools takes both
SMALL_SHARE = 0.6  # of the steps
WIDTHS = (48, 96, 192)  # channels at 24, 12 and 6 px
DEPTHS = (1, 2, 1)  # residual blocks at each of them
MAX_ZOOM = 1.4  # of the training crops
SMOOTHING = 0.1  # of the labels
MIXED = 0.3  # share of the training images that another one is mixed into
WHOLE_FROM = 0.75  # share of the steps after which nothing is mixed or blanked any more
SEED = 1001
BATCH = 256  # pictures at once where nothing is trained

JUDGE_OPTIONS = StageOptions(
    steps=2600,
    batch=128,
    learning_rate=2e-3,
    weight_decay=0.05,
    warm_up=0.1,
    ema=0.99,
    validate_every=100,
)

Progress = Callable[[str, int, int, dict[str, float]], None]


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions, norm and rectifier before each (He et al., 2016, "Identity Mappings").

    [B, C, H, W] -> [B, C', H / s, W / s].
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.stride = stride
        self.skip: nn.Module = nn.Identity()
        if inputs != outputs:
            self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y = self.conv1(F.relu(self.norm1(x)))
        y = self.conv2(F.relu(self.norm2(y)))
        kept = F.avg_pool2d(x, self.stride) if self.stride > 1 else x
        return self.skip(kept) + y  # type: ignore[no-any-return]


class Trunk(nn.Module):
    """Image [B, 3, S, S] in [-1, 1] -> features [B, 192]; S is a multiple of 16."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, WIDTHS[0], 6, 4, 1, bias=False)]
        inputs = WIDTHS[0]
        for index, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
            for block in range(depth):
                layers.append(PreActivationBlock(inputs, width, 1 + (index > 0 and block == 0)))
                inputs = width
        self.layers = nn.Sequential(*layers, nn.BatchNorm2d(inputs), nn.ReLU())
        self.size = inputs

    def forward(self, image: Tensor) -> Tensor:
        """Features of the whole picture: the last map's mean."""
        image = image.contiguous(memory_format=torch.channels_last)
        return self.layers(image).float().mean(dim=(2, 3))  # type: ignore[no-any-return]


def resize(images: Tensor, size: int) -> Tensor:
    """Resample images [B, 3, H, W] in [-1, 1] to [B, 3, size, size] without aliasing."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True).clamp(-1, 1)


class Judge(nn.Module):
    """Image [B, 3, H, W] in [-1, 1] -> logits [B, G] over the photo groups.

    Its state dictionary holds the groups and a digest of the training photos; it takes no state
    of a judge that was trained on others.

    Args:
        names: of the groups, in the order of the logits.
        trained_on: digest of the training photos' keys.
    """

    def __init__(self, names: Sequence[str], trained_on: str = "") -> None:
        super().__init__()
        self.names, self.trained_on = list(names), trained_on
        self.trunk = Trunk()
        self.head = nn.Linear(self.trunk.size, len(self.names))

    def features(self, images: Tensor) -> Tensor:
        """Features [B, 192] of images [B, 3, H, W] in [-1, 1], resampled to 96 px."""
        return self.trunk(resize(images, SIZE))  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, G] of images [B, 3, H, W] in [-1, 1]."""
        return self.head(self.features(images)).float()  # type: ignore[no-any-return]

    def get_extra_state(self) -> dict[str, Any]:
        """What a state dictionary holds beside the tensors."""
        return {"names": self.names, "trained_on": self.trained_on}

    def set_extra_state(self, state: Any) -> None:
        """Refuse the state of a judge that was trained on other photos or groups.

        Raises:
            TrainingError: it was.
        """
        if state != self.get_extra_state():
            raise TrainingError(
                "The judge's checkpoint was trained on other photos; use another folder."
            )


class _Best(nn.Module):
    """The judge with the best validation accuracy so far; travels in the checkpoint."""

    accuracy: Tensor

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self.judge = Judge(judge.names, judge.trained_on)
        self.register_buffer("accuracy", torch.tensor(-1.0))


class JudgeStage:
    """Trains a `Judge` on the training photos among photos uint8 [N, 3, 160, 160]."""

    name = "judge"
    averaged: tuple[str, ...] = ("judge",)

    def __init__(self, photos: Sequence[Photo], pixels: Tensor, options: StageOptions) -> None:
        self.options, self.photos, self.pixels = options, photos, pixels
        names = sorted({photo.group for photo in photos})
        self.group = torch.tensor([names.index(photo.group) for photo in photos])
        self.train = torch.tensor([i for i, p in enumerate(photos) if p.split == "train"])
        counts = torch.bincount(self.group[self.train], minlength=len(names)).float()
        self.weights = (1 / counts.sqrt())[self.group[self.train]]  # small groups more often
        keys = "\n".join(sorted(photo.key for photo in photos if photo.split == "train"))
        judge = Judge(names, hashlib.sha256(keys.encode()).hexdigest()[:16])
        channels_last(judge)
        self.modules: dict[str, nn.Module] = {"judge": judge, "best": _Best(judge)}
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "judge": torch.optim.AdamW(judge.parameters(), weight_decay=options.weight_decay)
        }

    def step(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """One batch of augmented crops, some of them with another mixed in."""
        judge = cast(Judge, self.modules["judge"]).train()
        count = min(self.options.batch, len(self.train))
        index = self.train[torch.multinomial(self.weights, count, generator=generator)]
        size = SMALL_SIZE if step < SMALL_SHARE * self.options.steps else SIZE
        zoom = MAX_ZOOM ** torch.rand(count, generator=generator)
        images = crops.crop(self.pixels[index], zoom, size, generator, wander=1.0)
        images = crops.change_colours(images, generator)
        images = crops.soften(images, generator)
        target = F.one_hot(self.group[index], len(judge.names)).float()
        if step < WHOLE_FROM * self.options.steps:
            images, target = mix(crops.erase(images, generator), target, generator)
        with mixed_precision():
            logits = judge.head(judge.trunk(images))
        loss = F.cross_entropy(logits.float(), target, label_smoothing=SMOOTHING)
        optimiser = self.optimisers["judge"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return {"loss": loss.detach()}

    def validate(self, averages: Mapping[str, nn.Module]) -> dict[str, float]:
        """Class mean accuracy on validation photos; keeps the best judge so far."""
        judge = cast(Judge, averages["judge"])
        best = cast(_Best, self.modules["best"])
        found, _ = accuracy(judge, self.photos, self.pixels, "validation")
        if found > float(best.accuracy):
            best.judge.load_state_dict(judge.state_dict())
            best.accuracy.fill_(found)
        return {"validation_accuracy": found, "best_accuracy": float(best.accuracy)}


def mix(images: Tensor, target: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang et al., 2018): up to a half of another image in some of images [B, 3, H, W].

    The targets [B, G] are mixed alike. The share is uniform instead of beta-distributed.
    """
    count = len(images)
    share = torch.rand(count, generator=generator) / 2
    share = share * (torch.rand(count, generator=generator) < MIXED)
    other = torch.randperm(count, generator=generator)
    images = images + (images[other] - images) * share[:, None, None, None]
    return images, target + (target[other] - target) * share[:, None]


def train_judge(
    photos: Sequence[Photo],
    pixels: Tensor,
    folder: Path,
    options: StageOptions = JUDGE_OPTIONS,
    progress: Progress | None = None,
) -> Judge:
    """Train the judge in `folder`, or go on from its checkpoint there.

    Args:
        photos: all of them; only the training split is learned, and the validation split chooses
            the moment.
        pixels: of the photos, uint8 [N, 3, 160, 160].
        folder: of the checkpoint `judge.pt` and the log `judge.csv`.
        options: of the training.
        progress: called with stage, step, steps and figures.

    Returns:
        The judge, in eval mode.

    Raises:
        TrainingError: no photos to learn from, or a checkpoint that was trained on others.
    """
    for split in ("train", "validation"):
        if not any(photo.split == split for photo in photos):
            raise TrainingError(f"The judge needs {split} photos; there are none.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        stage = JudgeStage(photos, pixels, options)
    run_stage(stage, options, folder, SEED, progress)
    judge = cast(_Best, stage.modules["best"]).judge
    channels_last(judge)
    return judge.eval().requires_grad_(False)


def as_images(pixels: Tensor) -> Tensor:
    """Pictures uint8 [N, 3, H, W] as float32 in [-1, 1]; floats as they are."""
    return pixels.float() / 127.5 - 1 if pixels.dtype == torch.uint8 else pixels


@torch.no_grad()
def look(judge: Judge, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Features [N, F] and logits [N, G] of pictures [N, 3, H, W], uint8 or float in [-1, 1]."""
    features, logits = [], []
    for part in pictures.split(BATCH):
        with mixed_precision():
            found = judge.features(as_images(part)).float()
        features.append(found)
        logits.append(judge.head(found))
    return torch.cat(features), torch.cat(logits)


def accuracy(
    judge: Judge, photos: Sequence[Photo], pixels: Tensor, split: str
) -> tuple[float, dict[str, float]]:
    """Share of a split's real photos that the judge names right: class mean, and by class."""
    index = [i for i, photo in enumerate(photos) if photo.split == split]
    _, logits = look(judge, pixels[torch.tensor(index)])
    right: dict[str, list[bool]] = {}
    for i, guess in zip(index, logits.argmax(dim=1).tolist(), strict=True):
        right.setdefault(photos[i].group, []).append(judge.names[guess] == photos[i].group)
    shares = {name: sum(found) / len(found) for name, found in sorted(right.items())}
    return sum(shares.values()) / max(1, len(shares)), shares
