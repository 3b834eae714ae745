"""ImageBind's audio branch against numbers of the published code, and on strange waves and files.

The full network has 86 million parameters, so that its test is slow; the quick ones use a network
of two blocks, 128 wide, that the published code computed as well.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from torch import Tensor

from s2v_cli.encoders import SoundEncoder
from s2v_cli.encoders.imagebind import ImageBindAudio, clip_starts, convert, published_name
from s2v_cli.errors import SoundError, WeightsError
from s2v_cli.space import CLIP_H_SPACE

REFERENCE = Path(__file__).parents[1] / "fixtures" / "reference"


@pytest.fixture(scope="module")
def probe() -> Tensor:
    wave, rate = soundfile.read(REFERENCE / "probe.wav", dtype="float32")
    assert rate == 16_000
    return torch.from_numpy(wave)[None]


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    with np.load(REFERENCE / "imagebind_audio.npz") as arrays:
        return dict(arrays)


def fill(key: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor by the rule of the reference vectors."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    values = np.asarray(rng.standard_normal(shape))
    if len(shape) < 2:
        values = 0.1 * values + key.endswith(("weight", "log_logit_scale"))
    else:
        values = values / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def published(network: ImageBindAudio) -> dict[str, Tensor]:
    """Rule-filled tensors under the published names, with scraps of the other modalities."""
    state = {published_name(key): tuple(value.shape) for key, value in network.state_dict().items()}
    others = {
        "modality_preprocessors.vision.cls_token": (1, 1, 1280),
        "modality_trunks.text.blocks.23.attn.in_proj_bias": (3072,),
        "modality_heads.imu.3.weight": (1024, 512),
    }
    return {key: fill(key, shape) for key, shape in {**state, **others}.items()}


def store(state: Mapping[str, Tensor], file: Path) -> dict[str, Path]:
    if file.suffix == ".safetensors":
        save_file(dict(state), file)
    else:
        torch.save(dict(state), file)
    return {file.name: file}


@pytest.fixture(scope="module")
def tiny_state() -> dict[str, Tensor]:
    return published(ImageBindAudio(width=128, depth=2))


@pytest.fixture(scope="module")
def tiny(tiny_state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> ImageBindAudio:
    file = tmp_path_factory.mktemp("imagebind") / "imagebind_huge.pth"
    return ImageBindAudio.load(convert(store(tiny_state, file)))


def relative_error(found: Tensor, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found.numpy() - expected) / np.linalg.norm(expected))


def test_clips_equal_the_published_front_end(
    probe: Tensor, tiny: ImageBindAudio, reference: dict[str, np.ndarray]
) -> None:
    clips = tiny.clips(probe)[0].numpy()
    assert clips.shape == (3, 1, 128, 204)
    assert np.abs(clips[..., ::12] - reference["mel_clips_every_12th"]).max() < 1e-4
    assert np.abs(clips.mean(axis=3) - reference["mel_clips_row_means"]).max() < 1e-4


@pytest.mark.parametrize(
    ("name", "samples"),
    [("tiny_embedding", 160_000), ("tiny_embedding_odd", 77_777), ("tiny_embedding_short", 20_000)],
)
def test_a_small_network_equals_the_published_code(
    probe: Tensor, tiny: ImageBindAudio, reference: dict[str, np.ndarray], name: str, samples: int
) -> None:
    assert relative_error(tiny(probe[:, :samples])[0], reference[name]) < 1e-4


@pytest.mark.slow
def test_the_full_network_equals_the_published_code(
    probe: Tensor, reference: dict[str, np.ndarray], tmp_path: Path
) -> None:
    keys = json.loads((REFERENCE / "imagebind_audio.keys.json").read_text())
    files = store(
        {key: fill(key, tuple(shape)) for key, shape in keys.items()}, tmp_path / "all.safetensors"
    )
    network = ImageBindAudio.load(convert(files))
    assert len(network.blocks) == 12
    assert relative_error(network(probe)[0], reference["embedding"]) < 1e-4


def test_the_published_keys_are_those_of_the_network() -> None:
    keys = json.loads((REFERENCE / "imagebind_audio.keys.json").read_text())
    with torch.device("meta"):
        network = ImageBindAudio()
    found = {published_name(key): list(value.shape) for key, value in network.state_dict().items()}
    assert found == keys


def test_both_published_layouts_convert_to_the_same(
    tiny_state: dict[str, Tensor], tmp_path: Path
) -> None:
    pickled = convert(store(tiny_state, tmp_path / "imagebind_huge.pth"))
    halved = {key: value.half() for key, value in tiny_state.items()}
    flat = convert(store(halved, tmp_path / "model.safetensors"))
    assert pickled.keys() == flat.keys() == ImageBindAudio(128, 2).state_dict().keys()
    for key, value in pickled.items():
        assert value.dtype == flat[key].dtype == torch.float32
        assert torch.equal(value, tiny_state[published_name(key)])
        assert torch.equal(flat[key], value.half().float())


def test_it_is_a_sound_encoder_of_the_clip_space(tiny: ImageBindAudio, probe: Tensor) -> None:
    assert isinstance(tiny, SoundEncoder)
    assert tiny.space == CLIP_H_SPACE
    other = probe.flip(1) * 0.1
    both = tiny(torch.cat([probe, other]))
    assert both.shape == (2, 1024) and both.dtype == torch.float32
    assert torch.allclose(both[0], tiny(probe)[0], atol=1e-5)
    assert torch.allclose(both[1], tiny(other)[0], atol=1e-5)


def test_each_clip_has_the_learned_norm_and_the_mean_is_left_as_it_is(
    tiny: ImageBindAudio, probe: Tensor
) -> None:
    scale = float(tiny.log_scale.exp())
    clips = tiny.embed(tiny.tokens(tiny.clips(probe)[0]))
    assert torch.allclose(clips.norm(dim=1), torch.full((3,), scale), rtol=1e-5)
    embedding = tiny(probe)[0]
    assert torch.allclose(embedding, clips.mean(dim=0), atol=1e-6)
    assert embedding.norm() < scale * 0.999
    assert torch.allclose(ImageBindAudio(128, 1).log_scale.exp(), torch.tensor(20.0))


@pytest.mark.parametrize("samples", [400, 401, 16_000, 32_001])
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_silence_and_constants_give_numbers(
    tiny: ImageBindAudio, samples: int, level: float
) -> None:
    embedding = tiny(torch.full((1, samples), level))
    assert embedding.isfinite().all() and embedding.norm() > 0


def test_less_than_a_frame_is_refused(tiny: ImageBindAudio) -> None:
    with pytest.raises(SoundError, match=r"25 ms") as caught:
        tiny(torch.ones(1, 399))
    assert "\n" not in str(caught.value)


def test_clips_are_spread_evenly() -> None:
    assert clip_starts(160_000) == [0, 64_000, 128_000]
    assert clip_starts(32_000) == clip_starts(400) == [0]
    assert clip_starts(32_002) == [0, 1, 2]
    assert clip_starts(77_777) == [0, 22_888, 45_777]  # as the published sampler has them


def test_half_precision_stays_close(tiny_state: dict[str, Tensor], probe: Tensor) -> None:
    tensors = {
        key: tiny_state[published_name(key)].clone() for key in ImageBindAudio(128, 2).state_dict()
    }
    full = ImageBindAudio.load(tensors)(probe)
    half = ImageBindAudio.load(tensors).to(torch.bfloat16)(probe)
    assert half.dtype == torch.float32
    assert (half - full).norm() / full.norm() < 0.05


def test_a_lost_block_does_not_pass_for_a_smaller_network(tmp_path: Path) -> None:
    keys = json.loads((REFERENCE / "imagebind_audio.keys.json").read_text())
    state = {
        key: torch.zeros(()).expand(shape)
        for key, shape in keys.items()
        if "trunks.audio.blocks.11." not in key
    }
    with pytest.raises(WeightsError, match=r"blocks\.11\..* is missing"):
        convert(store(state, tmp_path / "imagebind_huge.pth"))


@pytest.mark.parametrize(
    "change", ["missing", "extra", "token", "shape", "other", "values", "list", "html", "cut"]
)
def test_wrong_files_are_refused_in_one_line(
    tiny_state: dict[str, Tensor], tmp_path: Path, change: str
) -> None:
    state, file = dict(tiny_state), tmp_path / "imagebind_huge.pth"
    if change == "missing":
        del state["modality_heads.audio.2.weight"]
    elif change == "extra":
        state["modality_trunks.audio.blocks.last.weight"] = torch.zeros(2)
    elif change == "token":
        state["modality_preprocessors.audio.cls_token"] = torch.zeros(())
    elif change == "shape":
        key = "modality_trunks.audio.blocks.1.mlp.fc1.weight"
        state[key] = state[key][:, :64].clone()
    elif change == "other":
        state = {key: value for key, value in state.items() if ".audio." not in key}
    files = store(state, file)
    if change == "list":
        torch.save([torch.zeros(2)], file)
    elif change == "values":
        torch.save({key: 1.0 for key in state}, file)
    elif change == "html":
        file.write_text("<!DOCTYPE html><html><title>Too many users</title></html>")
    elif change == "cut":
        file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(WeightsError) as caught:
        convert(files)
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)
