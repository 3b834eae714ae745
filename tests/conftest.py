"""What many tests need: tones to hear, and `s2v` in this process or in its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

# A shell starts what runs in its background with Ctrl-C ignored, and all processes that tests
# start from there would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Ran:
    """How a command line ended."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def complaints(self) -> list[str]:
        return self.err.splitlines()


WriteTone = Callable[..., Path]
RunHere = Callable[..., Ran]
RunProcess = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write_tone(folder: Path) -> WriteTone:
    """Write a tone: a real sound file in the current folder."""

    def write(
        name: str = "tone.wav",
        *,
        seconds: float = 1.0,
        sample_rate: int = 16_000,
        channels: int = 1,
        hertz: float = 440.0,
        level: float = 0.3,
    ) -> Path:
        time = np.arange(round(seconds * sample_rate)) / sample_rate
        wave = level * np.sin(2 * np.pi * hertz * time)
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.repeat(wave[:, None], channels, axis=1), sample_rate)
        return path

    return write


@pytest.fixture
def s2v(folder: Path, capsys: pytest.CaptureFixture[str]) -> RunHere:
    """Run `s2v` in this process (torch is imported once for all tests)."""
    from s2v_cli.__main__ import main

    def run(*arguments: str | Path) -> Ran:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Ran(status, out, err)

    return run


@pytest.fixture
def s2v_process(folder: Path) -> RunProcess:
    """Run `s2v` in a process of its own, in the current folder."""

    def run(
        *arguments: str | Path, stdin: bytes | None = None, **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "s2v_cli", *map(str, arguments)],
            input=stdin,
            capture_output=True,
            env={**os.environ, **environment},
            timeout=120,
            check=False,
        )

    return run
