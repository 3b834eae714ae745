"""The bundled model's front end: mel filters, levels, lengths."""

from __future__ import annotations

import pytest
import torch

from s2v_cli._torchaudio import import_torchaudio
from s2v_cli.audio.filterbank import CENTRE_DB, SPREAD_DB, log_mel, mel_filters


def test_mel_filters_equal_torchaudio() -> None:
    functional = import_torchaudio().functional
    theirs = functional.melscale_fbanks(257, 50.0, 8000.0, 64, 16000, norm=None, mel_scale="htk")
    assert torch.allclose(mel_filters(64, 512, 16000, 50.0, 8000.0), theirs, atol=1e-5)


def test_gain_shifts_every_value_by_as_many_decibels() -> None:
    wave = 0.05 * torch.randn(1, 80000, generator=torch.Generator().manual_seed(0))
    soft, loud = log_mel(wave, 80000), log_mel(wave * 10 ** (12 / 20), 80000)
    assert float(((loud - soft) * SPREAD_DB).mean()) == pytest.approx(12, abs=0.05)


def test_a_full_scale_sine_gives_minus_six_decibels() -> None:
    wave = torch.sin(2 * torch.pi * 1000 * torch.arange(80000) / 16000)[None]
    peak = float(log_mel(wave, 80000).max()) * SPREAD_DB + CENTRE_DB
    assert peak == pytest.approx(-6, abs=2)


def test_lengths_clipping_and_silence() -> None:
    assert log_mel(torch.zeros(2, 100), 80000).shape == (2, 1, 64, 80000 // 256 + 1)
    assert bool(log_mel(torch.zeros(1, 80000), 80000).isfinite().all())
    assert torch.equal(
        log_mel(torch.full((1, 9000), 3.0), 80000), log_mel(torch.ones(1, 9000), 80000)
    )
    short = torch.randn(1, 1000, generator=torch.Generator().manual_seed(1)) * 0.1
    assert torch.equal(log_mel(short, 80000), log_mel(short.repeat(1, 90), 80000))
