"""Which network plays a role in a preset, and how its weights get into it.

Networks are imported when they are asked for: `mini` imports neither diffusers nor transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2v_cli.errors import PresetError, WeightsError
from s2v_cli.presets import Preset, WeightFile
from s2v_cli.weights.store import load_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class Setting:
    """What a network is built for.

    Attributes:
        preset: that it is part of.
        weight: its entry among the preset's weights.
        device: where it computes.
        dtype: in which precision.
        low_vram: whether large models save graphics memory.
        weights_dir: where the weights lie, if not where the preset says.
    """

    preset: Preset
    weight: WeightFile
    device: torch.device
    dtype: torch.dtype
    low_vram: bool = False
    weights_dir: Path | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Weights of one network, from the preset's own file or its first published asset."""
        return load_weights(self.preset, self.weight.role, self.weights_dir)


def build_network(setting: Setting) -> Any:
    """A network with its weights, ready to be called.

    Raises:
        PresetError: no network has that name.
        WeightsError: weights missing, damaged or of another network.
    """
    builder = _BUILDERS.get(setting.weight.network)
    if builder is None:
        raise PresetError(
            f"Preset {setting.preset.name!r} has the unknown model {setting.preset.model!r} "
            f"(network {setting.weight.network!r}); known: {', '.join(_BUILDERS)}."
        )
    return builder(setting)


def _module(home: str) -> Callable[[Setting], nn.Module]:
    """Builds a module of fixed shape, `package.file:Class`."""

    def build(setting: Setting) -> nn.Module:
        import torch

        tensors = setting.tensors()
        with torch.device("meta"):  # no time and memory for weights that are replaced at once
            module: nn.Module = _find(home)()
        return _filled(module, tensors, setting)

    return build


def _find(home: str) -> Any:
    file, name = home.split(":")
    return getattr(import_module(f"s2v_cli.{file}"), name)


def _filled(module: nn.Module, tensors: Mapping[str, Tensor], setting: Setting) -> nn.Module:
    import torch

    try:
        module.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[1:2] or [str(error)]
        raise WeightsError(
            f"The weights for {setting.weight.role} of preset {setting.preset.name!r} are of "
            f"another network: {reason[0].strip()[:200]}"
        ) from None
    module.to(setting.device, setting.dtype).eval().requires_grad_(False)
    if setting.device.type == "cpu":  # convolutions are up to twice as fast so
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module


_BUILDERS: dict[str, Callable[[Setting], Any]] = {
    "mini-sound-encoder": _module("encoders.mini_sound:MiniSoundEncoder"),
    "mini-image-encoder": _module("encoders.mini_image:MiniImageEncoder"),
    "mini-speech-encoder": _module("encoders.mini_sound:MiniSoundEncoder"),
    "mini-generator": _module("generators.mini:MiniGenerator"),
}
