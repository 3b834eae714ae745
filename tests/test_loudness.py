"""Louder sounds look nearer: what the bundled model was taught, seen along a sweep of volumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from s2v_cli import Sound2Vision, SoundOptions

EXAMPLES = Path(__file__).parents[1] / "examples"
# Thunder, dog and chainsaw are left out: loud already, and of the thunder the model makes nothing
# of its level.
SOUNDS = ("rain.wav", "sea.ogg", "fire.flac", "church_bells.ogg", "helicopter.ogg", "airplane.ogg")
GAINS_DB = (-20.0, -10.0, 0.0, 10.0, 20.0)


@pytest.fixture(scope="module")
def model() -> Sound2Vision:
    return Sound2Vision.load("mini", device="cpu")


def nearness(model: Sound2Vision, embeddings: torch.Tensor, kind: int) -> torch.Tensor:
    """Similarity [F] to photos of a kind from near, minus that to photos from far."""
    pairs = model.sound_encoder.prototypes.float().unflatten(0, (-1, 2))  # [K, far and near, D]
    return embeddings @ (pairs[kind, 1] - pairs[kind, 0])


def test_louder_is_nearer_in_embedding_and_picture(model: Sound2Vision) -> None:
    heard, seen = [], []
    for name in SOUNDS:
        sounds = [
            model.encode_sound(EXAMPLES / name, SoundOptions(gain_db=gain)) for gain in GAINS_DB
        ]
        embeddings = torch.stack([sound.embedding for sound in sounds])
        pairs = model.sound_encoder.prototypes.float().unflatten(0, (-1, 2))
        kind = int((pairs @ embeddings.mean(dim=0)).sum(dim=1).argmax())
        drawn = model.generate_strip(embeddings)
        pictures = torch.stack([model.encode_image(picture.image) for picture in drawn])
        heard.append(spearmanr(GAINS_DB, nearness(model, embeddings, kind))[0])
        seen.append(spearmanr(GAINS_DB, nearness(model, pictures, kind))[0])
    assert np.mean(heard) > 0.8
    assert np.mean(seen) > 0.6


def test_without_level_nothing_is_nearer(model: Sound2Vision) -> None:
    """The same sweep with each wave brought back to one level: the gain cannot be told."""
    sound = model.read(EXAMPLES / "rain.wav")
    level = np.sqrt(np.mean(sound.windows**2))
    waves = [sound.windows * 10 ** (gain / 20) for gain in GAINS_DB]
    levelled = [wave * (level / np.sqrt(np.mean(wave**2))) for wave in waves]
    rows = [model.sound_encoder(torch.from_numpy(wave.astype(np.float32))) for wave in levelled]
    spread = torch.cat(rows).float()
    assert (spread @ spread.T).min() > 0.999
