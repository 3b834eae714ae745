"""Speech becomes a face; speech and an environment become one picture."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
import torch

from s2v_cli.blend import Blend, blend_embeddings, draw_blend
from s2v_cli.encoders.mini_speech import MiniSpeechEncoder
from s2v_cli.errors import OptionError, SoundError, SpaceError
from s2v_cli.picture import compare_pictures, read_picture, read_record
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.space import EmbeddingSpace
from s2v_cli.speech import read_speech

if TYPE_CHECKING:
    from conftest import RunHere, WriteTone

ROOT = Path(__file__).parents[1]
VOICE = ROOT / "tests/fixtures/audio/voice.ogg"
RAIN = ROOT / "examples/rain.wav"
DOG = ROOT / "examples/dog.flac"


@pytest.fixture(scope="module")
def model() -> Sound2Vision:
    return Sound2Vision.load("mini", device="cpu")


@pytest.fixture
def silence(folder: Path) -> Path:
    soundfile.write(folder / "silence.wav", np.zeros(16_000, np.float32), 16_000)
    return Path("silence.wav")


def same(first: Path | str, second: Path | str) -> bool:
    return compare_pictures(Path(first), Path(second)) == (0.0, 0)


def test_speech_becomes_a_face(s2v: RunHere, model: Sound2Vision) -> None:
    ran = s2v("face", ROOT / "examples/voice.ogg", "--seed", 4)
    assert (ran.status, ran.out) == (0, "voice.png\n"), ran.err
    assert "unlike" not in ran.err
    heard = model.encode_speech(ROOT / "examples/voice.ogg")
    assert heard.space == model.space and heard.familiar
    options = model.preset.generate_options(seed=4)
    (picture,) = model.generate_from_embedding(heard.embedding, options)
    assert picture.image.tobytes() == read_picture(Path("voice.png")).tobytes()


def test_a_face_is_not_what_the_sound_encoder_draws(model: Sound2Vision) -> None:
    assert isinstance(model.speech_encoder, MiniSpeechEncoder)
    face = model.encode_speech(VOICE).embedding
    assert (model.speech_encoder.prototypes.float() @ face).max() > 0.9
    assert (model.speech_encoder.prototypes.float() @ model.encode_sound(VOICE).embedding).max() < (
        model.speech_encoder.prototypes.float() @ face
    ).max()


def test_encoders_that_encoding_loads_take_gradients() -> None:
    """Both are loaded on first use, which is in torch's inference mode."""
    model = Sound2Vision.load("mini", device="cpu")
    model.encode_speech(VOICE)
    model.encode_image(ROOT / "examples/boat.jpg")
    for encoder, shape in (
        (model.speech_encoder, (1, 16_000)),
        (model.image_encoder, (1, 3, 128, 128)),
    ):
        seen = torch.rand(shape, requires_grad=True)
        encoder(seen)[0, 0].backward()
        assert seen.grad is not None and bool(seen.grad.abs().sum() > 0)


def test_a_record_draws_the_face_again(s2v: RunHere) -> None:
    assert s2v("face", VOICE, "--seed", 1, "-o", "a/voice-1.png", "--gain-db", -6).status == 0
    arguments = read_record(Path("a/voice-1.png"))["arguments"]
    again = [word if word != "a/voice-1.png" else "again.png" for word in arguments[1:]]
    assert s2v(*again).status == 0
    assert same("a/voice-1.png", "again.png")


def test_several_voices_on_a_sheet(s2v: RunHere, silence: Path) -> None:
    ran = s2v("face", VOICE, silence, "--grid", "-n", 2, "-o", "sheet.png")
    assert (ran.status, ran.out) == (1, "sheet.png\n")  # the silent one is reported
    assert [line for line in ran.complaints if "silence.wav is silent" in line]
    assert read_picture(Path("sheet.png")).size[0] > 2 * 128


@pytest.mark.parametrize("command", ["face", "blend"])
def test_silence_is_refused(s2v: RunHere, silence: Path, command: str) -> None:
    line = ["face", silence] if command == "face" else ["blend", "--speech", silence, "--env", RAIN]
    for more in ([], ["--any-sound"]):
        ran = s2v(*line, *more)
        assert (ran.status, ran.out) == (1, "")
        assert ran.complaints[-1] == (
            "s2v: error: silence.wav is silent: it holds no voice. Give a recording of speech."
        )


def test_a_sound_without_a_voice_is_refused_unless_asked_for(s2v: RunHere) -> None:
    ran = s2v("face", RAIN, "-o", "rain.png")
    assert (ran.status, ran.out) == (1, "")
    assert "holds no voice" in ran.complaints[-1] and "--any-sound" in ran.complaints[-1]
    assert not Path("rain.png").exists()
    ran = s2v("face", RAIN, "-o", "rain.png", "--any-sound")
    assert ran.status == 0
    assert [line for line in ran.complaints if "is unlike the speech that mini was taught" in line]
    assert "--any-sound" in read_record(Path("rain.png"))["arguments"]


def test_what_is_voiced_but_no_speech_gets_a_note(s2v: RunHere, write_tone: WriteTone) -> None:
    ran = s2v("face", write_tone(hertz=220.0, seconds=3.0))
    assert ran.status == 0
    assert [line for line in ran.complaints if "unlike the speech" in line]


def test_the_library_refuses_what_holds_no_voice(model: Sound2Vision) -> None:
    with pytest.raises(SoundError, match="holds no voice"):
        read_speech(model, RAIN)
    assert not read_speech(model, RAIN, any_sound=True).silent
    assert read_speech(model, VOICE).sample_rate == 16_000


def test_a_blend_at_its_ends_is_the_face_and_the_sound(s2v: RunHere) -> None:
    blend = ["blend", "--speech", VOICE, "--env", RAIN, "--seed", 3]
    assert s2v("face", VOICE, "--seed", 3, "-o", "face.png").status == 0
    assert s2v("gen", RAIN, "--seed", 3, "-o", "gen.png").status == 0
    for weight in ("0", "0.5", "1"):
        ran = s2v(*blend, "--weight", weight, "-o", f"{weight}.png")
        assert (ran.status, ran.out) == (0, f"{weight}.png\n"), ran.err
    assert same("0.png", "face.png")
    assert same("1.png", "gen.png")
    assert not same("0.5.png", "face.png") and not same("0.5.png", "gen.png")


def test_the_weight_moves_the_picture_from_the_voice_to_the_environment(
    model: Sound2Vision,
) -> None:
    voice, sound = model.encode_speech(VOICE).embedding, model.encode_sound(RAIN).embedding
    way = blend_embeddings(model, voice, sound, [0.0, 0.25, 0.5, 0.75, 1.0])
    assert torch.equal(way[0], voice) and torch.equal(way[-1], sound)
    pictures = model.generate_strip(way, model.preset.generate_options(seed=1))
    seen = torch.stack([model.encode_image(picture.image) for picture in pictures])
    lean = seen @ sound - seen @ voice
    assert lean[-1] > lean[0] + 0.3
    assert (lean.diff() > -0.1).all()


def test_frames_make_a_strip_that_its_record_draws_again(s2v: RunHere) -> None:
    blend = ["blend", "--speech", VOICE, "--env", DOG, "--frames", 3, "--path", "spherical"]
    ran = s2v(*blend, "--json")
    assert ran.status == 0, ran.err
    (shown,) = json.loads(ran.out)
    assert shown["path"] == "voice-dog-strip.png" and shown["way"] == "spherical"
    assert shown["weight"] == [0.0, 0.5, 1.0]
    assert [sound["part"] for sound in shown["sounds"]] == ["speech", "environment"]
    strip = read_picture(Path("voice-dog-strip.png"))
    assert strip.width > 3 * 128
    line = shlex.split(read_record(Path("voice-dog-strip.png"))["command"])[1:]
    line[line.index("voice-dog-strip.png")] = "again.png"
    assert s2v(*line).status == 0
    assert same("voice-dog-strip.png", "again.png")


def test_separate_frames_begin_with_the_voice(s2v: RunHere) -> None:
    ran = s2v("blend", "--speech", VOICE, "--env", DOG, "--frames", 2, "--separate", "-o", "f/")
    assert (ran.status, len(ran.lines)) == (0, 2)
    assert [read_record(Path(path))["weight"] for path in ran.lines] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--weight", "1.5"], "weight is 1.5; allowed: 0 (the speech) to 1 (the environment)"),
        (["--weight", "nan"], "weight is nan"),
        (["--frames", "1"], "frames is 1; allowed: 2 to 100"),
        (["--frames", "3", "--weight", "0.2"], "give one"),
        (["--separate"], "--separate belongs to --frames"),
        (["--preset", "sound2scene"], "sound2scene"),
    ],
)
def test_a_malformed_blend_is_one_line(s2v: RunHere, flags: list[str], says: str) -> None:
    ran = s2v("blend", "--speech", VOICE, "--env", RAIN, *flags)
    assert (ran.status, ran.out) == (2, "")
    assert len(ran.complaints) == 1 and says in ran.err


def test_only_one_sound_can_be_standard_input(s2v: RunHere) -> None:
    with pytest.raises(OptionError, match="both '-'"):
        Blend("-", "-")


def test_a_speech_encoder_of_another_space_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = EmbeddingSpace("other", 256, "unit")
    monkeypatch.setattr(MiniSpeechEncoder, "space", other)
    with pytest.raises(SpaceError, match=r"Cannot generate from speech: other-256.*mini-2-256"):
        Sound2Vision.load("mini", device="cpu").encode_speech(VOICE)


def test_the_blend_is_a_library_call(folder: Path) -> None:
    class Quiet:
        def note(self, text: str) -> None: ...
        def error(self, text: object) -> None: ...
        def progress(self, label: str, done: float = 0.0, total: float | None = None) -> None: ...

    (made,) = draw_blend(Blend(str(VOICE), str(RAIN), weight=0.25), Quiet())
    assert made.path == Path("voice-rain.png") and made.record["weight"] == 0.25
