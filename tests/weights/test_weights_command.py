"""`s2v weights` on the command line: what is printed, and with which status it ends."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from s2v_cli.weights.store import asset_file, asset_status
from tests import published

if TYPE_CHECKING:
    from conftest import RunHere, Site, WriteCatalogue

# The published names, served from loopback. ICGAN's stands in as a plain file.
ASSETS = """
[sound2scene-audio]
title = "Sound2Scene audio encoder"
kind = "tensors"
licence = "MIT"
commercial = true
page = "https://example.org/s2s"
converted_bytes = 49_000_000
[sound2scene-audio.file]
name = "sound2scene.pth"
bytes = 49_000_000
estimated = true
sources = ["SITE/sound2scene.pth"]

[icgan-128]
title = "ICGAN"
kind = "file"
licence = "CC BY-NC 4.0"
commercial = false
page = "https://example.org/icgan"
[icgan-128.file]
name = "icgan.bin"
bytes = 1_000
estimated = true
sources = ["SITE/icgan.bin"]

[icgan-256]
title = "ICGAN 256"
kind = "file"
licence = "CC BY-NC 4.0"
commercial = false
page = "https://example.org/icgan"
[icgan-256.file]
name = "icgan256.bin"
bytes = 1_000
estimated = true
sources = ["SITE/icgan256.bin"]
"""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The published encoder's file, full size."""
    path = tmp_path_factory.mktemp("published") / "sound2scene.pth"
    return published.write_sound2scene_pth(path, width=64).read_bytes()


@pytest.fixture(autouse=True)
def served(site: Site, catalogue: WriteCatalogue, encoder: bytes) -> None:
    catalogue(ASSETS)
    site.files |= {
        "/sound2scene.pth": encoder,
        "/icgan.bin": b"g" * 1000,
        "/icgan256.bin": b"h" * 1000,
    }


def test_list(s2v: RunHere) -> None:
    ran = s2v("weights", "list")
    assert ran.status == 0
    assert (
        "icgan-128: ICGAN, about 1.0 kB, CC BY-NC 4.0, non-commercial, for sound2scene: missing"
        in ran.lines
    )
    rows = {row["asset"]: row for row in json.loads(s2v("weights", "list", "--json").out)}
    assert rows["icgan-128"]["licence_accepted"] is False
    assert rows["unclip"]["licence"] == "openrail++"
    assert rows["sound2scene-audio"]["presets"] == ["sound2scene", "sound2scene-256"]
    assert rows["sound2scene-audio"]["bytes"] == 49_000_000


def test_dry_run_counts_and_fetches_nothing(s2v: RunHere, site: Site, home: Path) -> None:
    ran = s2v("weights", "pull", "sound2scene", "--dry-run")
    assert (ran.status, ran.err) == (0, "")
    assert ran.lines == [
        "sound2scene-audio: missing, 49 MB, MIT",
        "icgan-128: missing, 1.0 kB, CC BY-NC 4.0, non-commercial",
        "in all: 49 MB (49001000 bytes), disk 98 MB",
    ]
    plan = json.loads(s2v("weights", "pull", "sound2scene", "--dry-run", "--json").out)
    assert plan["bytes"] == 49_001_000
    more = s2v("weights", "pull", "sound2scene", "--dry-run", "--with", "image_encoder")
    assert "swav-resnet50: missing, 113 MB" in more.out
    assert s2v("weights", "pull", "sound2scene", "--dry-run", "--all").lines == more.lines
    assert site.requests == []
    assert not home.exists()


def test_pull_path_verify_rm(s2v: RunHere, home: Path) -> None:
    ran = s2v("weights", "pull", "sound2scene")
    assert (ran.status, ran.out) == (1, "")
    assert ran.complaints[-1] == (
        "s2v: error: icgan-128 is under CC BY-NC 4.0: not for commercial use "
        "(https://example.org/icgan). To agree: --accept-licence."
    )
    ran = s2v("weights", "pull", "sound2scene", "--accept-licence")
    assert ran.status == 0, ran.err
    folders = [home / "weights/sound2scene-audio", home / "weights/icgan-128/files"]
    assert ran.lines == [str(folder) for folder in folders]
    assert any("under MIT (https://example.org/s2s)" in line for line in ran.complaints)

    ran = s2v("weights", "path", "sound2scene")
    assert ran.lines == [
        str(home / "weights/sound2scene-audio/sound2scene-audio.safetensors"),
        str(home / "weights/icgan-128/files/icgan.bin"),
    ]
    ran = s2v("weights", "verify")
    assert (ran.status, ran.lines) == (0, ["sound2scene-audio: here", "icgan-128: here"])

    path = asset_file("icgan-128")
    path.write_bytes(b"x" * 1000)
    ran = s2v("weights", "verify", "sound2scene", "--json")
    assert ran.status == 1
    assert [row["status"] for row in json.loads(ran.out)] == ["here", "damaged"]
    assert len(ran.complaints) == 1
    assert "s2v weights pull icgan-128" in ran.err
    assert s2v("weights", "pull", "sound2scene", "--quiet").status == 0
    assert asset_status("icgan-128") == "here"

    ran = s2v("weights", "rm", "sound2scene", "--dry-run")
    assert ran.lines[-1].startswith("in all: 49 MB (")
    assert asset_status("icgan-128") == "here"
    ran = s2v("weights", "rm", "sound2scene")
    assert (ran.status, ran.out) == (2, "")
    assert "Nobody can answer here: say --yes." in ran.err
    plan = json.loads(s2v("weights", "rm", "sound2scene", "--yes", "--json").out)
    assert [row["asset"] for row in plan["assets"]] == ["sound2scene-audio", "icgan-128"]
    assert asset_status("icgan-128") == "missing"
    assert not (home / "weights/icgan-128").exists()
    ran = s2v("weights", "path", "sound2scene")
    assert (ran.status, ran.out) == (1, "")
    assert ran.complaints[0].endswith("Get them: s2v weights pull sound2scene")


def test_rm_leaves_what_another_preset_needs(s2v: RunHere) -> None:
    assert s2v("weights", "pull", "sound2scene", "sound2scene-256", "--accept-licence").status == 0
    ran = s2v("weights", "rm", "sound2scene", "--yes")
    assert "sound2scene-audio stays: preset sound2scene-256 needs it." in ran.err
    assert asset_status("icgan-128") == "missing"
    assert asset_status("sound2scene-audio") == "here"
    assert s2v("weights", "rm", "sound2scene-256", "--yes").status == 0
    assert asset_status("sound2scene-audio") == "missing"


def test_weights_dir(s2v: RunHere, home: Path) -> None:
    own = home.parent / "own"
    ran = s2v("weights", "pull", "sound2scene-audio", "--weights-dir", own, "--json")
    (shown,) = json.loads(ran.out)
    assert shown["folder"] == str(own / "sound2scene-audio")
    assert shown["files"][0]["sha256"]
    assert asset_status("sound2scene-audio", own) == "here"
    assert asset_status("sound2scene-audio") == "missing"
    ran = s2v("weights", "path", "sound2scene", "--weights-dir", own)
    assert ran.complaints[0].endswith(f"s2v weights pull sound2scene --weights-dir {own}")


def test_import(s2v: RunHere, home: Path, encoder: bytes) -> None:
    Path("downloads").mkdir()
    Path("downloads/x.pth").write_bytes(encoder)
    ran = s2v("weights", "import", "downloads/x.pth", "--as", "sound2scene-audio")
    assert (ran.status, ran.lines) == (0, [str(home / "weights/sound2scene-audio")]), ran.err
    Path("page.html").write_text("<!doctype html><html>quota</html>")
    ran = s2v("weights", "import", "page.html", "--as", "sound2scene-audio")
    assert (ran.status, ran.out, len(ran.complaints)) == (1, "", 1)
    assert "page.html is a web page, not weights" in ran.err


def test_a_bundled_preset_needs_nothing(s2v: RunHere) -> None:
    ran = s2v("weights", "pull", "mini")
    assert (ran.status, ran.out) == (0, "")
    assert "its weights come with the package" in ran.err
    assert "mini/generator: here" in s2v("weights", "verify", "mini").lines
    assert all(Path(line).is_file() for line in s2v("weights", "path", "mini").lines)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["pull", "sound2scen"], 2, "Unknown preset 'sound2scen'. Did you mean 'sound2scene'?"),
        (["pull", "sound2scene", "--with", "ears"], 2, "with is 'ears'; allowed: sound_encoder"),
        (["pull"], 2, "Missing argument 'PRESET'"),
        (["path", "unclip"], 1, "Missing weights: unclip (5.2 GB, openrail++). Get them:"),
        (["import", "nowhere"], 1, "No file or folder at 'nowhere'"),
        (["verify", "nope"], 2, "Unknown preset 'nope'."),
        (["rm", "nope", "--yes"], 2, "Unknown preset 'nope'."),
    ],
)
def test_refusals(s2v: RunHere, arguments: list[str], status: int, message: str) -> None:
    ran = s2v("weights", *arguments)
    assert (ran.status, ran.out, len(ran.complaints)) == (status, "", 1), ran.err
    assert message in ran.err


def test_a_server_that_fails_is_one_line(s2v: RunHere, site: Site, home: Path) -> None:
    site.fail("/sound2scene.pth", always=True, status=404)
    ran = s2v("weights", "pull", "sound2scene-audio", "--quiet")
    assert (ran.status, ran.out, len(ran.complaints)) == (1, "", 1)
    assert ran.err.startswith("s2v: error: Cannot get sound2scene-audio (http")
    assert asset_status("sound2scene-audio") == "missing"


@pytest.mark.parametrize("answer", ["n", "y"])
def test_the_licence_is_asked_for_on_a_terminal(home: Path, answer: str) -> None:
    """In a real terminal: the question is on stderr, and a yes is remembered."""
    master, slave = pty.openpty()
    run = subprocess.Popen(
        [sys.executable, "-m", "s2v_cli", "weights", "pull", "icgan-128"],
        stdin=slave,
        stderr=slave,
        stdout=subprocess.PIPE,
    )
    os.close(slave)
    shown = b""
    while b"Do you agree?" not in shown:
        shown += os.read(master, 1000)
    os.write(master, answer.encode() + b"\n")
    out = run.communicate(timeout=30)[0]
    os.close(master)
    assert run.returncode == (0 if answer == "y" else 1)
    assert bool(out) == (answer == "y")
    assert asset_status("icgan-128") == ("here" if answer == "y" else "missing")
    accepted = home / "licences.json"
    assert accepted.exists() == (answer == "y")


def test_what_is_recorded(s2v: RunHere, site: Site, home: Path, encoder: bytes) -> None:
    s2v("weights", "pull", "sound2scene-audio")
    manifest = json.loads((home / "weights/sound2scene-audio/manifest.json").read_text())
    assert manifest["published"] == [
        {
            "path": "sound2scene.pth",
            "bytes": len(encoder),
            "sha256": hashlib.sha256(encoder).hexdigest(),
            "source": f"{site.url}/sound2scene.pth",
        }
    ]
    assert manifest["licence"] == "MIT"
    assert manifest["s2v"]
