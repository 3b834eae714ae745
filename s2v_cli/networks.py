"""Which network plays a role in a preset, and how its weights get into it.

Networks are imported when they are asked for: `mini` imports neither diffusers nor transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2v_cli.errors import PresetError, WeightsError
from s2v_cli.presets import Preset, WeightFile
from s2v_cli.space import EmbeddingSpace
from s2v_cli.weights import store

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
        """Weights of one network, from the preset's own file or its published asset."""
        if self.weight.file:
            return store.load_weights(self.preset, self.weight.role, self.weights_dir)
        return store.load_asset(self.weight.assets[0], self.weights_dir)

    @property
    def encoder_dtype(self) -> torch.dtype:
        """Encoders are small and their scale matters: half precision is for generators only."""
        import torch

        return torch.float32 if self.dtype == torch.float16 else self.dtype


Convert = Callable[[Mapping[str, Path]], "dict[str, Tensor]"]


def converters() -> dict[str, Convert]:
    """What turns the published files of an asset into its network's tensors, by asset.

    Assets that are not listed are kept as they were published.
    """
    return {asset: partial(_convert, home) for asset, home in _CONVERTERS.items()}


def _convert(home: str, files: Mapping[str, Path]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = _find(home)(files)
    return tensors


_CONVERTERS = {
    "sound2scene-audio": "encoders.sound2vision_sound:convert_sound2scene",
    "sound2vision-audio": "encoders.sound2vision_sound:convert_sound2vision",
    "sound2vision-face": "encoders.speaker:convert",
    "swav-resnet50": "encoders.swav:convert",
    "icgan-128": "generators.biggan_weights:convert_128",
    "icgan-256": "generators.biggan_weights:convert_256",
    "imagebind-audio": "encoders.imagebind:convert",
    "inception-vggsound": "encoders.inception:convert_vggsound",
    "inception-fid": "encoders.inception:convert_fid",
}


def known_networks() -> frozenset[str]:
    """Names that a preset's weights may give as `network`."""
    return frozenset(_BUILDERS)


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


def _module(
    home: str, *, like: bool = False, window: bool = False
) -> Callable[[Setting], nn.Module]:
    """Builds the module `package.file:Class`.

    Its widths follow the weights if `like`. A sound encoder hears as much at once as the preset
    says if `window`.
    """

    def build(setting: Setting) -> nn.Module:
        import torch

        tensors = setting.tensors()
        kind = _find(home)
        try:
            with torch.device("meta"):  # no time and memory for weights that are replaced at once
                module: nn.Module = kind.like(tensors) if like else kind()
        except KeyError as error:
            raise _of_another_version(setting, kind.space, error) from None
        own, space = getattr(module, "space", None), setting.preset.space
        if own is not None and own.family == space.family:  # which of them, the preset knows
            module.space = space  # type: ignore[assignment]
        if window:
            module.window_s = float(setting.preset.window_s)  # type: ignore[assignment]
        return _filled(module, tensors, setting)

    return build


def _biggan(setting: Setting) -> nn.Module:
    """ICGAN's generator in the space of the preset: the published one, or one trained here."""
    import torch

    from s2v_cli.generators.biggan import BigGan

    tensors = setting.tensors()
    with torch.device("meta"):
        module = BigGan.like(tensors, setting.preset.space)
    return _filled(module, tensors, setting)


def _speaker(setting: Setting) -> Any:
    """The speaker network, kept as ONNX, and the head that reads it."""
    from s2v_cli.encoders.speaker import SpeakerEncoder

    network, head = setting.weight.assets
    return SpeakerEncoder.load(
        store.asset_file(network, setting.weights_dir),
        store.load_asset(head, setting.weights_dir),
        device=setting.device,
    )


def _clip_image(setting: Setting) -> Any:
    from s2v_cli.encoders.clip_image import ClipImageEncoder

    folder = store.asset_folder(setting.weight.assets[0], setting.weights_dir)
    return ClipImageEncoder.load(folder, device=setting.device, dtype=setting.encoder_dtype)


def _unclip(setting: Setting) -> Any:
    from s2v_cli.generators.unclip import UnclipGenerator

    return UnclipGenerator.load(
        store.asset_folder(setting.weight.assets[0], setting.weights_dir),
        device=setting.device,
        dtype=setting.dtype,
        low_vram=setting.low_vram,
        cache=store.cache_folder() / "prompts",
    )


def _ip_adapter(setting: Setting) -> Any:
    from s2v_cli.generators.ip_adapter import IpAdapterGenerator

    adapter, diffusion = setting.weight.assets
    return IpAdapterGenerator.load(
        store.asset_folder(diffusion, setting.weights_dir),
        store.asset_file(adapter, setting.weights_dir),
        device=setting.device,
        dtype=setting.dtype,
        low_vram=setting.low_vram,
        cache=store.cache_folder() / "prompts",
    )


def _find(home: str) -> Any:
    file, name = home.split(":")
    return getattr(import_module(f"s2v_cli.{file}"), name)


def _of_another_network(setting: Setting, reason: str) -> WeightsError:
    return WeightsError(
        f"The weights for {setting.weight.role} of preset {setting.preset.name!r} are of another "
        f"network: {reason}"
    )


def _of_another_version(setting: Setting, own: EmbeddingSpace, lacking: KeyError) -> WeightsError:
    """Weights without what a network of this version has."""
    preset = setting.preset
    if preset.space.family != own.family or preset.space == own:
        return _of_another_network(setting, f"they lack {lacking}")
    return WeightsError(
        f"Preset {preset.name!r} is of the space {preset.space}, which another version of s2v "
        f"made; the one of this version is {own}, and its {setting.weight.role} has {lacking} "
        "besides. Train the preset again, or use the version that made it."
    )


def _filled(module: nn.Module, tensors: Mapping[str, Tensor], setting: Setting) -> nn.Module:
    import torch

    try:
        module.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[1:2] or [str(error)]
        raise _of_another_network(setting, reason[0].strip()[:200]) from None
    is_generator = setting.weight.role == "generator"
    dtype = setting.dtype if is_generator else setting.encoder_dtype
    module.to(setting.device, dtype).eval().requires_grad_(False)
    if setting.device.type == "cpu":  # convolutions are up to twice as fast so
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module


_BUILDERS: dict[str, Callable[[Setting], Any]] = {
    "mini-sound-encoder": _module("encoders.mini_sound:MiniSoundEncoder", like=True, window=True),
    "mini-image-encoder": _module("encoders.mini_image:MiniImageEncoder"),
    "mini-speech-encoder": _module("encoders.mini_speech:MiniSpeechEncoder", like=True),
    "mini-generator": _module("generators.mini:MiniGenerator"),
    "sound2scene-sound-encoder": _module(
        "encoders.sound2vision_sound:Sound2SceneEncoder", like=True, window=True
    ),
    "sound2vision-sound-encoder": _module(
        "encoders.sound2vision_sound:Sound2VisionEncoder", like=True, window=True
    ),
    "swav-image-encoder": _module("encoders.swav:SwavResNet50", like=True),
    "icgan-generator": _biggan,
    "imagebind-sound-encoder": _module("encoders.imagebind:ImageBindAudio", like=True),
    "wespeaker-face-encoder": _speaker,
    "clip-image-encoder": _clip_image,
    "unclip-generator": _unclip,
    "ip-adapter-generator": _ip_adapter,
}
