from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from s2v_cli.photo_index import find_photos, index_path
from s2v_cli.picture import read_record
from s2v_cli.pipeline import Sound2Vision

if TYPE_CHECKING:
    from conftest import RunHere, WriteTone

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def photos(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six plain photos in a folder, one in a folder below, and an empty cache."""
    monkeypatch.setenv("S2V_HOME", str(folder / "home"))
    place = folder / "photos"
    (place / "below").mkdir(parents=True)
    for number in range(6):
        paint(number).save(place / f"{number}.png")
    shutil.copy(EXAMPLES / "boat.jpg", place / "below" / "boat.jpg")
    return Path("photos")


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """Sizes of the pictures that go through the image encoder."""
    seen: list[tuple[int, int]] = []
    encode = Sound2Vision.encode_image

    def spy(self: Sound2Vision, image: Any) -> Any:
        seen.append(image.size)
        return encode(self, image)

    monkeypatch.setattr(Sound2Vision, "encode_image", spy)
    yield seen


def paint(number: int) -> Image.Image:
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8))
    return small.resize((150 + number, 140), Image.Resampling.BICUBIC)


def nearest(s2v: RunHere, *arguments: str) -> dict[str, float]:
    """Paths with similarities, in the order printed."""
    ran = s2v("nearest", *arguments)
    assert ran.status == 0, ran.err
    rows = [line.split("\t") for line in ran.lines]
    return {path: float(score) for score, path in rows}


def test_order_and_scores_are_those_of_the_embeddings(
    s2v: RunHere, photos: Path, write_tone: WriteTone
) -> None:
    write_tone(seconds=2.0)
    found = nearest(s2v, "tone.wav", "photos", "-n", "4")
    model = Sound2Vision.load("mini")
    sound = model.encode_sound("tone.wav").embedding
    scores = {str(path): float(model.encode_image(path) @ sound) for path in find_photos(photos)}
    best = sorted(scores, key=lambda path: -scores[path])[:4]
    assert list(found) == best
    assert found == {path: pytest.approx(scores[path], abs=6e-4) for path in best}


def test_a_photo_finds_itself(s2v: RunHere, photos: Path) -> None:
    found = nearest(s2v, "photos/below/boat.jpg", "photos", "--recursive")
    assert next(iter(found)) == "photos/below/boat.jpg"
    assert found["photos/below/boat.jpg"] == pytest.approx(1, abs=1e-3)
    assert len(found) == 7
    assert "photos/below/boat.jpg" not in nearest(s2v, "photos/below/boat.jpg", "photos")


def test_each_photo_is_looked_at_once(
    s2v: RunHere, photos: Path, write_tone: WriteTone, looked_at: list[tuple[int, int]]
) -> None:
    write_tone()
    first = nearest(s2v, "tone.wav", "photos")
    assert len(looked_at) == 6
    assert nearest(s2v, "tone.wav", "photos") == first
    assert nearest(s2v, "tone.wav", os.path.abspath("photos")).keys() == {
        os.path.abspath(path) for path in first
    }
    assert len(looked_at) == 6
    paint(9).save("photos/new.png")
    paint(10).save("photos/3.png")  # another size of file
    os.utime("photos/4.png", ns=(1, 1))  # another time
    Path("photos/5.png").unlink()
    looked_at.clear()
    second = nearest(s2v, "tone.wav", "photos")
    assert sorted(looked_at) == [(154, 140), (159, 140), (160, 140)]
    assert second.keys() == {f"photos/{n}.png" for n in (0, 1, 2, 3, 4, "new")}
    shutil.rmtree("home")
    assert nearest(s2v, "tone.wav", "photos") == second  # nothing old was left in the index


def test_photos_below_stay_known(
    s2v: RunHere, photos: Path, write_tone: WriteTone, looked_at: list[tuple[int, int]]
) -> None:
    write_tone()
    nearest(s2v, "tone.wav", "photos", "-r")
    nearest(s2v, "tone.wav", "photos")
    looked_at.clear()
    assert len(nearest(s2v, "tone.wav", "photos", "-r")) == 7
    assert looked_at == []


def test_other_weights_find_no_index(photos: Path) -> None:
    model = Sound2Vision.load("mini")
    places = {index_path(model, photos)}
    model.weights_sha256["image_encoder"] = "0" * 64
    places.add(index_path(model, photos))
    places.add(index_path(model, photos / "below"))
    assert len(places) == 3
    assert {place.parent for place in places} == {Path(os.environ["S2V_HOME"]) / "photos"}


def test_a_damaged_or_foreign_index_is_made_anew(
    s2v: RunHere, photos: Path, write_tone: WriteTone
) -> None:
    import torch
    from safetensors.torch import save_file

    write_tone()
    found = nearest(s2v, "tone.wav", "photos")
    place = next(Path("home/photos").iterdir())
    whole = place.read_bytes()
    place.write_bytes(whole[: len(whole) // 2])
    assert nearest(s2v, "tone.wav", "photos") == found
    assert place.read_bytes() == whole
    save_file({"embeddings": torch.zeros(6, 3)}, place, {"entries": "{}"})
    assert nearest(s2v, "tone.wav", "photos") == found


def test_a_cache_that_cannot_be_written_costs_only_time(
    s2v: RunHere, photos: Path, write_tone: WriteTone, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tone()
    Path("file").write_text("in the way")
    monkeypatch.setenv("S2V_HOME", str(Path("file").absolute()))
    assert len(nearest(s2v, "tone.wav", "photos")) == 6


def test_photos_that_cannot_be_read_are_left_out(
    s2v: RunHere, photos: Path, write_tone: WriteTone, looked_at: list[tuple[int, int]]
) -> None:
    write_tone()
    for number in range(7):
        Path(f"photos/bad{number}.jpg").write_text("no photo")
    Path("photos/link.png").symlink_to("nowhere")
    Path("photos/.hidden.png").write_bytes(Path("photos/0.png").read_bytes())
    ran = s2v("nearest", "tone.wav", "photos")
    assert (ran.status, len(ran.lines)) == (0, 6)
    notes = [line for line in ran.complaints if "Left out" in line]
    assert len(notes) == 6
    assert "photos/bad0.jpg" in notes[0]
    assert "3 more" in notes[-1]
    looked_at.clear()
    again = s2v("nearest", "tone.wav", "photos")
    assert again.lines == ran.lines
    assert looked_at == []
    assert "Left out" not in again.err
    paint(1).save("photos/bad0.jpg")
    assert len(s2v("nearest", "tone.wav", "photos").lines) == 7


def test_contact_sheet(s2v: RunHere, photos: Path, write_tone: WriteTone) -> None:
    write_tone("a b.wav")
    ran = s2v("nearest", "a b.wav", "photos", "-n", "3", "-o", "out/", "--theme", "dark", "-r")
    assert (ran.status, len(ran.lines)) == (0, 3)
    path = Path("out/a b-nearest.png")
    assert str(path) in ran.err
    record = read_record(path)
    assert [row[0] for row in record["nearest"]] == [line.split("\t")[1] for line in ran.lines]
    with Image.open(path) as image:
        assert image.size[0] > 320
    replayed = s2v("replay", path)
    assert (replayed.status, replayed.out) == (0, "identical\n")


def test_json(s2v: RunHere, photos: Path, write_tone: WriteTone) -> None:
    write_tone()
    found = json.loads(s2v("nearest", "tone.wav", "photos", "-n", "2", "--json").out)
    assert (found["query"], found["photos"], found["sheet"]) == ("tone.wav", 6, None)
    assert [set(match) for match in found["nearest"]] == [{"path", "similarity"}] * 2


def test_bad_input_gives_one_line(s2v: RunHere, photos: Path, write_tone: WriteTone) -> None:
    write_tone(seconds=1.0)
    Path("text.wav").write_text("this is text")
    Path("text.jpg").write_text("this is text")
    Path("empty").mkdir()
    Path("broken").mkdir()
    Path("broken/a.png").write_text("no photo")
    cases = [
        (("text.wav", "photos"), 1, "text file"),
        (("text.jpg", "photos"), 1, "not a picture"),
        (("tone.wav", "nowhere"), 1, "No folder at 'nowhere'"),
        (("tone.wav", "tone.wav"), 1, "No folder at 'tone.wav'"),
        (("tone.wav", "empty"), 1, "No photo in 'empty'. With --recursive"),
        (("tone.wav", "broken", "-q"), 1, "No photo in 'broken' can be read"),
        (("tone.wav", "photos", "-n", "0"), 2, "count is 0; allowed: 1 to 1000"),
        (("tone.wav", "photos", "-o", "a.mp4"), 2, "its suffix is '.mp4'"),
        (("tone.wav", "photos", "-o", "-", "--json"), 2, "standard output"),
    ]
    for arguments, status, message in cases:
        ran = s2v("nearest", *arguments)
        assert (ran.status, ran.out, len(ran.complaints)) == (status, "", 1), (arguments, ran.err)
        assert message in ran.err


def test_silence_is_told(s2v: RunHere, photos: Path) -> None:
    soundfile.write("silence.wav", np.zeros(8000), 16_000)
    assert "silence.wav is silent" in s2v("nearest", "silence.wav", "photos").err
