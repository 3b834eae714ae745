"""`s2v gen --gain-db start:stop:count`: one seed, several volumes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from s2v_cli.errors import OptionError
from s2v_cli.picture import read_picture, read_record
from s2v_cli.volume import gain_label, parse_gains

if TYPE_CHECKING:
    from conftest import RunHere, WriteTone


def test_gains() -> None:
    assert parse_gains("-6") == [-6]
    assert parse_gains("-20:20:5") == [-20, -10, 0, 10, 20]
    assert parse_gains("3:-3:2") == [3, -3]
    assert parse_gains("-20:20:7")[::3] == [-20, 0, 20]
    bad = (
        "", "x", "nan", "1:2", "1:2:1", "1:2:2.5", "1:2:101", "5:5:3", "1:2:3:4", "-200:0:3",
        "0:90:3", "99", "::", "inf",
    )  # fmt: skip
    for text in bad:
        with pytest.raises(OptionError, match="gain-db is "):
            parse_gains(text)


def test_labels() -> None:
    assert [gain_label(gain) for gain in (-20.0, -1e-12, 0.0, 3.3333, 20.0)] == [
        "\N{MINUS SIGN}20 dB", "0 dB", "0 dB", "+3.33 dB", "+20 dB",
    ]  # fmt: skip


def test_a_strip_of_volumes(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone("a.wav", seconds=8)
    ran = s2v("gen", "a.wav", "--gain-db", "-20:10:4", "--json", "--window", "first")
    (row,) = json.loads(ran.out)
    assert (row["path"], row["gains_db"]) == ("a-strip.png", [-20, -10, 0, 10])
    strip = read_picture("a-strip.png")
    assert strip.width > 4 * 128
    with Image.open("a-strip.png") as image:
        assert "Gain: -20 to 10 dB" in image.info["parameters"]
    content = Path("a-strip.png").read_bytes()
    s2v(*read_record("a-strip.png")["arguments"][1:], "--force")
    assert Path("a-strip.png").read_bytes() == content


def test_each_volume_is_gen_at_that_gain(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone("a.wav", seconds=8)
    ran = s2v("gen", "a.wav", "--gain-db", "-20:20:3", "--separate", "--seed", "4")
    assert ran.lines == ["a-1.png", "a-2.png", "a-3.png"], ran.err
    for name, gain in (("a-1.png", "-20"), ("a-3.png", "20")):
        s2v("gen", "a.wav", "--gain-db", gain, "--seed", "4", "-o", "x.png", "--force")
        one, other = (np.asarray(read_picture(n), dtype=int) for n in (name, "x.png"))
        assert np.abs(one - other).max() <= 2
        assert read_record(name)["sound_options"]["gain_db"] == float(gain)


def test_several_sounds_and_seeds(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone("a.wav")
    write_tone("b.wav", hertz=2000)
    Path("text.wav").write_text("no sound\n" * 50)
    ran = s2v("gen", "a.wav", "text.wav", "b.wav", "--gain-db", "0:6:2", "-n", "2", "-q")
    assert ran.status == 1
    assert ran.lines == [f"{name}-strip-{seed}.png" for name in "ab" for seed in (0, 1)]
    assert len(ran.complaints) == 1
    assert "text.wav: it is a text file" in ran.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gain-db", "loud"], "gain-db is 'loud'; allowed: dB (-6), or start:stop:count"),
        (["--gain-db", "0:6:2", "--grid"], "exclude each other"),
        (["--gain-db", "6", "--separate"], "--separate belongs to several volumes"),
        (["b.wav", "--gain-db", "0:6:2", "-o", "x.png"], "Several strips would land on one file"),
        (["--gain-db", "0:6:2", "-n", "2", "-o", "-"], "takes a single picture"),
    ],
)
def test_bad_requests(s2v: RunHere, write_tone: WriteTone, arguments: list[str], said: str) -> None:
    write_tone("a.wav")
    write_tone("b.wav")
    ran = s2v("gen", "a.wav", *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert len(ran.complaints) == 1, ran.err
    assert said in ran.err
    assert sorted(os.listdir()) == ["a.wav", "b.wav"]
