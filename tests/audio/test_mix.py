"""Gain and tiling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from s2v_cli.audio.mix import apply_gain, tile

waves = arrays.arrays(
    np.float32, st.integers(1, 50), elements=st.floats(-2, 2, width=32, allow_subnormal=False)
)


@settings(deadline=None)
@given(waves, st.integers(0, 300))
def test_tile_repeats_and_cuts(wave: np.ndarray, length: int) -> None:
    tiled = tile(wave, length)
    assert tiled.dtype == np.float32
    assert tiled.tolist() == [wave[index % len(wave)] for index in range(length)]


@pytest.mark.parametrize(
    ("wave", "length"), [(np.zeros(0, np.float32), 5), (np.zeros((2, 2), np.float32), 5)]
)
def test_tile_refuses_what_is_no_wave(wave: np.ndarray, length: int) -> None:
    with pytest.raises(ValueError, match="allowed"):
        tile(wave, length)


def test_tile_refuses_a_negative_length() -> None:
    with pytest.raises(ValueError, match="allowed"):
        tile(np.ones(3, np.float32), -1)


@settings(deadline=None)
@given(waves, st.floats(-120, 60))
def test_gain_scales_and_does_not_clip(wave: np.ndarray, gain_db: float) -> None:
    louder = apply_gain(wave, gain_db)
    assert louder.dtype == np.float32
    assert np.array_equal(louder, (wave * np.float64(10 ** (gain_db / 20))).astype(np.float32))


@settings(deadline=None)
@given(waves)
def test_no_gain_changes_nothing(wave: np.ndarray) -> None:
    assert np.array_equal(apply_gain(wave, 0.0), wave)


def test_gain_is_in_decibels_of_amplitude() -> None:
    assert apply_gain(np.ones(1, np.float32), 20.0)[0] == 10
    assert apply_gain(np.ones(1, np.float32), -20.0)[0] == pytest.approx(0.1)
