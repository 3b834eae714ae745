"""Where to compute, and how precisely."""

from __future__ import annotations

import torch

from s2v_cli.abilities import DIFFUSION
from s2v_cli.errors import DeviceError
from s2v_cli.presets import Preset

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def find_device(choice: str) -> torch.device:
    """The device of a choice: `auto` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        DeviceError: this machine does not have it.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if choice == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available.get(choice, False):
        names = ", ".join(name for name, there in available.items() if there)
        raise DeviceError(f"device is {choice!r}; this machine has: {names} (or auto).")
    return torch.device(choice)


def find_dtype(choice: str, device: torch.device, preset: Preset) -> torch.dtype:
    """The precision of a choice: `auto` is float32, but float16 for diffusion models on CUDA.

    Raises:
        DeviceError: unknown, or not for that device.
    """
    if choice == "auto":  # GANs and `mini` are small, and a seed stays closer across devices
        diffusion = preset.weight("generator").network in DIFFUSION
        return torch.float16 if device.type == "cuda" and diffusion else torch.float32
    if choice not in _DTYPES:
        raise DeviceError(f"dtype is {choice!r}; allowed: auto, {', '.join(_DTYPES)}.")
    if choice == "float16" and device.type == "cpu":
        raise DeviceError("dtype is 'float16'; on the CPU allowed: auto, float32, bfloat16.")
    return _DTYPES[choice]
