"""Videos: the frame at a time, the sound at a time, and what a file says of itself."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from s2v_cli.audio.decode import open_decoder
from s2v_cli.audio.window import RateChange
from s2v_cli.errors import PictureError
from s2v_cli.training.prepare.video import Video
from tests.training.prepare.drawing import BUNNY, NASA, copy_streams, draw_video, tone


def grey_of(image: Image.Image) -> float:
    return float(np.asarray(image, np.float32).mean())


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi", ".webm"])
def test_frames_by_time_in_any_order(tmp_path: Path, suffix: str) -> None:
    video = Video(draw_video(tmp_path / f"v{suffix}", 6.0), "v")
    assert video.picture is not None
    first_s, times = video.picture[0], [0.01, 0.05, 1.01, 1.19, 5.95, 0.31, 3.01]
    frames = video.frames([first_s + time_s for time_s in times])
    for time_s, frame in zip(times, frames, strict=True):
        shown_s = int(time_s * 10 + 1e-6) / 10
        assert frame.time_s == pytest.approx(first_s + shown_s, abs=2e-3)
        assert grey_of(frame.image) == pytest.approx(20 + 20 * shown_s, abs=2)
    video.close()


def test_a_seek_gives_the_frames_that_decoding_gives(drawn_video: Path) -> None:
    times = [0.1 * number + 0.01 for number in range(60)]
    with_seeks = [next(Video(drawn_video, "v").frames([time_s])).image for time_s in times]
    at_once = [frame.image for frame in Video(drawn_video, "v").frames(times)]
    assert [image.tobytes() for image in with_seeks] == [image.tobytes() for image in at_once]


def test_time_stamps_not_frame_counts(tmp_path: Path) -> None:
    """Frames at 0.0, 0.1, then one that stays until 2.0: a variable frame rate."""
    path = tmp_path / "slow.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = tenth = Fraction(1, 10)
        for pts, level in ((0, 40), (1, 80), (2, 120), (20, 160), (21, 200)):
            frame = av.VideoFrame.from_image(Image.new("RGB", (64, 48), (level,) * 3))
            frame.pts, frame.time_base = pts, tenth
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    shown = list(Video(path, "v").frames([0.15, 1.9, 2.05]))
    assert [round(frame.time_s, 3) for frame in shown] == [0.1, 0.2, 2.0]
    assert [grey_of(frame.image) for frame in shown] == pytest.approx([80, 120, 160], abs=2)


@pytest.mark.parametrize(
    ("degrees", "matrix", "corner"),
    [
        (90, (0, 1, -1, 0), "top right"),
        (180, (-1, 0, 0, -1), "bottom right"),
        (270, (0, -1, 1, 0), "bottom left"),
    ],
)
def test_a_rotated_video_is_upright(
    tmp_path: Path, degrees: int, matrix: tuple[int, ...], corner: str
) -> None:
    """The file is drawn with a bright top left corner, and says that it is turned clockwise."""
    path = tmp_path / "turned.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        image = Image.new("RGB", (64, 32))
        image.paste((255, 255, 255), (0, 0, 16, 16))
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode(None))
    content = bytearray(path.read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    place = content.find(b"tkhd") + 4 + 40  # the display matrix of a version 0 track header
    content[place : place + 20] = struct.pack(">5i", a, b, 0, c, d)
    path.write_bytes(content)
    seen = next(Video(path, "v").frames([0.1])).image
    assert seen.size == ((32, 64) if degrees != 180 else (64, 32))
    column, row = ("left", "right").index(corner.split()[1]), ("top", "bottom").index(
        corner.split()[0]
    )  # fmt: skip
    corners = np.asarray(seen.convert("L").resize((4, 4), Image.Resampling.BOX))[::3, ::3]
    assert corners[row, column] > 150 and (corners > 150).sum() == 1


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 2
        container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (64, 48)))))
        container.mux(stream.encode(None))
    assert next(Video(path, "v").frames([0.0])).image.size == (128, 48)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi", ".webm"])
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_sound_and_picture_keep_together(tmp_path: Path, suffix: str, rate: int) -> None:
    """A click at 2.5 s is heard there, however the sound is reached."""
    wave = tone(200, 5.0, rate, 0.01)
    wave[round(2.5 * rate) : round(2.52 * rate)] += 0.5
    video = Video(draw_video(tmp_path / f"click{suffix}", 5.0, wave=wave, rate=rate), "v")
    assert video.picture is not None
    for start_s in (0.0, 1.7, 2.2, 2.45):
        heard = video.wave(start_s, 16_000)
        assert heard.dtype == np.float32 and len(heard) == 16_000
        loud = np.flatnonzero(abs(heard) > 0.2)
        if start_s:
            click_s = start_s + loud[0] / 16_000
            assert click_s == pytest.approx(video.picture[0] + 2.5, abs=0.005)
        else:
            assert not len(loud)


def test_what_was_listened_to_is_read_as_before() -> None:
    video, other = Video(NASA, "v"), Video(NASA, "v")
    video.listen(2.0, 8.0)
    for start_s, count in ((2.0, 16_000), (5.3, 40_000), (7.0, 16_000), (7.5, 16_000), (0.0, 99)):
        assert np.abs(video.wave(start_s, count) - other.wave(start_s, count)).max() < 1e-4


@pytest.mark.parametrize("path", [NASA, BUNNY], ids=["nasa", "bunny"])
def test_the_sound_is_what_an_encoder_hears_of_the_file(path: Path) -> None:
    video = Video(path, path.name)
    assert video.sound is not None
    first = round(video.sound[0] * 16_000)
    heard = video.wave(video.sound[0], 5 * 16_000)
    if path is BUNNY:  # of NASA an encoder hears the first track, of 8 kHz
        decoder = open_decoder(path, path.name)
        change = RateChange.between(decoder.rate, 16_000)
        whole = change.read(decoder, 0, change.resampled(decoder.length))[:12_000]
        errors = [np.abs(heard[s : s + 12_000] - whole).mean() for s in range(100)]
        assert min(errors) < 0.05 * np.abs(whole).mean() and np.argmin(errors) == 48  # 3 ms
    again = video.wave(0.4, 8_000)
    near = [heard[6_400 - first + shift :][:8_000] for shift in range(-8, 9)]  # half a millisecond
    assert min(np.abs(again - span).mean() for span in near) < 0.1 * np.abs(again).mean()


@pytest.mark.parametrize(
    ("path", "size", "end_s"), [(NASA, (480, 270), 13.013), (BUNNY, (1280, 720), 1.0)]
)
def test_real_videos(path: Path, size: tuple[int, int], end_s: float) -> None:
    video = Video(path, path.name)
    assert video.picture == pytest.approx((0.0, end_s), abs=0.01)
    for time_s, frame in zip((0.0, end_s / 2, end_s), video.frames([0.0, end_s / 2, end_s]),
                             strict=True):  # fmt: skip
        assert frame.image.size == size and -0.1 < time_s - frame.time_s < 0.1
        assert np.asarray(frame.image).std() > 5


def test_a_video_that_does_not_say_how_long_it_is(tmp_path: Path) -> None:
    """A live recording: fragments, and no duration in any header."""
    source = draw_video(tmp_path / "v.mp4", 2.0)
    piped = tmp_path / "live.mkv"
    with av.open(str(source)) as given, av.open(
        str(piped), "w", format="matroska", options={"live": "1"}
    ) as container:  # fmt: skip
        copies = {s.index: container.add_stream_from_template(s) for s in given.streams}
        for packet in given.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream.index]
                container.mux(packet)
    video = Video(piped, "v")
    assert video.picture == pytest.approx((0.0, 2.0), abs=0.11)
    assert video.picture is not None
    frame = next(video.frames([video.picture[0] + 1.55]))
    assert grey_of(frame.image) == pytest.approx(50, abs=1.5)


def test_missing_streams_are_told(tmp_path: Path, drawn_video: Path) -> None:
    deaf = Video(copy_streams(drawn_video, tmp_path / "deaf.mp4", ["video"]), "v")
    blind = Video(copy_streams(drawn_video, tmp_path / "blind.mp4", ["audio"]), "v")
    assert deaf.sound is None and deaf.picture is not None
    assert blind.picture is None and blind.sound is not None


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "damaged, or no video"),
        (b"not a video at all" * 100, "damaged, or no video"),
        (b"\x1aE\xdf\xa3" + b"\xff" * 400, "damaged, or no video"),
    ],
)
def test_what_is_no_video(tmp_path: Path, content: bytes, cause: str) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(content)
    with pytest.raises(PictureError, match=f"Cannot read clip: it is {cause}"):
        Video(path, "clip")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_video_that_is_cut_short(tmp_path: Path, share: float) -> None:
    content = NASA.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(PictureError, match=r"Cannot read cut: it is (cut short|damaged)"):
        Video(path, "cut")


def test_a_matroska_that_is_cut_short(tmp_path: Path) -> None:
    path = draw_video(tmp_path / "cut.mkv", 6.0)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    video = Video(path, "cut")
    with pytest.raises(PictureError, match="Cannot read cut: its picture ends before"):
        list(video.frames([5.9]))
    with pytest.raises(PictureError, match="Cannot read cut: "):
        video.wave(0.0, 6 * 16_000)
