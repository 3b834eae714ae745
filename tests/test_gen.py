from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image

import s2v_cli
from s2v_cli.picture import read_picture, read_record
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.presets import load_preset
from s2v_cli.results import SoundEmbedding
from s2v_cli.strip import GAP

if TYPE_CHECKING:
    from conftest import RunHere, RunProcess, WriteTone


def leftovers() -> list[str]:
    return [name for name in os.listdir() if name.endswith(".tmp")]


def test_one_sound_one_picture(s2v: RunHere, write_tone: WriteTone) -> None:
    """Without -o the picture lands beside the caller."""
    ran = s2v("gen", write_tone("sounds/rain.wav"))
    assert (ran.status, ran.out) == (0, "rain.png\n")
    with Image.open("rain.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (128, 128))
    assert sorted(os.listdir()) == ["rain.png", "sounds"]


def test_the_record_makes_the_picture_again(s2v: RunHere, write_tone: WriteTone) -> None:
    """A picture out of a larger run says how to make it alone.

    Alone it goes through the generator in a smaller batch, so it is the same up to rounding; the
    same command twice gives the same bytes.
    """
    write_tone("a.wav", seconds=8)
    write_tone("-odd {x}.wav", hertz=100, seconds=2)
    ran = s2v(
        "gen", "a.wav", "-n", "3", "--seed", "7", "-o", "{{{stem}}}-{seed}.png", "--start", "0:01",
        "--window", "average", "--gain-db", "-6", "--truncation", "0.5", "--best-of", "2",
        "--size", "40", "--", "-odd {x}.wav",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    assert len(ran.lines) == 6
    for name in (ran.lines[1], ran.lines[5]):
        record = read_record(name)
        with Image.open(name) as image:
            pixels = image.tobytes()
        Path(name).unlink()
        command = shlex.split(record["command"])
        assert command == record["arguments"]
        assert command[0] == "s2v"
        again = s2v(*command[1:])
        assert (again.status, again.lines) == (0, [name])
        content, alone = Path(name).read_bytes(), read_record(name)
        with Image.open(name) as image:
            moved = max(abs(a - b) for a, b in zip(pixels, image.tobytes(), strict=True))
        assert moved <= 2
        assert alone.pop("similarity") == pytest.approx(record.pop("similarity"), abs=1e-3)
        assert alone == record
        Path(name).unlink()
        s2v(*command[1:])
        assert Path(name).read_bytes() == content


def test_record(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone("a.wav", seconds=2)
    s2v("gen", "a.wav", "--size", "64", "--seed", "5", "--gain-db", "3.5")
    record = read_record("a.png")
    mini = load_preset("mini")
    assert record["sounds"][0]["source"] == "a.wav"
    assert len(record["sounds"][0]["sha256"]) == 64
    assert record["sounds"][0]["segments"] == [[0.0, 2.0]]
    assert (record["size"], record["resolution"], record["resampled_from"]) == ([64, 64], 128, 128)
    assert record["seed"] == record["generate_options"]["seed"] == 5
    assert record["generate_options"]["truncation"] == mini.generate["truncation"]
    assert record["sound_options"]["gain_db"] == 3.5
    assert record["weights"] == {weight.role: weight.sha256 for weight in mini.weights}
    assert record["versions"]["s2v"] == s2v_cli.__version__
    assert record["versions"]["torch"] == torch.__version__
    with Image.open("a.png") as image:
        assert "Seed: 5, Size: 64x64, Model: mini" in image.info["parameters"]
    s2v("gen", "a.wav", "--no-metadata", "--force")
    with Image.open("a.png") as image:
        assert not image.info


def test_command_and_library_agree(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone("a.wav", seconds=7)
    s2v("gen", "a.wav", "-n", "2", "--seed", "3", "--window", "first", "--gain-db", "-3")
    images = Sound2Vision.load("mini").generate(
        "a.wav", seed=3, count=2, window="first", gain_db=-3.0
    )
    for seed, image in zip((3, 4), images, strict=True):
        assert read_picture(f"a-{seed}.png").tobytes() == image.tobytes()
    assert images[0].tobytes() != images[1].tobytes()


def test_json(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone("a.wav")
    ran = s2v("gen", "a.wav", "-n", "2", "--best-of", "2", "-o", "out/", "--json")
    made: list[dict[str, Any]] = json.loads(ran.out)
    assert [row["path"] for row in made] == ["out/a-0.png", "out/a-1.png"]
    assert [row["seed"] for row in made] == [0, 1]
    for row in made:
        assert set(row) == {
            "path", "seed", "sound", "sha256", "segments", "familiarity", "preset", "size",
            "similarity",
        }  # fmt: skip
        assert (row["sound"], row["preset"], row["size"]) == ("a.wav", "mini", [128, 128])
        assert -1 <= row["similarity"] <= 1
        assert read_record(row["path"])["similarity"] == row["similarity"]


def test_folder_and_template(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone("in/b.flac")
    write_tone("in/a.wav", sample_rate=8000, channels=2)
    Path("in/notes.txt").write_text("not a sound")
    ran = s2v("gen", "in", "-o", "{index:02}-{stem}.webp", "--window", "first")
    assert (ran.status, ran.lines) == (0, ["01-a.webp", "02-b.webp"])
    assert read_record("02-b.webp")["sounds"][0]["source"] == "in/b.flac"


def test_grid(s2v: RunHere, write_tone: WriteTone) -> None:
    """Rows are sounds, columns are seeds; each cell is the picture made alone."""
    for name, hertz in (("a", 100), ("b", 3000)):
        write_tone(f"{name}.wav", hertz=hertz)
    ran = s2v("gen", "a.wav", "b.wav", "-n", "3", "--grid", "-o", "sheet.png", "--json")
    row = json.loads(ran.out)[0]
    assert (row["path"], row["seeds"]) == ("sheet.png", [0, 1, 2])
    assert [sound["source"] for sound in row["sounds"]] == ["a.wav", "b.wav"]
    s2v("gen", "a.wav", "b.wav", "-n", "3")
    sheet = read_picture("sheet.png")
    assert sheet.width == 3 * (128 + GAP) + GAP
    row_height = (sheet.height - GAP) // 2
    assert row_height > 128 + 2 * 15  # two lines of text below each picture
    for y, name in enumerate(("a", "b")):
        for x in range(3):
            left, top = GAP + x * (128 + GAP), GAP + y * row_height
            cell = sheet.crop((left, top, left + 128, top + 128))
            assert cell.tobytes() == read_picture(f"{name}-{x}.png").tobytes()
    s2v("gen", "a.wav", "b.wav", "-n", "3", "--grid", "-o", "dark.png", "--theme", "dark")
    assert max(read_picture("dark.png").getpixel((1, 1))) < 40 < min(sheet.getpixel((1, 1)))
    content = Path("sheet.png").read_bytes()
    again = shlex.split(read_record("sheet.png")["command"])[1:]
    assert s2v(*again, "--force").status == 0
    assert Path("sheet.png").read_bytes() == content


def test_one_bad_sound_does_not_stop_the_others(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone("a.wav")
    Path("bad.wav").write_text("this is text, not sound")
    write_tone("c.wav")
    ran = s2v("gen", "a.wav", "bad.wav", "c.wav")
    assert (ran.status, ran.lines) == (1, ["a.png", "c.png"])
    errors = [line for line in ran.complaints if line.startswith("s2v: error: ")]
    assert len(errors) == 1
    assert "bad.wav" in errors[0]
    ran = s2v("gen", "bad.wav", "c.wav", "-n", "2", "--grid", "-o", "sheet.png", "--quiet")
    assert (ran.status, ran.lines) == (1, ["sheet.png"])
    assert read_picture("sheet.png").width == 2 * (128 + GAP) + GAP


def test_notes(s2v: RunHere, write_tone: WriteTone, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tone("still.wav", level=0)
    ran = s2v("gen", "still.wav")
    assert (ran.status, ran.out) == (0, "still.png\n")
    assert ran.complaints == ["s2v: note: still.wav is silent: the picture shows no sound."]

    encode = Sound2Vision.encode_sound

    def unfamiliar(self: Sound2Vision, *given: Any) -> SoundEmbedding:
        return replace(encode(self, *given), familiarity=0.03, familiar=False)

    monkeypatch.setattr(Sound2Vision, "encode_sound", unfamiliar)
    ran = s2v("gen", write_tone("odd.wav"), "-n", "2", "--json")
    assert len(ran.complaints) == 1
    assert ran.err.startswith("s2v: note: odd.wav is unlike the sounds that mini was taught")
    assert [row["familiarity"] for row in json.loads(ran.out)] == [0.03, 0.03]
    assert s2v("gen", "odd.wav", "still.wav", "-f", "--quiet").err == ""


def test_preview_goes_to_stderr(s2v: RunHere, write_tone: WriteTone) -> None:
    ran = s2v("gen", write_tone(), "--show", "--quiet")
    assert ran.out == "tone.png\n"
    assert "▀" in ran.err
    assert "\x1b[38;2;" in ran.err


def test_force(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone()
    Path("tone.png").write_text("mine")
    ran = s2v("gen", "tone.wav")
    assert (ran.status, ran.out) == (1, "")
    assert ran.complaints == ["s2v: error: tone.png exists; use --force to replace."]
    assert Path("tone.png").read_text() == "mine"
    assert s2v("gen", "tone.wav", "-f").status == 0
    assert read_picture("tone.png").size == (128, 128)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["a.wav", "b.wav", "-o", "x.png"], "Several pictures would land on 'x.png'"),
        (["a.wav", "-o", "{name}.png"], "Unknown field '{name}'"),
        (["a.wav", "-n", "2", "-o", "-"], "output '-' takes a single picture"),
        (["a.wav", "b.wav", "-o", "-"], "output '-' takes a single picture"),
        (["a.wav", "-o", "-", "--json"], "standard output is not for --json"),
        (["a.wav", "-n", "0"], "count is 0; allowed: 1 to 10000."),
        (["a.wav", "--best-of", "0"], "best-of is 0; allowed: 1 to 256."),
        (["a.wav", "--size", "9"], "size is 9; allowed: 16 to 4096 pixels."),
        (["a.wav", "--truncation", "nan"], "truncation is nan"),
        (["a.wav", "--gain-db", "99"], "gain-db is 99.0; allowed: -120 to 60 dB."),
        (["a.wav", "--start", "soon"], "start is 'soon'; allowed: "),
        (["a.wav", "--start", "1:00"], "start is 60"),
        (["a.wav", "--preset", "mimi"], "Did you mean 'mini'?"),
        (["a.wav", "--dtype", "float16", "--device", "cpu"], "dtype is 'float16'"),
        (["-", "-"], "'-' is given more than once"),
        (
            ["a.wav", "-n", "10000", "--grid", "--size", "256"],
            "pixels; allowed: 16384 a side",
        ),
    ],
)
def test_wrong_usage(s2v: RunHere, write_tone: WriteTone, arguments: list[str], part: str) -> None:
    write_tone("a.wav")
    write_tone("b.wav")
    ran = s2v("gen", *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert len(ran.complaints) == 1
    assert ran.err.startswith("s2v: error: ")
    assert part in ran.err
    assert sorted(os.listdir()) == ["a.wav", "b.wav"]


def test_the_weights_may_lie_elsewhere(s2v: RunHere, write_tone: WriteTone) -> None:
    folder = load_preset("mini").folder / "mini"
    ran = s2v("gen", write_tone(), "--weights-dir", folder)
    assert ran.status == 0
    assert f"--weights-dir {folder}" in read_record("tone.png")["command"]
    ran = s2v("gen", "tone.wav", "--weights-dir", "nowhere", "-f")
    assert ran.status == 1
    assert "Missing weights: nowhere/" in ran.err
    assert "Check --weights-dir." in ran.err


def test_pipes(s2v_process: RunProcess, s2v: RunHere, write_tone: WriteTone) -> None:
    """Sound in on stdin, PNG out on stdout, in a process of its own; same picture as here."""
    write_tone()
    ran = s2v_process("gen", "-", "-o", "-", "--quiet", stdin=Path("tone.wav").read_bytes())
    assert (ran.returncode, ran.stderr) == (0, b"")
    with Image.open(io.BytesIO(ran.stdout)) as image:
        assert image.format == "PNG"
        assert json.loads(image.info["s2v"])["sounds"][0]["source"] == "-"
        piped = image.convert("RGB").tobytes()
    assert os.listdir() == ["tone.wav"]
    s2v("gen", "tone.wav")
    assert read_picture("tone.png").tobytes() == piped


def test_ctrl_c_leaves_whole_pictures_only(write_tone: WriteTone) -> None:
    write_tone()
    process = subprocess.Popen(
        [sys.executable, "-m", "s2v_cli", "gen", "tone.wav", "-n", "10000", "-q"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"tone-0.png\n"  # well under way
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, b"s2v: stopped\n")
    pictures = [name for name in os.listdir() if name.endswith(".png")]
    assert 1 <= len(pictures) < 10_000
    for name in pictures:
        assert read_picture(name).size == (128, 128)
    assert leftovers() == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk(s2v: RunHere, write_tone: WriteTone) -> None:
    """The process may write 2 kB a file, and no more: the same error path as a full disk."""
    import resource

    write_tone("a.wav")
    write_tone("b.wav")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, limits[1]))
    try:
        ran = s2v("gen", "a.wav", "b.wav", "--quiet")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (ran.status, ran.out) == (1, "")
    assert ran.complaints == ["s2v: error: Cannot write a.png: File too large."]
    assert sorted(os.listdir()) == ["a.wav", "b.wav"]


def test_unwritable_places(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone()
    for target, part in (
        ("tone.wav/x.png", "tone.wav is not a folder"),
        ("tone.wav/deep/", "tone.wav is not a folder"),
        ("/proc/x.png", "Cannot write"),
    ):
        ran = s2v("gen", "tone.wav", "-o", target, "--quiet")
        assert (ran.status, ran.out, len(ran.complaints)) == (1, "", 1)
        assert part in ran.err
    assert os.listdir() == ["tone.wav"]
