"""The published sound encoders: equal to their vectors, from files in the published format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from s2v_cli.audio.spectrogram import log_spectrogram
from s2v_cli.encoders import SoundEncoder
from s2v_cli.encoders.sound2vision_sound import (
    Sound2SceneEncoder,
    Sound2VisionEncoder,
    convert_sound2scene,
    convert_sound2vision,
)
from s2v_cli.errors import WeightsError
from s2v_cli.space import CLIP_H_SPACE, SWAV_SPACE
from tests.published import (
    rule_state,
    sound_encoder_shapes,
    write_sound2scene_pth,
    write_sound2vision_pth,
)

REFERENCE = Path(__file__).parent.parent / "fixtures" / "reference"
ROUTES = [
    pytest.param(
        "sound2scene_audio_encoder",
        Sound2SceneEncoder,
        convert_sound2scene,
        write_sound2scene_pth,
        id="gan",
    ),
    pytest.param(
        "sound2vision_env_audio_encoder",
        Sound2VisionEncoder,
        convert_sound2vision,
        write_sound2vision_pth,
        id="diffusion",
    ),
]
Convert = Callable[..., dict[str, torch.Tensor]]
Write = Callable[..., Path]


def loaded(kind: type[Any], tensors: dict[str, torch.Tensor]) -> Any:
    encoder = kind.like(tensors)
    encoder.load_state_dict(tensors, strict=True, assign=True)
    return encoder.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def probe() -> torch.Tensor:
    wave, _ = soundfile.read(REFERENCE / "probe.wav", dtype="float32")
    return torch.from_numpy(wave)[None]


@pytest.mark.parametrize(("name", "kind", "convert", "write"), ROUTES)
def test_equals_the_reference(
    name: str,
    kind: type[Any],
    convert: Convert,
    write: Write,
    probe: torch.Tensor,
    tmp_path: Path,
) -> None:
    encoder = loaded(kind, convert({"x.pth": write(tmp_path / "x.pth", 64)}))
    with np.load(REFERENCE / f"{name}.npz") as stored:
        expected = torch.from_numpy(stored["embedding"])
    if kind.space.scale == "unit":
        expected = expected / expected.norm()
    embedding = encoder(probe)[0]
    assert (embedding - expected).norm() / expected.norm() < 1e-4


@pytest.mark.parametrize("name", ["sound2scene_audio_encoder", "sound2vision_env_audio_encoder"])
def test_the_small_files_have_the_published_keys(name: str) -> None:
    published = json.loads((REFERENCE / f"{name}.keys.json").read_text())
    two = name.startswith("sound2vision")
    shapes = sound_encoder_shapes(64, 1024 if two else 2048, two_layers=two)
    assert {key: tuple(shape) for key, (shape, _) in published.items()} == shapes


@pytest.mark.parametrize(("name", "kind", "convert", "write"), ROUTES)
def test_is_the_sum_of_its_parts(
    name: str,
    kind: type[Any],
    convert: Convert,
    write: Write,
    probe: torch.Tensor,
    tmp_path: Path,
) -> None:
    encoder = loaded(kind, convert({"x.pth": write(tmp_path / "x.pth")}))
    assert isinstance(encoder, SoundEncoder)
    assert (encoder.sample_rate, encoder.window_s) == (16_000, 10.0)
    spectrogram = encoder.spectrogram(probe)
    assert torch.equal(spectrogram[:, 0], log_spectrogram(probe))
    assert encoder.frequencies_hz.shape == (257,)
    assert float(encoder.frequencies_hz[-1]) == 8000.0
    assert encoder.frame_s * 1004 == pytest.approx(10.0, abs=0.03)
    feature_map = encoder.feature_map(spectrogram).requires_grad_()
    assert feature_map.shape[2:] == (9, 32)
    embedding = encoder.embed(feature_map)
    assert torch.equal(embedding, encoder(probe))
    (gradient,) = torch.autograd.grad(
        embedding.square().sum(dim=1)[0] + embedding[0, 0], feature_map
    )
    assert gradient.isfinite().all()
    assert embedding.shape == (1, encoder.space.dimension)


def test_each_route_writes_its_own_space(probe: torch.Tensor, tmp_path: Path) -> None:
    files = {"x.pth": write_sound2scene_pth(tmp_path / "x.pth")}
    gan = loaded(Sound2SceneEncoder, convert_sound2scene(files))
    assert gan.space == SWAV_SPACE
    embedding = gan(torch.cat([probe, 0.1 * probe.flip(1)]))
    assert torch.allclose(embedding.norm(dim=1), torch.ones(2))
    assert embedding.min() >= 0
    files = {"y.pth": write_sound2vision_pth(tmp_path / "y.pth")}
    diffusion = loaded(Sound2VisionEncoder, convert_sound2vision(files))
    assert diffusion.space == CLIP_H_SPACE
    embedding = diffusion(probe)
    assert embedding.min() < 0
    assert abs(float(embedding.norm()) - 1) > 0.1


def test_half_the_bits_give_nearly_the_same(probe: torch.Tensor, tmp_path: Path) -> None:
    files = {"x.pth": write_sound2scene_pth(tmp_path / "x.pth", 8)}
    encoder = loaded(Sound2SceneEncoder, convert_sound2scene(files))
    exact = encoder(probe)
    rough = encoder.to(torch.bfloat16)(probe)
    assert rough.dtype == torch.float32
    assert torch.cosine_similarity(exact, rough) > 0.99


def test_a_parallel_training_prefix_is_taken_off(tmp_path: Path) -> None:
    state = rule_state(sound_encoder_shapes(4))
    plain, parallel = tmp_path / "plain.pth", tmp_path / "parallel.pth"
    torch.save(state, plain)
    torch.save({f"module.{key}": value for key, value in state.items()}, parallel)
    first, second = convert_sound2scene({"x": plain}), convert_sound2scene({"x": parallel})
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_swapped_files_are_refused_both_ways(tmp_path: Path) -> None:
    gan = {"sound2scene.pth": write_sound2scene_pth(tmp_path / "a.pth")}
    diffusion = {"sound2vision_env.pth": write_sound2vision_pth(tmp_path / "b.pth")}
    with pytest.raises(WeightsError, match=r"Sound2SceneEncoder \(b.pth\).*fc2"):
        convert_sound2scene(diffusion)
    with pytest.raises(WeightsError, match=r"Sound2VisionEncoder \(a.pth\).*fc2"):
        convert_sound2vision(gan)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: state.pop("audnet.layer3.1.bn2.running_var"), "layer3.1.bn2.running_var"),
        (lambda state: state.pop("audnet.conv1.weight"), "conv1.weight"),
        (lambda state: state.update(extra=torch.zeros(1)), "extra"),
        (lambda state: state.update({"audnet.fc.bias": torch.zeros(7)}), "fc.bias"),
        (lambda state: state.update({"audnet.conv1.weight": torch.zeros(4, 3, 7, 7)}), "conv1"),
        (lambda state: state.update({"audnet.conv1.weight": "text"}), "conv1.weight"),
    ],
)
def test_what_does_not_fit_is_named(
    change: Callable[[dict[str, Any]], Any], named: str, tmp_path: Path
) -> None:
    state = dict(rule_state(sound_encoder_shapes(4)))
    change(state)
    path = tmp_path / "sound2scene.pth"
    torch.save(state, path)
    with pytest.raises(WeightsError, match=named) as raised:
        convert_sound2scene({"sound2scene.pth": path})
    assert "\n" not in str(raised.value)


def test_a_file_that_holds_no_dictionary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sound2scene.pth"
    torch.save([torch.zeros(3)], path)
    with pytest.raises(WeightsError, match=r"sound2scene\.pth"):
        convert_sound2scene({"sound2scene.pth": path})
