"""Several processes on this machine that train one model, each on its part of every batch.

More machines, or settings of one's own, are the matter of `accelerate launch` and `torchrun`,
which start `python -m s2v_cli.training` alike.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
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
SAVING_S = 120.0  # for the step that Ctrl-C lets end, and the checkpoint
GRACE_S = 10.0  # for the others, when one has ended badly
LOST = 3  # status of a process that another one left alone; it says nothing


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


def launch(processes: int, words: Sequence[str], *, threads: int | None = None) -> int:
    """Run `python -m s2v_cli.training WORDS` in several processes; returns the exit status.

    The first one's notes and errors are shown. When one ends badly, the others are ended. Ctrl-C
    lets them take their step to its end and write a checkpoint.

    Args:
        processes: how many.
        words: behind the command.
        threads: of each process; None shares the cores out, unless OMP_NUM_THREADS says else.

    Raises:
        TrainingError: another one than the first failed, or one was killed; says how.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cores = max(1, (os.cpu_count() or 1) // processes)
    shared = {
        "OMP_NUM_THREADS": str(threads or os.environ.get("OMP_NUM_THREADS") or cores),
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    command = [sys.executable, "-m", "s2v_cli.training", *words, "--parent", str(os.getpid())]
    running: list[subprocess.Popen[bytes]] = []
    notes: list[IO[bytes]] = []
    with contextlib.ExitStack() as stack:
        stack.callback(_end, running)
        for rank in range(processes):
            notes.append(stack.enter_context(tempfile.TemporaryFile()))
            running.append(
                subprocess.Popen(
                    command,
                    env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdout=subprocess.DEVNULL,
                    stderr=None if rank == 0 else notes[rank],
                    start_new_session=True,  # Ctrl-C comes from here, and once
                )
            )
        try:
            return _wait(running, notes)
        except KeyboardInterrupt:
            _interrupt(running)
            raise


def _wait(running: Sequence[subprocess.Popen[bytes]], notes: Sequence[IO[bytes]]) -> int:
    """Exit status 0 once all have ended well, or that of the first process, which told why."""
    while True:
        if any(process.poll() for process in running):
            _settle(running)
            break
        if all(process.poll() == 0 for process in running):
            return 0
        time.sleep(POLL_S)
    found = [process.poll() or 0 for process in running]
    if found[0] > 0 and found[0] != LOST:
        return found[0]
    telling = [rank for rank, status in enumerate(found) if status not in (0, LOST)]
    if not telling:
        raise TrainingError("The processes of the training lost each other. Run it again.")
    raise TrainingError(_reason(notes[telling[0]], telling[0], found[telling[0]]))


def _settle(running: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait until one tells why, or a moment: the first to end may only have lost another."""
    until = time.monotonic() + GRACE_S / 2
    while time.monotonic() < until:
        if any((process.poll() or 0) not in (0, LOST) for process in running):
            time.sleep(POLL_S)  # the first one may be about to say why itself
            return
        time.sleep(POLL_S)


def _reason(note: IO[bytes], rank: int, status: int) -> str:
    """What a process said last, or what ended it."""
    what = f"Process {rank} of the training"
    if status < 0:
        name = signal.Signals(-status).name
        short = " (is the memory full?)" if -status == getattr(signal, "SIGKILL", 9) else ""
        return f"{what} was ended by {name}{short}. Run the same command again to go on."
    note.seek(0)
    lines = [line.strip() for line in note.read().decode(errors="replace").splitlines()]
    told = next((line for line in reversed(lines) if line), f"it ended with status {status}.")
    return f"{what} failed: {told.removeprefix('s2v: error: ')}"


def _interrupt(running: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
        running[0].wait(timeout=SAVING_S)


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
