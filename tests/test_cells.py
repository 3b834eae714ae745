"""Every command with every preset: the table in docs/presets.md, cell by cell."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from PIL import Image

from s2v_cli.abilities import ABILITIES, DIFFUSION, why_not
from s2v_cli.picture import read_record
from s2v_cli.presets import load_preset, preset_names
from tests.published_home import fill_home

if TYPE_CHECKING:
    from conftest import RunHere

pytest.importorskip("onnxruntime")
VOICE = Path(__file__).parent / "fixtures/audio/voice.ogg"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Tiny weights of all published presets."""
    folder = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("S2V_HOME", str(folder / "home"))
        patch.delenv("HF_HOME", raising=False)
        fill_home(folder / "home", folder / "downloads")
        yield folder / "home"


@pytest.fixture
def inputs(folder: Path) -> None:
    """Two sounds, a voice and photos in the current folder."""
    time = np.arange(24_000) / 16_000
    soundfile.write("tone.wav", 0.3 * np.sin(2 * np.pi * 440 * time), 16_000)
    soundfile.write("noise.wav", np.random.default_rng(0).normal(0, 0.1, 24_000), 16_000)
    os.symlink(VOICE, "voice.ogg")
    Path("photos").mkdir()
    rng = np.random.default_rng(1)
    for name in ("photo.png", "photos/a.png", "photos/b.jpg"):
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(name)


LINES = {
    "gen": ["gen", "tone.wav"],
    "best-of": ["gen", "tone.wav", "--best-of", "2"],
    "mix": ["mix", "tone.wav:0.7", "noise.wav:0.3"],
    "interp": ["interp", "photo.png", "tone.wav"],
    "sdedit": ["interp", "photo.png", "tone.wav", "--mode", "sdedit"],
    "compose": ["interp", "photo.png", "tone.wav", "--mode", "compose"],
    "edit": ["edit", "photo.png", "--sound", "tone.wav", "--sound2", "noise.wav"],
    "face": ["face", "voice.ogg"],
    "blend": ["blend", "--speech", "voice.ogg", "--env", "noise.wav"],
    "explain": ["explain", "tone.wav"],
    "animate": ["animate", "tone.wav", "--fps", "4"],
    "nearest": ["nearest", "tone.wav", "photos"],
    "replay": ["replay", "made.png"],
}


def command_line(name: str, preset: str) -> list[str]:
    line = [*LINES[name]]
    if name == "replay":
        return line
    output = {"animate": "out.gif"}.get(name, "out.png")
    line += ["--preset", preset, "--output", output]
    diffusion = load_preset(preset).weight("generator").network in DIFFUSION
    if name == "edit" or (diffusion and name != "nearest"):
        line += ["--steps", "3"]
    return line


def test_every_ability_has_a_line() -> None:
    assert LINES.keys() == ABILITIES.keys()


@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize("name", LINES)
def test_cell(s2v: RunHere, home: Path, inputs: None, name: str, preset: str) -> None:
    reason = why_not(load_preset(preset), name)
    if name == "replay":
        assert s2v(*command_line("gen", preset), "--output", "made.png").status == 0
    ran = s2v(*command_line(name, preset))
    if reason is not None:
        assert ran.status == 2, ran.err
        assert len(ran.complaints) == 1
        assert reason in ran.err
        assert not Path("out.png").exists()
        return
    assert ran.status == 0, ran.err
    if name == "replay":
        assert ran.lines == ["identical"]
    elif name == "animate":
        with Image.open("out.gif") as moving:
            assert getattr(moving, "n_frames", 1) > 2
    else:
        with Image.open("out.png") as picture:
            assert min(picture.size) >= 32
            assert np.asarray(picture.convert("L")).std() > 1
        assert read_record("out.png")["preset"] == preset
