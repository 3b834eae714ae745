"""Presets of one's own, found by name from everywhere."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from s2v_cli.errors import OutputError, PresetError, WeightsError
from s2v_cli.installation import install_preset, remove_preset
from s2v_cli.presets import (
    bundled_names,
    installed_names,
    list_presets,
    load_preset,
)

if TYPE_CHECKING:
    from conftest import RunHere

MINI = Path(__file__).parents[1] / "presets"


@pytest.fixture(autouse=True)
def home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("S2V_HOME", str(folder / "home"))
    return folder / "home"


@pytest.fixture
def trained(folder: Path) -> Path:
    """A copy of `mini` as a run of training leaves it, with other files beside it."""
    run = folder / "runs" / "rain"
    (run / "mini").mkdir(parents=True)
    text = (MINI / "mini.toml").read_text()
    (run / "preset.toml").write_text(text.replace('name = "mini"', 'name = "rain"', 1))
    for path in (MINI / "mini").glob("*.safetensors"):
        (run / "mini" / path.name).symlink_to(path)
    (run / "checkpoint.pt").write_bytes(b"large")
    return run


def test_an_installed_preset_is_found_by_name(trained: Path, s2v: RunHere) -> None:
    ran = s2v("presets", "add", trained)
    assert (ran.status, ran.out) == (0, "rain\n")
    shutil.rmtree(trained)
    assert installed_names() == ["rain"]
    preset = load_preset("rain")
    assert {weight.sha256 for weight in preset.weights} == {
        weight.sha256 for weight in load_preset("mini").weights
    }
    assert any(line.startswith("rain: ") for line in s2v("presets").lines)
    assert not (preset.folder / "checkpoint.pt").exists()
    assert not any(path.is_symlink() for path in preset.folder.rglob("*"))


def test_it_gets_the_name_that_is_asked_for(trained: Path) -> None:
    assert install_preset(trained, "drizzle").name == "drizzle"
    assert load_preset("drizzle").name == "drizzle"
    with pytest.raises(PresetError, match="Unknown preset 'rain'"):
        load_preset("rain")


def test_names_that_are_taken(trained: Path) -> None:
    install_preset(trained)
    with pytest.raises(PresetError, match="'rain' is installed already"):
        install_preset(trained)
    install_preset(trained, overwrite=True)
    for name in bundled_names():
        with pytest.raises(PresetError, match="comes with s2v"):
            install_preset(trained, name, overwrite=True)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "two words", "-x"])
def test_names_that_are_not_allowed(trained: Path, name: str) -> None:
    with pytest.raises(PresetError, match="name is "):
        install_preset(trained, name)
    assert installed_names() == []


def test_damaged_weights_are_not_installed(trained: Path, home: Path) -> None:
    file = trained / "mini" / "sound_encoder.safetensors"
    file.unlink()
    file.write_bytes(b"damaged")
    with pytest.raises(WeightsError):
        install_preset(trained)
    assert not home.exists() or not list((home / "presets").iterdir())


def test_no_preset_there(s2v: RunHere, folder: Path) -> None:
    assert "No preset at 'nowhere'" in s2v("presets", "add", "nowhere").err
    folder.joinpath("empty").mkdir()
    assert s2v("presets", "add", "empty").status in (1, 2)


def test_a_folder_that_cannot_be_written(trained: Path, home: Path) -> None:
    home.write_text("a file")
    with pytest.raises(OutputError, match="S2V_HOME"):
        install_preset(trained)


def test_removing(trained: Path, s2v: RunHere) -> None:
    install_preset(trained)
    ran = s2v("presets", "remove", "rain")
    assert ran.status == 0 and ran.out.strip().endswith("rain")
    assert installed_names() == []
    assert "is not installed; none is installed" in s2v("presets", "remove", "rain").err
    with pytest.raises(PresetError, match="'mini' comes with s2v"):
        remove_preset("mini")


def test_a_broken_one_does_not_stop_the_others(trained: Path, home: Path, s2v: RunHere) -> None:
    install_preset(trained)
    (home / "presets" / "rain" / "preset.toml").write_text("name = ")
    assert [preset.name for preset in list_presets()] == bundled_names()
    assert s2v("presets").status == 0
    assert "Cannot read the preset" in s2v("presets", "rain").err
    assert s2v("presets", "remove", "rain").status == 0
