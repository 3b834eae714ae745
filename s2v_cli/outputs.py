"""Names of the pictures that a run will write, planned and checked before any work."""

from __future__ import annotations

import os
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

from s2v_cli.errors import OptionError, OutputError

PICTURE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
TEMPLATE_FIELDS = ("stem", "seed", "index", "preset", "window")
MAX_SHEET_SIDE = 16_384  # pixels, of a contact sheet; about 0.8 GB at most


def plan_outputs(
    target: str | None,
    sounds: Sequence[str],
    seeds: Sequence[int],
    *,
    preset: str,
    window: str,
    grid: bool = False,
    overwrite: bool = False,
    suffixes: Sequence[str] = tuple(PICTURE_FORMATS),
) -> list[list[Path]]:
    """Name every picture of a run.

    Args:
        target: a file, a folder (one that exists, or a path that ends in `/`), a template with
            the fields `{stem}`, `{seed}`, `{index}` (from 1), `{preset}` and `{window}`, or None
            for the current folder.
        sounds: source of each sound; `-` has the stem `stdin`.
        seeds: of the pictures of each sound.
        preset: its name, for the template.
        window: its name, for the template.
        grid: whether all pictures go on one contact sheet.
        overwrite: whether files that exist may be replaced.
        suffixes: that are allowed; the first one is taken where the target leaves it open.

    Returns:
        Paths by sound and seed; with `grid` a single one.

    Raises:
        OptionError: unknown field or suffix, or two pictures would land on one file.
        OutputError: a file exists and may not be replaced, or its folder cannot be written.
    """
    template = _template(
        target, many_sounds=len(sounds) > 1, many=len(seeds) > 1, grid=grid, suffix=suffixes[0]
    )
    names = {"preset": preset, "window": window}
    if grid:
        stem = "sounds" if len(sounds) > 1 else sound_stem(sounds[0])
        values: dict[str, str | int] = {"stem": stem, "seed": seeds[0], "index": 1, **names}
        plan = [[_fill(template, values, suffixes)]]
    else:
        plan = [
            [
                _fill(
                    template,
                    {
                        "stem": sound_stem(sound),
                        "seed": seed,
                        "index": number * len(seeds) + offset + 1,
                        **names,
                    },
                    suffixes,
                )
                for offset, seed in enumerate(seeds)
            ]
            for number, sound in enumerate(sounds)
        ]
    _check_distinct(plan, sounds)
    paths = [path for row in plan for path in row]
    for folder in {path.parent: None for path in paths}:
        _check_folder(folder)
    existing = [path for path in paths if os.path.lexists(path)]
    if existing and not overwrite:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise OutputError(f"{existing[0]}{more} exists; use --force to replace.")
    return plan


def sound_stem(source: str) -> str:
    """File name without suffix; `stdin` for `-`."""
    return "stdin" if source == "-" else Path(source).stem


def literal(path: str) -> str:
    """A path as a template that stands for itself."""
    return path.replace("{", "{{").replace("}", "}}")


def _template(target: str | None, *, many_sounds: bool, many: bool, grid: bool, suffix: str) -> str:
    if grid:
        default = "{stem}" if many_sounds else "{stem}-grid"
    else:
        default = "{stem}-{seed}" if many else "{stem}"
    default += suffix
    if target is None:
        return default
    if not target:
        raise OptionError("output is ''; allowed: a file, a folder or a template.")
    if os.path.isdir(target):
        return os.path.join(literal(target), default)
    if target.endswith(("/", os.sep)):
        return target + default
    if "{" in target or "}" in target or not many or grid:
        return target
    stem, suffix = os.path.splitext(target)
    return f"{stem}-{{seed}}{suffix}"


def _fill(template: str, values: Mapping[str, str | int], suffixes: Sequence[str]) -> Path:
    allowed = ", ".join(f"{{{field}}}" for field in TEMPLATE_FIELDS)
    try:
        for _, field, _, _ in string.Formatter().parse(template):
            if field is not None and field not in TEMPLATE_FIELDS:
                raise OptionError(
                    f"Unknown field {'{' + field + '}'!r} in output {template!r}; "
                    f"allowed: {allowed}."
                )
        path = Path(template.format(**values))
    except (ValueError, TypeError) as error:
        if isinstance(error, OptionError):
            raise
        raise OptionError(
            f"Malformed output {template!r}: {error}; allowed fields: {allowed}."
        ) from error
    if path.suffix.lower() not in suffixes:
        raise OptionError(
            f"Cannot write {path.name!r}: its suffix is {path.suffix!r}; "
            f"allowed: {', '.join(suffixes)} (a folder ends in '/')."
        )
    return path


def _check_distinct(plan: list[list[Path]], sounds: Sequence[str]) -> None:
    taken: dict[str, str] = {}
    for sound, row in zip(sounds, plan, strict=False):
        for path in row:
            key = os.path.abspath(path)
            if key in taken:
                raise OptionError(
                    f"Several pictures would land on {str(path)!r} "
                    f"(of {taken[key]!r} and {sound!r}); output may be a folder or a template "
                    "with {stem}, {seed} or {index}."
                )
            taken[key] = sound


def _check_folder(folder: Path) -> None:
    nearest = os.path.abspath(folder)
    while not os.path.lexists(nearest):
        nearest = os.path.dirname(nearest)
    if not os.path.isdir(nearest):
        raise OutputError(f"Cannot write to {folder}: {nearest} is not a folder.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(f"Cannot write to {folder}: no permission to write in {nearest}.")
