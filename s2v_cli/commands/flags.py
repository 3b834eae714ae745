"""Flags that the drawing commands share, and the one way in which they print."""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from s2v_cli.abilities import ABILITIES, require_ability
from s2v_cli.commands.asking import dialogue_of, pull_options
from s2v_cli.console import Console
from s2v_cli.duration import parse_duration
from s2v_cli.errors import OptionError
from s2v_cli.job import Job, Made
from s2v_cli.options import (
    MODEL_OPTIONS,
    ContrastChoice,
    DeviceChoice,
    DtypeChoice,
    SamplerChoice,
    SoundOptions,
    WindowChoice,
)
from s2v_cli.presets import load_preset
from s2v_cli.strip import Theme

StripTheme = Annotated[Theme, typer.Option(help="Of a strip or sheet.")]
Separate = Annotated[
    bool, typer.Option("--separate", help="Each picture of the strip as a file of its own.")
]


def _hearing(
    start: Annotated[
        str, typer.Option(metavar="TIME", help="Where to start listening: 83.5, 83.5s or 1:23.5.")
    ] = "0",
    duration: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="How much to listen to. Default: to the end."),
    ] = None,
    window: Annotated[
        WindowChoice,
        typer.Option(
            help="Of a sound longer than the model hears at once: the loudest part, the first, "
            "or the average of all."
        ),
    ] = "loudest",
    gain_db: Annotated[
        float, typer.Option("--gain-db", metavar="DB", help="Make the sound louder or softer.")
    ] = 0.0,
) -> None:
    """Which part of a sound is heard."""


def _drawing(
    seed: Annotated[int, typer.Option(help="Of the first picture; the next has seed + 1.")] = 0,
    count: Annotated[int, typer.Option("--count", "-n", help="Pictures of each input.")] = 1,
    truncation: Annotated[
        float | None,
        typer.Option(
            help="Spread of the noise, more than 0 to 2: less is more typical and less diverse. "
            "Default: the preset's."
        ),
    ] = None,
    best_of: Annotated[
        int | None,
        typer.Option(
            "--best-of", help="Draw so many candidates for each picture and keep the nearest."
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(metavar="PIXELS", help="Side of the picture, resampled. Default: as drawn."),
    ] = None,
    contrast: Annotated[
        ContrastChoice | None,
        typer.Option(
            help="'stretch' each picture from its darkest to its brightest value, as the published "
            "GAN code does, or 'plain'. Default: the preset's."
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Style in words, for presets that read text."),
    ] = None,
    negative_prompt: Annotated[
        str | None,
        typer.Option("--negative-prompt", metavar="TEXT", help="What to keep away from."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Of diffusion presets.")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="How strictly diffusion presets follow the sound.")
    ] = None,
    sampler: Annotated[SamplerChoice | None, typer.Option(help="Of diffusion presets.")] = None,
    noise_level: Annotated[
        int | None,
        typer.Option("--noise-level", help="Of the embedding (unCLIP): 0 to 999, more is freer."),
    ] = None,
    adapter_scale: Annotated[
        float | None,
        typer.Option("--adapter-scale", help="Weight of the sound beside the prompt (IP-Adapter)."),
    ] = None,
) -> None:
    """How pictures are drawn: the fields of GenerateOptions."""


def _computing(
    preset: Annotated[
        str, typer.Option(metavar="NAME", help="A name from 's2v presets', or a folder.")
    ] = "mini",
    device: Annotated[DeviceChoice, typer.Option(help="Where to compute.")] = "auto",
    dtype: Annotated[DtypeChoice, typer.Option(help="Precision.")] = "auto",
    low_vram: Annotated[
        bool,
        typer.Option("--low-vram", help="Save graphics memory, for diffusion presets; slower."),
    ] = False,
    weights_dir: Annotated[
        Path | None,
        typer.Option("--weights-dir", metavar="FOLDER", help="Where the preset's weights lie."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Download missing weights without asking.")
    ] = False,
    accept_licence: Annotated[
        bool,
        typer.Option("--accept-licence", help="Agree to a non-commercial licence of weights."),
    ] = False,
) -> None:
    """Which model, and where it computes."""


def _writing(
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="A file (.png, .jpg, .webp), a folder (ends in /), a template such as "
            "'{stem}-{seed}.png' (fields: stem, seed, index, preset, window), or - to write a "
            "PNG to standard output. Default: named after the input, in the current folder.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace files that exist.")] = False,
    no_metadata: Annotated[
        bool,
        typer.Option("--no-metadata", help="Leave out the record that makes the picture again."),
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Preview in the terminal.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON list of what was made.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No notes and no progress; errors stay.")
    ] = False,
) -> None:
    """Where pictures go, and what is printed."""


class Printer:
    """Prints what a drawing command makes: paths, JSON, a PNG on standard output, a preview.

    Attributes:
        console: for notes, progress and errors.
        piped: whether the picture itself goes to standard output.
    """

    def __init__(self, *, piped: bool, as_json: bool, show: bool, quiet: bool) -> None:
        if piped and (as_json or sys.stdout.isatty()):
            raise OptionError(
                "output is '-': standard output is not for --json or a terminal then."
            )
        self.console = Console(quiet=quiet)
        self.piped, self._as_json, self._show = piped, as_json, show

    def print_all(self, pictures: Iterable[Made], *, metadata: bool = True) -> None:
        """Print each picture as it comes; exit status 1 if errors were reported meanwhile."""
        made: list[dict[str, Any]] = []
        with self.console:
            try:
                for picture in pictures:
                    made.append(picture.as_json())
                    self._print(picture, metadata)
            finally:
                if self._as_json:
                    self.console.result(json.dumps(made, indent=2))
        if self.console.errors:
            raise typer.Exit(1)

    def _print(self, picture: Made, metadata: bool) -> None:
        if self.piped:
            self.console.result_bytes(picture.encode(".png", metadata=metadata))
        elif not self._as_json:
            self.console.result(str(picture.path))
        if self._show:
            self.console.preview(picture.image)


def drawing_command(
    *, hears: bool = True, roles: Sequence[str] = ("sound_encoder", "generator"), leave: str = ""
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the shared flags.

    The decorated function has its own parameters first and then takes, by keyword, `job`, `printer`
    and, where it `hears`, `sound_options`; the flags themselves are typed once, here.

    Args:
        hears: whether the command reads sounds with the flags of SoundOptions.
        roles: networks of the preset that must be there before the command runs.
        leave: names of shared flags that the command does without or types itself, separated by
            spaces.
    """
    groups: list[Callable[..., None]] = [_hearing] if hears else []
    groups += [_drawing, _computing, _writing]
    left = leave.split()

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(function, eval_str=True)
        given = ("job", "printer", "sound_options")
        parameters = [p for name, p in own.parameters.items() if name not in given]
        shared = [
            parameter
            for group in groups
            for parameter in _parameters(group)
            if parameter.name not in left
        ]

        @functools.wraps(function)
        def command(**values: Any) -> None:
            named = {name: values[name] for name in (p.name for p in parameters)}
            flags = {p.name: values[p.name] for p in shared}
            printer = Printer(
                piped=flags.get("output") == "-",
                as_json=flags.get("as_json", False),
                show=flags.get("show", False),
                quiet=flags.get("quiet", False),
            )
            job = _job(function.__name__, flags)
            if job.command in ABILITIES:  # before anything is downloaded in vain
                require_ability(load_preset(job.preset), job.command)
            _have_weights(job, roles, flags, printer.console)
            if hears:
                named["sound_options"] = _sound_options(flags)
            function(**named, job=job, printer=printer)

        together = [*parameters, *shared]
        signature = inspect.Signature(together)
        command.__signature__ = signature  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in together}
        return command

    return decorate


@functools.cache
def _parameters(group: Callable[..., None]) -> tuple[inspect.Parameter, ...]:
    """The flags of a group; their annotations are compiled once, which `--help` feels."""
    signature = inspect.signature(group, eval_str=True)
    return tuple(
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in signature.parameters.values()
    )


def _job(name: str, flags: dict[str, Any]) -> Job:
    drawn = ("seed", "count", "truncation", "best_of", "size", "contrast", *MODEL_OPTIONS)
    asked = {field: flags[field] for field in drawn if field in flags}
    return Job(
        command=name,
        target=flags.get("output"),
        preset=flags["preset"],
        options=load_preset(flags["preset"]).generate_options(**asked),
        device=flags["device"],
        dtype=flags["dtype"],
        low_vram=flags["low_vram"],
        weights_dir=flags["weights_dir"],
        overwrite=flags.get("force", False),
        metadata=not flags.get("no_metadata", False),
    )


def _sound_options(flags: dict[str, Any]) -> SoundOptions:
    duration = flags.get("duration")
    return SoundOptions(
        start_s=parse_duration(flags.get("start", "0"), "start"),
        duration_s=None if duration is None else parse_duration(duration, "duration"),
        window=flags.get("window", "loudest"),
        gain_db=flags.get("gain_db", 0.0),
    )


def _have_weights(job: Job, roles: Sequence[str], flags: dict[str, Any], console: Console) -> None:
    """Download what the preset lacks, if it may; nothing is done for presets with own files."""
    preset = load_preset(job.preset)
    if job.command in ABILITIES:
        require_ability(preset, job.command)
    needed = list(roles)
    if job.options.best_of > 1 and "image_encoder" not in needed:
        needed.append("image_encoder")
    assets = [name for role in needed for name in preset.weight(role).assets]
    if not assets:
        return
    from s2v_cli.networks import converters
    from s2v_cli.weights.pull import ensure_weights

    options = pull_options("auto", assets, job.weights_dir, flags["accept_licence"])
    with console:
        ensure_weights(
            preset, needed, converters(), options, dialogue_of(console), yes=flags["yes"]
        )
