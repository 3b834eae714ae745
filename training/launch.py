"""Several processes on this machine that train one model, each on its part of every batch.

More machines, or settings of one's own, are the matter of `accelerate launch` and `torchrun`,
which start `python -m s2v_cli.training` alike.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from s2v_cli.errors import OptionError, TrainingError

POLL_S = 0.2
GRACE_S = 10.0  # for the others, when one has ended badly


def training_words(
    data: Path, run: Path, recipe: str, flags: Mapping[str, Any], *, device: str, fresh: bool
) -> list[str]:
    """The command line behind `python -m s2v_cli.training` for these options.

    Args:
        data: a prepared dataset.
        run: folder of the run.
        recipe: name or file.
        flags: fields of AlignOptions that differ from the recipe; None was not given.
        device: where to compute.
        fresh: begin again.
    """
    words = [str(data), "--out", str(run), "--recipe", recipe, "--device", device]
    for name, value in flags.items():
        if value is not None:
            words += ["--set", f"{name}={json.dumps(value)}"]
    return [*words, "--fresh"] if fresh else words


def check_gpus(count: int) -> None:
    """Refuse more GPUs than there are.

    Raises:
        OptionError: too many, or no CUDA at all.
    """
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not there:
        raise OptionError(
            f"gpus is {count}, but torch finds no CUDA GPU here; leave --gpus out to train on "
            "the CPU, or install a torch with CUDA."
        )
    if not 1 <= count <= there:
        raise OptionError(f"gpus is {count}; allowed here: 1 to {there}.")


def launch(processes: int, words: Sequence[str]) -> int:
    """Run `python -m s2v_cli.training WORDS` in several processes; returns the exit status.

    The first one's notes and errors are shown. When one ends badly, the others are ended.

    Raises:
        TrainingError: another one than the first failed; says how.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    running: list[subprocess.Popen[bytes]] = []
    notes: list[IO[bytes]] = []
    with contextlib.ExitStack() as stack:
        stack.callback(_end, running)
        for rank in range(processes):
            notes.append(stack.enter_context(tempfile.TemporaryFile()))
            running.append(
                subprocess.Popen(
                    [sys.executable, "-m", "s2v_cli.training", *words],
                    env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdout=subprocess.DEVNULL,
                    stderr=None if rank == 0 else notes[rank],
                )
            )
        return _wait(running, notes)


def _wait(running: Sequence[subprocess.Popen[bytes]], notes: Sequence[IO[bytes]]) -> int:
    while True:
        try:
            found = [process.poll() for process in running]
            failed = [rank for rank, status in enumerate(found) if status]
            if failed:
                time.sleep(POLL_S)  # the first one may be about to say why itself
                status = running[0].poll()
                if status:
                    return status if status > 0 else 1
                raise TrainingError(_last_line(notes[failed[0]], failed[0]))
            if all(status == 0 for status in found):
                return 0
            time.sleep(POLL_S)
        except KeyboardInterrupt:  # they got it too, and the first one writes its checkpoint
            with contextlib.suppress(subprocess.TimeoutExpired):
                running[0].wait(timeout=60)
            raise


def _last_line(note: IO[bytes], rank: int) -> str:
    note.seek(0)
    lines = [line.strip() for line in note.read().decode(errors="replace").splitlines()]
    told = next((line for line in reversed(lines) if line), "it said nothing")
    return f"Process {rank} of the training failed: {told.removeprefix('s2v: error: ')}"


def _end(running: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in running:
        if process.poll() is None:
            process.terminate()
    for process in running:
        try:
            process.wait(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
