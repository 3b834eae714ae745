"""The published sound encoders of Sound2Scene and Sound2Vision: ResNet-18 over a log spectrogram.

The GAN route (Sound2Scene) ends in one linear layer and a rectifier and lives in the space of
SwAV; the diffusion route (Sound2Vision, environmental sound) ends in two linear layers and lives
in that of OpenCLIP ViT-H/14.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2v_cli.audio import spectrogram as front_end
from s2v_cli.encoders.resnet import ResNet, network_tensors, read_state, stage_widths
from s2v_cli.space import CLIP_H_SPACE, SWAV_SPACE, EmbeddingSpace

STEM = 64
WIDTHS = (64, 128, 256, 512)
PREFIX = "audnet."  # of every key in the published files


class _ResNetSoundEncoder(ResNet):
    """What both routes share: front end, trunk and pool."""

    space: ClassVar[EmbeddingSpace]
    heads: ClassVar[tuple[str, ...]]  # names of the linear layers
    sample_rate = front_end.SAMPLE_RATE
    window_s = float(front_end.DURATION_S)
    frame_s = front_end.HOP / front_end.SAMPLE_RATE

    def __init__(self, stem: int = STEM, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__(1, stem, widths)
        inputs = widths[-1]
        for head in self.heads:
            self.add_module(head, nn.Linear(inputs, self.space.dimension))
            inputs = self.space.dimension

    @classmethod
    def like(cls, tensors: Mapping[str, Tensor]) -> Self:
        """A network, without weights, of the widths that `tensors` have.

        Raises:
            KeyError: the tensors are not of such a network.
        """
        with torch.device("meta"):
            return cls(len(tensors["conv1.weight"]), tuple(stage_widths(tensors, "conv1")))

    @property
    def samples(self) -> int:
        """How many samples it hears at once."""
        return round(self.window_s * self.sample_rate)

    @property
    def frequencies_hz(self) -> Tensor:
        """Of the spectrogram's rows: float32 [257], 0 to 8000 Hz."""
        rows = torch.arange(front_end.N_FREQUENCIES, dtype=torch.float32)
        return rows * (self.sample_rate / front_end.N_FFT)

    def spectrogram(self, wave: Tensor) -> Tensor:
        """Standardised log power spectral density [B, 1, 257, T'] of wave [B, T] at 16 kHz.

        As long as `window_s`: 1004 frames for the published ten seconds.
        """
        return front_end.log_spectrogram(wave, self.samples)[:, None]

    def feature_map(self, spectrogram: Tensor) -> Tensor:
        """The last convolution's map, for Grad-CAM: [B, 512, 9, 32] of ten seconds."""
        return self.stages(spectrogram.to(self.conv1.weight.dtype))[-1]

    def embed(self, feature_map: Tensor) -> Tensor:
        """z^A [B, D] in float32, in the scale of `space`, from the map of `feature_map`."""
        raise NotImplementedError

    def _head(self, name: str, x: Tensor) -> Tensor:
        head = self.get_submodule(name)
        assert isinstance(head, nn.Linear)
        return F.linear(x, head.weight.float(), head.bias.float())

    def forward(self, wave: Tensor) -> Tensor:
        """Encode wave [B, T] at 16 kHz into z^A [B, D]; `window_s` seconds are heard."""
        return self.embed(self.feature_map(self.spectrogram(wave)))


class Sound2SceneEncoder(_ResNetSoundEncoder):
    """Wave [B, T] at 16 kHz -> z^A [B, 2048], not negative, unit norm (the GAN route)."""

    space = SWAV_SPACE
    heads = ("fc",)

    def embed(self, feature_map: Tensor) -> Tensor:
        """z^A [B, 2048]: pool, linear, rectifier, and unit norm as the generator is given it."""
        pooled = feature_map.float().mean(dim=(2, 3))
        return F.normalize(F.relu(self._head("fc", pooled)), dim=-1)


class Sound2VisionEncoder(_ResNetSoundEncoder):
    """Wave [B, T] at 16 kHz -> z^A [B, 1024] on the scale of image embeddings (diffusion route)."""

    space = CLIP_H_SPACE
    heads = ("fc", "fc2")

    def embed(self, feature_map: Tensor) -> Tensor:
        """z^A [B, 1024]: pool, linear, rectifier, linear; used as it is."""
        pooled = feature_map.float().mean(dim=(2, 3))
        return self._head("fc2", F.relu(self._head("fc", pooled)))


def convert_sound2scene(files: Mapping[str, Path]) -> dict[str, Tensor]:
    """Tensors of `Sound2SceneEncoder` from the published file `sound2scene.pth`.

    Raises:
        WeightsError: the file is not that checkpoint.
    """
    return _convert(Sound2SceneEncoder, files)


def convert_sound2vision(files: Mapping[str, Path]) -> dict[str, Tensor]:
    """Tensors of `Sound2VisionEncoder` from the published file `sound2vision_env.pth`.

    Raises:
        WeightsError: the file is not that checkpoint.
    """
    return _convert(Sound2VisionEncoder, files)


def _convert(kind: type[_ResNetSoundEncoder], files: Mapping[str, Path]) -> dict[str, Tensor]:
    """Read the raw state dict, strictly: the published code itself lets keys be missing."""
    (path,) = files.values()
    what = f"the sound encoder {kind.__name__} ({path.name})"
    return network_tensors(read_state(path, what, "module.", PREFIX), kind.like, what)
