from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from s2v_cli.audio.decode import open_decoder
from s2v_cli.motion import Motion, between, drifting_noise, smooth
from s2v_cli.pipeline import Sound2Vision

if TYPE_CHECKING:
    from conftest import WriteTone


@pytest.fixture(scope="module")
def model() -> Sound2Vision:
    return Sound2Vision.load("mini", device="cpu")


def noise(seed: int) -> torch.Tensor:
    return torch.randn(4096, generator=torch.Generator().manual_seed(seed))


def test_smoothing_keeps_what_is_constant() -> None:
    rows = torch.ones(9, 3) * torch.tensor([1.0, -2.0, 0.5])
    assert torch.allclose(smooth(rows, 2.0), rows)
    assert smooth(rows, 0.0) is rows


def test_smoothing_spreads_a_jump_evenly() -> None:
    jump = torch.cat([torch.zeros(20, 1), torch.ones(20, 1)])
    spread = smooth(jump, 2.0)[:, 0]
    assert bool((spread.diff() >= 0).all())
    assert float(spread.diff().max()) == pytest.approx(1 / (2 * (2 * np.pi) ** 0.5), rel=0.05)
    assert torch.allclose(spread, 1 - spread.flip(0), atol=1e-6)
    assert smooth(jump[:2], 50.0).shape == (2, 1)


def test_frames_lie_between_knots() -> None:
    knots = torch.eye(3)
    rows = between(knots, torch.tensor([0.0, 0.5, 1.0, 2.0, 2.7], dtype=torch.float64), unit=False)
    wanted = [[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]
    assert torch.allclose(rows, torch.tensor(wanted))
    unit = between(knots, torch.tensor([0.5]), unit=True)
    assert float(unit.norm()) == pytest.approx(1)
    assert torch.equal(between(knots[:1], torch.tensor([0.0, 3.0]), unit=False), knots[[0, 0]])


def test_noise_walks_from_seed_to_seed_on_a_sphere() -> None:
    places = torch.arange(0, 2.01, 0.125, dtype=torch.float64)
    walked = drifting_noise(noise, places)
    for seed in range(3):
        assert torch.equal(walked[8 * seed], noise(seed))
    norms = walked.norm(dim=1)
    assert float((norms / 64 - 1).abs().max()) < 0.03  # a straight line would lose 0.29
    steps = walked.diff(dim=0).norm(dim=1)
    assert float(steps.max() / steps.min()) < 1.05
    assert torch.equal(drifting_noise(noise, torch.zeros(3)), noise(0).expand(3, -1))


def test_the_first_frame_is_the_picture_of_its_window(
    model: Sound2Vision, write_tone: WriteTone
) -> None:
    """A sound as long as the window has one embedding, that of `gen`."""
    path = write_tone(seconds=2.0)
    options = model.preset.generate_options(seed=5)
    motion = Motion(model, options, frames=4, fps=2, window_s=2.5, drift=0.1)
    with closing(open_decoder(Path(path), "tone")) as decoder:
        motion.hear(decoder, (0, 32_000))
    frames = list(motion.draw())
    heard = model.encode_sound(path)
    expected = model.generate_from_embedding(heard.embedding, options)[0].image
    difference = np.abs(np.asarray(frames[0], float) - np.asarray(expected, float))
    assert difference.max() <= 2  # another batch size rounds differently
    assert [image.size for image in frames] == [(128, 128)] * 4


def test_windows_follow_the_sound(model: Sound2Vision, folder: Path) -> None:
    """Two sounds one after the other: the knots go from the one's embedding to the other's."""
    import soundfile

    time = np.arange(4 * 16_000) / 16_000
    low, high = (0.3 * np.sin(2 * np.pi * hertz * time) for hertz in (100, 3000))
    soundfile.write("both.wav", np.concatenate([low, high]), 16_000)
    motion = Motion(model, model.preset.generate_options(), frames=16, fps=2, window_s=2.0)
    with closing(open_decoder(Path("both.wav"), "both")) as decoder:
        motion.hear(decoder, (0, 8 * 16_000))
    soundfile.write("low.wav", low[:32_000], 16_000)
    soundfile.write("high.wav", high[:32_000], 16_000)
    ends = torch.stack([model.encode_sound(f"{name}.wav").embedding for name in ("low", "high")])
    nearness = motion.knots @ ends.T
    assert float(nearness[0, 0]) > 0.98
    assert float(nearness[-1, 1]) > 0.98
    assert bool((nearness[:8, 0] > nearness[:8, 1]).all())
    assert bool((nearness[-8:, 1] > nearness[-8:, 0]).all())
