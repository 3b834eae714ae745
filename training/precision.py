"""Which precision networks are trained in."""

from __future__ import annotations

import contextlib
from functools import cache

import torch
from torch import nn

from s2v_cli.errors import OptionError

CPU = torch.device("cpu")


def mixed_precision(device: torch.device = CPU) -> contextlib.AbstractContextManager[None]:
    """Compute in bfloat16 where the device has instructions for it, else in float32.

    A CPU without them emulates bfloat16, which takes ten times as long as float32 or more
    (measured on AVX2).
    """
    half = half_precision_of("auto", device)
    if device.type not in ("cpu", "cuda"):
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16, enabled=half is not None)


def device_of(module: nn.Module) -> torch.device:
    """Where a network's first parameter lies."""
    return next(module.parameters()).device


@cache
def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 natively (AVX512-BF16, AMX, Arm BF16)."""
    find = getattr(torch.cpu, "get_capabilities", None)  # since torch 2.11
    found = find() if find else {}
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16"))


def half_precision_of(choice: str, device: torch.device) -> torch.dtype | None:
    """The type that convolutions and products are computed in beside float32; None for none.

    Args:
        choice: `auto` is bfloat16 where the device multiplies it natively, else float32.
        device: that computes.

    Raises:
        OptionError: float16 on a CPU, where the loss could not be scaled to fit.
    """
    if choice == "float16":
        if device.type == "cpu":
            raise OptionError("precision is 'float16'; on a CPU allowed: auto, float32, bfloat16.")
        return torch.float16
    if choice == "bfloat16":
        return torch.bfloat16
    if choice == "float32":
        return None
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    return torch.bfloat16 if device.type == "cpu" and has_bfloat16() else None
