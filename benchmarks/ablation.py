"""The ablation of a plan with a bare training loop that holds a small dataset in memory.

    python benchmarks/ablation.py DATA --out FOLDER [--plan ablation] [--judge FOLDER]

The loop is the least that the losses need: random windows of the sounds, SpecAugment, AdamW with a
cosine schedule, averaged weights; the teacher's image embeddings are computed once for all runs,
and a step costs the sound encoder alone. Stopped, the same command goes on run by run.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from s2v_cli import Sound2Vision
from s2v_cli.audio.filterbank import SAMPLE_RATE, log_mel
from s2v_cli.encoders.mini_sound import MiniSoundEncoder
from s2v_cli.errors import S2VError, TrainingError
from s2v_cli.picture import to_tensor
from s2v_cli.training.ablation.measure import read_image, read_wave
from s2v_cli.training.ablation.plan import load_plan
from s2v_cli.training.ablation.run import ablate
from s2v_cli.training.align.options import AlignOptions, options_from
from s2v_cli.training.loop import average_weights, channels_last, learning_rate_at, step_generator
from s2v_cli.training.losses import audio_visual_loss
from s2v_cli.training.manifest import Example, read_manifest
from s2v_cli.training.precision import mixed_precision
from s2v_cli.training.recipe import StageOptions
from s2v_cli.training.sound_stage import draw, mask

_images: dict[str, Tensor] = {}  # z^V by the picture's hash


@dataclass
class Memory:
    """The training split of a dataset.

    Attributes:
        waves: float32 [T] each, 16 kHz.
        partners: rows of `images` that each sound goes with.
        images: z^V [N, D].
    """

    waves: list[Tensor]
    partners: list[Tensor]
    images: Tensor


@cache
def teacher(name: str) -> Sound2Vision:
    return Sound2Vision.load(name, device="cpu")


@torch.inference_mode()
def image_embedding(model: Sound2Vision, folder: Path, example: Example) -> Tensor:
    assert example.image is not None
    key = example.image.sha256
    if key not in _images:
        _images[key] = model.image_encoder(to_tensor(read_image(folder, example))[None])[0].clone()
    return _images[key]


@cache
def remember(folder: Path, teacher_name: str) -> Memory:
    examples = [e for e in read_manifest(folder) if e.split == "train"]
    seen = [e for e in examples if e.image is not None]
    heard = [e for e in examples if e.sound is not None and not (e.name or "").startswith("~")]
    if not heard or not seen:
        raise TrainingError(f"{folder} has no pairs to train on.")
    rows = {e.key: row for row, e in enumerate(seen)}
    by_name: dict[str | None, list[int]] = {}
    for row, example in enumerate(seen):
        by_name.setdefault(example.name, []).append(row)
    own = [[rows[e.key]] if e.image is not None else by_name[e.name] for e in heard]
    model = teacher(teacher_name)
    return Memory(
        [read_wave(folder, e) for e in heard],
        [torch.tensor(partners) for partners in own],
        torch.stack([image_embedding(model, folder, e) for e in seen]),
    )


def window(wave: Tensor, samples: int, generator: torch.Generator) -> Tensor:
    """A random part of a wave [T], repeated where it is shorter: [samples]."""
    if len(wave) <= samples:
        return wave.repeat(-(-samples // len(wave)))[:samples]
    first = draw(len(wave) - samples + 1, generator)
    return wave[first : first + samples]


def loss_of(sound: Tensor, image: Tensor, options: AlignOptions) -> Tensor:
    """The losses of Table 2 on unit embeddings [B, D]."""
    if options.loss == "l2":
        return (sound - image).square().sum(dim=1).mean()
    if options.loss == "l2-infonce":
        return audio_visual_loss(sound, image, options.temperature)
    if options.loss == "cosine-infonce":
        logits, target = sound @ image.T / options.temperature, torch.arange(len(sound))
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    raise TrainingError(f"loss is {options.loss!r}; allowed: l2, cosine-infonce, l2-infonce.")


def train(data: Path, run: Path, entries: Mapping[str, Any], progress: Any) -> Sound2Vision:
    """Train a sound encoder of the bundled kind; returns the teacher with it."""
    options = options_from(entries)
    memory = remember(data, options.teacher)
    samples = round((options.duration_s or MiniSoundEncoder.window_s) * SAMPLE_RATE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        encoder = MiniSoundEncoder().train()
    encoder.window_s = samples / SAMPLE_RATE
    channels_last(encoder)
    average = copy.deepcopy(encoder)
    optimiser = torch.optim.AdamW(encoder.parameters(), weight_decay=options.weight_decay)
    steps = options.steps or 100
    schedule = StageOptions(steps, options.batch, options.learning_rate, warm_up=options.warm_up)
    batch = min(options.batch, len(memory.waves))
    for step in range(steps):
        generator = step_generator(options.seed, step)
        rows = torch.randperm(len(memory.waves), generator=generator)[:batch].tolist()
        waves = torch.stack([window(memory.waves[row], samples, generator) for row in rows])
        partners = [memory.partners[row] for row in rows]
        image = memory.images[[int(p[draw(len(p), generator)]) for p in partners]]
        spectrogram = mask(log_mel(waves, samples), generator)
        with mixed_precision():
            feature_map = encoder.feature_map(spectrogram)
        loss = loss_of(encoder.heard(feature_map), image, options)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate_at(step, schedule)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        average_weights(average, encoder, min(options.ema, (step + 1) / (step + 10)))
        if progress:
            progress("train", step + 1, steps, {"loss": float(loss.detach())})
    model = copy.copy(teacher(options.teacher))
    model.sound_encoder = average.eval().requires_grad_(False)
    return model


def show(stage: str, done: int, steps: int, figures: dict[str, float]) -> None:
    """A line on stderr at every half of a stage."""
    if stage == "ablation" or (steps and done * 2 // steps > (done - 1) * 2 // steps):
        shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        print(f"{stage} {done}/{steps} {shown}".rstrip(), file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the data set")
    parser.add_argument("--plan", default="ablation", help="name or TOML file")
    parser.add_argument("--out", type=Path, required=True, help="folder for runs and report")
    parser.add_argument("--judge", type=Path, help="folder of a trained judge; OUT/judge if left")
    given = parser.parse_args(arguments)
    try:
        path = ablate(
            given.data,
            given.out,
            load_plan(given.plan),
            show,
            judge=given.judge,
            align=train,
            command="python benchmarks/ablation.py DATA --out FOLDER",
        )
    except S2VError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
