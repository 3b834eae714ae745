"""`s2v interp`: a photo and a sound as one picture."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from s2v_cli.errors import OptionError
from s2v_cli.photo import PhotoOptions, compose_with, parse_box
from s2v_cli.picture import read_picture, read_record
from s2v_cli.pipeline import Sound2Vision

if TYPE_CHECKING:
    from conftest import RunHere, WriteTone

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def inputs(folder: Path) -> None:
    shutil.copy(EXAMPLES / "boat.jpg", folder)
    shutil.copy(EXAMPLES / "church_bells.ogg", folder / "bells.ogg")


def largest_difference(first: Image.Image, second: Image.Image) -> int:
    a, b = (np.asarray(image, dtype=int) for image in (first, second))
    return int(np.abs(a - b).max())


def test_the_ends_are_photo_and_sound_alone(s2v: RunHere, inputs: None) -> None:
    """Weight 0 is `gen` of the sound; weight 1 is generation from the photo's embedding."""
    for path in ("linear", "spherical"):
        s2v(
            "interp",
            "boat.jpg",
            "bells.ogg",
            "--weight",
            "0",
            "--path",
            path,
            "-o",
            f"{path}-0.png",
        )
        s2v(
            "interp",
            "boat.jpg",
            "bells.ogg",
            "--weight",
            "1",
            "--path",
            path,
            "-o",
            f"{path}-1.png",
        )
    s2v("gen", "bells.ogg", "-o", "gen.png")
    model = Sound2Vision.load("mini")
    (alone,) = model.generate_from_embedding(model.encode_image("boat.jpg"))
    for path in ("linear", "spherical"):
        assert read_picture(f"{path}-0.png").tobytes() == read_picture("gen.png").tobytes()
        assert read_picture(f"{path}-1.png").tobytes() == alone.image.tobytes()


def test_the_record_makes_the_picture_again(s2v: RunHere, inputs: None) -> None:
    ran = s2v(
        "interp", "boat.jpg", "bells.ogg", "--path", "spherical", "-n", "2", "--seed", "3",
        "--gain-db", "-6", "--size", "64",
    )  # fmt: skip
    assert ran.lines == ["boat-bells-3.png", "boat-bells-4.png"], ran.err
    record = read_record("boat-bells-4.png")
    assert (record["weight"], record["seed"]) == (0.5, 4)
    assert record["pictures"][0]["source"] == "boat.jpg"
    assert record["photo_options"]["path"] == "spherical"
    content = Path("boat-bells-4.png").read_bytes()
    Path("boat-bells-4.png").unlink()
    assert s2v(*shlex.split(record["command"])[1:]).status == 0
    assert Path("boat-bells-4.png").read_bytes() == content
    with Image.open("boat-bells-4.png") as image:
        assert "Photo: boat.jpg" in image.info["parameters"]


def test_frames_go_from_the_photo_to_the_sound(s2v: RunHere, inputs: None) -> None:
    ran = s2v("interp", "boat.jpg", "bells.ogg", "--frames", "5", "--theme", "dark", "--json")
    (row,) = json.loads(ran.out)
    assert (row["path"], row["weight"]) == ("boat-bells-strip.png", [1.0, 0.75, 0.5, 0.25, 0.0])
    strip = read_picture("boat-bells-strip.png")
    ran = s2v("interp", "boat.jpg", "bells.ogg", "--frames", "5", "--separate")
    assert ran.lines == [f"boat-bells-{number}.png" for number in range(1, 6)]
    assert strip.width > 5 * 128
    assert read_record("boat-bells-2.png")["weight"] == 0.75
    frames = [read_picture(name) for name in ran.lines]
    assert largest_difference(frames[0], frames[-1]) > 60
    single = read_picture("boat-bells-2.png")
    s2v(*read_record("boat-bells-2.png")["arguments"][1:], "--force")
    assert largest_difference(single, read_picture("boat-bells-2.png")) <= 2


def test_command_and_library_agree(s2v: RunHere, inputs: None) -> None:
    s2v("interp", "boat.jpg", "bells.ogg", "--weight", "0.3", "--seed", "2", "-o", "x.png")
    model = Sound2Vision.load("mini")
    options = model.preset.generate_options(seed=2)
    (picture,) = model.interpolate("boat.jpg", "bells.ogg", [0.3], options=options)
    assert read_picture("x.png").tobytes() == picture.image.tobytes()
    with pytest.raises(OptionError, match=r"weight is 1\.5; allowed: 0 \(the sound\) to 1"):
        model.interpolate("boat.jpg", "bells.ogg", [1.5])
    with pytest.raises(OptionError, match="this generator is no diffusion model"):
        model.interpolate("boat.jpg", "bells.ogg", photo=PhotoOptions("sdedit"))
    with pytest.raises(OptionError, match="this generator is no diffusion model"):
        model.interpolate("boat.jpg", "bells.ogg", photo=PhotoOptions("compose"))


ABLE = "allowed: imagebind, imagebind-ip, sound2vision"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--weight", "1.5"], 2, "weight is 1.5; allowed: 0 (the sound) to 1 (the photo)."),
        (["--weight", "nan"], 2, "weight is nan"),
        (["--weight", "0.5", "--frames", "3"], 2, "give one"),
        (["--frames", "1"], 2, "frames is 1; allowed: 2 to 100"),
        (["--separate"], 2, "--separate belongs to --frames"),
        (["--mode", "sdedit"], 2, ABLE),
        (["--mode", "compose"], 2, ABLE),
        (["--keep", "0.5"], 2, "keep belongs to --mode sdedit"),
        (["--box", "0,0,1,1"], 2, "box belongs to --mode sdedit"),
        (["--mode", "sdedit", "--keep", "2"], 2, "keep is 2.0; allowed: 0 to 1"),
        (["--mode", "sdedit", "--box", "0,0,1"], 2, "box is '0,0,1'; allowed: left,top,width"),
        (["--mode", "sdedit", "--box", "0.5,0,1,1"], 2, "box is 0.5,0,1,1; allowed"),
        (["--mode", "compose", "--path", "spherical"], 2, "path belongs to the modes"),
        (["--preset", "nope"], 2, "Unknown preset 'nope'"),
        (["-o", "-", "-n", "2"], 2, "output '-' takes a single picture"),
        (["--steps", "5"], 2, "steps"),
    ],
)
def test_bad_requests(
    s2v: RunHere, inputs: None, arguments: list[str], status: int, said: str
) -> None:
    ran = s2v("interp", "boat.jpg", "bells.ogg", *arguments)
    assert (ran.status, ran.out) == (status, ""), ran.err
    assert len(ran.complaints) == 1, ran.err
    assert said in ran.err
    assert sorted(os.listdir()) == ["bells.ogg", "boat.jpg"]


def test_a_bad_sound_is_one_line(s2v: RunHere, inputs: None) -> None:
    Path("text.wav").write_text("no sound\n" * 50)
    ran = s2v("interp", "boat.jpg", "text.wav")
    assert (ran.status, len(ran.complaints)) == (1, 1)
    assert "text.wav: it is a text file" in ran.err
    swapped = s2v("interp", "bells.ogg", "boat.jpg")
    assert (swapped.status, len(swapped.complaints)) == (1, 1)
    assert "'bells.ogg' is not a picture that s2v can read." in swapped.err


def test_a_photo_and_a_sound_of_one_name(s2v: RunHere, write_tone: WriteTone) -> None:
    write_tone("x.wav")
    shutil.copy(EXAMPLES / "boat.jpg", "x.jpg")
    ran = s2v("interp", "x.jpg", "x.wav", "--frames", "2", "-q")
    assert (ran.status, ran.lines) == (0, ["x-x-strip.png"]), ran.err


def test_options_of_photos() -> None:
    assert PhotoOptions("sdedit").default_weight == 0
    assert PhotoOptions().default_weight == 0.5
    assert parse_box("0, .25,0.5,0.75") == (0, 0.25, 0.5, 0.75)
    with pytest.raises(OptionError, match="mode is 'magic'; allowed: latent, sdedit, compose"):
        PhotoOptions("magic")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="no diffusion model"):
        compose_with(object(), None, None, 0.5)  # type: ignore[arg-type]
