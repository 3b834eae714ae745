from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import s2v_cli
from s2v_cli import __main__ as entry
from s2v_cli.console import half_blocks, one_line

if TYPE_CHECKING:
    from conftest import RunHere, RunProcess

COMMANDS = ["gen", "train", "presets", "doctor"]


def test_alone_it_shows_help(s2v: RunHere) -> None:
    alone, asked = s2v(), s2v("--help")
    assert (alone.status, alone.err) == (0, "")
    assert alone.out == asked.out
    for command in COMMANDS:
        assert re.search(rf"^  {command}  +[A-Z].*\.$", alone.out, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_commands(s2v: RunHere, command: str) -> None:
    for flag in ("--help", "-h"):
        ran = s2v(command, flag)
        assert (ran.status, ran.err) == (0, "")
        assert ran.out.startswith(f"Usage: s2v {command}")
        assert all(len(line) <= 80 for line in ran.lines)


def test_version(s2v: RunHere) -> None:
    assert s2v("--version").out == f"s2v {s2v_cli.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gne"], "No such command 'gne'. Did you mean 'gen'? Try 's2v --help'."),
        (["--nope"], "No such option: --nope. Try 's2v --help'."),
        (["gen"], "Missing argument 'SOUND'. Try 's2v gen --help'."),
        (
            ["gen", "x.wav", "--window", "middle"],
            "Invalid value for '--window': 'middle' is not one of 'loudest', 'first', 'average'. "
            "Try 's2v gen --help'.",
        ),
        (["gen", "x.wav", "--seed", "many"], "Invalid value for '--seed': "),
        (["gen", "x.wav", "--seed"], "Option '--seed' requires an argument."),
        (["gen", "x.wav", "--device", "tpu"], "Invalid value for '--device': 'tpu' is not one"),
        (["presets", "a", "b"], "Got unexpected extra argument"),
    ],
)
def test_wrong_usage_is_one_line(s2v: RunHere, arguments: list[str], message: str) -> None:
    ran = s2v(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert len(ran.complaints) == 1
    assert ran.err.startswith(f"s2v: error: {message}")


def test_the_unexpected_is_one_line(
    s2v: RunHere, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    def broken(_: object) -> int:
        raise ZeroDivisionError("first\nsecond")

    monkeypatch.setattr(entry, "_run", broken)
    ran = s2v("gen")
    assert ran.status == 1
    assert ran.err == "s2v: error: ZeroDivisionError: first\\nsecond (S2V_DEBUG=1 shows where)\n"
    monkeypatch.setenv("S2V_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        s2v("gen")


def test_messages_cannot_steer_the_terminal(s2v: RunHere) -> None:
    ran = s2v("gen", "evil\x1b[2J\nname.wav")
    assert ran.status == 1
    assert ran.err == "s2v: error: No sound at 'evil\\x1b[2J\\nname.wav'.\n"
    assert one_line("räin\u3000雨 \u202etxt\udc80") == "räin\u3000雨 \\u202etxt\\udc80"


def test_a_reader_that_leaves(s2v_process: RunProcess) -> None:
    """As with `s2v presets | true`: no traceback, nothing on stderr."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    ran = subprocess.run(
        [sys.executable, "-m", "s2v_cli", "presets", "--json"],
        stdout=write_end,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write_end)
    assert (ran.returncode, ran.stderr) == (1, b"")


def test_preview_has_two_pixels_a_character() -> None:
    from PIL import Image

    image = Image.new("RGB", (2, 4), (10, 20, 30))
    image.putpixel((1, 3), (200, 100, 50))
    text = half_blocks(image, 2, 2)
    assert text.plain == "▀▀\n▀▀\n"
    last = text.spans[3].style
    assert last.color.triplet == (10, 20, 30)
    assert last.bgcolor.triplet == (200, 100, 50)
