"""A picture made again from its record alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from s2v_cli.picture import compare_pictures, read_record

if TYPE_CHECKING:
    from conftest import RunHere, WriteTone


def write_record(path: str, record: object) -> None:
    info = PngInfo()
    info.add_text("s2v", json.dumps(record))
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_identical(s2v: RunHere, write_tone: WriteTone, suffix: str) -> None:
    write_tone()
    assert s2v("gen", "tone.wav", "-o", f"a.{suffix}", "--gain-db", "-6.5").status == 0
    ran = s2v("replay", f"a.{suffix}")
    assert (ran.status, ran.lines, ran.err) == (0, ["identical"], "")


def test_the_picture_is_truly_drawn_again(s2v: RunHere, write_tone: WriteTone) -> None:
    """A picture with one pixel changed, but its record whole, differs."""
    write_tone()
    s2v("gen", "tone.wav", "-o", "a.png")
    with Image.open("a.png") as file:
        image, text = file.convert("RGB"), file.info["s2v"]
    red, green, blue = image.getpixel((3, 4))  # type: ignore[misc]
    image.putpixel((3, 4), (red, green ^ 8, blue))
    info = PngInfo()
    info.add_text("s2v", text)
    image.save("a.png", pnginfo=info)
    ran = s2v("replay", "a.png")
    assert ran.status == 1
    assert ran.lines == ["differs: 0.01% of the pixels, by up to 8 of 255"]


def test_changes(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone()
    s2v("gen", "tone.wav", "-o", "a.png", "--seed", "3", "--truncation", "0.7")
    ran = s2v("replay", "a.png", "--seed", "8", "--size=64")
    assert (ran.status, ran.lines) == (0, ["a-replay.png"])
    s2v("gen", "tone.wav", "-o", "b.png", "--seed", "8", "--truncation", "0.7", "--size", "64")
    assert compare_pictures(Path("a-replay.png"), Path("b.png")) == (0.0, 0)
    assert read_record("a-replay.png")["seed"] == 8
    assert s2v("replay", "a.png", "--seed", "8").status == 1  # a-replay.png exists
    assert s2v("replay", "a-replay.png").lines == ["identical"]


def test_another_preset_takes_its_own_defaults(
    s2v: RunHere, write_tone: WriteTone, folder: Path
) -> None:
    """Of the recorded values only those stay that were not the old preset's defaults."""
    package = Path(__file__).parents[1] / "presets"
    shutil.copytree(package / "mini", folder / "own" / "mini")
    text = (package / "mini.toml").read_text(encoding="utf-8")
    text = text.replace('name = "mini"\ntitle', 'name = "own"\ntitle')
    (folder / "own/preset.toml").write_text(text.replace("truncation = 0.85", "truncation = 0.5"))
    write_tone()
    s2v("gen", "tone.wav", "-o", "a.png", "--seed", "3")
    assert s2v("replay", "a.png", "--preset", "own", "-o", "b.png").status == 0
    options = read_record("b.png")["generate_options"]
    assert (options["truncation"], options["seed"]) == (0.5, 3)


def test_a_sound_that_changed_is_told(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone()
    s2v("gen", "tone.wav", "-o", "a.png")
    noise = np.random.default_rng(0).normal(0, 0.2, 16_000)
    soundfile.write("tone.wav", noise, 16_000)
    ran = s2v("replay", "a.png")
    assert ran.status == 1
    assert "tone.wav is another file than tone.wav then" in ran.err


def test_moved_inputs(s2v: RunHere, write_tone: WriteTone, folder: Path) -> None:
    write_tone()
    s2v("gen", "tone.wav", "-o", "a.png")
    (folder / "tone.wav").rename("moved.wav")
    assert "No sound at 'tone.wav'" in s2v("replay", "a.png").err
    assert s2v("replay", "a.png", "--input", "moved.wav").lines == ["identical"]


def test_json_and_info(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone()
    s2v("gen", "tone.wav", "-o", "a.png")
    found = json.loads(s2v("replay", "a.png", "--json").out)
    assert found["identical"] is True
    assert found["path"] is None
    assert json.loads(s2v("info", "a.png", "--json").out) == read_record("a.png")
    lines = s2v("info", "a.png").lines
    assert lines[0] == read_record("a.png")["command"]
    assert any(line.split() == ["size", "128x128", "pixels"] for line in lines)


REFUSED = [
    (["s2v", "train", "data"], "holds no command that can be run"),
    (["s2v", "weights", "rm", "mini", "--output", "x"], "holds no command that can be run"),
    (["rm", "-rf", "/"], "holds no command that can be run"),
    (["s2v", "gen", "tone.wav"], "names no output"),
    (["s2v", "mix", "a.wav", "--output", "x.png", "--save-audio", "y.wav"], "would write files"),
    (["s2v", "gen", "-", "--output", "x.png"], "give the sound with --input FILE"),
    ("s2v gen tone.wav", "holds no command that can be run"),
]


@pytest.mark.parametrize(("arguments", "part"), REFUSED)
def test_records_that_are_refused(s2v: RunHere, arguments: object, part: str) -> None:
    write_record("a.png", {"arguments": arguments})
    ran = s2v("replay", "a.png")
    assert ran.status == 1
    assert len(ran.complaints) == 1
    assert part in ran.err


def test_pictures_without_a_record(s2v: RunHere, folder: Path) -> None:
    Image.new("RGB", (8, 8)).save("plain.png")
    for command in ("replay", "info"):
        ran = s2v(command, "plain.png")
        assert (ran.status, ran.complaints) == (
            1,
            ["s2v: error: 'plain.png' holds no record of s2v."],
        )
        assert s2v(command, "none.png").complaints == ["s2v: error: No picture at 'none.png'."]


def test_wrong_changes(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone()
    s2v("gen", "tone.wav", "-o", "a.png")
    for extra, part in [("7", "one argument too many"), ("--bogus", "No such option: --bogus")]:
        ran = s2v("replay", "a.png", extra)
        assert ran.status == 2
        assert part in ran.err
    assert not Path("a-replay.png").exists()
