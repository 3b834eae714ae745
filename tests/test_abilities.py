"""What a preset can be used for, told before anything is loaded."""

from __future__ import annotations

import pytest

from s2v_cli.abilities import ABILITIES, CONVOLUTIONAL, DIFFUSION, require_ability, why_not
from s2v_cli.errors import OptionError
from s2v_cli.networks import known_networks
from s2v_cli.presets import list_presets, load_preset


def test_every_preset_draws() -> None:
    for preset in list_presets():
        for name in ("gen", "mix", "animate", "replay", "interp", "edit", "nearest"):
            assert why_not(preset, name) is None


@pytest.mark.parametrize(
    ("preset", "name", "reason"),
    [
        ("mini", "sdedit", "its generator is no diffusion model"),
        ("sound2scene", "face", "it has no speech encoder in the space swav"),
        ("sound2vision-face", "blend", "its sound encoder hears speakers"),
        ("imagebind", "explain", "has no convolution that gradients reach"),
    ],
)
def test_reasons(preset: str, name: str, reason: str) -> None:
    assert reason in str(why_not(load_preset(preset), name))
    with pytest.raises(OptionError) as caught:
        require_ability(load_preset(preset), name)
    message = str(caught.value)
    assert message.startswith(f"preset is {preset!r}, which cannot do 's2v ")
    able = message.rpartition("allowed: ")[2].removesuffix(".").split(", ")
    assert preset not in able
    assert all(why_not(load_preset(other), name) is None for other in able)


def test_networks_are_real() -> None:
    assert known_networks() >= DIFFUSION | CONVOLUTIONAL
    for preset in list_presets():
        assert {weight.network for weight in preset.weights} <= known_networks()
    assert len({ability.command for ability in ABILITIES.values()}) == len(ABILITIES)
