"""Which precision networks are trained in."""

from __future__ import annotations

import contextlib
from functools import cache

import torch


def mixed_precision() -> contextlib.AbstractContextManager[None]:
    """Compute in bfloat16 where the CPU has instructions for it, else in float32.

    A CPU without them emulates bfloat16, which takes ten times as long as float32 or more
    (measured on AVX2).
    """
    return torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16())


@cache
def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 natively (AVX512-BF16, AMX, Arm BF16)."""
    find = getattr(torch.cpu, "get_capabilities", None)  # since torch 2.11
    found = find() if find else {}
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16"))
