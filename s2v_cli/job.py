"""A job: what one command line asks for beside its inputs, and how its pictures become files."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from s2v_cli.errors import OptionError, S2VError
from s2v_cli.options import (
    MODEL_OPTIONS,
    DeviceChoice,
    DtypeChoice,
    GenerateOptions,
    SoundOptions,
    as_record,
)
from s2v_cli.outputs import literal, plan_outputs
from s2v_cli.presets import load_preset

if TYPE_CHECKING:
    from PIL.Image import Image

    from s2v_cli.audio.read import Sound
    from s2v_cli.pipeline import Sound2Vision
    from s2v_cli.results import SoundEmbedding

# What `--json` leaves out of a record.
_NOT_SHOWN = frozenset(
    {"command", "arguments", "sound_options", "generate_options", "weights", "versions", "device"}
    | {"dtype", "resolution", "resampled_from"}
)


class Listener(Protocol):
    """Who is told how a job goes on."""

    def note(self, text: str) -> None:
        """Hear what a person should know, though the run goes on."""

    def error(self, text: object) -> None:
        """Hear that one of several inputs failed."""

    def progress(self, label: str, done: float = 0.0, total: float | None = None) -> None:
        """Hear what is being done; a total of None is unknown."""


class Silent:
    """A listener for library use that lets notes and progress pass, and raises errors."""

    def note(self, text: str) -> None:
        """Let it pass."""

    def error(self, text: object) -> None:
        """Raise what is an error; a text becomes an S2VError."""
        raise text if isinstance(text, S2VError) else S2VError(str(text))

    def progress(self, label: str, done: float = 0.0, total: float | None = None) -> None:
        """Let it pass."""


@dataclass(frozen=True)
class Made:
    """A picture that a job made.

    Attributes:
        path: where it was written; None for the target `-`.
        image: the picture.
        record: everything that makes it again.
    """

    path: Path | None
    image: Image
    record: dict[str, Any]

    def encode(self, suffix: str, *, metadata: bool = True) -> bytes:
        """The picture as the bytes of a file."""
        from s2v_cli.picture import encode_picture

        return encode_picture(self.image, suffix, self.record if metadata else None)

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints of it: where it lies, what went in, what was measured.

        A picture of a single sound shows that sound's entries as its own.
        """
        shown = {key: value for key, value in self.record.items() if key not in _NOT_SHOWN}
        if "seeds" in shown:
            del shown["seed"], shown["similarity"]
        elif "pictures" not in shown and len(shown.get("sounds", ())) == 1:
            sound = dict(shown.pop("sounds")[0])
            shown |= {"sound": sound.pop("source"), **sound}
        return {"path": None if self.path is None else str(self.path), **shown}


@dataclass(frozen=True)
class Job:
    """What a command line asks for beside its inputs.

    Attributes:
        command: name of the subcommand, for the record.
        target: where pictures go, as in `plan_outputs`; `-` for one that is not written.
        preset: name or path.
        options: how pictures are made, all values resolved.
        device: where to compute.
        dtype: precision.
        low_vram: whether large models save graphics memory and take longer.
        weights_dir: where the preset's weights lie, if not where it says.
        overwrite: whether files that exist are replaced.
        metadata: whether files hold their record.
    """

    command: str
    target: str | None = None
    preset: str = "mini"
    options: GenerateOptions = field(default_factory=GenerateOptions)
    device: DeviceChoice = "auto"
    dtype: DtypeChoice = "auto"
    low_vram: bool = False
    weights_dir: Path | None = None
    overwrite: bool = False
    metadata: bool = True

    def load(self) -> Sound2Vision:
        """Load the model; the first import of torch."""
        from s2v_cli.pipeline import Sound2Vision

        return Sound2Vision.load(
            self.preset,
            device=self.device,
            dtype=self.dtype,
            weights_dir=self.weights_dir,
            low_vram=self.low_vram,
        )

    def plan(self, source: str, window: str = "") -> list[Path]:
        """Name a picture for each seed after a source, and check the names before any work.

        Args:
            source: its stem names the pictures where the target does not.
            window: its name, for templates.

        Raises:
            OptionError: several pictures for `-`, or an unknown field or suffix.
            OutputError: a file exists and may not be replaced, or its folder cannot be written.
        """
        options = self.options
        if self.target == "-":
            if options.count > 1:
                raise OptionError("output '-' takes a single picture; use a folder.")
            return [Path("-")]
        (paths,) = plan_outputs(
            self.target,
            [source],
            range(options.seed, options.seed + options.count),
            preset=load_preset(self.preset).name,
            window=window,
            overwrite=self.overwrite,
        )
        return paths

    def command_line(
        self,
        inputs: Sequence[str],
        output: str,
        *,
        flags: Mapping[str, object] | None = None,
        options: GenerateOptions | None = None,
    ) -> list[str]:
        """The command line that makes one picture again, whatever run it came from.

        Args:
            inputs: positional arguments.
            output: the picture's path, or `-`.
            flags: the command's own, by name with dashes; None and False leave one out, True
                gives it without a value.
            options: of this picture, where they differ from the job's.
        """
        options = options or self.options
        plain = GenerateOptions()
        all_flags: dict[str, object] = {
            **(flags or {}),
            "--count": options.count if options.count > 1 else None,
            "--seed": options.seed,
            "--truncation": options.truncation,
            "--best-of": options.best_of if options.best_of != 1 else None,
            "--size": options.size,
            "--contrast": options.contrast,
        }
        for name in MODEL_OPTIONS:
            value = getattr(options, name)
            if value != getattr(plain, name):
                all_flags["--" + name.replace("_", "-")] = value
        all_flags |= {
            "--preset": self.preset,
            "--device": self.device if self.device != "auto" else None,
            "--dtype": self.dtype if self.dtype != "auto" else None,
            "--low-vram": self.low_vram,
            "--weights-dir": self.weights_dir,
        }
        flagged = ["--output", output if output == "-" else literal(output)]
        for flag, value in all_flags.items():
            if value is True:
                flagged.append(flag)
            elif value is not None and value is not False:
                text = str(value)
                flagged += [f"{flag}={text}"] if text.startswith("-") else [flag, text]
        if any(word.startswith("-") and word != "-" for word in inputs):
            return ["s2v", self.command, *flagged, "--", *inputs]
        return ["s2v", self.command, *inputs, *flagged]

    def record(
        self,
        model: Sound2Vision,
        arguments: Sequence[str],
        image: Image,
        options: GenerateOptions,
        **inputs: Any,
    ) -> dict[str, Any]:
        """Everything that makes a picture again; no date, so that equal runs give equal bytes.

        Args:
            model: that drew it.
            arguments: the command line of `command_line`.
            image: the picture.
            options: of this picture.
            **inputs: what went in, by kind: `sounds` (see `sound_record`), `pictures`
                (see `picture_record`) and whatever the command adds.
        """
        import shlex

        import torch

        from s2v_cli import __version__

        resolution = model.preset.resolution
        return {
            "command": shlex.join(arguments),
            "arguments": list(arguments),
            "generate_options": as_record(options),
            "seed": options.seed,
            "similarity": None,
            "preset": model.preset.name,
            "weights": dict(model.weights_sha256),
            "device": str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "size": list(image.size),
            "resolution": resolution,
            "resampled_from": resolution if options.size not in (None, resolution) else None,
            "versions": {
                "s2v": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            **inputs,
        }

    def write(self, path: Path, image: Image, record: dict[str, Any]) -> Made:
        """Write a picture with its record, unless the target is `-`."""
        from s2v_cli.picture import save_picture

        if self.target == "-":
            return Made(None, image, record)
        kept = record if self.metadata else None
        return Made(save_picture(image, path, record=kept, overwrite=self.overwrite), image, record)


def hearing_flags(options: SoundOptions) -> dict[str, object]:
    """Flags that say which part of a sound is heard, those at their defaults left out."""
    plain = SoundOptions()
    return {
        "--start": options.start_s if options.start_s != plain.start_s else None,
        "--duration": options.duration_s,
        "--window": options.window if options.window != plain.window else None,
        "--gain-db": options.gain_db if options.gain_db != plain.gain_db else None,
    }


def sound_record(sound: Sound, embedding: SoundEmbedding | None = None) -> dict[str, Any]:
    """What a record says of a sound."""
    return {
        "source": sound.source,
        "sha256": sound.sha256,
        "segments": [list(segment) for segment in sound.segments],
        "familiarity": None if embedding is None else embedding.familiarity,
    }


def picture_record(path: Path) -> dict[str, Any]:
    """What a record says of a picture that went in."""
    import hashlib

    return {"source": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def note_oddities(
    sound: Sound, embedding: SoundEmbedding, preset_name: str, listener: Listener
) -> None:
    """Tell of a sound that is silent or unlike what the model was taught."""
    if sound.silent:
        listener.note(f"{sound.source} is silent: the picture shows no sound.")
    elif embedding.familiar is False:
        listener.note(
            f"{sound.source} is unlike the sounds that {preset_name} was taught "
            f"(familiarity {embedding.familiarity:.2f}): do not expect the picture to fit."
        )
