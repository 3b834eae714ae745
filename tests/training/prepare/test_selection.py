"""Moments are chosen by what their sound and picture have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from s2v_cli.errors import OptionError
from s2v_cli.training.manifest import SAMPLE_RATE
from s2v_cli.training.prepare.selection import (
    MomentScorer,
    PresetScorer,
    choose,
    correlate,
    preset_scorer,
    score_moments,
)
from s2v_cli.training.prepare.selection_sheet import Comparison, selection_sheet
from s2v_cli.training.prepare.video import Frame, Video

TIMES = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]
SILENT = -math.inf


class Colour(MomentScorer):
    """A tiny space: red against blue, and low against high tones."""

    def score(self, frames: Sequence[Image.Image], waves: Tensor) -> Tensor:
        pixels = torch.from_numpy(np.stack([np.asarray(frame).mean((0, 1)) for frame in frames]))
        seen = torch.nn.functional.normalize(pixels[:, [0, 2]], dim=1)
        power = torch.fft.rfft(waves).abs().square()
        limit = round(1000 * waves.shape[1] / SAMPLE_RATE)  # of 1 kHz
        bands = torch.stack([power[:, :limit].sum(1), power[:, limit:].sum(1)], dim=1)
        return correlate(seen, torch.nn.functional.normalize(bands, dim=1).to(seen.dtype))


class Planted(Video):
    """Twelve seconds of red pictures; from 7 to 8 s a blue one, and a high tone instead of a low.

    The high tone is heard from 3 to 4 s, too, where the picture is still red.
    """

    def __init__(self) -> None:
        time = np.arange(12 * SAMPLE_RATE) / SAMPLE_RATE
        high = ((time >= 7) & (time < 8)) | ((time >= 3) & (time < 4))
        hertz = np.where(high, 3000, 300)
        self.samples = (0.2 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)

    def frames(self, times_s: Sequence[float]):  # type: ignore[no-untyped-def]
        for time_s in times_s:
            blue = 7 <= time_s < 8
            tint = (20, 20, 220) if blue else (120, 20, 110)
            yield Frame(time_s, Image.new("RGB", (64, 48), tint))

    def wave(self, start_s: float, count: int) -> np.ndarray:
        first = round(start_s * SAMPLE_RATE)
        return self.samples[first : first + count]


def test_the_best_comes_first_and_the_next_keeps_its_distance() -> None:
    scores = [0.1, 0.9, 0.8, 0.2, 0.7, 0.6, 0.3]
    assert choose(scores, TIMES, "top1", 1, 1.0) == [1]
    assert choose(scores, TIMES, "top1", 3, 1.0) == [1, 4, 6]  # 0.8 is 0.5 s from 0.9
    assert choose(scores, TIMES, "top1", 3, 0.0) == [1, 2, 4]
    assert choose(scores, TIMES, "top1", 3, 2.0) == [1, 5]  # only two lie so far apart


def test_exactly_one_stride_is_far_enough() -> None:
    times = [0.1 * step for step in range(8)]  # not exact in binary
    assert choose(range(8), times, "top1", 8, 0.1) == [7, 6, 5, 4, 3, 2, 1, 0]


def test_the_middle_wins_where_scores_are_equal() -> None:
    assert choose([0.5] * 7, TIMES, "top1") == [3]
    assert choose([0.5] * 7, TIMES, "top1", 3, 0.5) == [3, 2, 4]
    assert choose([0.5] * 4, [0.0, 1.0, 2.0, 3.0], "top1") == [1]  # the earlier of two as near


def test_silence_is_never_chosen() -> None:
    scores = [0.1, SILENT, math.nan, SILENT, 0.4, 0.3, SILENT]
    assert choose(scores, TIMES, "top1", 9, 0.0) == [4, 5, 0]
    assert choose(scores, TIMES, "mid") == [4]
    assert choose(scores, TIMES, "all") == [0, 4, 5]
    drawn = choose(scores, TIMES, "random", 9, 0.0, np.random.default_rng(1))
    assert sorted(drawn) == [0, 4, 5]
    for select in ("top1", "mid", "random", "all"):
        assert choose([SILENT] * 7, TIMES, select) == []


def test_random_is_uniform_seeded_and_apart() -> None:
    def draw(seed: int, k: int = 1) -> list[int]:
        return choose([0.0] * 7, TIMES, "random", k, 1.0, np.random.default_rng(seed))

    assert draw(5, 3) == draw(5, 3)
    counts = np.bincount([draw(seed)[0] for seed in range(1400)], minlength=7)
    assert counts.min() > 140 and counts.max() < 260  # 200 each; 13 is one deviation
    for seed in range(50):
        taken = sorted(TIMES[index] for index in draw(seed, 7))
        assert min(np.diff(taken)) >= 1.0


@pytest.mark.parametrize(
    ("select", "k", "stride", "told"),
    [
        ("best", 1, 1.0, "top1, mid"),
        ("top1", 0, 1.0, "1 or more"),
        ("top1", 1, -1.0, "0 s or more"),
    ],
)
def test_bad_options_are_named(select: str, k: int, stride: float, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        choose([0.0], [0.0], select, k, stride)  # type: ignore[arg-type]


def test_correlation_is_the_dot_product_of_each_moment() -> None:
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    sound = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.8, 0.6]])
    assert correlate(image, sound).tolist() == pytest.approx([0.0, 1.0, 0.96])
    centred = correlate(image, image, "centred")
    assert centred.tolist() == pytest.approx(
        (image - image.mean(0)).square().sum(1).tolist(), abs=1e-6
    )


def test_a_planted_event_is_found() -> None:
    times = [0.5 + step for step in range(12)]
    scores = score_moments(Planted(), times, Colour(), 0.0, 12.0, window_s=1.0)
    assert times[choose(scores, times)[0]] == 7.5
    assert float(scores[7]) > float(scores[3])  # the same sound, another picture


def test_a_window_at_an_end_moves_inwards() -> None:
    heard: list[Tensor] = []

    class Listening(Colour):
        def score(self, frames: Sequence[Image.Image], waves: Tensor) -> Tensor:
            heard.append(waves)
            return super().score(frames, waves)

    video = Planted()
    score_moments(video, [0.1, 6.0, 11.9], Listening(), 0.0, 12.0, window_s=2.0)
    (waves,) = heard
    assert waves.shape == (3, 2 * SAMPLE_RATE)
    assert np.array_equal(waves[0], video.samples[: 2 * SAMPLE_RATE])
    assert np.array_equal(waves[1], video.samples[5 * SAMPLE_RATE : 7 * SAMPLE_RATE])
    assert np.array_equal(waves[2], video.samples[10 * SAMPLE_RATE :])


@pytest.fixture(scope="module")
def mini() -> PresetScorer:
    return preset_scorer("mini", "cpu")


def test_a_preset_scores_as_its_encoders_do_one_by_one(mini: PresetScorer) -> None:
    random = np.random.default_rng(0)
    frames = [
        Image.fromarray(random.integers(0, 255, (90, 120, 3), dtype=np.uint8)) for _ in range(35)
    ]
    waves = 0.1 * torch.from_numpy(random.standard_normal((35, SAMPLE_RATE)).astype(np.float32))
    waves[4] = 0
    scores = mini.score(frames, waves)
    assert scores[4] == SILENT
    for index in (0, 34):  # of the first and the second batch
        seen = mini.model.encode_image(frames[index])
        with torch.inference_mode():
            heard = mini.model.sound_encoder(waves[index : index + 1])[0]
        assert float(scores[index]) == pytest.approx(float(seen @ heard), abs=1e-5)
    assert mini.score(frames[:2], torch.zeros(2, SAMPLE_RATE)).tolist() == [SILENT, SILENT]


def test_frames_of_several_sizes_are_scored(mini: PresetScorer) -> None:
    frames = [Image.new("RGB", size, (200, 30, 30)) for size in ((64, 64), (128, 96))]
    assert mini.score(frames, 0.1 * torch.ones(2, 8000)).isfinite().all()


def test_a_scorer_is_loaded_once(mini: PresetScorer) -> None:
    assert preset_scorer("mini", "cpu") is mini


def test_an_unknown_correlation_is_refused(mini: PresetScorer) -> None:
    with pytest.raises(OptionError, match="dot, centred"):
        PresetScorer(mini.model, "cosine")  # type: ignore[arg-type]


def test_the_sheet_shows_chosen_beside_middle() -> None:
    tints = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    frames = [Image.new("RGB", (80, 60), tint) for tint in tints]
    row = Comparison.of("clip", frames, [1.0, 2.0, 3.0], [0.1, 0.2, 0.9])
    assert (row.chosen.time_s, row.middle.time_s) == (3.0, 2.0)
    sheet = selection_sheet([row])
    pixels = np.asarray(sheet).reshape(-1, 3).astype(int)
    columns = [
        np.flatnonzero((np.abs(np.asarray(sheet).astype(int) - tint).sum(2) < 30).any(0)).mean()
        for tint in (tints[2], tints[1])
    ]
    assert columns[0] < columns[1]  # chosen on the left
    assert not (np.abs(pixels - tints[0]).sum(1) < 30).any()
    with pytest.raises(OptionError, match="silent"):
        Comparison.of("clip", frames, [1.0, 2.0, 3.0], [SILENT] * 3)
