"""`s2v edit`: what it changes, in which direction, what it keeps, and what it refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from s2v_cli import Sound2Vision, SoundOptions
from s2v_cli.editor import Editor, neutral_embedding
from s2v_cli.inversion import Inversion, InversionOptions
from s2v_cli.inversion_file import KEY, Origin, encode_inversion, read_inversion
from s2v_cli.picture import read_record
from s2v_cli.presets import load_preset

if TYPE_CHECKING:
    from conftest import RunHere

EXAMPLES = Path(__file__).parents[1] / "examples"
BOAT, AIRPLANE = EXAMPLES / "boat.jpg", EXAMPLES / "airplane.jpg"
SEA, FIRE = EXAMPLES / "sea.ogg", EXAMPLES / "fire.flac"
QUICK = ("--steps", "1", "--starts", "1")


@pytest.fixture(scope="module")
def mini() -> Sound2Vision:
    return Sound2Vision.load("mini", device="cpu")


@pytest.fixture(scope="module")
def found(mini: Sound2Vision) -> dict[str, Inversion]:
    quick = InversionOptions(steps=1, starts=1)
    return {path.stem: Editor(mini).invert(path, quick) for path in (BOAT, AIRPLANE)}


@pytest.fixture
def saved(folder: Path, found: dict[str, Inversion]) -> Path:
    """The boat's inversion in the current folder."""
    path = Path("boat.safetensors")
    path.write_bytes(encode_inversion(found["boat"], Origin.of(load_preset("mini"), {})))
    return path


def test_strength_nought_is_the_reconstruction(
    mini: Sound2Vision, found: dict[str, Inversion]
) -> None:
    editor, way = Editor(mini), mini.encode_sound(SEA).embedding
    still = editor.moved(found["boat"], way, 0.0)
    assert torch.equal(editor.draw(still), editor.draw(found["boat"]))
    assert torch.equal(still.noise, found["boat"].noise)


def test_the_edit_goes_in_the_direction_of_the_sound(
    mini: Sound2Vision, found: dict[str, Inversion]
) -> None:
    editor, neutral = Editor(mini), neutral_embedding(mini)
    for name in ("sea.ogg", "fire.flac", "chainsaw.mp3"):
        way = mini.encode_sound(EXAMPLES / name).embedding - neutral
        for inversion in found.values():
            before = editor.draw(inversion)
            after = editor.draw(editor.moved(inversion, way))
            assert editor.nearer(before, after, way) > 0.05, name
            back = editor.draw(editor.moved(inversion, way, -1.0))
            assert editor.nearer(before, back, way) < 0, name


def test_a_louder_sound_moves_the_picture_towards_loud_ones(
    mini: Sound2Vision, found: dict[str, Inversion]
) -> None:
    editor = Editor(mini)
    rain = EXAMPLES / "rain.wav"
    soft, loud = (mini.encode_sound(rain, SoundOptions(gain_db=db)).embedding for db in (-12, 12))
    for inversion in found.values():
        before = editor.draw(inversion)
        after = editor.draw(editor.moved(inversion, loud - soft, 4.0))
        assert editor.nearer(before, after, loud - soft) > 0.02


def test_the_reconstruction_is_nearer_to_the_photo_than_a_picture_of_its_embedding(
    found: dict[str, Inversion],
) -> None:
    assert all(inversion.psnr_db > 20 for inversion in found.values())


def test_neutral_is_the_mean_of_what_was_taught(mini: Sound2Vision) -> None:
    neutral = neutral_embedding(mini)
    centres = mini.sound_encoder.centres  # type: ignore[attr-defined]
    assert torch.allclose(neutral, centres.float().mean(0), atol=1e-6)
    assert 0.4 < float(neutral.norm()) < 0.9  # what sounds have in common, not one of them


def test_a_photo_is_edited_and_made_again(s2v: RunHere) -> None:
    line = ["edit", BOAT, "--sound", SEA, *QUICK, "--strength", "0.75", "--json"]
    ran = s2v(*line, "--save-inversion", "kept/boat.safetensors", "-o", "out.png")
    assert ran.status == 0, ran.err
    (made,) = json.loads(ran.out)
    assert made["path"] == "out.png" and made["strength"] == 0.75
    assert made["inversion"]["psnr_db"] > 20 and made["inversion"]["loss"] > 0
    assert made["mean_change"] > 3 and made["nearer_to_direction"] > 0
    assert made["pictures"][0]["source"] == str(BOAT)
    assert made["sounds"][0]["source"] == str(SEA)
    arguments = read_record("out.png")["arguments"]
    assert "--save-inversion" not in arguments and "--steps" in arguments
    assert s2v("replay", "out.png").lines == ["identical"]

    from_file = s2v("edit", "kept/boat.safetensors", "--sound", SEA, "--strength", "0.75")
    assert (from_file.status, from_file.out) == (0, "boat-edit.png\n")
    with Image.open("out.png") as first, Image.open("boat-edit.png") as second:
        assert first.tobytes() == second.tobytes()
    assert s2v("replay", "boat-edit.png").lines == ["identical"]
    assert sorted(os.listdir()) == ["boat-edit.png", "kept", "out.png"]


def test_the_strip_shows_photo_reconstruction_and_edit(s2v: RunHere, saved: Path) -> None:
    line = ["edit", saved, "--sound", FIRE, "--show-inversion"]
    assert s2v(*line, "--strength", "0", "-o", "still.png").status == 0
    assert s2v(*line, "-o", "moved.png").status == 0
    assert s2v(*line[:-1], "--strength", "0", "-o", "alone.png").status == 0

    def cells(name: str) -> list[np.ndarray]:
        with Image.open(name) as strip:
            pixels = np.asarray(strip.convert("RGB"), int)
        return [pixels[8:136, left : left + 128] for left in (8, 144, 280)]

    photo, rebuilt, edited = cells("still.png")
    assert (rebuilt == edited).all()
    with Image.open("alone.png") as alone:
        assert (rebuilt == np.asarray(alone)).all()
    assert 0 < np.abs(photo - rebuilt).mean() < 15
    again, still, moved = cells("moved.png")
    assert (again == photo).all() and (still == rebuilt).all()
    assert np.abs(moved - rebuilt).mean() > 5


def test_levels_and_second_sounds(s2v: RunHere, saved: Path, mini: Sound2Vision) -> None:
    lines: list[tuple[str, ...]] = [
        ("--sound", str(SEA), "--from-db", "-12", "--to-db", "12"),
        ("--sound", str(SEA), "--to-db", "20"),
        ("--sound", str(SEA), "--sound2", str(FIRE)),
    ]
    records = []
    for number, line in enumerate(lines):
        ran = s2v("edit", saved, *line, "--strength", "3", "-o", f"{number}.png", "-q")
        assert ran.status == 0, ran.err
        records.append(read_record(f"{number}.png"))
    assert s2v("replay", "0.png").lines == ["identical"]
    assert [r["gains_db"] for r in records] == [[-12, 12], [0, 20], None]
    assert [len(r["sounds"]) for r in records] == [1, 1, 2]
    editor = Editor(mini)
    inversion = read_inversion(saved, Origin.of(load_preset("mini"), {}))
    soft, loud = (mini.encode_sound(SEA, SoundOptions(gain_db=db)).embedding for db in (-12, 12))
    expected = editor.draw(editor.moved(inversion, loud - soft, 3.0))
    with Image.open("0.png") as picture:
        pixels = torch.from_numpy(np.asarray(picture, np.float32).copy()).permute(2, 0, 1)
    assert float((pixels / 127.5 - 1 - expected.clamp(-1, 1)).abs().max()) < 1.5 / 127.5


def test_tuning_and_size(s2v: RunHere, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s2v_cli.editing.TUNE_STEPS", 3)
    line = ["edit", saved, "--sound", FIRE, "--json"]
    plain, tuned = (
        json.loads(s2v(*line, "-o", name, *more).out)[0]["inversion"]
        for name, more in (("a.png", []), ("b.png", ["--tune", "--size", "64"]))
    )
    assert tuned["psnr_db"] > plain["psnr_db"] and (plain["tuned"], tuned["tuned"]) == (False, True)
    with Image.open("b.png") as picture:
        assert picture.size == (64, 64)


def test_a_picture_that_hardly_moves_is_noted(s2v: RunHere, saved: Path) -> None:
    (note,) = s2v("edit", saved, "--sound", SEA, "--strength", "0.01", "-o", "a.png").complaints
    assert "hardly moves" in note and "--strength" in note and "s2v interp" in note
    (note,) = s2v("edit", saved, "--sound", SEA, "--sound2", SEA, "-o", "b.png").complaints
    assert "the same to the model" in note
    assert s2v("edit", saved, "--sound", SEA, "--strength", "0", "-o", "c.png").err == ""
    ran = s2v("edit", saved, "--sound", SEA, "--steps", "5", "-o", "d.png")
    assert ran.complaints == [f"s2v: note: --steps is not used: {saved} is inverted already."]


BAD: list[tuple[list[str], int, str]] = [
    (["--strength", "nan"], 2, "strength is nan; allowed: -1000 to 1000"),
    (["--to-db", "99"], 2, "to-db is 99.0; allowed: -120 to 60 dB"),
    (["--from-db", "0"], 2, "from-db and to-db are both 0"),
    (["--to-db", "9", "--sound2", str(FIRE)], 2, "exclude each other"),
    (["--sound2", "-", "--sound", "-"], 2, "only one can be standard input"),
    (["--save-inversion", "a.pt"], 2, "it ends in .safetensors"),
    (["--save-inversion", "there.safetensors"], 1, "there.safetensors exists"),
    (["--steps", "0"], 2, "steps is 0; allowed: 1 to 10000"),
    (["--starts", "0"], 2, "starts is 0; allowed: 1 to 64"),
    (["--dtype", "bfloat16"], 2, "inverts in float32"),
    (["--guidance", "3"], 2, "does not take it"),
    (["--sound2", "nothing.wav"], 1, "Cannot read nothing.wav"),
    (["-o", "out.gif"], 2, "allowed: .png"),
]


@pytest.mark.parametrize(("flags", "status", "message"), BAD)
def test_bad_flags(s2v: RunHere, flags: list[str], status: int, message: str) -> None:
    Path("there.safetensors").write_bytes(b"")
    ran = s2v("edit", BOAT, "--sound", SEA, *flags)
    assert (ran.status, ran.out, len(ran.complaints)) == (status, "", 1), ran.err
    assert message in ran.err
    assert os.listdir() == ["there.safetensors"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("letter.jpg", b"Dear all, this is no photo.\n" * 40, "is not a picture"),
        ("cut.jpg", BOAT.read_bytes()[:3000], "Cannot read the picture"),
        ("missing.jpg", None, "No picture at 'missing.jpg'"),
        ("missing.safetensors", None, "No inversion at 'missing.safetensors'"),
        (
            "text.safetensors",
            b"Dear all, this is no inversion.\n" * 40,
            "Cannot read the inversion",
        ),
        ("empty.safetensors", b"", "Cannot read the inversion"),
    ],
)
def test_bad_pictures(s2v: RunHere, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    ran = s2v("edit", name, "--sound", SEA)
    assert (ran.status, ran.out, len(ran.complaints)) == (1, "", 1), ran.err
    assert message in ran.err and name in ran.err


def changed(about: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    return lambda metadata: metadata.update(about)


SPACE = {"name": "swav", "dimension": 2048, "scale": "unit"}
FOREIGN: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (changed({"space": SPACE}), "swav-2048 (unit) and mini-2-256 (unit) are different"),
    (
        changed({"preset": "other", "weights": {"generator": "0" * 64, "image_encoder": "1" * 64}}),
        "was made with preset 'other' (generator 000000000000…), not with 'mini' (generator",
    ),
    (changed({"format": 2}), "format 2; this s2v reads 1"),
]


@pytest.mark.parametrize(("change", "message"), FOREIGN)
def test_an_inversion_of_another_model_is_refused(
    s2v: RunHere, saved: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    from safetensors import safe_open

    with safe_open(saved, framework="pt") as file:
        about = json.loads(file.metadata()[KEY])
    change(about)
    save_file(load_file(saved), "other.safetensors", {KEY: json.dumps(about)})
    ran = s2v("edit", "other.safetensors", "--sound", SEA)
    assert (ran.status, ran.out, len(ran.complaints)) == (2, "", 1), ran.err
    assert message in ran.err and "other.safetensors" in ran.err


def test_a_damaged_inversion_is_refused(s2v: RunHere, saved: Path) -> None:
    whole = saved.read_bytes()
    tensors = load_file(saved)
    about = {KEY: json.dumps(json.loads(_metadata(saved)))}
    Path("cut.safetensors").write_bytes(whole[: len(whole) // 2])
    save_file(tensors, "bare.safetensors")
    save_file({k: v for k, v in tensors.items() if k != "noise"}, "less.safetensors", about)
    save_file({**tensors, "noise": tensors["noise"] * torch.nan}, "nan.safetensors", about)
    save_file({**tensors, "embedding": torch.zeros(9)}, "short.safetensors", about)
    save_file({**tensors, "extra": torch.zeros(9)}, "more.safetensors", about)
    save_file({**tensors, "noise": tensors["noise"][:9].clone()}, "few.safetensors", about)
    expected = {
        "cut": "Cannot read the inversion",
        "bare": "holds no inversion",
        "less": "its noise is not usable",
        "nan": "its noise is not usable",
        "short": "its embedding is not usable",
        "more": "'extra' is unknown",
        "few": "has 9 numbers of noise for 128 px; mini needs 1024",
    }
    for name, message in expected.items():
        ran = s2v("edit", f"{name}.safetensors", "--sound", SEA)
        assert ran.status in (1, 2) and ran.out == "", name
        assert len(ran.complaints) == 1 and message in ran.err, ran.err


def _metadata(path: Path) -> str:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return str(file.metadata()[KEY])


def test_a_saved_inversion_comes_back_bit_by_bit(saved: Path, found: dict[str, Inversion]) -> None:
    origin = Origin.of(load_preset("mini"), {})
    read = read_inversion(saved, origin)
    for name in ("noise", "embedding", "target"):
        assert torch.equal(getattr(read, name), getattr(found["boat"], name))
    assert replace(read, noise=found["boat"].noise).psnr_db == found["boat"].psnr_db
    assert encode_inversion(read, origin) == saved.read_bytes()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Tiny weights of all published presets."""
    pytest.importorskip("onnxruntime")
    from tests.published_home import fill_home

    folder = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("S2V_HOME", str(folder / "home"))
        patch.delenv("HF_HOME", raising=False)
        fill_home(folder / "home", folder / "downloads")
        yield folder / "home"


@pytest.mark.slow
def test_diffusion_inverts_by_ddim(s2v: RunHere, home: Path) -> None:
    line = ["edit", BOAT, "--sound", SEA, "--preset", "imagebind", "--steps", "4"]
    kept = ["--save-inversion", "boat.safetensors"]
    ran = s2v(*line, *kept, "--strength", "0", "--show-inversion", "-o", "still.png", "--json")
    assert ran.status == 0, ran.err
    (made,) = json.loads(ran.out)
    assert made["inversion"]["loss"] is None and made["inversion"]["psnr_db"] > 5
    record = read_record("still.png")["generate_options"]
    assert (record["sampler"], record["guidance"], record["steps"]) == ("ddim", 1.0, 4)
    assert s2v("replay", "still.png").lines == ["identical"]
    line[1] = Path("boat.safetensors")
    assert s2v(*line, "-o", "moved.png", "-q").status == 0
    other = s2v(*line[:-1], "5", "-o", "other.png")
    assert other.status == 2 and "was made with steps 4, not 5" in other.err
    for flag in (["--tune"], ["--starts", "2"]):
        ran = s2v(*line, *flag, "-o", "no.png")
        assert ran.status == 2 and "inverts by DDIM" in ran.err


@pytest.mark.slow
def test_published_gans_are_inverted(s2v: RunHere, home: Path) -> None:
    line = ["edit", BOAT, "--sound", SEA, "--preset", "sound2scene", "--steps", "6", "--json"]
    ran = s2v(*line, "--save-inversion", "boat.safetensors", "-o", "a.png", "-q")
    assert ran.status == 0, ran.err
    assert json.loads(ran.out)[0]["inversion"]["loss"] > 0
    assert s2v("replay", "a.png").lines == ["identical"]
    ran = s2v("edit", "boat.safetensors", "--sound", SEA, "--preset", "sound2scene-256")
    assert ran.status == 2 and "was made with preset 'sound2scene'" in ran.err
    assert s2v(*line, "--tune", "--strength", "0", "-o", "b.png", "-q").status == 0
