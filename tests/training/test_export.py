"""From trained networks to a preset folder, and from there into the package."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from s2v_cli.encoders.mini_image import MiniImageEncoder
from s2v_cli.encoders.mini_sound import MiniSoundEncoder
from s2v_cli.errors import TrainingError
from s2v_cli.generators.mini import MiniGenerator
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.presets import read_preset
from s2v_cli.training.export import bundle_preset, export_preset, half_precision


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run") / "preset"
    return export_preset(folder, MiniSoundEncoder(), MiniImageEncoder(), MiniGenerator())


def test_weights_go_out_in_half_precision_and_come_back_the_same(run: Path) -> None:
    torch.manual_seed(0)
    expected = half_precision(MiniSoundEncoder())
    loaded = Sound2Vision.load(run).sound_encoder
    assert isinstance(loaded, MiniSoundEncoder)
    for name, tensor in loaded.state_dict().items():
        same = expected[name].float() if tensor.is_floating_point() else expected[name]
        assert torch.equal(tensor, same), name


def test_a_run_becomes_the_bundled_preset(run: Path, tmp_path: Path) -> None:
    toml = bundle_preset(run, tmp_path)
    assert toml == tmp_path / "mini.toml"
    preset, before = read_preset(toml), read_preset(run / "preset.toml")
    assert (preset.name, preset.bundled, preset.licence) == ("mini", True, "CC BY-NC 4.0")
    assert preset.space == before.space and preset.generate == before.generate
    assert [w.sha256 for w in preset.weights] == [w.sha256 for w in before.weights]
    assert all((tmp_path / w.file).parent == tmp_path / "mini" for w in preset.weights)
    Sound2Vision.load(toml)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    networks = MiniSoundEncoder(), MiniImageEncoder(), MiniGenerator()
    with pytest.raises(TrainingError, match="Cannot write the preset"):
        export_preset(tmp_path / "file" / "preset", *networks)
