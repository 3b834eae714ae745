"""Grad-CAM finds what it was told to find, and only with the weights that were learned."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
import torch

from s2v_cli.audio.read import Sound
from s2v_cli.errors import OptionError
from s2v_cli.explanation import folded, spread
from s2v_cli.gradcam import Convolutional, explain
from s2v_cli.picture import to_image
from s2v_cli.pipeline import Sound2Vision

if TYPE_CHECKING:
    Wave = npt.NDArray[np.float32]

EXAMPLES = Path(__file__).parents[1] / "examples"
RATE, SECONDS = 16_000, 5
EVENT_S, FIRST_S, SECOND_S = 1.2, 0.6, 3.0
LEAST_GAIN = 0.35  # mean of what an event's own picture adds to the heat on it
LEVEL = 0.08  # root mean square of every event


@pytest.fixture(scope="module")
def model() -> Sound2Vision:
    return Sound2Vision.load("mini", device="cpu")


def shuffled(model: Sound2Vision, seed: int) -> Sound2Vision:
    """The same model with each weight of the sound encoder in another's place, by tensor."""
    encoder = copy.deepcopy(model.sound_encoder)
    assert isinstance(encoder, torch.nn.Module)
    generator = torch.Generator().manual_seed(seed)
    for weights in encoder.parameters():
        order = torch.randperm(weights.numel(), generator=generator)
        weights.data = weights.data.flatten()[order].view(weights.shape).contiguous()
    other = copy.copy(model)
    other.sound_encoder = encoder
    return other


def event(name: str) -> Wave:
    """The loudest 1.2 s of an example, at one level, faded in and out."""
    import soundfile

    wave, rate = soundfile.read(EXAMPLES / name, dtype="float32", always_2d=True)
    assert rate == RATE
    wave = wave.mean(axis=1)
    length = round(EVENT_S * RATE)
    energy = np.convolve(np.square(wave), np.ones(length), "valid")
    wave = wave[int(energy.argmax()) :][:length]
    fade = np.minimum(1, np.minimum(np.arange(length), np.arange(length)[::-1]) / 400)
    return np.asarray(wave * fade * LEVEL / np.sqrt(np.square(wave).mean()), np.float32)


def clip(*events: tuple[str, float]) -> Sound:
    """Silence with events at their seconds."""
    wave = np.zeros(SECONDS * RATE, np.float32)
    for name, start_s in events:
        piece = event(name)
        first = round(start_s * RATE)
        wave[first : first + len(piece)] += piece
    return Sound(wave[None], RATE, ((0.0, float(SECONDS)),), "clip", "", silent=False)


def share(heat: torch.Tensor, start_s: float) -> float:
    """How much of all heat [1, f, t] lies on an event; cells reach 0.2 s to either side."""
    columns = heat[0].sum(dim=0)
    times = torch.arange(len(columns)) * 0.256  # a column is 16 frames of 16 ms
    inside = (times >= start_s - 0.2) & (times <= start_s + EVENT_S + 0.2)
    return float(columns[inside].sum() / columns.sum().clamp_min(1e-12))


DOG, RAIN, SAW, BELLS = "dog.flac", "rain.wav", "chainsaw.mp3", "church_bells.ogg"
HELICOPTER, SEA = "helicopter.ogg", "sea.ogg"
SINGLE = [(DOG, FIRST_S), (RAIN, SECOND_S), (SAW, FIRST_S), (HELICOPTER, SECOND_S)]
PAIRS = [(DOG, RAIN), (SAW, BELLS), (HELICOPTER, DOG), (SEA, DOG)]


def found(model: Sound2Vision, clips: int = len(SINGLE)) -> list[float]:
    """Of clips with one event: the share of heat on it."""
    options = model.preset.generate_options()
    return [
        share(explain(model, clip((name, start_s)), options).heat, start_s)
        for name, start_s in SINGLE[:clips]
    ]


def moved(model: Sound2Vision, clips: int = len(PAIRS)) -> list[float]:
    """Of clips with two events: how much more heat each event's own picture puts on it."""
    options = model.preset.generate_options()
    gains = []
    for first, second in PAIRS[:clips]:
        both = clip((first, FIRST_S), (second, SECOND_S))
        heat_1, heat_2 = (
            explain(model, both, options, other=clip(alone)).heat
            for alone in ((first, FIRST_S), (second, SECOND_S))
        )
        gains += [share(heat_1, FIRST_S) - share(heat_2, FIRST_S)]
        gains += [share(heat_2, SECOND_S) - share(heat_1, SECOND_S)]
    return gains


def test_heat_lies_on_the_only_event(model: Sound2Vision) -> None:
    assert min(found(model)) > 0.7


def test_explaining_an_events_picture_moves_the_heat_to_it(model: Sound2Vision) -> None:
    gains = moved(model)
    assert sum(gain > 0 for gain in gains) >= len(gains) - 1
    assert sum(gains) / len(gains) > LEAST_GAIN


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]
)
def test_shuffled_weights_pass_neither(model: Sound2Vision, seed: int) -> None:
    """Heat follows what was learned: the same network says nothing once its weights are mixed up.

    Not of every shuffle: some of them also tell an event from silence, as random weights can.
    """
    other = shuffled(model, seed)
    assert min(found(other, 2)) < 0.5
    gains = moved(other, 2)
    assert min(gains) < 0
    assert sum(gains) / len(gains) < LEAST_GAIN


def test_what_is_explained_is_the_picture_of_gen(model: Sound2Vision) -> None:
    options = model.preset.generate_options(seed=3)
    sound = clip((DOG, 1.0))
    picture = model.generate_from_embedding(model.encode_sound(sound).embedding, options)[0]
    shown = to_image(explain(model, sound, options).image)
    difference = np.abs(np.asarray(shown, float) - np.asarray(picture.image, float))
    assert difference.max() <= 2


def test_the_parts_of_the_encoder_make_its_whole(model: Sound2Vision) -> None:
    encoder = model.sound_encoder
    assert isinstance(encoder, Convolutional)
    wave = torch.from_numpy(clip((RAIN, 0.0), (DOG, 2.0)).windows)
    with torch.inference_mode():
        spectrogram = encoder.spectrogram(wave)
        embedding = encoder.embed(encoder.feature_map(spectrogram))
        assert torch.equal(embedding, model.sound_encoder(wave))
    assert spectrogram.shape[2] == len(encoder.frequencies_hz)
    assert spectrogram.shape[3] * encoder.frame_s == pytest.approx(SECONDS, abs=encoder.frame_s)


def test_frequencies_are_those_of_the_rows(model: Sound2Vision) -> None:
    encoder = model.sound_encoder
    assert isinstance(encoder, Convolutional)
    time = torch.arange(SECONDS * RATE) / RATE
    for hertz in (300.0, 1000.0, 4000.0):
        rows = encoder.spectrogram(0.5 * torch.sin(2 * torch.pi * hertz * time)[None])[0, 0]
        loudest = int(rows.mean(dim=1).argmax())
        assert float(encoder.frequencies_hz[loudest]) == pytest.approx(hertz, rel=0.08)


def test_an_encoder_without_convolutions_is_refused(model: Sound2Vision) -> None:
    class Hearing:
        space, sample_rate, window_s = model.space, RATE, 5.0

        def __call__(self, wave: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(wave), 256)

    deaf = copy.copy(model)
    deaf.sound_encoder = Hearing()
    with pytest.raises(OptionError, match="no convolution"):
        explain(deaf, clip((DOG, 0.0)), model.preset.generate_options())


def test_heat_is_spread_from_the_cells_centres() -> None:
    """A cell sits on the first frame of its stride of 16, and fades to its neighbours."""
    cells = np.zeros((4, 20), np.float32)
    cells[1, 5] = 1
    spread_out = spread(cells, (64, 313))
    assert spread_out.shape == (64, 313)
    row, frame = np.unravel_index(spread_out.argmax(), spread_out.shape)
    assert (row, frame) == (16, 80)
    assert spread_out[16, 72] == pytest.approx(0.5)
    assert spread_out[16, [64, 96]].tolist() == [0, 0]


def test_heat_of_repeats_is_their_mean() -> None:
    heat = np.tile(np.arange(10, dtype=np.float32), (3, 3))
    heat[:, 10:20] += 3
    assert folded(heat, 10).tolist() == [list(np.arange(10) + 1.0)] * 3
    assert folded(heat, 30).shape == (3, 30)
