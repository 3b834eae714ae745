"""A drawn video and drawn pairs, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.prepare.drawing import draw_pairs, draw_video


@pytest.fixture(scope="session")
def drawn_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds, ten frames a second; the frame at t has the grey 20 + 20 t."""
    return draw_video(tmp_path_factory.mktemp("video") / "drawn.mp4", 6.0)


@pytest.fixture(scope="session")
def many_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pairs."""
    return draw_pairs(tmp_path_factory.mktemp("pairs"), 40)
