"""What is imported when, read from `sys.modules` of real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from s2v_cli.app import COMMANDS

if TYPE_CHECKING:
    from conftest import WriteTone

SCRIPT = """
import json, sys
from s2v_cli.__main__ import main
statuses = [main(arguments) for arguments in json.loads(sys.argv[1])]
print(json.dumps([statuses, sorted(sys.modules)]), file=sys.stderr)
"""

HEAVY = {
    "PIL", "av", "diffusers", "filelock", "gdown", "huggingface_hub", "numpy", "onnxruntime",
    "pydantic", "pydub", "requests", "rich", "safetensors", "scipy", "soundfile", "torch",
    "torchaudio", "transformers",
}  # fmt: skip


def modules_after(*commands: list[str]) -> tuple[list[int], set[str]]:
    """Exit statuses, and top-level names of all modules, of command lines run in one process."""
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    statuses, modules = json.loads(ran.stderr.splitlines()[-1])
    return statuses, {name.split(".")[0] for name in modules}


def test_help_imports_nothing_heavy() -> None:
    statuses, modules = modules_after(
        [],
        ["--help"],
        ["--version"],
        *([command, "--help"] for command in COMMANDS),
    )
    assert set(statuses) == {0}
    assert "typer" in modules
    assert modules & HEAVY == set()


def test_the_package_imports_nothing_heavy() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "import s2v_cli, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    modules = {name.split(".")[0] for name in ran.stdout.split()}
    assert modules & (HEAVY | {"typer"}) == set()


def test_gen_imports_what_mini_needs(write_tone: WriteTone) -> None:
    """A bad sound is told before torch is imported; mini needs neither diffusers nor scipy."""
    Path("bad.wav").write_text("this is text, not sound")
    write_tone(sample_rate=16_000)
    statuses, modules = modules_after(["gen", "bad.wav"], ["gen", "nowhere.wav"], ["gen", "-o", ""])
    assert statuses == [1, 1, 2]
    assert "torch" not in modules
    statuses, modules = modules_after(["gen", "tone.wav"])
    assert statuses == [0]
    assert "torch" in modules
    assert modules & {
        "av", "diffusers", "huggingface_hub", "pydub", "rich", "scipy", "sympy", "torchaudio",
        "transformers",
    } == set()  # fmt: skip


def test_help_is_quick() -> None:
    """CPU time of the best of five, beside an empty Python; both shift with the machine."""

    def cost(*command: str) -> float:
        times = []
        for _ in range(5):
            before = os.times()
            subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, check=True)
            after = os.times()
            user, system = "children_user", "children_system"
            times.append(
                sum(getattr(after, name) - getattr(before, name) for name in (user, system))
            )
        return min(times)

    assert cost("-m", "s2v_cli", "gen", "--help") - cost("-c", "pass") < 0.25
