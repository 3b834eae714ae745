"""Speech to face: the front end and head against published numbers, the ONNX path for real.

The speaker network of these tests is a small one in the published file's format, made by the
`onnx` package: mel bands `feats` [B, T, 80] to `embs` [B, 256].
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from s2v_cli.encoders import SoundEncoder
from s2v_cli.encoders.speaker import SpeakerEncoder, convert
from s2v_cli.errors import DependencyError, OptionError, SoundError, WeightsError
from s2v_cli.space import CLIP_H_SPACE
from tests.published import SPEAKER_PROJECTION, write_speaker_onnx

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

REFERENCE = Path(__file__).parents[1] / "fixtures" / "reference"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speaker_onnx(tmp_path_factory.mktemp("speaker") / "voxceleb_resnet221_LM.onnx")


@pytest.fixture(scope="module")
def head() -> dict[str, Tensor]:
    """By the rule of the reference vectors."""
    weight = np.random.default_rng(zlib.crc32(b"fc1.weight")).standard_normal((1024, 256)) / 16
    bias = np.random.default_rng(zlib.crc32(b"fc1.bias")).standard_normal(1024) * 0.1
    return {
        "fc1.weight": torch.from_numpy(weight.astype(np.float32)),
        "fc1.bias": torch.from_numpy(bias.astype(np.float32)),
    }


@pytest.fixture(scope="module")
def encoder(network: Path, head: dict[str, Tensor]) -> SpeakerEncoder:
    return SpeakerEncoder.load(network, head)


@pytest.fixture(scope="module")
def probe() -> Tensor:
    wave, rate = soundfile.read(REFERENCE / "probe.wav", dtype="float32")
    assert rate == 16_000
    return torch.from_numpy(wave)[None]


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    with np.load(REFERENCE / "sound2vision_face.npz") as arrays:
        return dict(arrays)


def test_bands_equal_the_published_front_ends(
    network: Path, head: dict[str, Tensor], probe: Tensor, reference: dict[str, np.ndarray]
) -> None:
    bands = SpeakerEncoder.load(network, head).bands(probe)[0].numpy()
    assert bands.shape == (998, 80)
    assert np.abs(bands[::32] - reference["bands_povey_every_32nd"]).max() < 1e-3
    assert np.abs(bands.mean(axis=1) - reference["bands_povey_column_means"]).max() < 1e-4
    other = SpeakerEncoder.load(network, head, window="hamming").bands(probe)[0].numpy()
    assert np.abs(other[::32] - reference["bands_hamming_every_32nd"]).max() < 1e-3
    assert np.abs(bands - other).max() > 0.1


def test_the_head_equals_the_published_code(
    head: dict[str, Tensor], reference: dict[str, np.ndarray], tmp_path: Path
) -> None:
    torch.save(head, tmp_path / "sound2vision_face.pth")
    tensors = convert({"sound2vision_face.pth": tmp_path / "sound2vision_face.pth"})
    encoder = SpeakerEncoder(session=None)
    encoder.load_state_dict(tensors)
    found = encoder.fc1(torch.from_numpy(reference["speaker"])).detach().numpy()
    error = np.linalg.norm(found - reference["embedding"]) / np.linalg.norm(reference["embedding"])
    assert error < 1e-4


def test_the_network_is_run_on_the_bands(
    encoder: SpeakerEncoder, head: dict[str, Tensor], probe: Tensor
) -> None:
    bands = encoder.bands(probe)[0].numpy().astype(np.float64)
    pooled = np.concatenate([bands.mean(axis=0), bands.std(axis=0, ddof=1)])
    speaker = encoder.speaker(probe)
    assert np.abs(speaker[0].numpy() - pooled @ SPEAKER_PROJECTION).max() < 1e-3
    embedding = encoder(probe)
    assert embedding.shape == (1, 1024) and embedding.dtype == torch.float32
    expected = speaker @ head["fc1.weight"].T + head["fc1.bias"]
    assert torch.allclose(embedding, expected, atol=1e-4)  # raw: not normalised


def test_the_last_output_counts(
    head: dict[str, Tensor], encoder: SpeakerEncoder, probe: Tensor, tmp_path: Path
) -> None:
    double = SpeakerEncoder.load(write_speaker_onnx(tmp_path / "two.onnx", outputs=2), head)
    assert torch.equal(double.speaker(probe), encoder.speaker(probe))


def test_it_is_a_sound_encoder_of_the_clip_space(encoder: SpeakerEncoder, probe: Tensor) -> None:
    assert isinstance(encoder, SoundEncoder)
    assert encoder.space == CLIP_H_SPACE
    both = encoder(torch.cat([probe, probe.flip(1) * 0.5])[:, :30_000])
    assert torch.allclose(both[0], encoder(probe[:, :30_000])[0], atol=1e-4)


def test_volume_and_offset_do_not_matter_much(encoder: SpeakerEncoder, probe: Tensor) -> None:
    """The mean over time takes a gain away; Kaldi takes each frame's offset away."""
    plain = encoder.speaker(probe)
    assert torch.allclose(encoder.speaker(probe * 0.25), plain, atol=1e-2)
    assert torch.allclose(encoder.speaker(probe + 0.05), plain, atol=1e-2)


def test_it_moves_to_half_precision(network: Path, head: dict[str, Tensor], probe: Tensor) -> None:
    half = SpeakerEncoder.load(network, head).to(torch.bfloat16)
    assert half(probe).dtype == torch.bfloat16
    assert half(probe).isfinite().all()


@pytest.mark.parametrize("level", [0.0, 0.3])
def test_silence_is_refused(encoder: SpeakerEncoder, level: float) -> None:
    with pytest.raises(SoundError, match=r"silent: it holds no voice"):
        encoder(torch.full((1, 16_000), level))


def test_less_than_a_frame_is_refused(encoder: SpeakerEncoder, probe: Tensor) -> None:
    with pytest.raises(SoundError, match=r"24.9 ms long; this model hears frames of 25 ms"):
        encoder(probe[:, :399])


def test_one_frame_is_too_short_to_know_a_voice(encoder: SpeakerEncoder, probe: Tensor) -> None:
    assert encoder(probe[:, :560]).isfinite().all()
    with pytest.raises(SoundError, match=r"0.0312 s long, too short to know a voice"):
        encoder(probe[:, :500])


@pytest.mark.parametrize(
    "damage", ["missing", "cut", "html", "empty", "folder", "bands", "size", "rank"]
)
def test_wrong_network_files_are_refused_in_one_line(
    network: Path, head: dict[str, Tensor], tmp_path: Path, damage: str
) -> None:
    file = tmp_path / "voxceleb_resnet221_LM.onnx"
    content = network.read_bytes()
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "html":
        file.write_text("<!DOCTYPE html><html><title>Sign in</title></html>")
    elif damage == "empty":
        file.touch()
    elif damage == "folder":
        file.mkdir()
    elif damage == "bands":
        write_speaker_onnx(file, bands=64)
    elif damage == "size":
        write_speaker_onnx(file, size=192)
    elif damage == "rank":
        write_speaker_onnx(file, rank=2)
    with pytest.raises(WeightsError, match=r"s2v weights pull") as caught:
        SpeakerEncoder.load(file, head)
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)


def test_a_network_that_fails_while_running_is_a_weights_error(
    head: dict[str, Tensor], tmp_path: Path, probe: Tensor
) -> None:
    """A graph whose reshape only fits sounds of 2 frames."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("Reshape", ["feats", "shape"], ["flat"]),
            helper.make_node("MatMul", ["flat", "projection"], ["embs"]),
        ],
        "speaker",
        [helper.make_tensor_value_info("feats", kind, ["B", "T", 80])],
        [helper.make_tensor_value_info("embs", kind, ["B", 256])],
        [
            onnx.numpy_helper.from_array(np.array([1, 160], dtype=np.int64), "shape"),
            onnx.numpy_helper.from_array(SPEAKER_PROJECTION, "projection"),
        ],
    )
    opset = helper.make_opsetid("", 14)
    file = tmp_path / "fixed.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), str(file))
    encoder = SpeakerEncoder.load(file, head)
    assert encoder(probe[:, :560]).shape == (1, 1024)
    with pytest.raises(WeightsError, match=r"speaker network failed") as caught:
        encoder(probe)
    assert "\n" not in str(caught.value)


def test_threads_follow_torch(
    network: Path, head: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    encoder = SpeakerEncoder.load(network, head)
    options = encoder._session.get_session_options()
    assert options.intra_op_num_threads == 3
    assert encoder._session.get_providers() == ["CPUExecutionProvider"]


def test_without_onnxruntime_the_command_is_named(
    network: Path, head: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DependencyError, match=r"pip install 's2v-cli\[face\]'"):
        SpeakerEncoder.load(network, head)


def test_an_unknown_window_is_refused(network: Path, head: dict[str, Tensor]) -> None:
    with pytest.raises(OptionError, match=r"window is 'hann'; allowed: povey, hamming"):
        SpeakerEncoder.load(network, head, window="hann")  # type: ignore[arg-type]


def test_wrong_heads_are_refused(head: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / "sound2vision_face.pth"
    wrong: list[Any] = [
        {"fc1.weight": head["fc1.weight"]},
        {**head, "fc2.weight": torch.zeros(2)},
        {**head, "fc1.bias": torch.zeros(2048)},
    ]
    for state in wrong:
        torch.save(state, file)
        with pytest.raises(WeightsError) as caught:
            convert({file.name: file})
        assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_another_head_is_refused_when_loading(network: Path, head: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match=r"head of the speech encoder"):
        SpeakerEncoder.load(network, {**head, "fc1.bias": torch.zeros(2048)})
