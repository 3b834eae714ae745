"""Training towards the published image encoders, here with tiny random weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from s2v_cli.errors import OptionError, TrainingError
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.training.align.options import AlignOptions
from s2v_cli.training.align.trainer import align
from tests.published_home import fill_home
from tests.training.drawn_pairs import write_pairs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("S2V_HOME", str(folder / "home"))
        fill_home(folder / "home", folder / "downloads")
        yield folder


def options(teacher: str, **others: Any) -> AlignOptions:
    given = {
        "batch": 4, "steps": 2, "duration_s": 0.5, "workers": 0, "samples": 0, "temperature": 0.1,
        "learning_rate": 1e-4, **others,
    }  # fmt: skip
    return AlignOptions(teacher=teacher, **given)


@pytest.mark.parametrize(
    ("teacher", "scale", "network"),
    [
        ("sound2scene", "unit", "sound2scene-sound-encoder"),
        ("sound2vision", "raw", "sound2vision-sound-encoder"),
    ],
)
def test_a_preset_towards_published_encoders_draws(
    teacher: str, scale: str, network: str, home: Path, tmp_path: Path
) -> None:
    data = write_pairs(tmp_path / "data", train=8, validation=2)
    run = align(data, tmp_path / "run", options(teacher, samples=1))
    # What the teacher has by name is named, not copied.
    assert [path.name for path in run.glob("*.safetensors")] == ["sound_encoder.safetensors"]
    assert len(list((run / "samples").iterdir())) == 1
    model = Sound2Vision.load(run, device="cpu")
    assert (model.space.scale, model.preset.window_s) == (scale, 0.5)
    assert model.preset.weight("sound_encoder").network == network
    embedding = model.encode_sound("examples/rain.wav").embedding
    if scale == "unit":
        assert float(embedding.norm()) == pytest.approx(1, abs=1e-3)
    settings = {"steps": 2} if teacher == "sound2vision" else {}
    given = model.preset.generate_options(seed=0, **settings)
    picture = model.generate_from_embedding(embedding, given)[0]
    assert picture.image.width == picture.image.height > 0


def test_the_published_sound_encoder_is_a_beginning(home: Path, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data", train=8, validation=0)
    run = align(data, tmp_path / "run", options("sound2scene", from_weights=True, steps=1))
    own = Sound2Vision.load("sound2scene", device="cpu").sound_encoder.state_dict()  # type: ignore[attr-defined]
    found = Sound2Vision.load(run, device="cpu").sound_encoder.state_dict()  # type: ignore[attr-defined]
    assert found["conv1.weight"].shape == own["conv1.weight"].shape  # narrow, as it is
    torch.testing.assert_close(found["fc.bias"], own["fc.bias"], atol=2e-3, rtol=1e-2)


def test_a_loss_for_unit_vectors_is_refused_in_a_raw_space(home: Path, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data", train=8, validation=0)
    with pytest.raises(OptionError, match="raw-infonce, l2"):
        align(data, tmp_path / "run", options("sound2vision", loss="l2-infonce"))


def test_a_space_without_a_sound_encoder_is_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from s2v_cli.training.align import encoder

    monkeypatch.delitem(encoder.NETWORKS, "swav")
    data = write_pairs(tmp_path / "data", train=8, validation=0)
    with pytest.raises(TrainingError, match=r"space .*swav.* of preset 'sound2scene'; allowed"):
        align(data, tmp_path / "run", options("sound2scene"))
