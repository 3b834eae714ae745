"""Does a louder sound make a larger picture? A network that reads zoom, and a rank correlation.

The regressor learns the zoom of crops of real training photos and is used for nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2v_cli.audio.filterbank import log_mel
from s2v_cli.encoders import SoundEncoder
from s2v_cli.encoders.mini_sound import MiniSoundEncoder
from s2v_cli.errors import TrainingError
from s2v_cli.generators import Generator
from s2v_cli.training import crops
from s2v_cli.training.dataset import Clip, Photo
from s2v_cli.training.judge import BATCH, Progress, Trunk, resize
from s2v_cli.training.loop import channels_last, run_stage
from s2v_cli.training.precision import mixed_precision
from s2v_cli.training.recipe import StageOptions
from s2v_cli.training.sound_stage import hide_level, loudest_window

SIZE = 64  # px; even a crop at zoom 2 of a 160 px photo has more, so sharpness tells little
CROP_SIZE = 128  # px, before it is brought to SIZE
WANDER = 0.6  # as in the crops that the model is trained on
GAINS_DB = range(-20, 21, 5)
SEED = 1002

ZOOM_OPTIONS = StageOptions(
    steps=700,
    batch=128,
    learning_rate=2e-3,
    weight_decay=0.05,
    warm_up=0.1,
    ema=0.99,
    validate_every=100,
)


class ZoomRegressor(nn.Module):
    """Image [B, 3, H, W] in [-1, 1] -> log2 of its zoom [B], 0 to 1 in training."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk()
        self.head = nn.Linear(self.trunk.size, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Read log2 zoom [B]; images are resampled to 64 px."""
        return self.head(self.trunk(resize(images, SIZE)))[:, 0].float()  # type: ignore[no-any-return]


class ZoomStage:
    """Trains a `ZoomRegressor` on crops of photos uint8 [N, 3, 160, 160]."""

    name = "zoom_regressor"
    averaged: tuple[str, ...] = ("regressor",)

    def __init__(self, photos: Sequence[Photo], pixels: Tensor, options: StageOptions) -> None:
        self.options, self.pixels = options, pixels
        self.train = torch.tensor([i for i, p in enumerate(photos) if p.split == "train"])
        self.validation = torch.tensor([i for i, p in enumerate(photos) if p.split == "validation"])
        regressor = ZoomRegressor()
        channels_last(regressor)
        self.modules: dict[str, nn.Module] = {"regressor": regressor}
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "regressor": torch.optim.AdamW(
                regressor.parameters(), weight_decay=options.weight_decay
            )
        }

    def _crops(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Crops [B, 3, 64, 64] and the log2 of their zooms [B]."""
        zoom = crops.random_zoom(len(index), generator)
        images = crops.crop(self.pixels[index], zoom, CROP_SIZE, generator, WANDER)
        return resize(images, SIZE), zoom.log2()

    def step(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """One batch of crops."""
        regressor = self.modules["regressor"].train()
        chosen = torch.randint(len(self.train), (self.options.batch,), generator=generator)
        images, target = self._crops(self.train[chosen], generator)
        images = crops.change_colours(crops.soften(images, generator), generator, 0.2)
        with mixed_precision():
            guess = regressor(images)
        loss = F.smooth_l1_loss(guess, target, beta=0.25)
        optimiser = self.optimisers["regressor"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return {"loss": loss.detach()}

    def validate(self, averages: Mapping[str, nn.Module]) -> dict[str, float]:
        """Rank correlation of zooms read and true, on crops of validation photos."""
        generator = torch.Generator().manual_seed(0)
        guesses, targets = [], []
        for index in self.validation.split(BATCH):
            images, target = self._crops(index, generator)
            with mixed_precision():
                guesses.append(averages["regressor"](images))
            targets.append(target)
        return {"validation_spearman": spearman(torch.cat(guesses), torch.cat(targets))}


def train_zoom_regressor(
    photos: Sequence[Photo],
    pixels: Tensor,
    folder: Path,
    options: StageOptions = ZOOM_OPTIONS,
    progress: Progress | None = None,
) -> ZoomRegressor:
    """Train the regressor in `folder`, or go on from its checkpoint there.

    Args:
        photos: all of them; the training split is learned.
        pixels: of the photos, uint8 [N, 3, 160, 160].
        folder: of the checkpoint `zoom_regressor.pt` and its log.
        options: of the training.
        progress: called with stage, step, steps and figures.

    Returns:
        The regressor, in eval mode.

    Raises:
        TrainingError: no photos to learn from.
    """
    for split in ("train", "validation"):
        if not any(photo.split == split for photo in photos):
            raise TrainingError(f"The zoom regressor needs {split} photos; there are none.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        stage = ZoomStage(photos, pixels, options)
    averages = run_stage(stage, options, folder, SEED, progress)
    regressor = cast(ZoomRegressor, averages["regressor"])
    return regressor.eval().requires_grad_(False)


def ranks(values: Tensor) -> Tensor:
    """Ranks [N] from 1 of values [N]; equal values share their mean rank."""
    _, place, count = torch.unique(values, return_inverse=True, return_counts=True)
    last = count.cumsum(0).double()
    mean: Tensor = last - (count.double() - 1) / 2
    return mean[place]


def spearman(first: Tensor, second: Tensor) -> float:
    """Rank correlation of two series [N], with shared ranks; 0 if one of them is constant."""
    if len(first) != len(second):
        raise ValueError(f"The series have {len(first)} and {len(second)} values.")
    a, b = (ranks(series) - (len(series) + 1) / 2 for series in (first, second))
    scale = (a.square().sum() * b.square().sum()).sqrt()
    return float((a * b).sum() / scale) if float(scale) > 0 else 0.0


class SoundToPicture(Protocol):
    """A sound encoder and a generator in one space, as `Sound2Vision` has them."""

    @property
    def sound_encoder(self) -> SoundEncoder:
        """f_A."""
        ...

    @property
    def generator(self) -> Generator:
        """G."""
        ...


@torch.no_grad()
def loudness_spearman(
    model: SoundToPicture,
    regressor: ZoomRegressor,
    clips: Sequence[Clip],
    waves: Sequence[Tensor],
    gains_db: Sequence[int] = GAINS_DB,
    seeds: int = 4,
    *,
    hear_level: bool = True,
    truncation: float = 1.0,
    progress: Progress | None = None,
) -> float:
    """Rank correlation of gain and zoom of the pictures, the mean over clips.

    Each clip's loudest window is encoded at each gain; every gain gets pictures from the same
    noise, and their mean zoom is ranked against the gain.

    Args:
        model: what makes the pictures.
        regressor: what reads their zoom.
        clips: held-out clips; all of them count.
        waves: of the clips, float32 [T] each, at the encoder's sample rate.
        gains_db: added to the stored level.
        seeds: pictures for each gain.
        hear_level: False for the control whose encoder was trained without level
            (`sound_stage.hide_level`), and is to hear without it.
        truncation: standard deviation of the noise.
        progress: called with "loudness", clips done, clips, and no figures.
    """
    if len(clips) != len(waves) or not clips:
        raise ValueError(f"{len(clips)} clips and {len(waves)} waves; needed: as many, and some.")
    encoder, generator = model.sound_encoder, model.generator
    samples = round(encoder.window_s * encoder.sample_rate)
    gain = 10 ** (torch.tensor(gains_db, dtype=torch.float32) / 20)
    found = []
    for number, wave in enumerate(waves):
        window = loudest_window(wave, samples)[None] * gain[:, None]
        embedding = _embed(encoder, window, samples, hear_level)
        noise = [_noise(number * seeds + i, generator.noise_size) for i in range(seeds)]
        zooms = []
        for part in noise:
            images = generator(part.expand(len(gain), -1) * truncation, embedding)
            with mixed_precision():
                zooms.append(regressor(images.float()))
        found.append(spearman(torch.stack(zooms).mean(dim=0), gain))
        if progress:
            progress("loudness", number + 1, len(waves), {})
    return sum(found) / len(found)


def _embed(encoder: SoundEncoder, wave: Tensor, samples: int, hear_level: bool) -> Tensor:
    if hear_level:
        return encoder(wave).float()
    if not isinstance(encoder, MiniSoundEncoder):
        raise TrainingError("Only the mini sound encoder can hear without level.")
    return encoder.embed(encoder.feature_map(hide_level(log_mel(wave, samples))))


def _noise(seed: int, size: int) -> Tensor:
    return torch.randn(1, size, generator=torch.Generator().manual_seed(seed))
