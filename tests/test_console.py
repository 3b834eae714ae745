"""Progress on a real (pseudo) terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from s2v_cli import console
from s2v_cli.console import Console

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")


class Terminal:
    """A terminal that stderr writes to; a thread reads it, as its buffer is small."""

    def __init__(self) -> None:
        self.master, slave = os.openpty()
        self.stream = os.fdopen(slave, "w", encoding="utf-8")
        self.received = b""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # how Linux tells that the other end was closed
            while content := os.read(self.master, 65536):
                self.received += content

    def close(self) -> str:
        """All that was shown."""
        self.stream.close()
        self.reader.join(timeout=5)
        return self.received.decode()

    def take_stderr(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """To be called in the test: pytest sets stderr anew after the fixtures."""
        monkeypatch.setattr(sys, "stderr", self.stream)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console, "PATIENCE_S", 0.2)
    yield terminal
    terminal.close()
    os.close(terminal.master)


def test_long_work_shows_progress(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal.take_stderr(monkeypatch)
    with Console() as shown:
        shown.progress("Loading mini")
        time.sleep(1.0)  # rich is imported in this time
        shown.progress("Drawing", 3, 4)
        shown.result("rain.png")
        shown.note("a note")
        time.sleep(0.3)
    text = terminal.close()
    assert "Drawing" in text
    assert "75%" in text
    assert "s2v: note: a note" in text
    assert text.endswith("\x1b[2K")  # nothing is left behind
    assert "rain.png" not in text
    assert capsys.readouterr().out == "rain.png\n"


def test_short_work_shows_none(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal.take_stderr(monkeypatch)
    with Console() as shown:
        shown.progress("Drawing", 1, 2)
    time.sleep(0.4)
    assert terminal.close() == ""


def test_quiet(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal.take_stderr(monkeypatch)
    with Console(quiet=True) as shown:
        shown.progress("Drawing", 1, 2)
        shown.note("a note")
        time.sleep(0.4)
        shown.error("this matters\n")
    assert terminal.close() == "s2v: error: this matters\r\n"
    assert shown.errors == 1
