"""Several processes that train one model, and their ends."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from s2v_cli.errors import OptionError, TrainingError
from s2v_cli.training import launch as launch_module
from s2v_cli.training.__main__ import main, parse_settings
from s2v_cli.training.launch import LOST, check_gpus, launch, training_words
from tests.training.drawn_pairs import write_pairs

FLAGS = {
    "duration_s": 0.5,
    "batch": 8,
    "steps": 20,
    "validate_every": 10,
    "samples": 0,
    "workers": 0,
    "close_gap": False,
    "learning_rate": 1e-4,
    "patience": 0,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("launch") / "data", train=24, validation=4)


def words_of(data: Path, run: Path, **flags: object) -> list[str]:
    return training_words(data, run, "align", {**FLAGS, **flags}, device="cpu", fresh=False)


def losses_of(run: Path) -> dict[int, float]:
    with (run / "log.csv").open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return {int(row["step"]): float(row["value"]) for row in rows if row["name"] == "loss"}


def state_of(run: Path) -> dict[str, dict[str, torch.Tensor]]:
    return torch.load(run / "checkpoint.pt", weights_only=True)  # type: ignore[no-any-return]


def wait_for(happened: Callable[[], bool], seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.02)


@pytest.fixture
def start(data: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start `python -m s2v_cli.training`, alone or under a launcher; ended with the test."""
    started = []

    def run(command: list[str]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_settings_are_json_or_text() -> None:
    pairs = ["ema=0.9", "teacher=mini", "close-gap=false", "mix_db=[-20, -6]"]
    assert parse_settings(pairs) == {
        "ema": 0.9, "teacher": "mini", "close_gap": False, "mix_db": [-20, -6],
    }  # fmt: skip
    with pytest.raises(OptionError, match="KEY=VALUE"):
        parse_settings(["ema"])


def test_words_hold_what_was_given(tmp_path: Path) -> None:
    flags = {"teacher": "mini", "seed": None, "mix_db": (-20.0, -6.0)}
    words = training_words(tmp_path, Path("run"), "align", flags, device="cpu", fresh=True)
    assert "seed" not in " ".join(words)
    assert words[-1] == "--fresh"
    pairs = [word for before, word in pairwise(words) if before == "--set"]
    assert parse_settings(pairs) == {"teacher": "mini", "mix_db": [-20.0, -6.0]}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpus_without_cuda_are_one_line() -> None:
    with pytest.raises(OptionError, match="finds no CUDA GPU"):
        check_gpus(2)


def test_the_module_trains_and_tells_the_path(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words_of(data, tmp_path / "run", steps=2)) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'run'}\n"
    assert "s2v: align 2 of 2: loss" in err


def test_the_module_fails_in_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words_of(data, tmp_path / "run", batch=400)) == 1
    assert main([str(data), "--set", "eam=0.9"]) == 1
    assert main([str(data), "--set", "ema=2"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "batch is 400" in lines[0]
    assert "Did you mean 'ema'" in lines[1]
    assert "ema is 2" in lines[2]


@pytest.fixture
def acted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Let the processes of `launch` run a script in place of a training."""

    def act(script: str) -> None:
        path = tmp_path / "act.py"
        path.write_text(f"import os, signal, sys, time\nrank = os.environ['RANK']\n{script}\n")
        real = subprocess.Popen

        def popen(command: list[str], **options: object) -> subprocess.Popen[bytes]:
            return real([command[0], str(path)], **options)  # type: ignore[call-overload,no-any-return]

        monkeypatch.setattr(launch_module.subprocess, "Popen", popen)

    return act


def test_a_failing_process_ends_the_others_and_is_quoted(
    acted: Callable[[str], None], tmp_path: Path
) -> None:
    acted(
        "if rank == '1': sys.exit('noise\\ns2v: error: The disk of process 1 is full.')\n"
        f"time.sleep(30); open({str(tmp_path / 'alive')!r}, 'w')"
    )
    began = time.monotonic()
    with pytest.raises(TrainingError, match=r"Process 1 .*failed: The disk of process 1 is full\."):
        launch(2, [])
    assert time.monotonic() - began < 25


def test_a_killed_process_is_named(acted: Callable[[str], None]) -> None:
    acted(f"if rank == '1': os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(1)\nsys.exit({LOST})")
    with pytest.raises(TrainingError, match=r"Process 1 .*SIGKILL .*memory"):
        launch(2, [])


def test_the_first_process_speaks_for_itself(acted: Callable[[str], None]) -> None:
    acted("sys.exit(2)" if os.name == "nt" else "sys.exit(2 if rank == '0' else 1)")
    assert launch(2, []) == 2


def test_threads_are_shared_out(acted: Callable[[str], None], tmp_path: Path) -> None:
    acted(f"open({str(tmp_path)!r} + '/' + rank, 'w').write(os.environ['OMP_NUM_THREADS'])")
    assert launch(2, [], threads=3) == 0
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["3", "3"]


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(data: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    # The log has every tenth step; with a validation each step, it has every one.
    # AdamW moves a weight whose gradient is rounding alone as far as any other: so small steps.
    # Batch norm of these few sounds, which the encoder hardly tells apart, magnifies rounding, too.
    flags = {"validate_every": 1, "accumulate": 1, "mix": 0.5, "learning_rate": 1e-6}
    assert main(words_of(data, one, **flags)) == 0
    assert launch(2, words_of(data, two, **flags)) == 0
    a, b = losses_of(one), losses_of(two)
    assert set(a) == set(b) == set(range(1, 21))
    assert abs(a[1] / b[1] - 1) < 1e-6
    assert max(abs(a[step] / b[step] - 1) for step in a) < 1e-4
    for name, value in state_of(one)["encoder"].items():
        if "running" in name:  # batch statistics
            torch.testing.assert_close(state_of(two)["encoder"][name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_kill_and_resume_give_the_weights_of_an_uninterrupted_run(
    data: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    flags = {"steps": 120, "validate_every": 10, "batch": 4, "workers": 1}
    process = start(["s2v_cli.training", *words_of(data, killed, **flags)])
    wait_for(lambda: (killed / "checkpoint.pt").exists() or process.poll() is not None)
    time.sleep(0.3)  # somewhere between two checkpoints
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert 0 < state_of(killed)["step"] < 120  # type: ignore[operator]
    # Shorter from here on would be another schedule, so both go to the end.
    assert main(words_of(data, killed, **flags)) == 0
    assert main(words_of(data, whole, **flags)) == 0
    for kind in ("encoder", "average"):
        for name, value in state_of(whole)[kind].items():
            assert torch.equal(state_of(killed)[kind][name], value), name
    assert (killed / "log.csv").read_bytes() == (whole / "log.csv").read_bytes()


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_of_all_processes(
    data: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    run = tmp_path / "run"
    settings = [f"--set={k}={v}".lower() for k, v in FLAGS.items() if k not in ("steps",)]
    command = ["s2v_cli", "train", str(data), "--out", str(run), "--steps", "5000"]
    process = start([*command, "--processes", "2", *settings, "--set=validate_every=5000"])
    wait_for(lambda: (run / "log.csv").exists() and len(losses_of(run)) > 1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.decode().splitlines()[-1] == "s2v: stopped"
    assert b"Traceback" not in err
    assert state_of(run)["step"] > 1  # type: ignore[operator]


@pytest.mark.slow
def test_accelerate_launches_it(
    data: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    run = tmp_path / "run"
    process = start(
        ["accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1",
         "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "s2v_cli.training",
         *words_of(data, run, steps=3)]
    )  # fmt: skip
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err.decode()[-2000:]
    assert out.decode().split() == [str(run)]
    assert state_of(run)["step"] == 3  # type: ignore[comparison-overlap]
