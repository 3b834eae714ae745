"""`s2v weights`: get, check and remove the published models' weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from s2v_cli.commands.asking import dialogue_of, pull_options
from s2v_cli.console import Console
from s2v_cli.errors import OptionError
from s2v_cli.presets import WeightRole

if TYPE_CHECKING:
    from s2v_cli.weights.manifest import Manifest

weights = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Get, check and remove the weights of published models.",
)

Names = Annotated[
    list[str],
    typer.Argument(
        metavar="PRESET",
        show_default=False,
        help="Names from 's2v presets' or 's2v weights list'.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No notes and no progress.")]
WeightsDir = Annotated[
    Path | None,
    typer.Option("--weights-dir", metavar="FOLDER", help="Where weights lie, if not in the cache."),
]
AcceptLicence = Annotated[
    bool,
    typer.Option("--accept-licence", help="Agree to licences that forbid commercial use."),
]
AcceptChanged = Annotated[
    bool,
    typer.Option(
        "--accept-changed", help="Take files that differ from those that were here before."
    ),
]


@weights.command("list")
def list_weights(as_json: AsJson = False, weights_dir: WeightsDir = None) -> None:
    """List published weights: size, licence, presets that need them, and whether they are here."""
    from s2v_cli.weights.catalogue import human_bytes, read_catalogue
    from s2v_cli.weights.pull import PullOptions, plan_pull
    from s2v_cli.weights.selection import presets_of

    console = Console()
    rows: list[dict[str, Any]] = []
    for plan in plan_pull(list(read_catalogue()), PullOptions(weights_dir=weights_dir)):
        size = plan.asset.bytes()
        rows.append(plan.as_json() | {"bytes": size, "presets": presets_of(plan.asset.name)})
        if not as_json:
            about = "about " if plan.asset.estimated else ""
            users = ", ".join(rows[-1]["presets"]) or "evaluation"
            console.result(
                f"{plan.asset.name}: {plan.asset.title}, {about}{human_bytes(size)}, "
                f"{plan.asset.licence_text}, for {users}: {plan.status}"
            )
    if as_json:
        console.result(json.dumps(rows, indent=2))


@weights.command()
def pull(
    names: Names,
    more: Annotated[
        list[str] | None,
        typer.Option(
            "--with", metavar="ROLE", help="Also image_encoder or speech_encoder; repeatable."
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All networks of the preset.")] = False,
    variant: Annotated[
        Literal["auto", "full", "fp16"],
        typer.Option(help="Precision where there are two; auto: fp16 if there is CUDA."),
    ] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it would take.")
    ] = False,
    accept_licence: AcceptLicence = False,
    accept_changed: AcceptChanged = False,
    weights_dir: WeightsDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Download weights: what `s2v gen` needs of a preset, unless told otherwise.

    Prints the folder of each. What is here is left alone; an interrupted download goes on.
    """
    from s2v_cli.networks import converters
    from s2v_cli.weights import store
    from s2v_cli.weights.catalogue import human_bytes
    from s2v_cli.weights.pull import GEN_ROLES, plan_pull, pull_assets, require_licences
    from s2v_cli.weights.selection import find_assets

    roles = None if everything else [*GEN_ROLES, *_roles(more or [])]
    chosen = find_assets(names, roles)
    options = pull_options(variant, chosen, weights_dir, accept_licence, accept_changed)
    console = Console(quiet=quiet)
    plans = plan_pull(chosen, options)
    total, disk = sum(plan.bytes for plan in plans), sum(plan.disk_bytes for plan in plans)
    if dry_run and as_json:
        listed = [plan.as_json() for plan in plans]
        console.result(json.dumps({"assets": listed, "bytes": total, "disk_bytes": disk}, indent=2))
    elif dry_run:
        for plan in plans:
            size = "nothing to do" if plan.status == "here" else human_bytes(plan.bytes)
            console.result(f"{plan.asset.name}: {plan.status}, {size}, {plan.asset.licence_text}")
        console.result(f"in all: {human_bytes(total)} ({total} bytes), disk {human_bytes(disk)}")
    if dry_run:
        return
    dialogue = dialogue_of(console)
    if not chosen:
        console.note(f"{', '.join(names)} needs no download: its weights come with the package.")
    waiting = [plan.asset for plan in plans if plan.status != "here"]
    require_licences(waiting, accept_licence, dialogue)  # asked before there is progress to see
    with console:
        manifests = pull_assets(chosen, converters(), options, dialogue_of(console, ask=False))
    _show(console, manifests, store.weights_root(weights_dir), as_json)


@weights.command()
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="PRESET", help="Presets or weights. Default: all that is here."),
    ] = None,
    weights_dir: WeightsDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Read weights again from beginning to end and compare hashes; status 1 if one is wrong."""
    from s2v_cli.weights.audit import audit

    with Console(quiet=quiet) as console:
        checks = audit(names, weights_dir, console.progress)
        for check in checks:
            if check.problem:
                console.error(check.problem)
            elif not as_json:
                console.result(f"{check.name}: {check.status}")
    if as_json:
        console.result(json.dumps([check.as_json() for check in checks], indent=2))
    if not checks:
        console.note("No published weights are here.")
    if console.errors:
        raise typer.Exit(1)


@weights.command()
def path(
    name: Annotated[str, typer.Argument(metavar="PRESET", help="A preset, or published weights.")],
    everything: Annotated[bool, typer.Option("--all", help="All networks of the preset.")] = False,
    weights_dir: WeightsDir = None,
    as_json: AsJson = False,
) -> None:
    """Print where weights lie: a file, or a folder where there are several."""
    from s2v_cli.weights.audit import locate

    found = locate(name, weights_dir, everything=everything)
    console = Console()
    if as_json:
        console.result(json.dumps({key: str(value) for key, value in found.items()}, indent=2))
    else:
        for place in found.values():
            console.result(str(place))


@weights.command("import")
def import_files(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH", help="Files or folders that you downloaded.")
    ],
    name: Annotated[
        str | None,
        typer.Option("--as", metavar="WEIGHTS", help="What they are; a name from the list."),
    ] = None,
    accept_licence: AcceptLicence = False,
    accept_changed: AcceptChanged = False,
    weights_dir: WeightsDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Take in weights that you downloaded yourself; the originals stay.

    They are recognised by what they hold: checkpoints, archives, ONNX files, and folders in
    diffusers' layout.
    """
    from s2v_cli.networks import converters
    from s2v_cli.weights import store
    from s2v_cli.weights.adopt import import_weights, recognise
    from s2v_cli.weights.pull import require_licences

    console = Console(quiet=quiet)
    assets = [found.asset for path in paths for found in recognise(path, name)]
    require_licences(assets, accept_licence, dialogue_of(console))
    options = pull_options("full", [], weights_dir, accept_licence, accept_changed)
    with console:
        manifests = import_weights(
            paths, converters(), options, dialogue_of(console, ask=False), name=name
        )
    _show(console, manifests, store.weights_root(weights_dir), as_json)


@weights.command()
def rm(
    names: Names,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    weights_dir: WeightsDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Remove downloaded weights, but not those that another preset here needs.

    What was learnt stays: hashes of files, and licences that you agreed to.
    """
    from s2v_cli.weights.catalogue import human_bytes
    from s2v_cli.weights.removal import plan_removal, remove_assets
    from s2v_cli.weights.selection import find_assets, in_use

    console = Console(quiet=quiet)
    chosen = find_assets(names, None)
    kept = in_use(names, chosen) if weights_dir is None else {}
    for asset, preset in kept.items():
        console.note(f"{asset} stays: preset {preset} needs it.")
    chosen = [asset for asset in chosen if asset not in kept]
    plans = plan_removal(chosen, weights_dir)
    total = sum(plan.bytes for plan in plans)
    ask = dialogue_of(console).ask
    if plans and not dry_run and not yes:
        what = f"Remove {', '.join(plan.asset for plan in plans)} ({human_bytes(total)})?"
        if ask is None:
            raise OptionError(f"{what} Nobody can answer here: say --yes.")
        if not ask(what):
            raise typer.Exit(1)
    if not dry_run:
        plans = remove_assets(chosen, weights_dir, dialogue_of(console, ask=False))
    if as_json:
        listed = [plan.as_json() for plan in plans]
        console.result(json.dumps({"assets": listed, "bytes": total}, indent=2))
        return
    for plan in plans:
        shared = " (in the cache of the hub)" if plan.shared else ""
        console.result(f"{plan.asset}: {human_bytes(plan.bytes)} in {plan.folder}{shared}")
    console.result(f"in all: {human_bytes(total)} ({total} bytes)")


def _roles(words: list[str]) -> list[str]:
    for word in words:
        if word not in get_args(WeightRole):
            raise OptionError(f"with is {word!r}; allowed: {', '.join(get_args(WeightRole))}.")
    return words


def _show(console: Console, manifests: dict[str, Manifest], root: Path, as_json: bool) -> None:
    from dataclasses import asdict

    folders = {name: manifest.root_folder(root / name) for name, manifest in manifests.items()}
    if as_json:
        shown = [asdict(m) | {"folder": str(folders[name])} for name, m in manifests.items()]
        console.result(json.dumps(shown, indent=2))
    else:
        for place in folders.values():
            console.result(str(place))
