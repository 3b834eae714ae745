"""What an item becomes: pictures, sounds, moments, or a row that says why not."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from s2v_cli.training.prepare.examples import Made, around, evenly, make
from s2v_cli.training.prepare.moments import grid
from s2v_cli.training.prepare.options import PrepareOptions
from s2v_cli.training.prepare.sources import Item
from tests.training.prepare.drawing import (
    BUNNY,
    NASA,
    copy_of,
    copy_streams,
    draw_photo,
    draw_sound,
    draw_video,
    tone,
)

MID = PrepareOptions(select="mid")


def item(**fields: object) -> Item:
    return replace(Item("key", "source", "origin"), **fields)  # type: ignore[arg-type]


def wave_of(content: bytes | None) -> np.ndarray:
    assert content is not None
    wave, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    assert rate == 16_000 and wave.ndim == 1
    return np.asarray(wave)


def image_of(content: bytes | None) -> Image.Image:
    assert content is not None
    image = Image.open(io.BytesIO(content))
    assert image.format == "JPEG" and image.mode == "RGB"
    return image


def reasons(made: Made) -> list[str]:
    assert all(row.file == "origin" and "\n" not in row.detail for row in made.skipped)
    return [row.reason for row in made.skipped]


@pytest.mark.parametrize(
    ("size", "becomes"),
    [((640, 480), (341, 256)), ((300, 900), (256, 768)), ((256, 256), (256, 256)),
     ((100, 50), (100, 50))],
)  # fmt: skip
def test_pictures_have_a_short_side_and_are_never_enlarged(
    tmp_path: Path, size: tuple[int, int], becomes: tuple[int, int]
) -> None:
    made = make(item(image=draw_photo(tmp_path / "a.png", size=size)), MID)
    assert image_of(made.pieces[0].image).size == becomes


def test_a_small_jpeg_keeps_its_bytes_but_not_its_exif(tmp_path: Path) -> None:
    plain = draw_photo(tmp_path / "a.jpg")
    assert make(item(image=plain), MID).pieces[0].image == plain.read_bytes()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.open(plain).save(tmp_path / "b.jpg", exif=exif)
    turned = image_of(make(item(image=tmp_path / "b.jpg"), MID).pieces[0].image)
    assert turned.size == (32, 48) and not turned.getexif()


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_sounds_keep_their_level(tmp_path: Path, rate: int, suffix: str) -> None:
    path = draw_sound(tmp_path / f"a{suffix}", 440, 1.0, rate=rate, level=0.05)
    piece = make(item(sound=path), MID).pieces[0]
    wave = wave_of(piece.sound)
    assert len(wave) == pytest.approx(16_000, abs=600)
    assert np.abs(wave[4_000:12_000]).max() == pytest.approx(0.05, rel=0.1)
    assert (piece.start_s, piece.duration_s) == (0.0, len(wave) / 16_000)


@pytest.mark.parametrize(
    ("select", "starts"), [("mid", [4.0]), ("top1", [6.0]), ("all", [0.0, 2.0, 4.0, 6.0, 8.0])]
)
def test_parts_of_a_long_sound(tmp_path: Path, select: str, starts: list[float]) -> None:
    """The loudest part begins at 6 s."""
    wave = tone(440, 10.0, level=0.01)
    wave[6 * 16_000 : 8 * 16_000] *= 20
    soundfile.write(tmp_path / "a.wav", wave, 16_000)
    options = PrepareOptions(select=select, duration_s=2)  # type: ignore[arg-type]
    pieces = make(item(sound=tmp_path / "a.wav"), options).pieces
    assert [piece.start_s for piece in pieces] == pytest.approx(starts, abs=0.06)
    assert [piece.duration_s for piece in pieces] == [2.0] * len(starts)
    assert len({piece.key for piece in pieces}) == len(starts)


def test_random_parts_depend_on_key_and_seed(tmp_path: Path) -> None:
    path = draw_sound(tmp_path / "a.wav", seconds=20.0)
    options = PrepareOptions(select="random", duration_s=1, top_k=3)

    def starts(key: str, options: PrepareOptions) -> list[float | None]:
        return [piece.start_s for piece in make(item(key=key, sound=path), options).pieces]

    first = starts("a", options)
    assert len(set(first)) == 3 and first == starts("a", options)
    assert first != starts("b", options)
    assert first != starts("a", replace(options, seed=1))


def test_a_row_may_name_a_part_of_a_sound(tmp_path: Path) -> None:
    path = draw_sound(tmp_path / "a.wav", seconds=3.0)
    piece = make(item(sound=path, start_s=1.0, duration_s=1.5), MID).pieces[0]
    assert (piece.start_s, piece.duration_s) == (1.0, 1.5)
    assert reasons(make(item(sound=path, start_s=5.0), MID)) == ["too short"]


def test_what_cannot_be_used_becomes_a_row(tmp_path: Path) -> None:
    photo = draw_photo(tmp_path / "a.jpg")
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(photo.read_bytes()[:300])
    noise = tmp_path / "noise.wav"
    noise.write_bytes(b"RIFF but no sound")
    good = draw_sound(tmp_path / "good.wav")
    part = tmp_path / "part.wav"
    part.write_bytes(good.read_bytes()[:5000])
    empty = tmp_path / "empty.wav"
    soundfile.write(empty, np.zeros(0), 16_000)
    for reason, fields in [
        ("broken", {"image": cut, "sound": good}),
        ("broken", {"image": noise}),
        ("broken", {"image": photo, "sound": noise}),
        ("broken", {"sound": part}),
        ("missing", {"image": photo, "sound": tmp_path / "nowhere.wav"}),
        ("missing", {"image": tmp_path}),
        ("too short", {"sound": empty}),
        ("too short", {"sound": draw_sound(tmp_path / "s.wav", seconds=0.1), "image": photo}),
        ("too small", {"image": draw_photo(tmp_path / "s.png", size=(15, 90))}),
        ("silent", {"sound": draw_sound(tmp_path / "q.wav", level=0.0), "image": photo}),
        ("silent", {"sound": draw_sound(tmp_path / "r.wav", level=0.0001), "image": photo}),
    ]:
        made = make(item(**fields), MID)
        assert (reasons(made), made.pieces) == ([reason], ()), fields


def test_silence_may_be_kept(tmp_path: Path) -> None:
    path = draw_sound(tmp_path / "q.wav", level=0.0)
    made = make(item(sound=path), replace(MID, keep_silent=True))
    assert len(made.pieces) == 1 and reasons(made) == ["silent"] and made.skipped[0].kept
    other = draw_sound(tmp_path / "p.wav", level=0.0)
    again = make(item(key="other", sound=other), replace(MID, keep_silent=True))
    assert not set(made.pieces[0].prints.parts) & set(again.pieces[0].prints.parts)


@pytest.mark.parametrize(
    ("select", "moments"),
    [("mid", [3.0]), ("all", [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]), ("random", None), ("top1", None)],
)
def test_moments_of_a_video(drawn_video: Path, select: str, moments: list[float] | None) -> None:
    options = PrepareOptions(select=select, top_k=2, duration_s=2)  # type: ignore[arg-type]
    made = make(item(video=drawn_video), options)
    assert reasons(made) == []
    frames = [piece.frame_s or 0.0 for piece in made.pieces]
    if moments is None:
        assert len(frames) == 2 and abs(frames[0] - frames[1]) >= 1 - 1e-6
    else:
        assert frames == pytest.approx(moments, abs=0.06)
    for piece, frame_s in zip(made.pieces, frames, strict=True):
        grey = np.asarray(image_of(piece.image), np.float32).mean()
        assert grey == pytest.approx(20 + 20 * frame_s, abs=3)
        assert piece.start_s == pytest.approx(np.clip(frame_s - 1, 0, 4), abs=0.06)
        assert piece.duration_s == pytest.approx(2.0, abs=0.01)
        assert (piece.rank is not None) == (piece.score is not None) == (select == "top1")
    if select == "top1":
        assert [piece.rank for piece in made.pieces] == [0, 1]
        assert made.pieces[0].score >= made.pieces[1].score  # type: ignore[operator]


def test_given_moments_are_taken_in_their_order(drawn_video: Path) -> None:
    options = PrepareOptions(top_k=2, duration_s=1)
    made = make(item(video=drawn_video, moments=(4.2, 1.0, 3.0)), options)
    assert [piece.frame_s for piece in made.pieces] == pytest.approx([4.2, 1.0], abs=1e-3)
    assert [piece.rank for piece in made.pieces] == [0, 1]


def test_a_part_of_a_video_and_of_its_picture(drawn_video: Path) -> None:
    made = make(
        item(video=drawn_video, start_s=2.0, duration_s=2.0, box=(0.0, 0.25, 0.5, 1.0)), MID
    )
    (piece,) = made.pieces
    assert (piece.frame_s, piece.start_s) == (pytest.approx(3.0), pytest.approx(2.0))
    assert piece.duration_s == pytest.approx(2.0, abs=0.01)
    assert image_of(piece.image).size == (32, 36)


@pytest.mark.parametrize("path", [NASA, BUNNY], ids=["nasa", "bunny"])
def test_real_videos(path: Path) -> None:
    (piece,) = make(item(video=path), PrepareOptions()).pieces
    assert min(image_of(piece.image).size) == 256
    assert piece.score is not None and -1 <= piece.score <= 1
    wave = wave_of(piece.sound)
    assert len(wave) == pytest.approx(16_000 * (10 if path is NASA else 1), abs=200)
    assert wave.std() > 0.01


def test_videos_that_cannot_be_used_become_rows(tmp_path: Path, drawn_video: Path) -> None:
    silent = draw_video(tmp_path / "silent.mp4", 1.0, wave=np.zeros(16_000))
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(drawn_video.read_bytes()[:2000])
    text = tmp_path / "text.mp4"
    text.write_text("a web page, saved under the wrong name")
    unknown = draw_video(tmp_path / "unknown.avi", 1.0)
    unknown.write_bytes(unknown.read_bytes().replace(b"FMP4", b"QQ#!"))
    deaf = copy_streams(drawn_video, tmp_path / "deaf.mp4", ["video"])
    blind = copy_streams(drawn_video, tmp_path / "blind.mp4", ["audio"])
    for reason, fields in [
        ("silent", {"video": silent}),
        ("broken", {"video": cut}),
        ("broken", {"video": text}),
        ("broken", {"video": unknown}),
        ("no sound", {"video": deaf}),
        ("no picture", {"video": blind}),
        ("too short", {"video": drawn_video, "start_s": 5.9}),
        ("too short", {"video": drawn_video, "start_s": 60.0}),
    ]:
        for select in ("mid", "top1"):
            made = make(item(**fields), PrepareOptions(select=select))  # type: ignore[arg-type]
            assert (reasons(made), made.pieces) == ([reason], ()), (fields, select)


def test_a_damaged_picture_track_is_a_row(tmp_path: Path) -> None:
    """Bytes in the middle are overwritten; the headers still hold."""
    content = bytearray(NASA.read_bytes())
    content[100_000:500_000] = bytes(400_000)
    path = copy_of(NASA, tmp_path / "damaged.mp4")
    path.write_bytes(content)
    made = make(item(video=path), MID)
    assert len(made.pieces) == 0 and len(made.skipped) == 1


def test_sound_around_a_moment_stays_inside() -> None:
    assert around(5, 4, 0, 10) == (3, 4)
    assert around(0.5, 4, 0, 10) == (0, 4)
    assert around(9.5, 4, 0, 10) == (6, 4)
    assert around(2, 40, 1, 4) == (1, 3)


def test_grids() -> None:
    assert grid(0, 3, 1) == [0.5, 1.5, 2.5]
    assert grid(2, 2.4, 1) == [2.2]
    assert len(grid(0, 7200, 1)) == 300
    assert evenly([0, 1, 2, 3, 4], 3) == [0, 2, 4]
