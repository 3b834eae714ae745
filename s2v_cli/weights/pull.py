"""Getting published weights: what is missing, asking, downloading, converting, remembering."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s2v_cli.errors import WeightsError
from s2v_cli.presets import Preset
from s2v_cli.weights import store
from s2v_cli.weights.catalogue import Asset, Variant, find_asset, human_bytes
from s2v_cli.weights.convert import Converters, find_converter
from s2v_cli.weights.disk import require_space
from s2v_cli.weights.fetch import FetchOptions, Progress
from s2v_cli.weights.manifest import Manifest, write_manifest
from s2v_cli.weights.memory import licence_accepted, remember_hashes, remember_licence
from s2v_cli.weights.obtain import STAGING, Order, obtain

GEN_ROLES = ("sound_encoder", "generator")  # what pictures from sound need


@dataclass(frozen=True)
class PullOptions:
    """How weights are got.

    Attributes:
        weights_dir: where they go; None is the cache.
        variant: precision of folders that come in two; one that is here in the other will do.
        exact_variant: it will not do.
        accept_licence: yes to licences that forbid commercial use.
        accept_changed: take files that differ from those recorded before.
        fetch: patience.
    """

    weights_dir: Path | None = None
    variant: Variant = "full"
    exact_variant: bool = False
    accept_licence: bool = False
    accept_changed: bool = False
    fetch: FetchOptions = field(default_factory=FetchOptions)


@dataclass(frozen=True)
class Dialogue:
    """Who is told, and who is asked.

    Attributes:
        ask: puts a yes-or-no question to a person; None where nobody can answer.
        note: hears what a person should know.
        progress: hears label, bytes so far and in all.
    """

    ask: Callable[[str], bool] | None = None
    note: Callable[[str], None] | None = None
    progress: Progress | None = None

    def tell(self, text: str) -> None:
        """Pass a note on."""
        if self.note:
            self.note(text)


@dataclass(frozen=True)
class Planned:
    """What getting one asset would take.

    Attributes:
        asset: what.
        status: `here`, `missing` or `damaged`.
        bytes: that would be downloaded; 0 for one that is here.
        disk_bytes: free space that it takes, conversion included.
        licence_accepted: whether its licence needs no yes any more.
    """

    asset: Asset
    status: store.WeightsStatus
    bytes: int
    disk_bytes: int
    licence_accepted: bool

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "asset": self.asset.name,
            "title": self.asset.title,
            "status": self.status,
            "bytes": self.bytes,
            "disk_bytes": self.disk_bytes,
            "estimated": self.asset.estimated,
            "licence": self.asset.licence,
            "commercial": self.asset.commercial,
            "licence_accepted": self.licence_accepted,
        }


def assets_of(preset: Preset, roles: Sequence[str] = GEN_ROLES) -> list[str]:
    """Names of the published weights that some networks of a preset need."""
    names = [name for weight in preset.weights if weight.role in roles for name in weight.assets]
    return list(dict.fromkeys(names))


def plan_pull(names: Sequence[str], options: PullOptions | None = None) -> list[Planned]:
    """What getting these assets would take; nothing is downloaded.

    Raises:
        WeightsError: an unknown name.
    """
    options = options or PullOptions()
    planned = []
    for name in dict.fromkeys(names):
        asset = find_asset(name)
        status = store.asset_status(name, options.weights_dir)
        if status == "here" and _lacks_variant(asset, options):
            status = "missing"
        here = status == "here"
        planned.append(
            Planned(
                asset=asset,
                status=status,
                bytes=0 if here else asset.bytes(options.variant),
                disk_bytes=0 if here else asset.disk_bytes(options.variant),
                licence_accepted=licence_accepted(asset, store.cache_folder()),
            )
        )
    return planned


def pull_assets(
    names: Sequence[str],
    converters: Converters,
    options: PullOptions | None = None,
    dialogue: Dialogue | None = None,
) -> dict[str, Manifest]:
    """Get published weights; those that are here and whole are left alone.

    Licences and disk space are looked at before anything is downloaded. What an interrupted run
    left is taken up again; of two runs at once one works and the other waits for it.

    Returns:
        Manifest of each asset.

    Raises:
        WeightsError: a licence without a yes, a full disk, or no source that gives the weights.
    """
    options, dialogue = options or PullOptions(), dialogue or Dialogue()
    planned = plan_pull(names, options)
    waiting = [plan for plan in planned if plan.status != "here"]
    for plan in waiting:
        if plan.asset.kind == "tensors":
            find_converter(plan.asset.name, converters)
    require_licences([plan.asset for plan in waiting], options.accept_licence, dialogue)
    _require_space(waiting, options)
    manifests = {}
    for plan in planned:
        name = plan.asset.name
        if plan.status == "here":
            manifests[name] = store.asset_manifest(name, options.weights_dir)
        else:
            manifests[name] = _pull(plan.asset, converters, options, dialogue)
    return manifests


def ensure_weights(
    preset: Preset,
    roles: Sequence[str],
    converters: Converters,
    options: PullOptions | None = None,
    dialogue: Dialogue | None = None,
    *,
    yes: bool = False,
) -> None:
    """Have the published weights of some networks of a preset here, or say what to do.

    Args:
        preset: whose.
        roles: networks that are about to be used.
        converters: of assets.
        options: how they are got.
        dialogue: who is asked; without somebody to ask, `yes` alone downloads.
        yes: download without asking. A licence that forbids commercial use still needs its yes.

    Raises:
        MissingWeightsError: they are missing, and nobody said yes: names, sizes, licences and the
            command.
        WeightsError: they cannot be had.
    """
    options, dialogue = options or PullOptions(), dialogue or Dialogue()
    waiting = [
        plan for plan in plan_pull(assets_of(preset, roles), options) if plan.status == "missing"
    ]
    if not waiting:
        return
    error = store.missing_assets(
        [plan.asset for plan in waiting],
        whose=f"preset {preset.name!r}",
        command=pull_command(preset, roles),
        weights_dir=options.weights_dir,
        variant=options.variant,
    )
    if not yes:
        if dialogue.ask is None:
            raise error
        parts = [
            f"{p.asset.name} ({human_bytes(p.bytes)}, {p.asset.licence_text})" for p in waiting
        ]
        question = (
            f"Preset {preset.name!r} needs {', '.join(parts)}. "
            f"Download {human_bytes(error.bytes)} now?"
        )
        if not dialogue.ask(question):
            raise error
    pull_assets([plan.asset.name for plan in waiting], converters, options, dialogue)


def require_licences(assets: Sequence[Asset], accept: bool, dialogue: Dialogue) -> None:
    """Have a yes to each licence that forbids commercial use; a yes is remembered.

    Raises:
        WeightsError: a no, or nobody there to ask.
    """
    home = store.cache_folder()
    open_ones = [asset for asset in assets if not licence_accepted(asset, home)]
    for asset in assets:
        if asset.commercial:
            dialogue.tell(f"{asset.name} is under {asset.licence} ({asset.page}).")
    for asset in open_ones:
        terms = f"{asset.name} is under {asset.licence}: not for commercial use ({asset.page})."
        if not accept:
            if dialogue.ask is None:
                raise WeightsError(f"{terms} To agree: --accept-licence.")
            if not dialogue.ask(f"{terms} Do you agree?"):
                raise WeightsError(f"{terms} Without a yes it is not downloaded.")
        else:
            dialogue.tell(f"{terms} Accepted.")
        with writing(home):
            remember_licence(asset, home)


@contextlib.contextmanager
def locked(root: Path, name: str, dialogue: Dialogue) -> Iterator[Path]:
    """The folder of an asset, there and ours alone for a while.

    Raises:
        WeightsError: it cannot be written.
    """
    from filelock import FileLock, Timeout

    folder = root / name
    with writing(root):
        folder.mkdir(parents=True, exist_ok=True)
        locks = root / ".locks"
        locks.mkdir(exist_ok=True)
        lock = FileLock(locks / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            dialogue.tell(f"Another s2v works on {name}; waiting for it.")
            lock.acquire()
    try:
        yield folder
    finally:
        lock.release()


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn failures to write into errors of ours."""
    try:
        yield
    except OSError as error:
        raise WeightsError(
            f"Cannot write in {folder}: {error.strerror or error}. Name another folder in S2V_HOME."
        ) from error


def finish(order: Order, manifest: Manifest) -> Manifest:
    """Make an asset count as here: hashes, manifest, then tidy up."""
    with writing(order.folder):
        remember_hashes(order.asset, order.hashes, order.home)
        write_manifest(manifest, order.folder)
    shutil.rmtree(order.folder / STAGING, ignore_errors=True)
    return manifest


def _pull(
    asset: Asset, converters: Converters, options: PullOptions, dialogue: Dialogue
) -> Manifest:
    root = store.weights_root(options.weights_dir)
    with locked(root, asset.name, dialogue) as folder:
        present = None
        with contextlib.suppress(WeightsError):
            present = store.verify_asset(asset.name, options.weights_dir)
            if not _lacks_variant(asset, options):
                return present  # another run got it
        with writing(folder):
            (folder / STAGING).mkdir(exist_ok=True)
        order = Order(
            asset=asset,
            folder=folder,
            home=store.cache_folder(),
            stamps=store.stamps_of(folder),
            variant=options.variant,
            into_hub_cache=options.weights_dir is None,
            accept_changed=options.accept_changed,
            fetch=options.fetch,
            progress=dialogue.progress,
            present=present,
        )
        converter = find_converter(asset.name, converters) if asset.kind == "tensors" else None
        return finish(order, obtain(order, converter))


def _lacks_variant(asset: Asset, options: PullOptions) -> bool:
    """Whether the precision that was asked for is not among what is here."""
    if not options.exact_variant or options.variant not in asset.folder_bytes:
        return False
    return options.variant not in store.asset_manifest(asset.name, options.weights_dir).variants


def _require_space(waiting: Sequence[Planned], options: PullOptions) -> None:
    """Room for all of them; the largest conversion counts once, since the rest goes after it."""
    if not waiting:
        return
    scratch = max(plan.disk_bytes - plan.asset.converted_bytes for plan in waiting)
    kept = sum(plan.asset.converted_bytes or plan.bytes for plan in waiting)
    names = ", ".join(plan.asset.name for plan in waiting)
    tensors = [plan for plan in waiting if plan.asset.kind == "tensors"]
    if tensors:
        require_space(store.weights_root(options.weights_dir), kept + scratch, names)


def pull_command(preset: Preset, roles: Sequence[str] = GEN_ROLES) -> str:
    """The command line that gets the weights of a preset's networks."""
    import shlex

    from s2v_cli.presets import preset_names

    known = preset.name in preset_names()
    name = preset.name if known else shlex.quote(str(preset.folder))
    more = "".join(f" --with {role}" for role in roles if role not in GEN_ROLES)
    return f"s2v weights pull {name}{more}"
