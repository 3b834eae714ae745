"""What a preset can be used for, and why not: told from its networks, before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from s2v_cli.errors import OptionError
from s2v_cli.presets import Preset, list_presets

DIFFUSION = frozenset({"unclip-generator", "ip-adapter-generator"})
CONVOLUTIONAL = frozenset(
    {"mini-sound-encoder", "sound2scene-sound-encoder", "sound2vision-sound-encoder"}
)


@dataclass(frozen=True)
class Ability:
    """Something that commands do.

    Attributes:
        command: as it is typed.
        roles: networks of the preset that take part.
        obstacle: why a preset that has these networks cannot do it all the same; None if it can.
    """

    command: str
    roles: tuple[str, ...]
    obstacle: Callable[[Preset], str | None] = lambda _: None


def _needs_diffusion(preset: Preset) -> str | None:
    if preset.weight("generator").network in DIFFUSION:
        return None
    return "its generator is no diffusion model"


def _needs_convolution(preset: Preset) -> str | None:
    network = preset.weight("sound_encoder").network
    if network in CONVOLUTIONAL:
        return None
    return f"its sound encoder ({network}) has no convolution that gradients reach"


def _needs_environment(preset: Preset) -> str | None:
    networks = {preset.weight(role).network for role in ("sound_encoder", "speech_encoder")}
    if len(networks) > 1:
        return None
    return "its sound encoder hears speakers, not their environment"


_DRAWN = ("sound_encoder", "generator")
_COMPARED = (*_DRAWN, "image_encoder")
ABILITIES = {
    "gen": Ability("gen", _DRAWN),
    "best-of": Ability("gen --best-of", _COMPARED),
    "mix": Ability("mix", _DRAWN),
    "interp": Ability("interp", _COMPARED),
    "sdedit": Ability("interp --mode sdedit", _COMPARED, _needs_diffusion),
    "compose": Ability("interp --mode compose", _COMPARED, _needs_diffusion),
    "edit": Ability("edit", _COMPARED),
    "face": Ability("face", ("speech_encoder", "generator")),
    "blend": Ability("blend", ("speech_encoder", *_DRAWN), _needs_environment),
    "explain": Ability("explain", _COMPARED, _needs_convolution),
    "animate": Ability("animate", _DRAWN),
    "nearest": Ability("nearest", ("sound_encoder", "image_encoder")),
    "replay": Ability("replay", _DRAWN),
}


def why_not(preset: Preset, name: str) -> str | None:
    """Why a preset cannot do what `ABILITIES[name]` is; None if it can."""
    ability = ABILITIES[name]
    there = {weight.role for weight in preset.weights}
    for role in ability.roles:
        if role not in there:
            return f"it has no {role.replace('_', ' ')} in the space {preset.space.name}"
    return ability.obstacle(preset)


def require_ability(preset: Preset, name: str) -> None:
    """Refuse a command that a preset cannot do.

    Raises:
        OptionError: says why, and which presets can.
    """
    reason = why_not(preset, name)
    if reason is None:
        return
    able = [other.name for other in list_presets() if why_not(other, name) is None]
    raise OptionError(
        f"preset is {preset.name!r}, which cannot do 's2v {ABILITIES[name].command}': {reason}; "
        f"allowed: {', '.join(able)}."
    )
