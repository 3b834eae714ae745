"""Presets that were trained here, or came from others, under names of their own."""

from __future__ import annotations

import re
import secrets
import shutil
from pathlib import Path

from s2v_cli.errors import OutputError, PresetError
from s2v_cli.presets import (
    PRESET_FILE,
    Preset,
    bundled_names,
    installed_folder,
    installed_names,
    load_preset,
    read_preset,
)
from s2v_cli.weights.store import verify_weights

_NAME_LINE = re.compile(r"^name\s*=.*$", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def install_preset(source: Path, name: str | None = None, *, overwrite: bool = False) -> Preset:
    """Copy a preset's folder to where presets are found by name; returns the installed one.

    Its weights are checked first, and only its TOML and the files that it lists are copied.

    Args:
        source: folder of the preset, such as a run of `s2v train`, or its TOML.
        name: that it gets; None keeps its own.
        overwrite: whether an installed preset of that name is replaced.

    Raises:
        PresetError: no preset there, or a name that is taken or not allowed.
        WeightsError: its weights are missing or damaged.
        OutputError: the folder of presets cannot be written.
    """
    if not source.exists():
        raise PresetError(f"No preset at {str(source)!r}: give a folder with {PRESET_FILE}.")
    preset = load_preset(source.resolve())
    name = preset.name if name is None else name
    if not _NAME.fullmatch(name):
        raise PresetError(
            f"name is {name!r}; allowed: letters, digits, '-', '_' and '.', not a dot first."
        )
    if name in bundled_names():
        raise PresetError(f"{name!r} comes with s2v. Give another name: --name NAME")
    target = installed_folder() / name
    if name in installed_names() and not overwrite:
        raise PresetError(
            f"A preset {name!r} is installed already. Replace it with --force, or give another "
            "name: --name NAME"
        )
    own = [weight for weight in preset.weights if weight.file]
    files = {weight.file: verify_weights(preset, weight.role) for weight in own}
    text = (source if source.is_file() else source / PRESET_FILE).read_text(encoding="utf-8")
    temporary = target.with_name(f".{name}.{secrets.token_hex(6)}.tmp")
    try:
        for file, path in files.items():
            (temporary / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, temporary / file)
        temporary.mkdir(parents=True, exist_ok=True)
        renamed = _NAME_LINE.sub(f'name = "{name}"', text, count=1)
        (temporary / PRESET_FILE).write_text(renamed, encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    except OSError as error:
        raise OutputError(
            f"Cannot install {name!r} in {target.parent}: {error.strerror or error}. Name another "
            "folder in S2V_HOME."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return read_preset(target / PRESET_FILE)


def remove_preset(name: str) -> Path:
    """Remove an installed preset with its weights; returns the folder that was.

    Raises:
        PresetError: none of that name is installed.
        OutputError: it cannot be removed.
    """
    names = installed_names()
    if name not in names:
        listed = f"installed: {', '.join(names)}" if names else "none is installed"
        reason = "comes with s2v" if name in bundled_names() else "is not installed"
        raise PresetError(f"Preset {name!r} {reason}; {listed}.")
    folder = installed_folder() / name
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise OutputError(f"Cannot remove {folder}: {error.strerror or error}.") from error
    return folder
