from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from s2v_cli.errors import OptionError, PresetError
from s2v_cli.presets import list_presets, load_preset, preset_names, read_preset
from s2v_cli.space import EmbeddingSpace

if TYPE_CHECKING:
    from conftest import RunHere

GOOD = """
name = "own"
title = "My own"
description = "Trained on my sounds."
model = "mini"
bundled = false
resolution = 64
licence = "CC0"
commercial = true
[space]
name = "own"
dimension = 8
scale = "raw"
[sound]
sample_rate = 8000
window_s = 2
[generate]
truncation = 0.5
best_of = 4
[[weights]]
role = "generator"
file = "generator.safetensors"
bytes = 10
sha256 = "{digest}"
""".replace("{digest}", "ab" * 32)


def test_every_shipped_preset_loads() -> None:
    presets = list_presets()
    assert [preset.name for preset in presets] == preset_names()
    assert "mini" in preset_names()
    for preset in presets:
        assert preset.licence
        assert preset.generate_options().count == 1


def test_mini_is_whole() -> None:
    """The bundled model: its files are the ones that the preset states."""
    mini = load_preset("mini")
    assert mini.bundled
    assert mini.space == EmbeddingSpace("mini-2", 256, "unit")
    assert {weight.role for weight in mini.weights} == {
        "sound_encoder",
        "image_encoder",
        "speech_encoder",
        "generator",
    }
    for weight in mini.weights:
        assert (mini.folder / weight.file).stat().st_size == weight.bytes


def test_a_preset_of_ones_own(folder: Path) -> None:
    Path("run").mkdir()
    Path("run/preset.toml").write_text(GOOD)
    for name in ("run", "./run", "run/preset.toml", folder / "run"):
        preset = load_preset(name)
        assert (preset.name, preset.resolution, preset.window_s) == ("own", 64, 2.0)
        assert preset.space == EmbeddingSpace("own", 8, "raw")
        assert preset.folder.resolve() == folder.resolve() / "run"
        assert preset.weights[0].sha256 == "ab" * 32


def test_options_merge_in_one_order(folder: Path) -> None:
    Path("preset.toml").write_text(GOOD)
    preset = read_preset(Path("preset.toml"))
    options = preset.generate_options(seed=3, best_of=2, truncation=None, size=None)
    assert options.seed == 3  # flag
    assert options.best_of == 2  # flag over preset
    assert options.truncation == 0.5  # preset over default
    assert options.size is None  # default
    with pytest.raises(OptionError):
        preset.generate_options(best_of=0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "My own"', 'titel = "My own"', "Unknown key 'titel' in {file}. Did you mean"),
        ("[generate]", "[generate]\nseed = 3", "Unknown key 'generate.seed' in {file}. Allowed:"),
        ("bytes = 10", "bytes = 10\nx = 1", "Unknown key 'weights[0].x' in {file}."),
        ('title = "My own"', "", "Missing key 'title' in {file}."),
        ("dimension = 8", "", "Missing key 'space.dimension' in {file}."),
        ('sha256 = "', 'sha256 = "x', "weights[0].sha256 is 'xab"),
        ("resolution = 64", 'resolution = "64"', "resolution is '64' in {file}; allowed: a TOML"),
        ("resolution = 64", "resolution = true", "resolution is True in {file}"),
        ("resolution = 64", "resolution = 0", "resolution is 0 in {file}; allowed: more than 0"),
        ('scale = "raw"', 'scale = "log"', "space.scale is 'log' in {file}; allowed: unit, raw"),
        ("window_s = 2", "window_s = -1", "window_s is -1 in {file}"),
        ("truncation = 0.5", "truncation = 9", "In [generate] of {file}: truncation is 9"),
        ('role = "generator"', 'role = "drummer"', "weights[0].role is 'drummer' in {file}"),
        ('"generator.safe', '"../generator.safe', "weights[0].file is '../generator"),
        ('"generator.safe', '"/generator.safe', "weights[0].file is '/generator"),
        ("generator.safetensors", "generator.pt", "weights[0].file is 'generator.pt'"),
        ("[space]", "[space", "Cannot read the preset {file}: "),
        ('name = "own"\ntitle', 'name = "a/b"\ntitle', "name is 'a/b' in {file}"),
    ],
)
def test_malformed_presets(folder: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    file = folder / "preset.toml"
    file.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(PresetError) as caught:
        read_preset(file)
    assert message.format(file=file) in str(caught.value)


PUBLISHED = """
[[weights]]
role = "sound_encoder"
network = "sound2scene-sound-encoder"
assets = ["sound2scene-audio"]
"""


def test_published_weights_are_named_by_asset(folder: Path) -> None:
    """A trained sound encoder beside a published generator, for example."""
    text = GOOD.replace("commercial = true", 'commercial = true\noptions = ["steps"]')
    Path("preset.toml").write_text(text + PUBLISHED)
    preset = read_preset(Path("preset.toml"))
    assert preset.assets == ("sound2scene-audio",)
    assert preset.weight("sound_encoder").network == "sound2scene-sound-encoder"
    assert preset.weight("generator").network == "mini-generator"
    assert preset.options == ("steps",)
    assert preset.bytes == 10
    with pytest.raises(PresetError, match="has no 'image_encoder'; it has: generator, sound_enc"):
        preset.weight("image_encoder")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("commercial = true", 'commercial = true\noptions = ["stops"]', "options holds 'stops'"),
        ("truncation = 0.5", "steps = 5", "generate.steps is set in {file}, but options does not"),
        ('["sound2scene-audio"]', "[]", "weights[1].assets is [] in {file}"),
        ('["sound2scene-audio"]', "[1]", "weights[1].assets is [1] in {file}"),
        ('assets = ["', 'bytes = 1\nassets = ["', "Unknown key 'weights[1].bytes'"),
    ],
)
def test_malformed_published_weights(folder: Path, old: str, new: str, message: str) -> None:
    text = GOOD + PUBLISHED
    assert old in text
    file = folder / "preset.toml"
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(PresetError) as caught:
        read_preset(file)
    assert message.format(file=file) in str(caught.value)


def test_options_of_other_models_are_refused() -> None:
    mini, unclip = load_preset("mini"), load_preset("sound2vision")
    assert unclip.generate_options(prompt="etching", steps=5).steps == 5
    assert unclip.generate_options().guidance == 10
    assert mini.generate_options(prompt="", steps=None).steps is None
    for flags, flag in [({"prompt": "etching"}, "--prompt"), ({"noise_level": 3}, "--noise-level")]:
        with pytest.raises(OptionError) as caught:
            mini.generate_options(**flags)
        message = f"{flag} is {next(iter(flags.values()))!r}, but preset 'mini' does not take it"
        assert str(caught.value).startswith(message)


def test_a_role_twice(folder: Path) -> None:
    Path("preset.toml").write_text(GOOD + GOOD[GOOD.index("[[weights]]") :])
    with pytest.raises(PresetError, match="role is listed twice"):
        read_preset(Path("preset.toml"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mimi", "Unknown preset 'mimi'. Did you mean 'mini'? Run 's2v presets' to list all."),
        ("zzzz", "Unknown preset 'zzzz'. Run 's2v presets' to list all."),
        ("./mini2", "No preset at './mini2': "),
        ("own.toml", "No preset at 'own.toml': "),
        (".", "No preset at '.': "),
        ("", "Unknown preset ''."),
    ],
)
def test_unknown_presets(folder: Path, name: str, message: str) -> None:
    with pytest.raises(PresetError) as caught:
        load_preset(name)
    assert str(caught.value).startswith(message)


def test_command_lists(s2v: RunHere) -> None:
    ran = s2v("presets")
    assert ran.status == 0
    line = next(line for line in ran.lines if line.startswith("mini: "))
    for part in ("128 px", "mini-2-256 (unit)", "CC BY-NC 4.0", "weights here"):
        assert part in line
    assert re.search(r"[0-9.]+ MB", line)


def test_command_lists_json(s2v: RunHere) -> None:
    rows: list[dict[str, Any]] = json.loads(s2v("presets", "--json").out)
    mini = next(row for row in rows if row["name"] == "mini")
    assert mini["weights"] == "here"
    assert mini["commercial"] is False
    assert mini["megabytes"] > 0


def test_command_shows_one(s2v: RunHere) -> None:
    Path("preset.toml").write_text(GOOD)
    ran = s2v("presets", ".")
    assert ran.status == 0
    assert re.search(r"^title\s+My own$", ran.out, re.MULTILINE)
    assert re.search(r"^weights\s+missing$", ran.out, re.MULTILINE)
    wrong = s2v("presets", "mimi")
    assert (wrong.status, wrong.out) == (2, "")
    assert wrong.complaints == [
        "s2v: error: Unknown preset 'mimi'. Did you mean 'mini'? Run 's2v presets' to list all."
    ]
