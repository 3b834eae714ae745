"""A finished run as a preset folder: safetensors of what was trained, and their TOML."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from s2v_cli.encoders.mini_image import MiniImageEncoder
from s2v_cli.encoders.mini_sound import MiniSoundEncoder
from s2v_cli.encoders.mini_speech import MiniSpeechEncoder
from s2v_cli.errors import OutputError, TrainingError
from s2v_cli.generators.mini import MiniGenerator
from s2v_cli.picture import write_file
from s2v_cli.presets import PRESET_FILE, Preset, load_preset
from s2v_cli.space import EmbeddingSpace
from s2v_cli.weights.store import verify_weights

TRUNCATION = 0.85  # of the noise: clearer pictures, still about as diverse as photos

_HEAD = """\
name = "{name}"
title = "{title}"
description = "{description}"
model = "{model}"
bundled = {bundled}
resolution = {resolution}
licence = "{licence}"
commercial = false
{options}
[space]
name = "{space.name}"
dimension = {space.dimension}
scale = "{space.scale}"

[sound]
sample_rate = {sample_rate}
window_s = {window_s}

[generate]
{generate}"""
_WEIGHT = """
[[weights]]
role = "{role}"
{network}file = "{file}"
bytes = {bytes}
sha256 = "{sha256}"
"""
_PUBLISHED = """
[[weights]]
role = "{role}"
network = "{network}"
assets = [{assets}]
"""


@dataclass(frozen=True)
class Network:
    """One network of a preset.

    Attributes:
        kind: which architecture reads it, as `s2v_cli.networks` knows it.
        content: safetensors, or None for published weights.
        assets: names of the published weights.
    """

    kind: str
    content: bytes | None
    assets: tuple[str, ...] = ()


def trained(kind: str, network: nn.Module, *, half: bool = True) -> Network:
    """A network that was trained here, in half precision or as it is."""
    from safetensors.torch import save

    if half:
        return Network(kind, save(half_precision(network)))
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    return Network(kind, save(state))


def taken(preset: Preset, role: str) -> Network:
    """A network as another preset has it: a copy of its file, or the same published weights.

    Raises:
        PresetError: the preset has no such role.
        WeightsError: its weights are missing or damaged.
    """
    weight = preset.weight(role)
    if not weight.file:
        return Network(weight.network, None, weight.assets)
    return Network(weight.network, verify_weights(preset, role).read_bytes())


def write_preset(
    folder: Path,
    networks: Mapping[str, Network],
    *,
    model: str,
    space: EmbeddingSpace,
    resolution: int,
    sample_rate: int,
    window_s: float,
    generate: Mapping[str, Any],
    options: Sequence[str] = (),
) -> Path:
    """Write a preset of some networks by role; returns the folder.

    Args:
        folder: where it goes.
        networks: by role, in the order of the TOML.
        model: networks named `MODEL-ROLE` need no name in the TOML.
        space: of all of them.
        resolution: side of the pictures, px.
        sample_rate: of what the sound encoder hears, Hz.
        window_s: how much it hears at once, seconds.
        generate: defaults of `GenerateOptions`.
        options: that the generator takes besides.

    Raises:
        TrainingError: the folder cannot be written.
    """
    text = _HEAD.format(
        name=folder.name,
        title="trained here",
        description="Trained by s2v train.",
        model=model,
        bundled="false",
        resolution=resolution,
        licence="as the training data allow",
        options=f"options = {json.dumps(list(options))}\n" if options else "",
        space=space,
        sample_rate=sample_rate,
        window_s=window_s,
        generate=_lines(generate),
    )
    _write(folder, "", model, text, networks, folder / PRESET_FILE)
    return folder


def _lines(generate: Mapping[str, Any]) -> str:
    """Key and value of each default, as TOML."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in generate.items())


def export_preset(
    folder: Path,
    sound_encoder: MiniSoundEncoder,
    image_encoder: MiniImageEncoder,
    generator: MiniGenerator,
    speech_encoder: MiniSpeechEncoder | None = None,
) -> Path:
    """Write a preset that `s2v gen --preset FOLDER` loads; returns the folder.

    Without a speech encoder, `s2v face` and `s2v blend` do not work with it.

    Raises:
        TrainingError: the folder cannot be written.
    """
    networks = {
        "sound_encoder": trained("mini-sound-encoder", sound_encoder),
        "image_encoder": trained("mini-image-encoder", image_encoder),
        "generator": trained("mini-generator", generator),
    }
    if speech_encoder is not None:
        networks["speech_encoder"] = trained("mini-speech-encoder", speech_encoder)
    return write_preset(
        folder,
        networks,
        model="mini",
        space=generator.space,
        resolution=generator.resolution,
        sample_rate=sound_encoder.sample_rate,
        window_s=sound_encoder.window_s,
        generate={"truncation": TRUNCATION},
    )


def bundle_preset(run: Path, presets: Path) -> Path:
    """Make the preset of a finished run the bundled `mini`; returns `presets/mini.toml`.

    Args:
        run: folder of the preset that `s2v train` wrote.
        presets: the package's folder of presets.

    Raises:
        PresetError: no preset at `run`.
        WeightsError: its weights are missing or damaged.
        TrainingError: the folder cannot be written.
    """
    preset = load_preset(run)
    text = _HEAD.format(
        name="mini",
        title="s2v mini",
        description="Small model that comes with the package: no download, runs on a CPU.",
        model="mini",
        bundled="true",
        resolution=preset.resolution,
        licence="CC BY-NC 4.0",
        options="",
        space=MiniImageEncoder.space,
        sample_rate=preset.sample_rate,
        window_s=preset.window_s,
        generate=_lines({"truncation": preset.generate["truncation"]}),
    )
    networks = {weight.role: taken(preset, weight.role) for weight in preset.weights}
    _write(presets, "mini/", "mini", text, networks, presets / "mini.toml")
    return presets / "mini.toml"


def _write(
    folder: Path,
    prefix: str,
    model: str,
    text: str,
    networks: Mapping[Any, Network],
    toml: Path,
) -> None:
    """Write weights below `folder`/`prefix` and then the TOML that lists them."""
    try:
        for role, network in networks.items():
            if network.content is None:
                assets = ", ".join(json.dumps(name) for name in network.assets)
                text += _PUBLISHED.format(role=role, network=network.kind, assets=assets)
                continue
            file = f"{prefix}{role}.safetensors"
            write_file(network.content, folder / file, overwrite=True)
            named = network.kind == f"{model}-{role.replace('_', '-')}"
            text += _WEIGHT.format(
                role=role,
                network="" if named else f'network = "{network.kind}"\n',
                file=file,
                bytes=len(network.content),
                sha256=hashlib.sha256(network.content).hexdigest(),
            )
        write_file(text.encode(), toml, overwrite=True)
    except OutputError as error:
        raise TrainingError(f"Cannot write the preset: {error}") from error


def half_precision(network: nn.Module) -> dict[str, torch.Tensor]:
    """State of a network with its float tensors in float16; integers as they are."""
    return {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in network.state_dict().items()
    }
