"""Write docs/presets.md: which command works with which preset, and what each preset needs."""

from __future__ import annotations

from pathlib import Path

from s2v_cli.abilities import ABILITIES, why_not
from s2v_cli.presets import Preset, bundled_names, load_preset
from s2v_cli.weights.catalogue import find_asset, human_bytes

TARGET = Path(__file__).parent / "presets.md"
HEAD = """# Presets

<!-- Written by `make docs` from presets/*.toml and the catalogue of weights; a test compares. -->

A preset names a sound encoder, an image encoder and a generator that meet in one embedding space,
and the default options. `s2v presets` lists them, `s2v weights pull NAME` fetches what one needs.
"""


def reference() -> str:
    """The text of docs/presets.md."""
    shipped = map(load_preset, bundled_names())
    presets = sorted(shipped, key=lambda preset: (not preset.bundled, preset.name))
    return "\n".join([HEAD, *_commands(presets), *_parts(presets)])


def _commands(presets: list[Preset]) -> list[str]:
    reasons: list[str] = []
    lines = ["## Commands", "", _row(["command", *(f"`{preset.name}`" for preset in presets)])]
    lines.append(_row(["---"] * (len(presets) + 1)))
    for name, ability in ABILITIES.items():
        cells = [f"`{ability.command}`"]
        for preset in presets:
            reason = why_not(preset, name)
            if reason is not None and reason not in reasons:
                reasons.append(reason)
            cells.append("yes" if reason is None else f"no ({reasons.index(reason) + 1})")
        lines.append(_row(cells))
    lines += ["", *(f"{number}. {reason}." for number, reason in enumerate(reasons, 1)), ""]
    return lines


def _parts(presets: list[Preset]) -> list[str]:
    lines = ["## Parts", ""]
    for preset in presets:
        defaults = ", ".join(f"{key} {value}" for key, value in preset.generate.items())
        options = ", ".join(f"`--{name.replace('_', '-')}`" for name in preset.options)
        lines += [
            f"### `{preset.name}`: {preset.title}",
            "",
            preset.description,
            f"{preset.resolution} pixels, space {preset.space}, hears {preset.window_s:g} s at "
            f"{preset.sample_rate} Hz. Defaults: {defaults}.",
        ]
        if options:
            lines.append(f"Takes {options}.")
        lines += ["", _row(["role", "weights", "download", "licence"]), _row(["---"] * 4)]
        for weight in preset.weights:
            role = weight.role.replace("_", " ")
            if not weight.assets:
                lines.append(_row([role, "in the package", "none", preset.licence]))
            for asset in map(find_asset, weight.assets):
                size = human_bytes(asset.bytes())
                lines.append(_row([role, f"`{asset.name}`", size, asset.licence_text]))
        lines.append("")
    return lines


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
    print(TARGET)
