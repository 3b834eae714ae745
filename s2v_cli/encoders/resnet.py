"""Residual networks as the published encoders have them, under their published tensor names.

Plain ResNet-18 and ResNet-50: 7x7 stem with stride 2, 3x3 maximum pool with stride 2, four stages.
Widths are free, so that tests can run narrow networks; depths are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2v_cli.errors import WeightsError
from s2v_cli.weights.checkpoint import read_checkpoint, require_keys, strip_prefix

DEPTHS = {"basic": (2, 2, 2, 2), "bottleneck": (3, 4, 6, 3)}  # ResNet-18, ResNet-50


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a skip, [B, C, H, W] -> [B, C', H/s, W/s]."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = _skip(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output after its last rectifier."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 (it strides) and 1x1 convolutions around a skip."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _skip(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output after its last rectifier."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class ResNet(nn.Module):
    """The trunk: picture [B, C, H, W] -> maps of the four stages.

    Args:
        channels: of the input.
        stem: channels after the first convolution.
        widths: channels of each stage's output.
        inner: channels inside each stage's bottlenecks; None makes basic blocks (ResNet-18).
    """

    def __init__(
        self, channels: int, stem: int, widths: Sequence[int], inner: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, stem, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        inputs = stem
        for stage, outputs in enumerate(widths):
            blocks: list[nn.Module] = []
            for block in range(DEPTHS["bottleneck" if inner else "basic"][stage]):
                stride = 2 if stage and not block else 1
                if inner:
                    blocks.append(Bottleneck(inputs, inner[stage], outputs, stride))
                else:
                    blocks.append(BasicBlock(inputs, outputs, stride))
                inputs = outputs
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))

    def stages(self, x: Tensor) -> list[Tensor]:
        """Maps of the stages, at 1/4, 1/8, 1/16 and 1/32 of the input's sides."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.max_pool2d(x, 3, 2, 1)
        maps = []
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
            maps.append(x)
        return maps


def _skip(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if inputs == outputs and stride == 1:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def stage_widths(tensors: Mapping[str, Tensor], convolution: str) -> list[int]:
    """Output channels of one convolution in the first block of each stage, told by its weights.

    Raises:
        KeyError: a stage has no such convolution.
    """
    return [len(tensors[f"layer{stage}.0.{convolution}.weight"]) for stage in range(1, 5)]


def read_state(path: Path, what: str, *prefixes: str) -> dict[str, Any]:
    """What a published file holds by name, with prefixes taken off one after the other.

    Raises:
        WeightsError: unreadable, or not a dictionary.
    """
    state = read_checkpoint(path)
    if not isinstance(state, Mapping):
        raise WeightsError(f"This is not {what}: it holds {type(state).__name__}, not weights.")
    for prefix in prefixes:
        state = strip_prefix(state, prefix)
    return dict(state)


def network_tensors(
    state: Any, like: Callable[[Mapping[str, Tensor]], nn.Module], what: str
) -> dict[str, Tensor]:
    """The tensors of a published state dict in float32, checked against the network they make.

    Counters of batch norms (`num_batches_tracked`), which nothing reads, may be missing.

    Args:
        state: keys are already those of the network.
        like: makes the network of the widths that tensors have.
        what: the network and the file, for messages.

    Raises:
        WeightsError: another network's: keys are missing or unknown, or shapes do not fit.
    """
    try:
        network = like(state)
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        raise WeightsError(f"This is not {what}: {error} is missing.") from None
    expected = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    counters = {key: torch.tensor(0) for key in expected if key.endswith("num_batches_tracked")}
    state = {**counters, **state}
    require_keys(state, expected, what)
    return {
        key: state[key].float() if state[key].is_floating_point() else state[key]
        for key in expected
    }
