"""`s2v mix`: what people type, what they get, and what they are told."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from PIL import Image

from s2v_cli.options import SoundOptions
from s2v_cli.picture import read_picture, read_record
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.strip import GAP

if TYPE_CHECKING:
    from conftest import Ran, RunHere, RunProcess, WriteTone


def largest_difference(first: Image.Image, second: Image.Image) -> int:
    a, b = (np.asarray(image, dtype=int) for image in (first, second))
    return int(np.abs(a - b).max())


@pytest.fixture
def tones(write_tone: WriteTone) -> None:
    write_tone("a.wav", hertz=200, seconds=7, sample_rate=22_050, channels=2)
    write_tone("b.wav", hertz=3000, seconds=3)


def cells(sheet: Image.Image, count: int, top: int) -> list[Image.Image]:
    left = [GAP + number * (128 + GAP) for number in range(count)]
    return [sheet.crop((x, top, x + 128, top + 128)) for x in left]


def test_at_1_to_0_a_mix_is_gen_of_the_first_sound(s2v: RunHere, tones: None) -> None:
    for options in ([], ["--window", "average", "--gain-db", "-6"], ["--start", "2", "-n", "2"]):
        mixed = s2v("mix", "a.wav:1", "b.wav:0", "-o", "mix/{seed}.png", "--force", *options)
        alone = s2v("gen", "a.wav", "-o", "gen/{seed}.png", "--force", *options)
        assert (mixed.status, alone.status) == (0, 0), mixed.err + alone.err
        for one, other in zip(mixed.lines, alone.lines, strict=True):
            assert read_picture(one).tobytes() == read_picture(other).tobytes()
    assert "b.wav has weight 0 and is left out." in mixed.err


def test_the_record_makes_the_picture_again(s2v: RunHere, tones: None) -> None:
    Path("b.wav").rename("12:30 b.wav:0.5")
    ran = s2v(
        "mix", "a.wav:0.7", "12:30 b.wav:0.5:-6.5dB@1.25s", "--pad", "--clip", "cut", "--seed", "3",
        "-o", "x.png", "--size", "64", "--start", "0.5", "--window", "average", "--gain-db", "3",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    record = read_record("x.png")
    assert [(s["source"], s["weight"], s["in_db"], s["offset_s"]) for s in record["sounds"]] == [
        ("a.wav", 0.7, False, 0.0),
        ("12:30 b.wav:0.5", -6.5, True, 1.25),
    ]
    assert all(len(sound["sha256"]) == 64 for sound in record["sounds"])
    assert record["mix_options"] == {"pad": True, "clip": "cut", "allow_inversion": False}
    content = Path("x.png").read_bytes()
    Path("x.png").unlink()
    again = s2v(*shlex.split(record["command"])[1:])
    assert (again.status, again.lines) == (0, ["x.png"])
    assert Path("x.png").read_bytes() == content


def test_a_sweep_is_a_strip_of_its_steps(s2v: RunHere, tones: None) -> None:
    ran = s2v("mix", "a.wav", "b.wav", "--sweep", "4", "--json")
    (row,) = json.loads(ran.out)
    assert row["path"] == "a-b-strip.png"
    assert row["sweep"][0] == [1.0, 0.0]
    assert len(row["familiarity"]) == 4
    strip = read_picture("a-b-strip.png")
    assert strip.width == 4 * 128 + 5 * GAP
    single = s2v("mix", "a.wav", "b.wav", "--sweep", "4", "--separate")
    assert single.lines == [f"a-b-{step}.png" for step in range(1, 5)]
    steps = [read_picture(name) for name in single.lines]
    top = next(
        y for y in range(GAP, 80)
        if largest_difference(strip.crop((GAP, y, GAP + 128, y + 128)), steps[0]) <= 2
    )  # fmt: skip
    for cell, step in zip(cells(strip, 4, top), steps, strict=True):
        assert largest_difference(cell, step) <= 2
    assert largest_difference(steps[0], steps[-1]) > 30
    for name, step in (("a-b-3.png", 3), ("a-b-1.png", 1)):
        alone = read_picture(name)
        record = read_record(name)
        assert record["frame"] == step
        s2v(*record["arguments"][1:], "--force")
        assert largest_difference(alone, read_picture(name)) <= 2


def test_strips_of_several_seeds_and_themes(s2v: RunHere, tones: None) -> None:
    ran = s2v(
        "mix", "a.wav", "b.wav:-6dB", "--sweep", "3", "-n", "2", "--seed", "4", "--theme", "dark"
    )
    assert ran.lines == ["a-b-strip-4.png", "a-b-strip-5.png"], ran.err
    dark = read_picture("a-b-strip-5.png")
    assert max(dark.getpixel((0, 0))) < 40  # type: ignore[arg-type, type-var]
    content = Path("a-b-strip-5.png").read_bytes()
    s2v(*read_record("a-b-strip-5.png")["arguments"][1:], "--force")
    assert Path("a-b-strip-5.png").read_bytes() == content


def test_the_saved_mix_makes_the_same_picture(s2v: RunHere, tones: None) -> None:
    ran = s2v("mix", "a.wav:3", "b.wav:2", "--save-audio", "out/mix.wav", "-o", "x.png")
    assert ran.status == 0, ran.err
    assert "samples of the mix are beyond full scale: the model hears them" in ran.err
    assert "What is heard of the mix is in out/mix.wav." in ran.err
    assert soundfile.info("out/mix.wav").samplerate == 16_000
    s2v("gen", "out/mix.wav", "-o", "y.png")
    assert read_picture("x.png").tobytes() == read_picture("y.png").tobytes()
    assert "--save-audio" not in read_record("x.png")["arguments"]
    scaled = s2v(
        "mix", "a.wav:3", "b.wav:2", "--clip", "scale", "--save-audio", "m.mp3", "-o", "z.png"
    )
    assert "the mix is turned down by" in scaled.err
    assert soundfile.info("m.mp3").duration == pytest.approx(5, abs=0.3)
    one = s2v("mix", "a.wav", "b.wav", "--sweep", "3", "--frame", "2", "--save-audio", "f.wav")
    assert one.lines == ["a-b.png"], one.err


def test_command_and_library_agree(s2v: RunHere, tones: None) -> None:
    s2v("mix", "a.wav:0.7", "b.wav:-6dB@1s", "--seed", "5", "--gain-db", "-3", "-o", "x.png")
    model = Sound2Vision.load("mini")
    options = model.preset.generate_options(seed=5)
    (picture,) = model.mix(
        ["a.wav:0.7", "b.wav:-6dB@1s"], hear=SoundOptions(gain_db=-3), options=options
    )
    assert read_picture("x.png").tobytes() == picture.image.tobytes()
    assert [p.seed for p in model.mix(["a.wav", "b.wav"], sweep=3, options=options)] == [5] * 3


@pytest.mark.slow
def test_one_track_from_a_pipe(s2v_process: RunProcess, tones: None) -> None:
    sound = Path("a.wav").read_bytes()
    ran = s2v_process("mix", "-", "b.wav:0.5", "-o", "-", "--quiet", stdin=sound)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["a.wav:0", "b.wav:0"], 2, "The weights 0, 0 sum to zero; allowed: any other sum."),
        (["a.wav:1", "b.wav:-1", "--allow-inversion"], 2, "sum to zero"),
        (["a.wav", "b.wav:-0.5"], 2, "use --allow-inversion if you mean that, or -0.5dB"),
        (["a.wav:loud", "b.wav"], 2, "says 'loud' of 'a.wav'; allowed: a gain (0.7)"),
        (["a.wav:nan", "b.wav"], 2, "says 'nan'"),
        (["a.wav:1@soon", "b.wav"], 2, "the offset of 'a.wav' is 'soon'"),
        (["a.wav", "c.wav:0.5"], 1, "No sound at 'c.wav'."),
        (["-", "a.wav", "-"], 2, "standard input can be read only once"),
        (["a.wav", "."], 1, "'.' is a folder; a mix takes sound files."),
        (["a.wav", "text.wav"], 1, "text.wav: it is a text file"),
        (["a.wav", "b.wav", "--sweep", "1"], 2, "sweep is 1; allowed: 2 to 100 steps"),
        (["a.wav", "b.wav", "a.wav", "--sweep", "3"], 2, "3 were given"),
        (["a.wav", "b.wav:0", "--sweep", "3"], 2, "The weight of 'b.wav' is 0"),
        (["a.wav", "b.wav", "--frame", "1"], 2, "--frame belongs to --sweep"),
        (["a.wav", "b.wav", "--separate"], 2, "--separate belongs to --sweep"),
        (["a.wav", "b.wav", "--sweep", "3", "--frame", "4"], 2, "frame is 4; allowed: 1 to 3"),
        (["a.wav", "b.wav", "--sweep", "3", "--frame", "1", "--separate"], 2, "leave out"),
        (["a.wav", "b.wav", "--sweep", "20", "--size", "4096"], 2, "The sheet would be"),
        (["a.wav", "b.wav", "--save-audio", "m.flac"], 2, "allowed: .wav, .mp3"),
        (["a.wav", "b.wav", "--save-audio", "a.wav", "-f"], 1, "is one of the sounds"),
        (["a.wav", "b.wav", "--save-audio", "old.wav"], 1, "old.wav exists; use --force"),
        (["a.wav", "b.wav", "--sweep", "3", "--save-audio", "m.wav"], 2, "choose it with --frame"),
        (["a.wav:9", "b.wav", "--clip", "error"], 1, "samples beyond full scale"),
        (["a.wav", "b.wav", "--start", "9"], 2, "the mix is 7 s long"),
        (["a.wav", "b.wav@x"], 2, "the offset of 'b.wav' is 'x'"),
        (["a.wav", "b.wav", "--sweep", "3", "--separate", "-o", "x.png"], 2, "x.png"),
    ],
)
def test_bad_requests(
    s2v: RunHere, tones: None, arguments: list[str], status: int, said: str
) -> None:
    Path("text.wav").write_text("no sound\n" * 50)
    Path("old.wav").touch()
    before = sorted(os.listdir())
    ran: Ran = s2v("mix", *arguments)
    assert (ran.status, ran.out) == (status, ""), ran.err
    assert len(ran.complaints) == 1, ran.err
    assert ran.err.startswith("s2v: error: ")
    assert said in ran.err
    assert sorted(os.listdir()) == before


def test_help_says_how_tracks_are_written(s2v_process: RunProcess) -> None:
    ran: subprocess.CompletedProcess[bytes] = s2v_process("mix", "--help", COLUMNS="100")
    assert b"dog.flac:0.7 rain.wav:-6dB" in b" ".join(ran.stdout.split())
