"""The sound encoder that is trained: its architecture follows the teacher's embedding space."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from s2v_cli.errors import TrainingError

if TYPE_CHECKING:
    from s2v_cli.pipeline import Sound2Vision

NETWORKS = {  # family of spaces -> network, as `s2v_cli.networks` knows it, and its class
    "mini": ("mini-sound-encoder", "encoders.mini_sound:MiniSoundEncoder"),
    "swav": ("sound2scene-sound-encoder", "encoders.sound2vision_sound:Sound2SceneEncoder"),
    "openclip-vit-h": (
        "sound2vision-sound-encoder",
        "encoders.sound2vision_sound:Sound2VisionEncoder",
    ),
}


def network_of(teacher: Sound2Vision) -> str:
    """Name of the network that is trained towards a teacher.

    Raises:
        TrainingError: no sound encoder of ours writes into its space.
    """
    return _home(teacher)[0]


def _home(teacher: Sound2Vision) -> tuple[str, str]:
    found = NETWORKS.get(teacher.space.family)
    if found is None:
        raise TrainingError(
            f"No sound encoder can be trained for the space {teacher.space} of preset "
            f"{teacher.preset.name!r}; allowed: presets of the spaces {', '.join(NETWORKS)}."
        )
    return found


def build_encoder(
    teacher: Sound2Vision, window_s: float, seed: int, *, from_weights: bool = False
) -> nn.Module:
    """A sound encoder into a teacher's space, on the CPU.

    Args:
        teacher: whose space it writes.
        window_s: how much sound it hears at once, seconds.
        seed: of random weights.
        from_weights: begin with the teacher's own sound encoder instead.

    Raises:
        TrainingError: there is none for the space, or the teacher's own one is another network.
    """
    from importlib import import_module

    file, name = _home(teacher)[1].split(":")
    kind = getattr(import_module(f"s2v_cli.{file}"), name)
    if from_weights and type(teacher.sound_encoder) is not kind:
        raise TrainingError(
            f"from_weights begins with the sound encoder of preset {teacher.preset.name!r}, but "
            f"that is no {network_of(teacher)}. Train it from random weights."
        )
    if from_weights:  # in its own widths
        own = teacher.sound_encoder
        assert isinstance(own, nn.Module)
        encoder: nn.Module = copy.deepcopy(own).float().cpu()
        _forget_what_is_fitted(encoder)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = kind()
    encoder.window_s = float(window_s)  # type: ignore[assignment]
    return encoder.requires_grad_(True)


def _forget_what_is_fitted(encoder: nn.Module) -> None:
    """Take out what is fitted after training, since it is fitted again."""
    for name in (
        "bridge",
        "bridge_offset",
        "prototypes",
        "prior_share",
        "reader",
        "reader_offset",
        "centres",
    ):
        buffer = getattr(encoder, name, None)
        if buffer is not None:
            buffer.zero_()
    if hasattr(encoder, "calibration"):  # every sound counts as familiar
        calibration = encoder.get_buffer("calibration")
        calibration.copy_(torch.tensor([1.0, 0.0, 0.0]))
