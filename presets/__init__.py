"""Presets: one TOML names a model, its embedding space, its weights and its default options.

A preset is found by its name or by a path: a folder that holds `preset.toml`, or a TOML file.
Options merge in one order: defaults < preset < flags. Unknown keys fail.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Literal, get_args

from s2v_cli.errors import OptionError, PresetError
from s2v_cli.options import MODEL_OPTIONS, GenerateOptions
from s2v_cli.space import EmbeddingSpace

__all__ = [
    "Preset",
    "WeightFile",
    "WeightRole",
    "bundled_names",
    "installed_folder",
    "installed_names",
    "list_presets",
    "load_preset",
    "preset_names",
    "read_preset",
]

WeightRole = Literal["sound_encoder", "image_encoder", "speech_encoder", "generator"]

PRESET_FILE = "preset.toml"  # of a preset that is a folder

_Kinds = Mapping[str, type | tuple[type, ...]]
_TOP: _Kinds = {
    "name": str,
    "title": str,
    "description": str,
    "model": str,
    "bundled": bool,
    "resolution": int,
    "licence": str,
    "commercial": bool,
    "space": dict,
    "sound": dict,
    "options": list,
    "generate": dict,
    "weights": list,
}
_OPTIONAL = {"generate", "options", "network"}
_SPACE: _Kinds = {"name": str, "dimension": int, "scale": str}
_SOUND: _Kinds = {"sample_rate": int, "window_s": (int, float)}
_GENERATE: _Kinds = {
    "truncation": (int, float),
    "best_of": int,
    "size": int,
    "contrast": str,
    "steps": int,
    "guidance": (int, float),
    "sampler": str,
    "noise_level": int,
    "adapter_scale": (int, float),
}
_OWN_FILE: _Kinds = {"role": str, "network": str, "file": str, "bytes": int, "sha256": str}
_ASSETS: _Kinds = {"role": str, "network": str, "assets": list}


@dataclass(frozen=True)
class WeightFile:
    """What one network of a preset needs: a file of its own, or published weights.

    Attributes:
        role: what the network does.
        network: which architecture reads it, a name that `s2v_cli.networks` knows; without one
            in the TOML it is `MODEL-ROLE`, for example `mini-sound-encoder`.
        file: path relative to the preset's folder, with `/`, ending in .safetensors; empty for
            published weights.
        bytes: size of the file; 0 for published weights, whose size the catalogue knows.
        sha256: of the whole file, 64 hexadecimal digits; empty likewise.
        assets: names in the catalogue of published weights; empty for a file of its own.
    """

    role: WeightRole
    network: str
    file: str = ""
    bytes: int = 0
    sha256: str = ""
    assets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preset:
    """A model with its weights and default options.

    Attributes:
        name: what `--preset` takes.
        title: for people.
        description: one line.
        model: which architecture reads the weights.
        space: embedding space of its encoders and generator.
        resolution: side of the pictures that the generator makes, pixels.
        licence: of the weights.
        commercial: whether that licence allows commercial use.
        bundled: whether the weights come with the package.
        sample_rate: of the sound that the encoder hears, Hz.
        window_s: how much sound it hears at once, seconds.
        weights: the files.
        options: those of `MODEL_OPTIONS` that its generator takes.
        generate: its defaults of GenerateOptions, for example `truncation` or `steps`.
        folder: where its TOML lies; weight files are relative to it.
    """

    name: str
    title: str
    description: str
    model: str
    space: EmbeddingSpace
    resolution: int
    licence: str
    commercial: bool
    bundled: bool
    sample_rate: int
    window_s: float
    weights: tuple[WeightFile, ...]
    options: tuple[str, ...]
    generate: Mapping[str, Any]
    folder: Path

    @property
    def bytes(self) -> int:
        """Size of the weight files of its own; published weights do not count."""
        return sum(weight.bytes for weight in self.weights)

    @property
    def assets(self) -> tuple[str, ...]:
        """Names of all published weights that it needs, each once."""
        return tuple(dict.fromkeys(name for weight in self.weights for name in weight.assets))

    def weight(self, role: str) -> WeightFile:
        """What the network of a role needs.

        Raises:
            PresetError: the preset has no such role.
        """
        for weight in self.weights:
            if weight.role == role:
                return weight
        roles = ", ".join(weight.role for weight in self.weights)
        raise PresetError(f"Preset {self.name!r} has no {role!r}; it has: {roles}.")

    def generate_options(self, **flags: Any) -> GenerateOptions:
        """Options merged as defaults < preset < flags; a flag that is None was not given.

        Raises:
            OptionError: a value is outside its range, or the model does not know the option.
        """
        given = {name: value for name, value in flags.items() if value is not None}
        for name in MODEL_OPTIONS:
            if given.get(name, "") != "" and name not in self.options:
                able = [preset.name for preset in list_presets() if name in preset.options]
                raise OptionError(
                    f"{_flag(name)} is {given[name]!r}, but preset {self.name!r} does not take "
                    f"it; presets that do: {', '.join(able)}."
                )
        return GenerateOptions(**{**self.generate, **given})


def preset_names() -> list[str]:
    """Names of the presets that come with the package or were installed, sorted."""
    return sorted(set(bundled_names()) | set(installed_names()))


def bundled_names() -> list[str]:
    """Names of the presets that come with the package, sorted."""
    return sorted(path.stem for path in _package_folder().glob("*.toml"))


def installed_names() -> list[str]:
    """Names of the presets that 's2v presets add' installed, sorted."""
    try:
        return sorted(path.parent.name for path in installed_folder().glob(f"*/{PRESET_FILE}"))
    except OSError:
        return []


def installed_folder() -> Path:
    """Where installed presets lie: S2V_HOME, else the user's data folder."""
    home = os.environ.get("S2V_HOME")
    if home:
        return Path(home).expanduser() / "presets"
    import platformdirs

    return platformdirs.user_data_path("s2v", appauthor=False) / "presets"


def list_presets() -> list[Preset]:
    """The presets that come with the package or were installed, sorted by name.

    Installed ones that cannot be read are left out.
    """
    bundled = bundled_names()
    found = []
    for name in preset_names():
        try:
            found.append(load_preset(name))
        except PresetError:
            if name in bundled:
                raise
    return found


def load_preset(name: str | os.PathLike[str]) -> Preset:
    """Find a preset by its name or by a path to a folder or a TOML file.

    Raises:
        PresetError: there is none (with the nearest name), or its TOML is malformed.
    """
    text = os.fspath(name)
    if text in bundled_names():
        return read_preset(_package_folder() / f"{text}.toml")
    names = preset_names()
    if text in names:
        return read_preset(installed_folder() / text / PRESET_FILE)
    path = Path(text).expanduser()
    if text and path.is_dir():
        path /= PRESET_FILE
    if text and path.is_file():
        return read_preset(path)
    if "/" in text or os.sep in text or path.suffix == ".toml":
        raise PresetError(
            f"No preset at {text!r}: a preset is a name, a folder with {PRESET_FILE}, "
            "or a TOML file."
        )
    near = _nearest(text, names)
    raise PresetError(f"Unknown preset {text!r}.{near} Run 's2v presets' to list all.")


def read_preset(path: Path) -> Preset:
    """Read one preset's TOML.

    Raises:
        PresetError: unreadable or malformed; names the file and the key.
    """
    import tomllib

    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PresetError(f"Cannot read the preset {path}: {error}.") from error
    _check_keys(table, _TOP, path, "")
    space, sound, generate = table["space"], table["sound"], table.get("generate", {})
    _check_keys(space, _SPACE, path, "space.")
    _check_keys(sound, _SOUND, path, "sound.")
    _check_keys(generate, _GENERATE, path, "generate.", required=False)
    if space["scale"] not in ("unit", "raw"):
        raise PresetError(f"space.scale is {space['scale']!r} in {path}; allowed: unit, raw.")
    if not re.fullmatch(r"[\w][\w.-]*", table["name"]):
        raise PresetError(
            f"name is {table['name']!r} in {path}; allowed: letters, digits, '-', '_' and '.'."
        )
    for table_, key in ((table, "resolution"), (space, "dimension"), *((sound, k) for k in _SOUND)):
        if table_[key] <= 0:
            raise PresetError(f"{key} is {table_[key]!r} in {path}; allowed: more than 0.")
    options = table.get("options", [])
    for option in options:
        if option not in MODEL_OPTIONS:
            raise PresetError(
                f"options holds {option!r} in {path}; allowed: {', '.join(MODEL_OPTIONS)}."
            )
    for key in generate:
        if key in MODEL_OPTIONS and key not in options:
            raise PresetError(f"generate.{key} is set in {path}, but options does not name {key}.")
    try:
        GenerateOptions(**generate)
    except OptionError as error:
        raise PresetError(f"In [generate] of {path}: {error}") from error
    weights = tuple(
        _weight_file(entry, table["model"], path, f"weights[{number}].")
        for number, entry in enumerate(table["weights"])
    )
    roles = [weight.role for weight in weights]
    if len(set(roles)) != len(roles):
        raise PresetError(f"A role is listed twice in [[weights]] of {path}: {', '.join(roles)}.")
    plain = {key: table[key] for key, kind in _TOP.items() if kind not in (dict, list)}
    return Preset(
        **plain,
        space=EmbeddingSpace(**space),
        sample_rate=sound["sample_rate"],
        window_s=float(sound["window_s"]),
        weights=weights,
        options=tuple(options),
        generate=MappingProxyType(dict(generate)),
        folder=path.parent,
    )


def _flag(option: str) -> str:
    return "--" + option.replace("_", "-")


def _package_folder() -> Path:
    from importlib.resources import files

    return Path(str(files(__name__)))


def _nearest(name: str, names: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, list(names), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _weight_file(entry: Any, model: str, path: Path, prefix: str) -> WeightFile:
    if not isinstance(entry, dict):
        raise PresetError(f"{prefix[:-1]} is not a table in {path}.")
    published = "assets" in entry
    _check_keys(entry, _ASSETS if published else _OWN_FILE, path, prefix)
    roles = get_args(WeightRole)
    checks = {"role": (entry["role"] in roles, ", ".join(roles))}
    if published:
        names = entry["assets"]
        named = bool(names) and all(isinstance(name, str) for name in names)
        checks["assets"] = (named, "names of published weights; 's2v weights list' has them")
    else:
        checks |= _file_checks(entry)
    for key, (ok, allowed) in checks.items():
        if not ok:
            raise PresetError(f"{prefix}{key} is {entry[key]!r} in {path}; allowed: {allowed}.")
    network = entry.get("network", f"{model}-{entry['role'].replace('_', '-')}")
    if published:
        return WeightFile(entry["role"], network, assets=tuple(entry["assets"]))
    return WeightFile(**{**entry, "network": network})


def _file_checks(entry: Mapping[str, Any]) -> dict[str, tuple[bool, str]]:
    """Of a file of the preset's own: whether each value is allowed, and what would be."""
    file = PurePosixPath(entry["file"])
    inside = not file.is_absolute() and ".." not in file.parts and "\\" not in entry["file"]
    return {
        "file": (
            inside and file.suffix == ".safetensors",
            "a relative path to a .safetensors file below the preset's folder",
        ),
        "bytes": (entry["bytes"] >= 0, "0 or more"),
        "sha256": (
            re.fullmatch("[0-9a-f]{64}", entry["sha256"]) is not None,
            "64 hexadecimal digits in lower case",
        ),
    }


def _check_keys(
    table: Mapping[str, Any], kinds: _Kinds, path: Path, prefix: str, *, required: bool = True
) -> None:
    for key, value in table.items():
        if key not in kinds:
            hint = _nearest(key, kinds) or f" Allowed: {', '.join(kinds)}."
            raise PresetError(f"Unknown key {prefix + key!r} in {path}.{hint}")
        kind = kinds[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            wanted = kind if isinstance(kind, type) else kind[-1]
            raise PresetError(
                f"{prefix}{key} is {value!r} in {path}; allowed: a TOML {_toml_kind(wanted)}."
            )
    missing = [key for key in kinds if key not in table and key not in _OPTIONAL]
    if required and missing:
        raise PresetError(f"Missing key {prefix + missing[0]!r} in {path}.")


def _toml_kind(kind: type) -> str:
    kinds = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "table"}
    return kinds.get(kind, "array")
