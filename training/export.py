"""A finished run as a preset folder: half-precision safetensors and their TOML."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
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
from s2v_cli.presets import PRESET_FILE, load_preset
from s2v_cli.weights.store import verify_weights

TRUNCATION = 0.85  # of the noise: clearer pictures, still about as diverse as photos

_HEAD = """\
name = "{name}"
title = "{title}"
description = "{description}"
model = "mini"
bundled = {bundled}
resolution = {resolution}
licence = "{licence}"
commercial = false

[space]
name = "{space.name}"
dimension = {space.dimension}
scale = "{space.scale}"

[sound]
sample_rate = {sample_rate}
window_s = {window_s}

[generate]
truncation = {truncation}
"""
_WEIGHT = """
[[weights]]
role = "{role}"
file = "{file}"
bytes = {bytes}
sha256 = "{sha256}"
"""


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
    from safetensors.torch import save

    networks: dict[str, nn.Module] = {
        "sound_encoder": sound_encoder,
        "image_encoder": image_encoder,
        "generator": generator,
    }
    if speech_encoder is not None:
        networks["speech_encoder"] = speech_encoder
    text = _HEAD.format(
        name=folder.name,
        title="trained here",
        description="Trained by s2v train.",
        bundled="false",
        resolution=generator.resolution,
        licence="as the training data allow",
        space=generator.space,
        sample_rate=sound_encoder.sample_rate,
        window_s=sound_encoder.window_s,
        truncation=TRUNCATION,
    )
    files = {role: save(half_precision(network)) for role, network in networks.items()}
    _write(folder, "", text, files, folder / PRESET_FILE)
    return folder


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
        bundled="true",
        resolution=preset.resolution,
        licence="CC BY-NC 4.0",
        space=preset.space,
        sample_rate=preset.sample_rate,
        window_s=preset.window_s,
        truncation=preset.generate["truncation"],
    )
    files = {w.role: verify_weights(preset, w.role).read_bytes() for w in preset.weights}
    _write(presets, "mini/", text, files, presets / "mini.toml")
    return presets / "mini.toml"


def _write(folder: Path, prefix: str, text: str, files: Mapping[Any, bytes], toml: Path) -> None:
    """Write weights below `folder`/`prefix` and then the TOML that lists them."""
    try:
        for role, content in files.items():
            file = f"{prefix}{role}.safetensors"
            write_file(content, folder / file, overwrite=True)
            sha256 = hashlib.sha256(content).hexdigest()
            text += _WEIGHT.format(role=role, file=file, bytes=len(content), sha256=sha256)
        write_file(text.encode(), toml, overwrite=True)
    except OutputError as error:
        raise TrainingError(f"Cannot write the preset: {error}") from error


def half_precision(network: nn.Module) -> dict[str, torch.Tensor]:
    """State of a network with its float tensors in float16; integers as they are."""
    return {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in network.state_dict().items()
    }
