"""The loop that every stage runs in: steps, averaged weights, checkpoints, logs.

A step draws all its randomness from a generator seeded by (seed, step), so a run that was killed
and resumed from its checkpoint takes the same steps as one that was not.
"""

from __future__ import annotations

import contextlib
import csv
import math
import os
import pickle
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from s2v_cli.errors import TrainingError
from s2v_cli.picture import write_file
from s2v_cli.training.recipe import StageOptions

CHECKPOINT_EVERY_S = 120.0


class Stage(Protocol):
    """What the loop needs of a stage.

    Attributes:
        name: of the stage and of its folder.
        modules: all networks that are trained, by name.
        averaged: names of the networks whose averaged weights are kept.
        optimisers: by name; checkpoints hold their states.
    """

    name: str
    modules: dict[str, nn.Module]
    averaged: tuple[str, ...]
    optimisers: dict[str, torch.optim.Optimizer]

    def step(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Take one step; returns the losses to log, 0-d. The first of them must be finite."""
        ...

    def validate(self, averages: Mapping[str, nn.Module]) -> dict[str, float]:
        """Figures on the validation split, with the averaged networks."""
        ...


def learning_rate_at(step: int, options: StageOptions) -> float:
    """Linear warm-up, then a cosine to a hundredth of the peak."""
    warm_up = max(1, round(options.warm_up * options.steps))
    if step < warm_up:
        return options.learning_rate * (step + 1) / warm_up
    share = (step - warm_up) / max(1, options.steps - warm_up)
    return options.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def step_generator(seed: int, step: int) -> torch.Generator:
    """The random generator of one step."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


def channels_last(*modules: nn.Module) -> None:
    """Lay out convolution weights as CPUs like them best."""
    for module in modules:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def average_weights(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the trained ones; buffers are copied."""
    with torch.no_grad():
        for weight, trained in zip(average.parameters(), module.parameters(), strict=True):
            weight.lerp_(trained, 1 - decay)
        for buffer, current in zip(average.buffers(), module.buffers(), strict=True):
            buffer.copy_(current)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that a kill at any moment leaves the old or the new one.

    Raises:
        TrainingError: it cannot be written; the one before is kept.
    """
    partial = path.with_suffix(".part")
    try:
        torch.save(state, partial)
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch tells of a full disk by a RuntimeError
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise TrainingError(
            f"Cannot write the checkpoint {path}: {_reason(error, path)}. The last one is kept; "
            "run the same command again to go on."
        ) from None


def load_checkpoint(path: Path, *, mapped: bool = False) -> dict[str, Any]:
    """Read a checkpoint; `mapped` leaves its tensors on the disk until they are used.

    Raises:
        TrainingError: it cannot be read.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"Cannot read the checkpoint {path}: {_reason(error, path)}. Delete it to do its stage "
            "again."
        ) from None
    return state


def _reason(error: Exception, path: Path) -> str:
    """Why a file cannot be written or read, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    with contextlib.suppress(OSError):
        if shutil.disk_usage(path.parent).free < 1 << 20:
            return "No space left on device"
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:200]


def run_stage(
    stage: Stage,
    options: StageOptions,
    folder: Path,
    seed: int,
    progress: Callable[[str, int, int, dict[str, float]], None] | None = None,
) -> dict[str, nn.Module]:
    """Train a stage to its last step, going on from its checkpoint if there is one.

    Returns:
        The averaged networks, in eval mode.

    Raises:
        TrainingError: a loss that is not finite, or a checkpoint that cannot be written.
    """
    import copy

    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / f"{stage.name}.pt"
    averages = {name: copy.deepcopy(stage.modules[name]) for name in stage.averaged}
    first = 0
    if checkpoint.is_file():
        state = load_checkpoint(checkpoint)
        try:
            for name, module in stage.modules.items():
                module.load_state_dict(state["modules"][name])
            for name, average in averages.items():
                average.load_state_dict(state["averages"][name])
            for name, optimiser in stage.optimisers.items():
                optimiser.load_state_dict(state["optimisers"][name])
            first = state["step"]
        except (KeyError, RuntimeError, ValueError) as error:
            raise TrainingError(
                f"{checkpoint} is of another stage or recipe: {_reason(error, checkpoint)}. Give "
                "another folder, or delete it to start the stage anew."
            ) from None
    saved = time.monotonic()
    log = _Log(folder / f"{stage.name}.csv", first)
    for step in range(first, options.steps):
        rate = learning_rate_at(step, options)
        for optimiser in stage.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = rate * group.get("lr_scale", 1.0)
        losses = stage.step(step, step_generator(seed, step))
        main = next(iter(losses.values()))
        if not torch.isfinite(main):
            raise TrainingError(
                f"Stage {stage.name!r}: the loss is {float(main)} at step {step}. Lower "
                "learning_rate in the recipe; the last checkpoint is kept."
            )
        decay = min(options.ema, (step + 1) / (step + 10))
        for name, average in averages.items():
            average_weights(average, stage.modules[name], decay)
        done = step + 1
        figures = {name: float(value) for name, value in losses.items()}
        if done % options.validate_every == 0 or done == options.steps:
            for average in averages.values():
                average.eval()
            with torch.no_grad():
                figures |= stage.validate(averages)
            log.write(done, figures)
        elif done % 50 == 0:
            log.write(done, figures)
        if progress:
            progress(stage.name, done, options.steps, figures)
        if time.monotonic() - saved > CHECKPOINT_EVERY_S or done == options.steps:
            save_checkpoint(
                checkpoint,
                {
                    "step": done,
                    "modules": {n: m.state_dict() for n, m in stage.modules.items()},
                    "averages": {n: m.state_dict() for n, m in averages.items()},
                    "optimisers": {n: o.state_dict() for n, o in stage.optimisers.items()},
                },
            )
            saved = time.monotonic()
    for average in averages.values():
        average.eval()
    return averages


class _Log:
    """Rows of `step, name, value` in a CSV file.

    What was logged after the step that a run goes on from is dropped: it will be logged again.
    """

    def __init__(self, path: Path, first: int) -> None:
        self.path = path
        rows: list[str] = []
        if path.exists():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
            rows = [line for line in lines if _step_of(line) <= first]
        text = "\n".join(["step,name,value", *rows, ""])
        write_file(text.encode(), path, overwrite=True)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Append the figures of a step."""
        rows = [[step, name, f"{value:.6g}"] for name, value in figures.items()]
        try:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(rows)
        except OSError as error:
            raise TrainingError(
                f"Cannot write the log {self.path}: {error.strerror}. Run the same command again "
                "to go on."
            ) from None


def _step_of(line: str) -> float:
    """Step of a row; a torn one has none."""
    step, *others = line.split(",")
    return int(step) if len(others) == 2 and step.isdecimal() else math.inf
