"""`s2v prepare`: videos, or sounds and pictures, become a dataset to train on."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s2v_cli.console import Console
from s2v_cli.duration import parse_duration
from s2v_cli.errors import OptionError
from s2v_cli.options import DeviceChoice
from s2v_cli.training.prepare.options import (
    PrepareOptions,
    SelectChoice,
    parse_part,
    parse_per_class,
    parse_splits,
)

if TYPE_CHECKING:
    from s2v_cli.training.prepare.assembly import Summary

REPORT_S = 60.0  # between lines of progress where there is no terminal to draw a bar on


class _Report:
    """Tells a console how preparing goes on: items, rate and time left."""

    def __init__(self, console: Console, bar: bool) -> None:
        self.console, self.bar, self.told = console, bar, time.monotonic()

    def __call__(self, stage: str, step: int, steps: int, figures: dict[str, float]) -> None:
        if not steps:
            self.console.progress(stage)
            return
        rate = figures["items_per_s"]
        left = time.strftime("%H:%M:%S", time.gmtime((steps - step) / max(rate, 1e-6)))
        skipped = f", {figures['skipped']:.0f} skipped" if figures["skipped"] else ""
        label = f"{stage}: {rate:.1f} items/s{skipped}, {left} left"
        self.console.progress(label, step, steps)
        if not self.bar and time.monotonic() - self.told > REPORT_S:
            self.told = time.monotonic()
            self.console.note(f"item {step} of {steps}, {label}")


def _tell(summary: Summary, console: Console) -> None:
    """Notes for people about what was found and made."""
    from s2v_cli.weights.catalogue import human_bytes

    for note in summary.notes:
        console.note(note)
    counts = ", ".join(f"{number} {split}" for split, number in summary.counts.items())
    skipped = ", ".join(f"{number} {reason}" for reason, number in summary.skipped.items())
    if summary.state == "unchanged":
        console.note(f"All of it is there already ({counts}); nothing was done.")
    elif summary.state == "planned":
        console.note("A dry run: numbers are of items; of a video several examples may come.")
    else:
        console.note(f"{counts}; {human_bytes(summary.bytes)}.")
    if skipped:
        where = f"; {summary.folder / 'report.csv'} says why" if summary.state == "made" else ""
        console.note(f"Skipped: {skipped}{where}.")


def prepare(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            show_default=False,
            help="A folder of videos, of pairs (a.wav, a.jpg), of class folders or of a published "
            "dataset; or a manifest (.csv, .tsv, .jsonl).",
        ),
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="DATA", show_default=False, help="Where the dataset goes.")
    ],
    layout: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What SOURCE is: videos, pairs, classes, manifest, vggsound, celebv or vegas. "
            "'auto' looks which of them fits, but for vegas.",
        ),
    ] = "auto",
    duration: Annotated[
        str, typer.Option(metavar="TIME", help="Length of the sound around each moment.")
    ] = "10",
    image_size: Annotated[
        int,
        typer.Option("--image-size", metavar="PIXELS", help="Short side of the pictures, at most."),
    ] = 256,
    select: Annotated[
        SelectChoice,
        typer.Option(
            help="Which moments of a video: 'top1', where sound and picture belong together most, "
            "the middle, random ones, or all, --stride apart."
        ),
    ] = "top1",
    top_k: Annotated[
        int, typer.Option("--top-k", metavar="K", help="Moments of a video, for top1 and random.")
    ] = 1,
    stride: Annotated[
        str, typer.Option(metavar="TIME", help="Between the moments that are looked at.")
    ] = "1",
    scorer: Annotated[
        str, typer.Option(metavar="PRESET", help="Whose encoders score the moments for top1.")
    ] = "mini",
    moments: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="The published top-10 moments of VGGSound, instead of --select."
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Of VGGSound: 50, the paper's, or a file of class names. Of VEGAS: 5, or a file.",
        ),
    ] = None,
    per_class: Annotated[
        str | None,
        typer.Option(
            "--per-class",
            metavar="TRAIN,TEST",
            help="Clips of each class of VEGAS. Default: 800,50.",
        ),
    ] = None,
    splits: Annotated[
        str, typer.Option(metavar="SHARES", help="Of train, validation and test, by source.")
    ] = "0.85,0.05,0.1",
    seed: Annotated[int, typer.Option(help="Of splits, order and random moments.")] = 0,
    min_duration: Annotated[
        str, typer.Option("--min-duration", metavar="TIME", help="Shorter sounds are skipped.")
    ] = "0.2",
    keep_silent: Annotated[
        bool, typer.Option("--keep-silent", help="Keep silent sounds; the report names them.")
    ] = False,
    unpaired: Annotated[
        bool,
        typer.Option(
            "--unpaired", help="Keep sounds of classes without pictures, as negatives ('~CLASS')."
        ),
    ] = False,
    shard_size: Annotated[
        float, typer.Option("--shard-size", metavar="MB", help="A shard is closed at that size.")
    ] = 64.0,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", help="Make the I-th of N parts; the last one to end merges them."
        ),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Only merge the parts that are there.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes. Default: one a core.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Work on a Ray cluster: HOST:PORT, 'auto' for this machine's, 'local' to start "
            "one here.",
        ),
    ] = None,
    device: Annotated[DeviceChoice, typer.Option(help="Where the scorer computes.")] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would be made; write nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace a dataset that was made otherwise.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No notes and no progress; errors stay.")
    ] = False,
) -> None:
    """Turn videos, or sounds and pictures, into a dataset for 's2v train'.

    Broken files are skipped and listed in DATA/report.csv. Stopped at any moment, the same command
    goes on; run again when it is done, it does nothing.
    """
    train, validation, test = parse_splits(splits)
    options = PrepareOptions(
        layout=layout,
        duration_s=parse_duration(duration, "duration"),
        image_size=image_size,
        select=select,
        top_k=top_k,
        stride_s=parse_duration(stride, "stride"),
        scorer=scorer,
        moments=moments,
        classes=classes,
        per_class=None if per_class is None else parse_per_class(per_class),
        train=train,
        validation=validation,
        test=test,
        seed=seed,
        min_duration_s=parse_duration(min_duration, "min-duration"),
        keep_silent=keep_silent,
        unpaired=unpaired,
        shard_mb=shard_size,
        part=None if shard is None else parse_part(shard),
        workers=workers,
        device=device,
    )
    if merge and (shard is not None or dry_run):
        raise OptionError("--merge stands alone: it goes with neither --shard nor --dry-run.")
    from s2v_cli.training.prepare import work
    from s2v_cli.training.prepare.cluster import RayCluster

    with Console(quiet=quiet) as console:
        if dry_run:
            summary = work.plan_dataset(source, folder, options)
            console.note(f"{source} is {summary.told}.")
        elif merge:
            summary = work.merge_parts(source, folder, options)
        else:
            report = _Report(console, bar=sys.stderr.isatty())
            executor = None if ray is None else RayCluster(ray, workers)
            summary = work.prepare(
                source,
                folder,
                options,
                report,
                executor=executor,
                overwrite=force,
                note=console.note,
            )
        _tell(summary, console)
    if as_json:
        console.result(json.dumps(summary.to_json(), indent=2))
    elif dry_run:
        for split, number in summary.counts.items():
            console.result(f"{number}\t{split}")
    else:
        console.result(str(folder))
