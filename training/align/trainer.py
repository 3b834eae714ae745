"""Training a sound encoder towards the frozen image encoder of a preset (§3.1, Eq. 1-2).

One process or several (`accelerate launch`, `torchrun`): the losses are the same, since each
process sees its rows of one global batch and all embeddings are gathered. Every step depends only
on the weights, the seed and its number, so a run that was killed goes on from its checkpoint to
the same weights.
"""

from __future__ import annotations

import contextlib
import copy
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from pickle import PickleError
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from filelock import FileLock, Timeout
from torch import Tensor, nn

from s2v_cli.device import find_device
from s2v_cli.errors import DeviceError, OptionError, TrainingError
from s2v_cli.options import DeviceChoice
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.presets import PRESET_FILE
from s2v_cli.training.align.augment import blank
from s2v_cli.training.align.batches import Batch, Batches
from s2v_cli.training.align.distributed import (
    gather_rows,
    mean_of_processes,
    of_first_process,
    synchronise_norms,
)
from s2v_cli.training.align.encoder import build_encoder
from s2v_cli.training.align.export import export_run
from s2v_cli.training.align.features import ImageFeatures
from s2v_cli.training.align.logs import CSV_FILE, Logs, forget_logs
from s2v_cli.training.align.options import AlignOptions
from s2v_cli.training.align.samples import Samples, forget_samples
from s2v_cli.training.align.validation import validate
from s2v_cli.training.loop import average_weights, learning_rate_at, save_checkpoint
from s2v_cli.training.losses import AlignmentLoss
from s2v_cli.training.manifest import is_prepared
from s2v_cli.training.pairs import PairDataset
from s2v_cli.training.precision import half_precision_of
from s2v_cli.training.recipe import StageOptions

Progress = Callable[[str, int, int, dict[str, float]], None]

STAGE = "align"
EARLY_STOP = "early_stop"  # told once where patience ends a training
FEWEST_BETWEEN = 50  # steps between validations, where an epoch is shorter
CHECKPOINT = "checkpoint.pt"
LOCK = "train.lock"
CHECKPOINT_EVERY_S = 120.0
DATASET, IMAGE_ENCODER = "dataset", "image encoder"  # that a checkpoint is of
WAIT_H = 24  # for a process that computes image features or draws samples while others wait
LOG_EVERY = 10  # steps
MAY_CHANGE = frozenset({"workers", "samples", "close_gap"})  # between a run and its continuation


def align(
    data: Path,
    run: Path,
    options: AlignOptions,
    progress: Progress | None = None,
    *,
    device: DeviceChoice = "auto",
    fresh: bool = False,
) -> Path:
    """Train, validate, checkpoint and export; goes on from the run's checkpoint if it has one.

    Args:
        data: a prepared dataset.
        run: folder for the checkpoint, logs and samples; becomes a preset.
        options: of the training.
        progress: called with stage, step, steps and figures, on the main process.
        device: where to compute.
        fresh: begin again where the run has a checkpoint.

    Returns:
        `run`, which `s2v gen --preset` takes.

    Raises:
        TrainingError: data that do not fit, other options than the checkpoint's, a loss that is
            not finite, a vanished shard, a folder that cannot be written, or another training in
            it.
        OptionError: an option outside its range or that does not fit the teacher.
        PresetError, WeightsError: the teacher cannot be loaded.
        DeviceError: this machine does not have the device.
    """
    accelerator = _accelerator(device)
    _make_folder(run)
    with _alone(run) if accelerator.is_main_process else contextlib.nullcontext():
        trainer = Trainer(accelerator, data, run, options, progress, fresh=fresh)
        trainer.train()
        return trainer.finish()


def _accelerator(device: DeviceChoice) -> Accelerator:
    """This process among those that `accelerate launch` or `torchrun` started, or alone."""
    kind = find_device(device).type
    waiting = InitProcessGroupKwargs(timeout=timedelta(hours=WAIT_H))
    try:
        accelerator = Accelerator(cpu=kind == "cpu", kwargs_handlers=[waiting])
    except ValueError:  # its device is the process's, for good
        accelerator = Accelerator()
    if accelerator.device.type != kind:
        raise DeviceError(
            f"device is {kind!r}, but this process has trained on {accelerator.device.type!r}; "
            "start another one."
        )
    return accelerator


class _Aligned(nn.Module):
    """Encoder and loss in one module, as DistributedDataParallel wants them."""

    def __init__(self, encoder: nn.Module, loss: AlignmentLoss, world: int, rank: int) -> None:
        super().__init__()
        self.encoder, self.loss = encoder, loss
        self._world, self._rank = world, rank

    def embed(self, spectrogram: Tensor, dtype: torch.dtype | None) -> Tensor:
        """z^A [b, D] of spectrograms [b, 1, F, T]; convolutions in `dtype` if one is given."""
        with _precision(spectrogram.device, dtype):
            feature_map = self.encoder.feature_map(spectrogram)  # type: ignore[operator]
        embedding: Tensor = self.encoder.embed(feature_map)  # type: ignore[operator]
        return embedding

    def compare(self, sound: Tensor, image: Tensor) -> Tensor:
        """Loss of this process's pairs, 0-d, against those of all processes."""
        if self._world == 1:
            return cast(Tensor, self.loss(sound, image))
        first = self._rank * len(sound)
        return cast(Tensor, self.loss(sound, image, gather_rows(sound), gather_rows(image), first))

    def forward(
        self,
        spectrogram: Tensor,
        image: Tensor,
        dtype: torch.dtype | None,
        gradient: Tensor | None = None,
    ) -> Tensor:
        """The loss; with a `gradient` [b, D] of embeddings, what backpropagates just that."""
        embedding = self.embed(spectrogram, dtype)
        if gradient is not None:
            return (embedding * gradient).sum() + 0 * self.loss.log_temperature
        return self.compare(embedding, image)


class Trainer:
    """One run; see `align`."""

    def __init__(
        self,
        accelerator: Accelerator,
        data: Path,
        run: Path,
        options: AlignOptions,
        progress: Progress | None = None,
        *,
        fresh: bool = False,
    ) -> None:
        self.accelerator = accelerator
        self.device = accelerator.device
        self.main = accelerator.is_main_process
        self.progress = progress if self.main else None
        self.run = run
        self.dataset = PairDataset.open(data)
        self.teacher = Sound2Vision.load(
            options.teacher, device=cast(DeviceChoice, self.device.type)
        )
        self.options = options.resolved(self.teacher.space, float(self.teacher.preset.window_s))
        world, rank = accelerator.num_processes, accelerator.process_index
        features = self._features(data)
        self.batches = Batches(self.dataset, features, self.options, rank=rank, world=world)
        self._check_accumulate(world)
        self.held_out = Batches(self.dataset, features, self.options, split="validation")
        self.steps = self.options.steps or self.options.epochs * self.batches.steps_per_epoch
        epoch = max(self.batches.steps_per_epoch, FEWEST_BETWEEN)
        self.every = self.options.validate_every or epoch
        self._build(world, rank)
        self.step, self.best, self.stale = 0, -math.inf, 0
        self.best_weights: dict[str, Tensor] | None = None
        self._restore(fresh)

    def _features(self, data: Path) -> ImageFeatures:
        cache = _cache_of(data, self.run)
        if self.main:
            ImageFeatures.open(self.dataset, self.teacher, cache, self.progress)
        self.accelerator.wait_for_everyone()
        return ImageFeatures.open(self.dataset, self.teacher, cache)

    def _check_accumulate(self, world: int) -> None:
        share = self.options.batch // world
        if share % self.options.accumulate:
            raise OptionError(
                f"accumulate is {self.options.accumulate}; allowed: what divides the {share} "
                "pairs of a process's batch."
            )

    def _build(self, world: int, rank: int) -> None:
        options, space = self.options, self.teacher.space
        assert options.duration_s is not None
        self.encoder = build_encoder(
            self.teacher, options.duration_s, options.seed, from_weights=options.from_weights
        )
        if world > 1:
            self.encoder = synchronise_norms(self.encoder, self.device)
        self.encoder.to(self.device)
        if self.device.type == "cuda":  # on a CPU, gradients of convolutions are slower so
            self.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.loss = AlignmentLoss(
            options.loss,
            options.temperature,
            learn=options.learn_temperature,
            unit=space.scale == "unit",
        ).to(self.device)
        self.average = copy.deepcopy(self.encoder).requires_grad_(False)
        aligned = _Aligned(self.encoder, self.loss, world, rank)
        kind = torch.optim.Adam if options.optimiser == "adam" else torch.optim.AdamW
        trained = [weight for weight in aligned.parameters() if weight.requires_grad]
        self.optimiser = kind(trained, lr=options.learning_rate, weight_decay=options.weight_decay)
        if options.compile:
            aligned = cast(_Aligned, torch.compile(aligned))
        self.aligned = self.accelerator.prepare_model(aligned) if world > 1 else aligned
        self.dtype = half_precision_of(options.precision, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    # Checkpoints

    def _told(self) -> dict[str, Any]:
        """What a continuation must have in common with its checkpoint."""
        kept = {k: v for k, v in self.options.as_table().items() if k not in MAY_CHANGE}
        image_encoder = self.teacher.weights_sha256.get("image_encoder", "")
        return {**kept, DATASET: self.dataset.digest, IMAGE_ENCODER: image_encoder}

    def _restore(self, fresh: bool) -> None:
        path = self.run / CHECKPOINT
        if path.is_file() and not fresh:
            self._read(path)
        if of_first_process(float(self.step), self.device) != self.step:
            raise TrainingError(
                f"The processes do not find the same checkpoint in {self.run}. Give an --out that "
                "all machines see."
            )
        if self.main and not self.step:  # else a kill before the first checkpoint brings it back
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            forget_logs(self.run)
            forget_samples(self.run)

    def _read(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            told = dict(state["told"])
        except (OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError, PickleError):
            raise TrainingError(
                f"Cannot read the checkpoint {path}. Begin again with --fresh, or give another "
                "--out."
            ) from None
        for name, value in self._told().items():
            if told.get(name) != value:
                known = name in (DATASET, IMAGE_ENCODER)
                what = f"another {name}" if known else f"{name} {told.get(name)!r}, not {value!r}"
                raise TrainingError(
                    f"The run in {self.run} was begun with {what}. Go on with what it was begun "
                    "with, begin again with --fresh, or give another --out."
                )
        try:
            self.step, self.best, self.stale = state["step"], state["best"], state["stale"]
            self.encoder.load_state_dict(state["encoder"])
            self.average.load_state_dict(state["average"])
            self.loss.load_state_dict(state["loss"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.scaler.load_state_dict(state["scaler"])
            self.best_weights = state["best_weights"]
        except (KeyError, RuntimeError, ValueError):
            raise TrainingError(
                f"The checkpoint {path} is of another version of s2v. Begin again with --fresh, or "
                "give another --out."
            ) from None

    def save(self) -> None:
        """Write the checkpoint; a kill at any moment leaves the old one or this one."""
        if self.main:
            state = {
                "told": self._told(),
                "step": self.step,
                "best": self.best,
                "stale": self.stale,
                "encoder": self.encoder.state_dict(),
                "average": self.average.state_dict(),
                "loss": self.loss.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "scaler": self.scaler.state_dict(),
                "best_weights": self.best_weights,
            }
            save_checkpoint(self.run / CHECKPOINT, state)

    # Steps

    def train(self) -> None:
        """Take the steps that are left."""
        if self.stopped():
            return
        logs = Logs(self.run, self.step) if self.main else None
        samples = Samples(self.teacher, self.dataset, self.held_out, self.options, self.run)
        saved = time.monotonic()
        try:
            with _patient() as interrupted:
                for batch in self.batches.iterate(self.step, self.steps):
                    figures, stop = self._take(batch, interrupted)
                    self.step += 1
                    validated = self.step % self.every == 0 or self.step == self.steps
                    if validated:
                        figures |= self._validate(logs, samples)
                    if logs and (validated or self.step % LOG_EVERY == 0 or self.step == 1):
                        logs.write(self.step, figures)
                    if validated or stop or time.monotonic() - saved > CHECKPOINT_EVERY_S:
                        self.save()  # after the log, which so never lacks a step
                        saved = time.monotonic()
                    if self.progress:
                        self.progress(STAGE, self.step, self.steps, figures)
                    if stop:
                        raise KeyboardInterrupt
                    if self.stopped():
                        break
            if self.step < self.steps and self.progress:
                self.progress(EARLY_STOP, self.step, self.steps, {"best": self.best})
        except torch.cuda.OutOfMemoryError:
            share = self.options.batch // self.accelerator.num_processes
            raise TrainingError(
                f"{share} pairs do not fit into the memory of {self.device} at once. Give --set "
                f"accumulate={2 * self.options.accumulate}, or a smaller --batch."
            ) from None
        finally:
            if logs:
                logs.close()

    def stopped(self) -> bool:
        """Whether all steps are taken, or validation has not improved for too long."""
        patience = self.options.patience
        return self.step >= self.steps or bool(patience and self.stale >= patience)

    def _take(self, batch: Batch, interrupted: Callable[[], bool]) -> tuple[dict[str, float], bool]:
        """One step; returns its figures, and whether any process was told to stop."""
        rate = self._rate()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.aligned.train()
        self.optimiser.zero_grad()
        spectrogram = self._spectrogram(batch)
        own = self._backward(spectrogram, batch.image_embedding.to(self.device))
        asked = torch.tensor(float(interrupted()), device=self.device)
        loss, stop = mean_of_processes(torch.stack([own.float(), asked])).tolist()
        self._check_finite("loss", loss, batch)
        self.scaler.unscale_(self.optimiser)
        norm = float(
            torch.nn.utils.clip_grad_norm_(
                self.aligned.parameters(), self.options.clip_norm or math.inf
            )
        )
        if not self.scaler.is_enabled():  # which leaves such a step out, and scales less
            self._check_finite("gradient", norm, batch)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        decay = min(self.options.ema, (self.step + 1) / (self.step + 10))
        average_weights(self.average, self.encoder, decay)
        figures = {"loss": loss, "learning_rate": rate, "gradient": norm}
        if self.options.learn_temperature:
            figures["temperature"] = float(self.loss.temperature.detach())
        return figures, bool(stop)

    def _check_finite(self, what: str, value: float, batch: Batch) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"The {what} is {value} at step {self.step + 1}, with the sounds "
                f"{self._named(batch)}. Lower --learning-rate (now "
                f"{self.options.learning_rate:g}) or give --set clip_norm=1, and --fresh; the "
                "last checkpoint is kept."
            )

    def _named(self, batch: Batch) -> str:
        names = [self.dataset.key(int(index)) for index in batch.example[:3]]
        return ", ".join(names) + (", ..." if len(batch.example) > 3 else "")

    def _rate(self) -> float:
        if self.options.schedule == "constant":
            warm_up = max(1, round(self.options.warm_up * self.steps))
            return self.options.learning_rate * min(1.0, (self.step + 1) / warm_up)
        return learning_rate_at(
            self.step,
            StageOptions(
                steps=self.steps,
                batch=self.options.batch,
                learning_rate=self.options.learning_rate,
                warm_up=self.options.warm_up,
            ),
        )

    def _spectrogram(self, batch: Batch) -> Tensor:
        wave = batch.wave.to(self.device, non_blocking=True)
        with torch.no_grad():
            spectrogram: Tensor = self.encoder.spectrogram(wave)  # type: ignore[operator]
            return blank(spectrogram, batch.masks)

    def _backward(self, spectrogram: Tensor, image: Tensor) -> Tensor:
        """Gradients of one batch; returns the loss of this process's pairs, 0-d."""
        parts = self.options.accumulate
        if parts == 1:
            loss: Tensor = self.aligned(spectrogram, image, self.dtype)
            self.scaler.scale(loss).backward()
            return loss.detach()
        # Negatives are of the whole batch: embeddings first, then the gradient that each has, then
        # each part again with it (gradient caching; Gao et al., 2021).
        module = self._module()
        with torch.no_grad(), _buffers_kept(self.encoder):
            found = [module.embed(part, self.dtype) for part in spectrogram.chunk(parts)]
        embedding = torch.cat(found).requires_grad_()
        loss = module.compare(embedding, image)
        self.scaler.scale(loss).backward()
        assert embedding.grad is not None
        pairs = zip(spectrogram.chunk(parts), embedding.grad.chunk(parts), strict=True)
        for number, (part, gradient) in enumerate(pairs):
            whole = number == parts - 1 or self.accelerator.num_processes == 1
            with contextlib.nullcontext() if whole else self.accelerator.no_sync(self.aligned):
                self.aligned(part, image[: len(part)], self.dtype, gradient).backward()
        return loss.detach()

    def _module(self) -> _Aligned:
        return cast(_Aligned, self.accelerator.unwrap_model(self.aligned))

    def _validate(self, logs: Logs | None, samples: Samples) -> dict[str, float]:
        """Figures of the averaged encoder on the validation split; keeps the best weights."""
        if not len(self.held_out.sounds):
            return {}
        encoder = self.average.eval()
        share = self.options.batch // self.accelerator.num_processes // self.options.accumulate
        figures = validate(encoder, self.loss, self.held_out, self.device, share)
        score = of_first_process(figures.pop("score"), self.device)  # they must stop together
        if score > self.best:
            self.best, self.stale = score, 0
            if self.options.patience:
                self.best_weights = {k: v.clone() for k, v in encoder.state_dict().items()}
        elif not math.isnan(score):
            self.stale += 1
        if self.main:
            picture = samples.draw(encoder, self.step)
            if picture is not None and logs:
                logs.show(self.step, "samples", picture)
        return figures

    def finish(self) -> Path:
        """Write the preset; returns the run's folder."""
        if self.best_weights is not None:
            self.average.load_state_dict(self.best_weights)
        encoder = self.average.eval()
        if self.main:
            features = self.batches.features
            whole = Batches(self.dataset, features, self.options)
            export_run(self.run, encoder, self.teacher, whole, self.options)
        self.accelerator.wait_for_everyone()
        return self.run


@contextlib.contextmanager
def _patient() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C wait until a step is whole; a second one does not wait.

    Yields what tells whether there was one. Only the main thread of a process can do that; in
    others, Ctrl-C is what it always is.
    """
    asked = False

    def note(number: int, frame: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, before)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _buffers_kept(module: nn.Module) -> Iterator[None]:
    """Put running statistics back as they were."""
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(before[name])


def _precision(
    device: torch.device, dtype: torch.dtype | None
) -> contextlib.AbstractContextManager[Any]:
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def _cache_of(data: Path, run: Path) -> Path:
    """Where features are kept: with the dataset, so that runs share them, else with the run."""
    folder = data / "cache"
    try:
        folder.mkdir(exist_ok=True)
        probe = folder / f".probe-{time.time_ns()}"
        probe.touch()
        probe.unlink()
    except OSError:
        return run / "cache"
    return folder


def _make_folder(run: Path) -> None:
    """Make the run's folder; refuse one that holds something else."""
    if is_prepared(run):
        raise TrainingError(f"{run} is a dataset; give another --out for the run.")
    if (run / PRESET_FILE).exists() and not any((run / f).exists() for f in (CHECKPOINT, CSV_FILE)):
        raise TrainingError(
            f"{run} holds a preset that was not trained there; give another --out for the run."
        )
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(
            f"Cannot make the folder {run}: {error.strerror}. Give another --out."
        ) from None


@contextlib.contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Keep other trainings out of the run's folder; a kill ends that, too."""
    try:
        with FileLock(run / LOCK, timeout=0):
            yield
    except Timeout:
        raise TrainingError(
            f"Another training is under way in {run}. Wait for its end, or give another --out."
        ) from None
    except OSError as error:
        raise TrainingError(f"Cannot write into {run}: {error.strerror or error}.") from None
