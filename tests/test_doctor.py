from __future__ import annotations

import json
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

import s2v_cli
from s2v_cli import presets
from s2v_cli.presets import load_preset

if TYPE_CHECKING:
    from conftest import RunHere


@pytest.fixture
def own_copy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the installed presets that a test may break."""
    copy = folder / "presets"
    shutil.copytree(load_preset("mini").folder, copy)
    monkeypatch.setattr(presets, "_package_folder", lambda: copy)
    return copy


def test_report(s2v: RunHere) -> None:
    ran = s2v("doctor")
    assert ran.status == 0, ran.out
    assert f"s2v: {s2v_cli.__version__}" in ran.lines
    assert f"python: {platform.python_version()}" in ran.lines
    assert f"torch: {torch.__version__}" in ran.lines
    assert f"cpu: {torch.get_num_threads()} threads" in ran.lines
    assert "weights mini/generator: here" in ran.lines
    assert ran.lines[-1] == "mini works here."


def test_report_as_json(s2v: RunHere, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2V_HOME", str(folder / "home"))
    report: dict[str, Any] = json.loads(s2v("doctor", "--json").out)
    assert report["healthy"] is True
    assert {"WAV", "FLAC", "OGG"} <= set(report["codecs"]["libsndfile"])
    assert report["cache"]["path"] == str(folder / "home")
    assert (report["cache"]["exists"], report["cache"]["writable"]) == (False, True)
    assert report["cache"]["free_bytes"] > 0
    assert set(report["versions"]) == {
        "s2v", "python", "numpy", "torch", "torchaudio", "soundfile", "libsndfile", "pillow",
        "safetensors", "diffusers", "pyav",
    }  # fmt: skip
    assert report["devices"]["cpu_threads"] >= 1
    assert isinstance(report["devices"]["cuda"], list)


def test_a_cache_that_cannot_be_is_a_note(
    s2v: RunHere, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("file").touch()
    monkeypatch.setenv("S2V_HOME", str(folder / "file/home"))
    ran = s2v("doctor")
    assert ran.status == 0
    assert f"note: Cannot write in {folder / 'file/home'}" in ran.lines
    assert "  Name another folder in the environment variable S2V_HOME" in ran.lines


def test_damaged_and_missing_weights(s2v: RunHere, own_copy: Path) -> None:
    damaged, missing = (
        own_copy / "mini/generator.safetensors",
        own_copy / load_preset("mini").weights[0].file,
    )
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 255
    damaged.write_bytes(content)
    missing.unlink()
    ran = s2v("doctor")
    assert ran.status == 1
    assert "weights mini/generator: damaged" in ran.lines
    assert "weights mini/sound_encoder: missing" in ran.lines
    assert "weights mini/image_encoder: here" in ran.lines
    problems = [line for line in ran.lines if line.startswith("PROBLEM: ")]
    assert any(str(damaged) in line and "SHA-256" in line for line in problems)
    assert any(str(missing) in line for line in problems)
    assert sum(line.startswith("  Install again: pip install") for line in ran.lines) == 2
    assert ran.lines[-1] == "mini cannot work here."
    report = json.loads(s2v("doctor", "--json").out)
    assert report["healthy"] is False
    assert [problem["fatal"] for problem in report["problems"]][-2:] == [True, True]


def test_gen_says_what_to_do_about_damaged_weights(
    s2v: RunHere, own_copy: Path, write_tone: Any
) -> None:
    (own_copy / "mini/generator.safetensors").write_bytes(b"cut")
    ran = s2v("gen", write_tone())
    assert ran.status == 1
    assert len(ran.complaints) == 1
    assert "Damaged weights" in ran.err
    assert "pip install --force-reinstall" in ran.err
    assert not Path("tone.png").exists()


def test_a_library_that_does_not_load(s2v: RunHere, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python refuses to import what `sys.modules` maps to None, as a broken install does."""
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    ran = s2v("doctor")
    assert ran.status == 1
    assert "soundfile: none" in ran.lines
    assert any(line.startswith("PROBLEM: soundfile does not load: ") for line in ran.lines)
    assert any("pip install --force-reinstall soundfile" in line for line in ran.lines)
