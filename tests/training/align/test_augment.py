"""What is done to sounds and spectrograms, in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from s2v_cli.training.align.augment import (
    Masks,
    blank,
    change_gain,
    crop,
    draw_masks,
    mix_behind,
)
from s2v_cli.training.align.options import AlignOptions


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_random_part_is_any_part() -> None:
    wave = torch.arange(1.0, 11.0)
    starts = {int(crop(wave, 4, "random", generator(seed))[0]) for seed in range(100)}
    assert starts == set(range(1, 8))
    assert crop(wave, 10, "random", generator()).equal(wave)


def test_the_middle_and_the_loudest_part() -> None:
    wave = torch.full((8_000,), 0.01)
    wave[4_800:6_400] = 0.5
    assert crop(wave, 1_600, "loudest", generator()).equal(wave[4_800:6_400])
    ramp = torch.arange(10.0)
    assert crop(ramp, 4, "centre", generator()).tolist() == [3, 4, 5, 6]


@pytest.mark.parametrize("choice", ["random", "centre", "loudest"])
def test_a_short_sound_is_repeated(choice: str) -> None:
    wave = torch.tensor([1.0, 2.0, 3.0])
    part = crop(wave, 7, choice, generator(1))  # type: ignore[arg-type]
    assert len(part) == 7
    assert part[:4].equal(part[3:])  # its period is 3
    if choice != "random":
        assert part.tolist() == [1, 2, 3, 1, 2, 3, 1]


def test_silent_parts_are_avoided() -> None:
    wave = torch.zeros(10_000)
    wave[5_000:] = 0.1
    loud = [bool(crop(wave, 100, "random", generator(seed)).any()) for seed in range(200)]
    assert sum(loud) > 170  # a half of them would be without
    assert not crop(torch.zeros(500), 100, "random", generator()).any()


def test_gain_is_in_decibels_and_clips() -> None:
    wave = torch.tensor([0.1, -0.5])
    assert torch.allclose(change_gain(wave, 20.0), torch.tensor([1.0, -1.0]))
    assert torch.allclose(change_gain(wave, -6.0206), wave / 2, atol=1e-6)
    assert change_gain(wave, 0.0).equal(wave)


def test_what_is_behind_has_its_level_relative_to_the_sound() -> None:
    random = torch.Generator().manual_seed(0)
    wave = 0.05 * torch.randn(4_000, generator=random)
    behind = 0.3 * torch.randn(4_000, generator=random)
    added = mix_behind(wave, behind, -12.0) - wave
    ratio = 10 * torch.log10(added.square().mean() / wave.square().mean())
    assert float(ratio) == pytest.approx(-12.0, abs=1e-3)
    assert mix_behind(wave, torch.zeros(4_000), -12.0).equal(wave)
    assert not mix_behind(torch.zeros(4_000), behind, -12.0).any()


OPTIONS = AlignOptions(frequency_masks=2, frequency_mask=0.2, time_masks=3, time_mask=0.1)


def test_masks_follow_from_seed_step_and_row_alone() -> None:
    whole = draw_masks(OPTIONS, 7, range(6))
    part = draw_masks(OPTIONS, 7, [4, 5])
    assert whole is not None and part is not None
    assert whole.frequency.shape == (6, 2, 2) and whole.time.shape == (6, 3, 2)
    assert part.frequency.equal(whole.frequency[4:]) and part.time.equal(whole.time[4:])
    other = draw_masks(OPTIONS, 8, range(6))
    assert other is not None and not other.time.equal(whole.time)


def test_masks_are_inside_and_as_wide_as_they_may_be() -> None:
    masks = draw_masks(OPTIONS, 0, range(500))
    assert masks is not None
    for bands, widest in ((masks.frequency, 0.2), (masks.time, 0.1)):
        width = bands[..., 1] - bands[..., 0]
        assert float(bands.min()) >= 0 and float(bands.max()) <= 1
        assert float(width.max()) <= widest + 1e-6
        assert float(width.mean()) == pytest.approx(widest / 2, rel=0.1)
    assert draw_masks(AlignOptions(), 0, range(3)) is None


def test_bands_are_blanked_with_the_mean() -> None:
    spectrogram = torch.arange(2 * 4 * 5, dtype=torch.float32).view(2, 1, 4, 5)
    masks = Masks(
        frequency=torch.tensor([[[0.25, 0.5]], [[0.0, 0.0]]]),
        time=torch.tensor([[[0.0, 0.2], [0.8, 1.0]], [[0.4, 0.4], [0.4, 0.6]]]),
    )
    expected = spectrogram.clone()
    expected[0, 0, 1, :] = expected[0, 0, :, 0] = expected[0, 0, :, 4] = 9.5
    expected[1, 0, :, 2] = 29.5
    found = blank(spectrogram, masks)
    assert found.equal(expected)
    assert blank(spectrogram, None) is spectrogram


def test_only_one_kind_of_bands() -> None:
    options = AlignOptions(time_masks=1, time_mask=1.0)
    masks = draw_masks(options, 0, range(4))
    spectrogram = torch.randn(4, 1, 16, 50, generator=torch.Generator().manual_seed(0))
    found = blank(spectrogram, masks)
    changed = (found != spectrogram).squeeze(1)
    assert changed.any()
    assert changed.all(dim=1).equal(changed.any(dim=1))  # whole columns
