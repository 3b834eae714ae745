"""`s2v gen` with a published preset whose weights are not here: told, asked for, or pulled."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from s2v_cli.picture import read_picture, read_record
from s2v_cli.weights.store import asset_sha256, asset_status
from tests import published

if TYPE_CHECKING:
    from conftest import RunHere, RunProcess, Site, WriteCatalogue, WriteTone

ASSET = """
[{name}]
title = "{name}"
kind = "tensors"
licence = "{licence}"
commercial = {commercial}
page = "https://example.org/{name}"
converted_bytes = 1_000
[{name}.file]
name = "{file}"
bytes = 1_000
estimated = true
sources = ["SITE/{file}"]
"""


@pytest.fixture(autouse=True)
def served(site: Site, catalogue: WriteCatalogue, home: Path) -> None:
    """Sound2Scene's narrow stand-ins on loopback, under the published names."""
    encoder = published.write_sound2scene_pth(home.parent / "sound2scene.pth")
    archive = published.write_icgan_targz(home.parent / "icgan.tar.gz")
    catalogue(
        ASSET.format(
            name="sound2scene-audio", licence="MIT", commercial="true", file="sound2scene.pth"
        )
        + ASSET.format(
            name="icgan-128", licence="CC BY-NC 4.0", commercial="false", file="icgan.tar.gz"
        )
    )
    for path in (encoder, archive):
        site.files[f"/{path.name}"] = path.read_bytes()
        path.unlink()


def test_missing_weights_are_named_with_the_command(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone()
    ran = s2v("gen", "tone.wav", "--preset", "sound2scene")
    assert (ran.status, ran.out, len(ran.complaints)) == (1, "", 1)
    assert "sound2scene-audio" in ran.err and "icgan-128" in ran.err
    assert "CC BY-NC 4.0" in ran.err
    assert ran.err.rstrip().endswith("s2v weights pull sound2scene")
    assert not Path("tone.png").exists()


def test_yes_alone_does_not_accept_a_licence(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone()
    ran = s2v("gen", "tone.wav", "--preset", "sound2scene", "--yes")
    assert ran.status == 1
    assert "--accept-licence" in ran.complaints[-1]
    assert asset_status("icgan-128") == "missing"


def test_yes_pulls_and_goes_on(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone()
    line = ["gen", "tone.wav", "--preset", "sound2scene"]
    ran = s2v(*line, "--yes", "--accept-licence", "-o", "a.png")
    assert (ran.status, ran.out) == (0, "a.png\n"), ran.err
    record = read_record("a.png")
    assert record["generate_options"]["contrast"] == "stretch"  # as the published code shows them
    assert record["weights"] == {
        name: asset_sha256(name) for name in ("sound2scene-audio", "icgan-128")
    }
    # From now on nothing is asked, and the pictures are the same.
    ran = s2v(*line, "-o", "b.png")
    assert (ran.status, ran.err) == (0, "")
    assert read_picture("a.png").tobytes() == read_picture("b.png").tobytes()
    assert s2v("replay", "a.png").lines == ["identical"]
    assert s2v(*line, "--contrast", "plain", "-o", "c.png").status == 0
    low, high = zip(*read_picture("a.png").getextrema(), strict=True)
    assert (min(low), max(high)) == (0, 255)
    low, high = zip(*read_picture("c.png").getextrema(), strict=True)
    assert (min(low), max(high)) != (0, 255)


@pytest.mark.parametrize("answer", ["y", "n"])
def test_a_person_is_asked(write_tone: WriteTone, answer: str) -> None:
    """In a real terminal: first for the download, then for the licence."""
    write_tone()
    master, slave = pty.openpty()
    run = subprocess.Popen(
        [sys.executable, "-m", "s2v_cli", "gen", "tone.wav", "--preset", "sound2scene"],
        stdin=slave,
        stderr=slave,
        stdout=subprocess.PIPE,
    )
    os.close(slave)
    shown = b""
    for question in (b"Download", b"Do you agree?"):
        while question not in shown:
            shown += os.read(master, 1000)
        os.write(master, answer.encode() + b"\n")
        if answer == "n":
            break
    out = run.communicate(timeout=60)[0]
    os.close(master)
    assert (run.returncode, out) == ((0, b"tone.png\n") if answer == "y" else (1, b""))
    assert Path("tone.png").exists() == (answer == "y")


def test_standard_output_holds_the_picture_alone(
    s2v_process: RunProcess, write_tone: WriteTone
) -> None:
    write_tone()
    line = ["gen", "tone.wav", "--preset", "sound2scene", "--yes", "--accept-licence", "-o", "-"]
    done = s2v_process(*line)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"\x89PNG")
