"""A finished run as a preset folder: half-precision safetensors and their `preset.toml`."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from torch import nn

from s2v_cli.encoders.mini_image import MiniImageEncoder
from s2v_cli.encoders.mini_sound import MiniSoundEncoder
from s2v_cli.errors import TrainingError
from s2v_cli.generators.mini import MiniGenerator

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
truncation = 1.0
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
    *,
    name: str | None = None,
    title: str = "trained here",
    description: str = "Trained by s2v train.",
    licence: str = "as the training data allow",
    bundled: bool = False,
    weights_folder: str = "",
    toml: str = "preset.toml",
) -> Path:
    """Write a preset that `s2v gen --preset FOLDER` loads; returns the folder.

    Raises:
        TrainingError: the folder cannot be written.
    """
    from safetensors.torch import save

    networks: dict[str, nn.Module] = {
        "sound_encoder": sound_encoder,
        "image_encoder": image_encoder,
        "generator": generator,
    }
    text = _HEAD.format(
        name=name or folder.name,
        title=title,
        description=description,
        bundled=str(bundled).lower(),
        resolution=generator.resolution,
        licence=licence,
        space=generator.space,
        sample_rate=sound_encoder.sample_rate,
        window_s=sound_encoder.window_s,
    )
    try:
        (folder / weights_folder).mkdir(parents=True, exist_ok=True)
        for role, network in networks.items():
            file = f"{weights_folder}{role}.safetensors"
            partial = folder / f"{file}.part"
            content = save(half_precision(network))
            partial.write_bytes(content)
            os.replace(partial, folder / file)
            text += _WEIGHT.format(
                role=role,
                file=file,
                bytes=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
            )
        partial = folder / f"{toml}.part"
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, folder / toml)
    except OSError as error:
        raise TrainingError(f"Cannot write the preset {folder}: {error.strerror}.") from None
    return folder


def half_precision(network: nn.Module) -> dict[str, torch.Tensor]:
    """State of a network with its float tensors in float16; integers as they are."""
    return {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in network.state_dict().items()
    }
