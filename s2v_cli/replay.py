"""Make a picture again from its record alone, and say whether it came out identical."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2v_cli.errors import OptionError, PictureError, PresetError, SoundError
from s2v_cli.options import GenerateOptions
from s2v_cli.outputs import literal
from s2v_cli.picture import compare_pictures, read_record
from s2v_cli.presets import load_preset

Run = Callable[[Sequence[str]], None]


@dataclass(frozen=True)
class Replay:
    """What came of a replay.

    Attributes:
        path: of the new picture; None where it was only compared.
        identical: whether all pixels are the same.
        share: of pixels that differ, 0 to 1; 1 where the sizes differ.
        largest: difference of a channel, 0 to 255.
        changes: what is not as it was: weights, versions, device, inputs; one line each.
        arguments: the command line that was run, without `s2v`.
    """

    path: Path | None
    identical: bool
    share: float
    largest: int
    changes: tuple[str, ...]
    arguments: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "path": None if self.path is None else str(self.path),
            "identical": self.identical,
            "share_of_pixels": self.share,
            "largest_difference": self.largest,
            "changes": list(self.changes),
            "command": ["s2v", *self.arguments],
        }


def replay(
    picture: Path,
    run: Run,
    *,
    changes: Sequence[str] = (),
    inputs: Sequence[str] = (),
    output: Path | None = None,
    overwrite: bool = False,
) -> Replay:
    """Run the command line that a picture's record holds, and compare the two pictures.

    Args:
        picture: file with a record.
        run: runs a command line, without `s2v`; raises what it raises.
        changes: flags that replace recorded ones, as in `["--seed", "8"]`.
        inputs: files to use instead of the recorded ones, for example where these have moved.
        output: where to keep the new picture; else it is only compared.
        overwrite: whether `output` may exist.

    Raises:
        PictureError: no picture, or one without a record that can be run.
        SoundError: the picture was made from standard input and `inputs` is empty.
        S2VError: whatever the command raises.
    """
    record = read_record(picture)
    recorded = _arguments(record, picture)
    flags, given = _split(recorded, picture)
    given = list(inputs) or given
    if any(word == "-" or word[:2] in ("-:", "-@") for word in given):  # mix weighs it so
        raise SoundError(
            f"{str(picture)!r} was made from standard input; give the sound with --input FILE."
        )
    if _names_preset(changes):
        flags = _without_defaults(flags, record)
    with tempfile.TemporaryDirectory(prefix="s2v-") as folder:
        fresh = Path(folder) / f"again{picture.suffix}"
        target = output or fresh
        line = [recorded[0], *_merged(flags, changes), "--output", literal(str(target))]
        if output is None or overwrite:
            line.append("--force")
        line += ["--", *given] if any(word[:1] == "-" for word in given) else given
        run(line)
        share, largest = compare_pictures(picture, target)
        differences = _differences(record, read_record(target))
    return Replay(output, share == 0, share, largest, differences, tuple(line))


def _arguments(record: Mapping[str, Any], picture: Path) -> list[str]:
    arguments: list[Any] = record.get("arguments", [])
    right = isinstance(arguments, list) and all(isinstance(word, str) for word in arguments)
    if not right or len(arguments) < 2 or arguments[0] != "s2v" or arguments[1] not in _DRAWING:
        raise PictureError(f"The record of {str(picture)!r} holds no command that can be run.")
    for word in arguments:
        if word.startswith("--save"):
            raise PictureError(f"The record of {str(picture)!r} would write files: {word}.")
    return list(arguments[1:])


# A record comes with a picture, maybe a stranger's: it may draw to a place of ours, nothing else.
_DRAWING = frozenset({"gen", "mix", "interp", "edit", "face", "blend", "explain", "nearest"})


def _split(arguments: Sequence[str], picture: Path) -> tuple[list[str], list[str]]:
    """Flags and inputs of a recorded line: `COMMAND INPUT... FLAG...`, or `FLAG... -- INPUT...`."""
    words = list(arguments[1:])
    if "--" in words:
        cut = words.index("--")
        return _without_output(words[:cut], picture), words[cut + 1 :]
    first = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
    return _without_output(words[first:], picture), words[:first]


def _without_output(flags: list[str], picture: Path) -> list[str]:
    try:
        at = flags.index("--output")
        del flags[at : at + 2]
    except ValueError:
        raise PictureError(f"The record of {str(picture)!r} names no output.") from None
    return [word for word in flags if word not in ("--force", "--yes", "--accept-licence")]


def _pairs(flags: Sequence[str]) -> list[list[str]]:
    """Words of flags, grouped: each flag with its value."""
    groups: list[list[str]] = []
    for word in flags:
        if word.startswith("-") and not _is_number(word):
            groups.append([word])
        elif groups:
            groups[-1].append(word)
        else:
            raise OptionError(f"{word!r} is not a flag; give changes as --seed 8.")
    return groups


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _merged(flags: Sequence[str], changes: Sequence[str]) -> list[str]:
    """Recorded flags, less those that are changed, and the changes."""
    new = _pairs(changes)
    changed = {group[0].split("=")[0] for group in new}
    kept = [group for group in _pairs(flags) if group[0].split("=")[0] not in changed]
    return [word for group in (*kept, *new) for word in group]


def _names_preset(changes: Sequence[str]) -> bool:
    return any(word.split("=")[0] == "--preset" for word in changes)


def _without_defaults(flags: Sequence[str], record: Mapping[str, Any]) -> list[str]:
    """Recorded flags less the values that are only defaults of the recorded preset."""
    try:
        preset = load_preset(str(record.get("preset")))
    except PresetError:
        return list(flags)
    defaults = {
        "--" + name.replace("_", "-"): str(value)
        for name, value in vars(preset.generate_options()).items()
        if value is not None and value != getattr(GenerateOptions(), name)
    }
    kept = [g for g in _pairs(flags) if len(g) != 2 or defaults.get(g[0]) != g[1]]
    return [word for group in kept for word in group]


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """What the two records disagree on that changes pixels, one line each."""
    lines = []
    if before.get("preset") != after.get("preset"):
        lines.append(f"preset: {before.get('preset')} then, {after.get('preset')} now")
    for key in ("weights", "versions"):
        old, new = before.get(key) or {}, after.get(key) or {}
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                lines.append(
                    f"{key} {name}: {_short(old.get(name))} then, {_short(new.get(name))} now"
                )
    for key in ("device", "dtype"):
        if before.get(key) != after.get(key):
            lines.append(f"{key}: {before.get(key)} then, {after.get(key)} now")
    for key in ("sounds", "pictures"):
        for old, new in zip(before.get(key) or (), after.get(key) or (), strict=False):
            if old.get("sha256") != new.get("sha256"):
                lines.append(f"{new.get('source')} is another file than {old.get('source')} then")
    return tuple(lines)


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    return f"{text[:12]}…" if len(text) > 40 else text
