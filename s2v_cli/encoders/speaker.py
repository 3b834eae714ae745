"""Speech to face (§6.2): a WeSpeaker speaker embedding and one linear layer into CLIP's space.

The speaker network is WeSpeaker's ResNet221, kept as the ONNX file that is published and run by
onnxruntime on the CPU. The linear layer is Sound2Vision's, trained to meet un-normalised image
embeddings of OpenCLIP ViT-H/14; its output is used as it is.

The front end follows WeSpeaker's own command line, which Sound2Vision calls: Kaldi's defaults
(Povey window) with 80 mel bands on samples at int16 scale, less the mean over time, and no cut
by voice activity.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from s2v_cli.audio import kaldi
from s2v_cli.errors import DependencyError, OptionError, SoundError, WeightsError
from s2v_cli.space import CLIP_H_SPACE
from s2v_cli.weights.checkpoint import read_checkpoint, require_keys

MEL_BANDS = 80
SPEAKER_SIZE = 256  # of the speaker embedding
INT16_SCALE = 32_768.0  # WeSpeaker reads samples as integers
HEAD = {
    "fc1.weight": (CLIP_H_SPACE.dimension, SPEAKER_SIZE),
    "fc1.bias": (CLIP_H_SPACE.dimension,),
}
WINDOWS: tuple[kaldi.KaldiWindow, ...] = ("povey", "hamming")


class SpeakerEncoder(nn.Module):
    """Speech, wave [B, T] at 16 kHz -> z^A [B, 1024] on the scale of raw CLIP ViT-H embeddings.

    No gradient flows through the speaker network.
    """

    space = CLIP_H_SPACE
    sample_rate = kaldi.SAMPLE_RATE
    # The network pools over time, so that any length works, and the published code hears a file
    # whole. Ten seconds are the paper's clips, enough to know a voice, and bound the memory.
    window_s = 10.0

    def __init__(self, session: Any, window: kaldi.KaldiWindow = "povey") -> None:
        super().__init__()
        self._session = session
        self._window: kaldi.KaldiWindow = window
        self.fc1 = nn.Linear(SPEAKER_SIZE, self.space.dimension)

    @classmethod
    def load(
        cls,
        onnx_file: Path,
        head: Mapping[str, Tensor],
        *,
        device: torch.device | str = "cpu",
        window: kaldi.KaldiWindow = "povey",
    ) -> SpeakerEncoder:
        """The encoder from a speaker network and the tensors `fc1.weight` and `fc1.bias`.

        Args:
            onnx_file: WeSpeaker's export: mel bands [B, T, 80] to speaker embedding [B, 256].
            head: what `convert` returned.
            device: of the linear layer and of the result; the speaker network runs on the CPU.
            window: of the filter bank; `hamming` is what WeSpeaker's ONNX example uses.

        Raises:
            WeightsError: the file is missing, damaged or another kind of network, or the head is.
            DependencyError: onnxruntime is missing.
            OptionError: unknown window.
        """
        if window not in WINDOWS:
            raise OptionError(f"window is {window!r}; allowed: {', '.join(WINDOWS)}.")
        require_keys(head, HEAD, "the head of the speech encoder")
        session = _open_session(onnx_file)
        with torch.device("meta"):
            encoder = cls(session, window)
        encoder.load_state_dict(dict(head), strict=True, assign=True)
        return encoder.to(device).eval().requires_grad_(False)

    def bands(self, wave: Tensor) -> Tensor:
        """What the speaker network hears of wave float [B, T]: float32 [B, frames, 80], on the CPU.

        Raises:
            SoundError: the wave is shorter than one frame of 25 ms, or silent.
        """
        wave = wave.float().cpu()
        kaldi.require_frame(wave)
        if bool((wave == wave[:, :1]).all(dim=1).any()):
            raise SoundError("The sound is silent: it holds no voice. Give a recording of speech.")
        bands = kaldi.kaldi_log_mel(wave * INT16_SCALE, MEL_BANDS, self._window)
        return bands - bands.mean(dim=1, keepdim=True)

    def speaker(self, wave: Tensor) -> Tensor:
        """WeSpeaker's embedding of wave float [B, T] at 16 kHz: float32 [B, 256], on the CPU.

        Raises:
            SoundError: the wave is too short for the network, or silent.
        """
        bands = self.bands(wave)
        name = self._session.get_inputs()[0].name
        try:
            embedding = torch.from_numpy(self._session.run(None, {name: bands.numpy()})[-1])
        except Exception as error:  # onnxruntime's errors have no base class of their own
            raise WeightsError(
                f"The speaker network failed ({_reason(error)}). Pull its file again with "
                "s2v weights pull."
            ) from error
        if not bool(embedding.isfinite().all()):  # its pooling has a deviation over time
            raise SoundError(
                f"The speech is {wave.shape[1] / self.sample_rate:.3g} s long, too short to know "
                "a voice. Give at least a second."
            )
        return embedding

    def forward(self, wave: Tensor) -> Tensor:
        """Encode wave float [B, T] at 16 kHz into z^A float [B, 1024], not normalised.

        Raises:
            SoundError: the wave is too short for the network, or silent.
        """
        embedding: Tensor = self.fc1(self.speaker(wave).to(self.fc1.weight))
        return embedding


def convert(files: Mapping[str, Path]) -> dict[str, Tensor]:
    """The linear layer of the published `sound2vision_face.pth`, a raw state dict.

    The published code loads it with `strict=False`; here nothing may be missing or left over.

    Raises:
        WeightsError: the file is damaged or of another network.
    """
    (file,) = files.values()
    state = read_checkpoint(file)
    require_keys(state, HEAD, str(file))
    return {key: tensor.float().contiguous().clone() for key, tensor in state.items()}


def _open_session(onnx_file: Path) -> Any:
    """An onnxruntime session of a speaker network, checked for what goes in and comes out."""
    try:
        onnxruntime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise DependencyError(
            "Speech needs onnxruntime, which is not installed: pip install 's2v-cli[face]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors are raised; warnings would go to stderr
    # Its threads would go on spinning while torch draws the picture.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(
            str(onnx_file), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors have no base class of their own
        raise _unusable(onnx_file, _reason(error)) from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or not _fits(inputs[0], (None, None, MEL_BANDS)):
        raise _unusable(onnx_file, f"it takes {_shapes(inputs)}, not [B, T, {MEL_BANDS}]")
    if not _fits(outputs[-1], (None, SPEAKER_SIZE)):
        raise _unusable(onnx_file, f"it returns {_shapes(outputs)}, not [B, {SPEAKER_SIZE}]")
    return session


def _fits(value: Any, sizes: tuple[int | None, ...]) -> bool:
    """Whether an ONNX value is float32 of these sizes; None, here or there, is any size."""
    return (
        value.type == "tensor(float)"
        and len(value.shape) == len(sizes)
        and all(
            size is None or not isinstance(found, int) or found == size
            for found, size in zip(value.shape, sizes, strict=True)
        )
    )


def _shapes(values: Any) -> str:
    return ", ".join(f"{value.type} {list(value.shape)}" for value in values)


def _unusable(onnx_file: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"{onnx_file} is no WeSpeaker network ({reason}). Pull it again with s2v weights pull, or "
        "import the published voxceleb_resnet221_LM.onnx."
    )


def _reason(error: Exception) -> str:
    """The last part of an onnxruntime message, in one line."""
    return " ".join(str(error).split()).rpartition(" failed:")[2].rstrip(".")
