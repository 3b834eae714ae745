"""Downloads of weights from a command: who is asked, and in which precision."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from s2v_cli.console import Console

if TYPE_CHECKING:
    from s2v_cli.weights.pull import Dialogue, PullOptions


def dialogue_of(console: Console, *, ask: bool = True) -> Dialogue:
    """Notes and progress of a console; questions where a person can answer."""
    from s2v_cli.weights.pull import Dialogue

    answers = ask and sys.stdin.isatty() and sys.stderr.isatty()
    return Dialogue(
        ask=console.ask if answers else None, note=console.note, progress=console.progress
    )


def pull_options(
    variant: Literal["auto", "full", "fp16"],
    assets: list[str],
    weights_dir: Path | None,
    accept_licence: bool,
    accept_changed: bool = False,
) -> PullOptions:
    """How weights are got; of folders in two precisions `auto` takes half where there is CUDA."""
    from s2v_cli.weights.catalogue import find_asset
    from s2v_cli.weights.pull import PullOptions

    half = variant == "fp16"
    if variant == "auto" and any("fp16" in find_asset(name).folder_bytes for name in assets):
        import torch

        half = torch.cuda.is_available()
    return PullOptions(
        weights_dir=weights_dir,
        variant="fp16" if half else "full",
        exact_variant=variant != "auto",
        accept_licence=accept_licence,
        accept_changed=accept_changed,
    )


def have_weights(
    name: str,
    roles: Sequence[str],
    console: Console,
    *,
    weights_dir: Path | None,
    accept_licence: bool,
    yes: bool,
) -> None:
    """Download what a preset's networks lack, if it may; nothing where its files come along.

    Args:
        name: of the preset, or its folder.
        roles: networks that are about to be used; those that the preset has not are passed over.
        console: where a person is asked and told.
        weights_dir: where weights lie, if not in the cache.
        accept_licence: whether non-commercial licences are agreed to.
        yes: download without asking.
    """
    from s2v_cli.networks import converters
    from s2v_cli.presets import load_preset
    from s2v_cli.weights.pull import assets_of, ensure_weights

    preset = load_preset(name)
    there = [weight.role for weight in preset.weights if weight.role in roles]
    if assets := assets_of(preset, there):
        options = pull_options("auto", assets, weights_dir, accept_licence)
        ensure_weights(preset, there, converters(), options, dialogue_of(console), yes=yes)
