from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from s2v_cli.picture import read_record

if TYPE_CHECKING:
    from conftest import RunHere, WriteTone

av = pytest.importorskip("av")


def frames_of(path: str) -> list[np.ndarray]:
    with av.open(path) as container:
        return [np.asarray(frame.to_image(), float) for frame in container.decode(video=0)]


def test_a_sound_becomes_a_video_with_its_sound(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone("a b.wav", seconds=1.5, channels=2, sample_rate=44_100)
    ran = s2v("animate", "a b.wav", "--fps", "8", "--json")
    assert ran.status == 0, ran.err
    made: list[dict[str, Any]] = json.loads(ran.out)
    assert (made[0]["path"], made[0]["frames"], made[0]["sound"]) == ("a b.mp4", 12, "a b.wav")
    with av.open("a b.mp4") as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.width, video.height, audio.channels) == (128, 128, 2)
        lengths = [float(stream.duration * stream.time_base) for stream in (video, audio)]
        assert lengths == pytest.approx([1.5, 1.5], abs=1 / 8)
    with av.open("a b.mp4") as container:
        blocks = [block.to_ndarray() for block in container.decode(audio=0)]
    level = np.sqrt(np.square(np.concatenate(blocks, axis=1)).mean())
    assert level == pytest.approx(0.3 / np.sqrt(2), rel=0.1)


def test_frames_move_a_little_at_a_time(s2v: RunHere, folder: Path) -> None:
    """Two sounds one after the other: the picture changes, and never jumps."""
    time_s = np.arange(3 * 16_000) / 16_000
    noise = np.random.default_rng(0).normal(0, 0.1, len(time_s))
    tone = 0.2 * np.sin(2 * np.pi * 660 * time_s) * (time_s % 0.5 < 0.3)
    soundfile.write("both.wav", np.concatenate([noise, tone]), 16_000)
    s2v("animate", "both.wav", "--fps", "12", "--window", "1.5")
    frames = frames_of("both.mp4")
    assert len(frames) == 72
    steps = [np.abs(a - b).mean() for a, b in pairwise(frames)]
    whole = np.abs(frames[0] - frames[-1]).mean()
    assert whole > 20
    assert min(steps) > 0.05
    assert max(steps) < whole / 5


def test_without_drift_and_change_the_picture_stands(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone(seconds=2.0)
    s2v("animate", "tone.wav", "--fps", "4", "--drift", "0", "-o", "still.webp")
    with Image.open("still.webp") as image:
        assert image.n_frames == 8
        first = np.asarray(image.convert("RGB"), float)
        image.seek(7)
        assert np.abs(np.asarray(image.convert("RGB"), float) - first).max() < 8
    s2v("animate", "tone.wav", "--fps", "4", "--drift", "2", "-o", "moves.webp")
    with Image.open("moves.webp") as image:
        first = np.asarray(image.convert("RGB"), float)
        image.seek(7)
        assert np.abs(np.asarray(image.convert("RGB"), float) - first).mean() > 10


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_stills_hold_no_sound_and_say_so(s2v: RunHere, write_tone: WriteTone, suffix: str) -> None:
    write_tone(seconds=1.0)
    ran = s2v("animate", "tone.wav", "-o", f"a.{suffix}", "--fps", "6", "--size", "65")
    assert (ran.status, ran.out) == (0, f"a.{suffix}\n")
    assert f".{suffix} holds no sound" in ran.err
    with Image.open(f"a.{suffix}") as image:
        assert (image.n_frames, image.size) == (6, (65, 65))
    assert read_record(f"a.{suffix}")["frames"] == 6


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp"])
def test_the_record_makes_it_again(s2v: RunHere, write_tone: WriteTone, name: str) -> None:
    write_tone("-odd {x}.wav", seconds=3)
    ran = s2v(
        "animate", "-o", name, "--start", "0.5", "--duration", "1", "--gain-db=-3", "--fps", "5",
        "--window", "0.5", "--smooth", "0", "--drift", "0.7", "--seed", "9", "--size", "64",
        "--truncation", "0.6", "--", "-odd {x}.wav",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    record, content = read_record(name), Path(name).read_bytes()
    assert record["command"] == shlex.join(record["arguments"])
    assert (record["frames"], record["size"]) == (5, [64, 64])
    assert record["animate_options"] == {"fps": 5, "window_s": 0.5, "smooth_s": 0.0, "drift": 0.7}
    Path(name).unlink()
    again = s2v(*record["arguments"][1:])
    assert (again.status, again.lines) == (0, [name])
    assert Path(name).read_bytes() == content
    s2v("animate", "./-odd {x}.wav", "-o", name, "-f", "--no-metadata", "--fps", "1")
    assert b"s2v animate" not in Path(name).read_bytes()


def test_bad_input_gives_one_line(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone(seconds=1.0)
    Path("text.wav").write_text("this is text")
    Path("taken.mp4").write_bytes(b"mine")
    cases = [
        (("tone.wav", "-o", "a.avi"), 2, "its suffix is '.avi'; allowed: .mp4, .gif, .webp"),
        (("tone.wav", "-o", "-"), 2, "a moving picture needs a file"),
        (("tone.wav", "--fps", "0"), 2, "fps is 0; allowed: 1 to 60"),
        (("tone.wav", "--fps", "60", "-o", "a.gif"), 2, "of a .gif allowed: 1 to 50"),
        (("tone.wav", "--size", "65"), 2, "a .mp4 takes even sides"),
        (("tone.wav", "--window", "7"), 2, "window is 7 s; allowed: 0.1 to 5 seconds"),
        (("tone.wav", "--smooth", "soon"), 2, "smooth is 'soon'"),
        (("tone.wav", "--smooth", "90"), 2, "smooth is 90.0; allowed: 0 to 60 seconds"),
        (("tone.wav", "--drift", "-1"), 2, "drift is -1.0; allowed: 0 to 10"),
        (("tone.wav", "--start", "3"), 2, "start is 3 s, but tone.wav is 1 s long"),
        (("tone.wav", "--seed", str(2**63 - 1)), 2, "drift beyond seed"),
        (("text.wav",), 1, "text file"),
        (("nowhere.wav",), 1, "nowhere.wav"),
        (("tone.wav", "-o", "taken.mp4"), 1, "taken.mp4 exists; use --force"),
    ]
    before = set(os.listdir())
    for arguments, status, message in cases:
        ran = s2v("animate", *arguments)
        assert (ran.status, ran.out) == (status, ""), arguments
        assert len(ran.complaints) == 1
        assert message in ran.err
    assert set(os.listdir()) == before
    assert Path("taken.mp4").read_bytes() == b"mine"


def test_without_pyav_only_mp4_is_refused(
    s2v: RunHere, write_tone: WriteTone, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tone(seconds=0.5)
    monkeypatch.setitem(sys.modules, "av", None)
    ran = s2v("animate", "tone.wav")
    assert (ran.status, len(ran.complaints)) == (1, 1)
    assert "pip install 's2v-cli[video]'" in ran.err
    assert s2v("animate", "tone.wav", "-o", "a.gif", "--fps", "4").status == 0


def test_silence_is_told(s2v: RunHere, folder: Path) -> None:
    soundfile.write("silence.wav", np.zeros(8000), 16_000)
    ran = s2v("animate", "silence.wav", "-o", "a.gif", "--fps", "4")
    assert ran.status == 0
    assert "silence.wav is silent" in ran.err


@pytest.mark.slow
def test_an_interrupt_leaves_nothing(write_tone: WriteTone) -> None:
    write_tone(seconds=60.0)
    for name in ("a.mp4", "a.gif", "a.webp"):
        process = subprocess.Popen(
            [sys.executable, "-m", "s2v_cli", "animate", "tone.wav", "-o", name],
            stderr=subprocess.PIPE,
        )
        for _ in range(600):
            if any(path.suffix == ".tmp" for path in Path().iterdir()):
                break
            time.sleep(0.1)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=60)
        assert process.returncode == 130
        assert b"Traceback" not in complaint
        assert os.listdir() == ["tone.wav"]


# A process starts with the peak of the one that it came out of, so a small one stands between.
LARGEST_CHILD = """
import resource, subprocess, sys
subprocess.run([sys.executable, *sys.argv[1:]], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak_mb(*arguments: str) -> float:
    """Largest memory of a process that runs one command line, in MB."""
    between = [sys.executable, "-c", LARGEST_CHILD, "-m", "s2v_cli", *arguments]
    ran = subprocess.run(between, capture_output=True, text=True, check=True)
    return float(ran.stdout) / (1e6 if sys.platform == "darwin" else 1e3)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["mp4", "gif", "webp"])
def test_a_long_sound_takes_no_more_memory(write_tone: WriteTone, suffix: str) -> None:
    """Three minutes more are 64 MB of stereo, and 35 MB of frames."""
    options = ["-o", f"a.{suffix}", "--force", "--fps", "1", "--size", "256"]
    peaks = []
    for seconds in (60.0, 240.0):  # a minute fills every buffer
        sound = write_tone(seconds=seconds, sample_rate=44_100, channels=2)
        peaks.append(peak_mb("animate", str(sound), *options))
    assert peaks[0] > 100  # it is the command that was measured
    assert peaks[1] - peaks[0] < 20
