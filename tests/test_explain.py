from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
from PIL import Image

from s2v_cli.picture import read_record

if TYPE_CHECKING:
    from conftest import RunHere, WriteTone

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_seconds_that_mattered(s2v: RunHere, folder: Path) -> None:
    """A dog barks in the third second of silence: that is what `--json` says."""
    bark, rate = soundfile.read(EXAMPLES / "dog.flac")
    wave = np.zeros(5 * rate)
    wave[2 * rate : 3 * rate] = bark[:rate]
    soundfile.write("bark.wav", wave, rate)
    ran = s2v("explain", "bark.wav", "--json")
    assert ran.status == 0, ran.err
    made: list[dict[str, Any]] = json.loads(ran.out)
    moments = made[0]["moments"]
    assert made[0]["path"] == "bark-heat.png"
    assert moments[0]["importance"] == 1
    for moment in moments:
        assert 1.7 < moment["start_s"] <= moment["peak_s"] <= moment["end_s"] < 3.3
        assert 50 < moment["frequency_hz"] < 8000
    assert read_record("bark-heat.png")["moments"] == moments


def test_seconds_are_those_of_the_file(s2v: RunHere, folder: Path) -> None:
    """A part is heard, shorter than the model hears at once, and times stay the file's."""
    bark, rate = soundfile.read(EXAMPLES / "dog.flac")
    wave = np.zeros(62 * rate)
    wave[61 * rate : 62 * rate] = bark[:rate]
    soundfile.write("late.wav", wave, rate)
    ran = s2v("explain", "late.wav", "--start", "1:00", "--json")
    moments = json.loads(ran.out)[0]["moments"]
    assert all(60.6 < moment["start_s"] < moment["end_s"] <= 62.001 for moment in moments)


def test_the_record_makes_it_again(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone("a.wav", seconds=7, hertz=500)
    write_tone("b.wav", seconds=2, hertz=2000)
    ran = s2v(
        "explain", "a.wav", "--picture-of", "b.wav", "--theme", "dark", "--seed", "4", "--size",
        "300", "--window", "average", "--gain-db", "-2", "-o", "out/",
    )  # fmt: skip
    assert (ran.status, ran.out) == (0, "out/a-heat.png\n")
    record, content = read_record("out/a-heat.png"), Path("out/a-heat.png").read_bytes()
    assert record["picture_of"]["source"] == "b.wav"
    assert len(record["sounds"][0]["segments"]) == 1
    shutil.rmtree("out")
    assert s2v(*record["arguments"][1:]).status == 0
    assert Path("out/a-heat.png").read_bytes() == content
    with Image.open("out/a-heat.png") as image:
        assert image.height > 300
    ran = s2v("replay", "out/a-heat.png")
    assert (ran.status, ran.out) == (0, "identical\n")


def test_all_windows_are_shown(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone("a.wav", seconds=12, hertz=500)
    ran = s2v("explain", "a.wav", "--window", "average", "-o", "a.jpg")
    assert ran.status == 0
    assert read_record("a.jpg")["sounds"][0]["segments"] == [[0.0, 5.0], [5.0, 5.0]]
    with Image.open("a.jpg") as image:
        assert image.width > 1300


def test_bad_input_gives_one_line(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone(seconds=1.0)
    Path("text.wav").write_text("this is text")
    cases = [
        (("text.wav",), 1, "text file"),
        (("tone.wav", "--picture-of", "text.wav"), 1, "text file"),
        (("tone.wav", "--picture-of", "nowhere.wav"), 1, "nowhere.wav"),
        (("-", "--picture-of", "-"), 2, "standard input is read once"),
        (("tone.wav", "-o", "a.svg"), 2, "its suffix is '.svg'"),
        (("tone.wav", "--preset", "imagebind"), 2, "cannot do 's2v explain'"),
        (("tone.wav", "--theme", "blue"), 2, "theme"),
    ]
    before = set(os.listdir())
    for arguments, status, message in cases:
        ran = s2v("explain", *arguments)
        assert (ran.status, ran.out, len(ran.complaints)) == (status, "", 1), arguments
        assert message in ran.err
    assert set(os.listdir()) == before


def test_silence_is_told(s2v: RunHere, folder: Path) -> None:
    soundfile.write("silence.wav", np.zeros(8000), 16_000)
    ran = s2v("explain", "silence.wav", "--json")
    assert ran.status == 0
    assert "silence.wav is silent" in ran.err
    assert json.loads(ran.out)[0]["moments"] == []
