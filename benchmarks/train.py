"""An epoch of `s2v train` beside one of the published training loop, interleaved, on the CPU.

    python -m benchmarks.train [PATH] [--pairs 32] [--batch 8] [--rounds 3] [--threads 2]
        [--profile]

PATH is a checkout of Sound2Scene (github.com/kaist-ami/Sound2Scene). Its `train.py` runs as it is,
patched at run time only so that it runs on a CPU and without torchvision, which it needs for
resizing pictures alone: the image encoder is our ResNet-50 under its own interface, the sounds
come in the order of the files, and the validation behind an epoch is left out. Without PATH the
opponent is a stand-in of the same steps in a few lines.

Both train the published architecture (ResNet-18 on 257 x 1004, towards a ResNet-50) with the
same Adam from the same random weights on the same batches of drawn pairs. The published loop
computes the image features in every step, and gradients of the image encoder, which nothing
uses; it is timed with and without those. Ours reads features that were computed once; how long
that took is printed too. Ratios are medians over the rounds of published time over ours, by the
clock and by processor time, which other programs disturb less. Budget: at least 2.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import sys
import tempfile
import time
import types
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from s2v_cli.encoders.sound2vision_sound import Sound2SceneEncoder
from s2v_cli.encoders.swav import IMAGENET_DEVIATION, IMAGENET_MEAN, SwavResNet50
from s2v_cli.training.align.options import AlignOptions
from s2v_cli.training.align.trainer import Trainer
from s2v_cli.training.export import Network, trained, write_preset
from s2v_cli.training.manifest import SAMPLE_RATE, Example, write_manifest
from s2v_cli.training.manifest import Dataset as Prepared
from s2v_cli.training.prepare.shards import ShardWriter, encode_sound

BUDGET = 2.0
SECONDS = 10
SIDE = 256
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 1e-5  # as published
WORKERS = 4  # of the published loader
Epoch = Callable[[], list[float]]  # trains an epoch from the first weights; losses of its steps


def draw_pairs(folder: Path, count: int) -> Path:
    """Pairs as the published loader wants them (images/, audios/), and prepared (data/)."""
    for name in ("images", "audios"):
        (folder / name).mkdir()
    random = np.random.default_rng(0)
    writer, examples = ShardWriter(folder / "data", "train", 0), []
    for number in range(count):
        key = f"{number:04d}"
        scale = 10 ** random.uniform(-2, -0.5)
        smooth = np.convolve(random.normal(0, scale, SECONDS * SAMPLE_RATE), [1, 0.5, 0.2], "same")
        sound = encode_sound(smooth.astype(np.float32))
        samples, _ = soundfile.read(io.BytesIO(sound), dtype="int16")
        soundfile.write(folder / "audios" / f"{key}.wav", samples, SAMPLE_RATE)
        patches = Image.fromarray(random.integers(0, 256, (8, 9, 3), np.uint8))
        path = folder / "images" / f"{key}.jpg"
        patches.resize((SIDE * 4 // 3, SIDE), Image.Resampling.BICUBIC).save(path, quality=90)
        row = Example(key=key, source=key, split="train", shard="")
        examples.append(writer.add(row, path.read_bytes(), sound))
    Prepared("file", (writer.close(),), {"train": count}, {}).write(folder / "data")
    write_manifest(folder / "data", examples)
    return folder


# The published loop


class Features(nn.Module):
    """The published image encoder's interface: standardised [B, 3, 224, 224] -> z^V, twice."""

    def __init__(self, swav: SwavResNet50, wasteful: bool) -> None:
        super().__init__()
        self.trunk = swav.trunk
        self.eval().requires_grad_(wasteful)

    def forward(self, seen: Tensor) -> tuple[Tensor, None]:
        return self.trunk.stages(seen)[-1].mean(dim=(2, 3)), None


class Resize:
    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.resize(self.size, Image.Resampling.BILINEAR)


class Normalize:
    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        self.mean, self.deviation = mean, deviation

    def __call__(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.deviation


class Compose:
    def __init__(self, steps: list[Callable[[Any], Any]]) -> None:
        self.steps = steps

    def __call__(self, image: Any) -> Any:
        for step in self.steps:
            image = step(image)
        return image


def to_pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def stub(name: str, **members: Any) -> None:
    """A module that the published code imports, with what it uses of it."""
    module = types.ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module


def published(
    path: Path, pairs: Path, encoder: Sound2SceneEncoder, swav: SwavResNet50, batch: int
) -> Callable[[bool], Epoch]:
    """The checkout's own `train.train`, an epoch long."""
    if not (path / "a2s_dataloader.py").is_file():
        raise SystemExit(f"{path} has no a2s_dataloader.py: give a checkout of Sound2Scene.")
    sys.path.insert(0, str(path))
    nothing: dict[str, Any] = dict.fromkeys(("save_image", "make_grid", "to_pil_image"))
    transforms = {"Compose": Compose, "Resize": Resize, "Normalize": Normalize}
    stub("torchvision")
    stub("torchvision.transforms", ToTensor=lambda: to_pixels, **transforms)
    sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]  # type: ignore[attr-defined]
    stub("torchvision.transforms.functional", **nothing)
    stub("torchvision.utils", **nothing)
    stub("torch.utils.tensorboard", SummaryWriter=None)
    stub("data_utils")
    stub("data_utils.utils")
    sys.modules["data_utils"].utils = sys.modules["data_utils.utils"]  # type: ignore[attr-defined]
    stub("inference")
    stub("inference.generate_images", get_model=None)
    import train

    del sys.modules["torch.utils.tensorboard"]  # ours writes to it

    state = {f"audnet.{key}": tensor.clone() for key, tensor in encoder.state_dict().items()}
    arguments = Namespace(
        pool="avgpool", batch_size=batch, n_classes=2048, model_depth=18, resnet_type="fc",
        warm=False, data_path=str(pairs), save_path=os.devnull, epochs=1, resolution=128,
        trained_dataset="imagenet", model="icgan", model_backbone="biggan", root_path="",
    )  # fmt: skip
    losses: list[float] = []

    class Ordered(train.GetVGGSound):  # type: ignore[name-defined,misc]
        def load_files(self) -> None:
            super().load_files()
            for files in (self.index_lists, self.img_lists, self.aud_lists):
                files.sort()

    class Recorded(train.InfoNCE_with_L2):  # type: ignore[name-defined,misc]
        def loss_fn(self, *features: Tensor) -> Tensor:
            loss: Tensor = super().loss_fn(*features)
            losses.append(loss.item())
            return loss

    def load(arguments: Namespace, device: torch.device) -> nn.Module:
        model: nn.Module = train.AVENet(arguments)
        model.load_state_dict(state)
        return model

    train.GetVGGSound, train.InfoNCE_with_L2, train.load = Ordered, Recorded, load
    train.DataLoader = lambda dataset, **options: DataLoader(
        dataset, **options | {"shuffle": False}
    )
    train.validate = lambda *given: torch.tensor([1e9])
    Tensor.cuda = lambda self, *given: self  # type: ignore[method-assign,assignment]

    def of(wasteful: bool) -> Epoch:
        def epoch() -> list[float]:
            losses.clear()
            train.get_model = lambda *given, **more: (None, Features(swav, wasteful))
            with contextlib.redirect_stdout(io.StringIO()):
                train.train(arguments)
            return list(losses)

        return epoch

    return of


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """The published loader's steps: scipy's spectrogram, and the picture as the encoder sees it."""

    def __init__(self, folder: Path) -> None:
        self.stems = sorted(path.stem for path in (folder / "images").iterdir())
        self.folder = folder

    def __len__(self) -> int:
        return len(self.stems)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        from scipy.signal import spectrogram

        wave, rate = soundfile.read(self.folder / "audios" / f"{self.stems[index]}.wav")
        density = spectrogram(wave.clip(-1, 1), rate, nperseg=512, noverlap=353)[2]
        logarithm = np.log(density + 1e-7)
        logarithm = (logarithm - logarithm.mean()) / (logarithm.std() + 1e-9)
        with Image.open(self.folder / "images" / f"{self.stems[index]}.jpg") as image:
            pixels = to_pixels(Resize((256, 256))(image.convert("RGB")))
        mean, deviation = (
            torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_DEVIATION)
        )
        standardised = ((pixels - mean) / deviation)[None]
        seen = F.interpolate(standardised, 224, mode="bicubic", align_corners=True)[0]
        return torch.from_numpy(logarithm), seen


def stand_in(
    pairs: Path, encoder: Sound2SceneEncoder, swav: SwavResNet50, batch: int
) -> Callable[[bool], Epoch]:
    """The published loop's steps in a few lines."""
    state = {key: tensor.clone() for key, tensor in encoder.state_dict().items()}

    def of(wasteful: bool) -> Epoch:
        def epoch() -> list[float]:
            model, features = Sound2SceneEncoder().train(), Features(swav, wasteful)
            model.load_state_dict(state)
            adam = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
            losses = []
            for spectrogram, seen in DataLoader(Pairs(pairs), batch, num_workers=WORKERS):
                image = F.normalize(features(seen)[0], dim=1)
                sound = model.embed(model.feature_map(spectrogram[:, None].float()))
                distance, own = -torch.cdist(image, sound), torch.arange(len(sound))
                loss = (F.cross_entropy(distance, own) + F.cross_entropy(distance.T, own)) / 2
                adam.zero_grad()
                loss.backward()
                adam.step()
                losses.append(loss.item())
            return losses

        return epoch

    return of


# Ours


def random_preset(folder: Path, encoder: Sound2SceneEncoder, swav: SwavResNet50) -> Path:
    """A preset of the published architecture with random weights."""
    networks = {
        "sound_encoder": trained("sound2scene-sound-encoder", encoder, half=False),
        "image_encoder": trained("swav-image-encoder", swav, half=False),
        "generator": Network("icgan-generator", None, ("icgan-128",)),
    }
    return write_preset(
        folder, networks, model="sound2scene", space=SwavResNet50.space, resolution=128,
        sample_rate=SAMPLE_RATE, window_s=float(SECONDS), generate={},
    )  # fmt: skip


def ours(pairs: Path, preset: Path, batch: int) -> Callable[[], Epoch]:
    """`s2v train` with the published options, made ready; each epoch needs a new one."""
    numbers = np.arange(len(list((pairs / "images").iterdir())))
    options = AlignOptions(
        teacher=str(preset), from_weights=True, loss="l2-infonce", batch=batch, epochs=1,
        optimiser="adam", learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY,
        schedule="constant", warm_up=0.0, ema=0.0, precision="float32", samples=0,
        crop="centre", close_gap=False,
    )  # fmt: skip

    def ready() -> Epoch:
        losses: list[float] = []

        def note(stage: str, step: int, steps: int, figures: dict[str, float]) -> None:
            if stage == "align":
                losses.append(figures["loss"])

        run = Path(tempfile.mkdtemp(dir=pairs))
        trainer = Trainer(Accelerator(cpu=True), pairs / "data", run, options, note)
        trainer.batches.order = lambda epoch: numbers  # type: ignore[method-assign]

        def epoch() -> list[float]:
            trainer.train()
            return losses

        return epoch

    return ready


def timed(epoch: Epoch) -> tuple[float, float, list[float]]:
    """Seconds by the clock and of processors, worker processes included; and the losses."""
    before, start = sum(os.times()[:4]), time.perf_counter()
    losses = epoch()
    return time.perf_counter() - start, sum(os.times()[:4]) - before, losses


@contextlib.contextmanager
def drawn(count: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield draw_pairs(Path(folder), count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, nargs="?", help="checkout of the published repository")
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--profile", action="store_true", help="where our epoch spends its time")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    encoder, swav = Sound2SceneEncoder(), SwavResNet50()
    given.pairs -= given.pairs % given.batch
    with drawn(given.pairs) as pairs:
        preset = random_preset(pairs / "preset", encoder, swav)
        name = "stand-in"
        of = stand_in(pairs, encoder, swav, given.batch)
        if given.path is not None:
            name, of = "published", published(given.path, pairs, encoder, swav, given.batch)
        ready = ours(pairs, preset, given.batch)
        start = time.perf_counter()
        ready()
        features = time.perf_counter() - start
        contestants = {
            f"{name}, as it is": lambda: of(True),
            f"{name}, frozen image encoder": lambda: of(False),
            "s2v": ready,
        }
        took: dict[str, list[tuple[float, float]]] = {label: [] for label in contestants}
        for _ in range(given.rounds):
            for label, make in contestants.items():
                clock, processors, losses = timed(make())
                took[label].append((clock, processors))
                if label.endswith("as it is"):
                    expected = losses
            difference = max(abs(a - b) for a, b in zip(losses, expected, strict=True))
        print(
            f"{given.pairs} pairs, batches of {given.batch}, {torch.get_num_threads()} threads, "
            f"{given.rounds} rounds"
        )
        for label, times in took.items():
            clock, processors = (statistics.median(part) for part in zip(*times, strict=True))
            by_clock, by_processors = (
                statistics.median(a[k] / b[k] for a, b in zip(times, took["s2v"], strict=True))
                for k in (0, 1)
            )
            print(
                f"{label:34s}{clock:8.1f} s, of processors {processors:8.1f} s   "
                f"ratio {by_clock:.2f}, {by_processors:.2f}"
            )
        print(f"before the first epoch, networks and image features: {features:.1f} s")
        print(f"first losses {expected[0]:.7f} and {losses[0]:.7f}")
        print(f"largest difference of the losses of {len(losses)} steps: {difference:.1e}")
        print(f"budget: ratio of {BUDGET:g} to the {name} loop as it is")
        if given.profile:
            show_profile(ready())


def show_profile(epoch: Epoch) -> None:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found:
        epoch()
    averages = found.key_averages()
    whole = sum(row.self_cpu_time_total for row in averages)
    print("share of our epoch's own time by operation")
    for row in sorted(averages, key=lambda row: -row.self_cpu_time_total)[:10]:
        print(f"  {row.key:40s}{row.self_cpu_time_total / whole:7.1%}")


if __name__ == "__main__":
    main()
