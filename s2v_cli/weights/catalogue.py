"""The catalogue of published weights: names, sources, sizes, licences.

`catalogue.toml` beside this file holds it. The environment variable S2V_CATALOGUE names a TOML
file of the same form whose assets replace or join those: for mirrors of one's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from s2v_cli.errors import WeightsError

AssetKind = Literal["tensors", "file", "folder"]
Variant = Literal["full", "fp16"]
_LOOPBACK = ("http://127.0.0.1", "http://localhost", "http://[::1]")


@dataclass(frozen=True)
class Source:
    """One place that a file or folder can come from.

    Attributes:
        kind: `hf` (Hugging Face hub), `https` or `drive` (Google Drive).
        place: repository, address or Drive id.
        path: of the file inside the repository; empty for a whole folder and the other kinds.
        revision: of the repository, where the catalogue pins one.
    """

    kind: Literal["hf", "https", "drive"]
    place: str
    path: str = ""
    revision: str | None = None

    @property
    def file_name(self) -> str:
        """Name of the file at this place; empty where the place does not tell, as Drive's."""
        if self.kind == "drive":
            return ""
        return (self.path if self.kind == "hf" else self.place.partition("?")[0]).rpartition("/")[2]

    def __str__(self) -> str:
        if self.kind == "https":
            return self.place
        revision = f"@{self.revision}" if self.revision else ""
        path = f":{self.path}" if self.path else ""
        return f"{self.kind}:{self.place}{revision}{path}"


@dataclass(frozen=True)
class PublishedFile:
    """A file as published.

    Attributes:
        name: that it has on its page; converters ask for it by this name.
        bytes: size of the download.
        estimated: whether `bytes` is computed, not stated by its page.
        sha256: where one is published, else None.
        sources: in the order in which they are tried.
    """

    name: str
    bytes: int
    estimated: bool
    sha256: str | None
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Asset:
    """Published weights under one name.

    Attributes:
        name: that presets and commands use.
        title: for people.
        kind: `tensors` are converted to one safetensors file; `file` and `folder` stay as
            published.
        licence: as its page states it.
        commercial: whether the licence allows commercial use.
        page: where the licence and the model are described.
        by_hand: address that only a browser can use, or empty.
        file: of tensors and files: what is downloaded; None for a folder.
        sources: of a folder: repositories in the order in which they are tried.
        patterns: of a folder: the files that are needed; `a|b` takes b where a is not there.
        subfolder: of a folder: where in the repository the model lies.
        folder_bytes: of a folder: size of the download by variant.
        estimated: whether a size is computed, not stated.
        converted_bytes: of tensors: size after conversion, about.
        scratch_bytes: that conversion needs on disk for a while.
        signature: keys and shapes that tell it from other files.
        pipeline: of a folder: names of diffusers pipelines that tell it.
        config: of a folder: entries of its config.json that tell it.
        marks: of another file: texts that it holds.
    """

    name: str
    title: str
    kind: AssetKind
    licence: str
    commercial: bool
    page: str
    by_hand: str = ""
    file: PublishedFile | None = None
    sources: tuple[Source, ...] = ()
    patterns: tuple[str, ...] = ()
    subfolder: str = ""
    folder_bytes: Mapping[str, int] = field(default_factory=dict)
    estimated: bool = False
    converted_bytes: int = 0
    scratch_bytes: int = 0
    signature: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    pipeline: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    marks: tuple[str, ...] = ()

    def bytes(self, variant: Variant = "full") -> int:
        """Size of the download; half precision has a size of its own only where it exists."""
        if self.kind == "folder":
            return self.folder_bytes.get(variant, self.folder_bytes["full"])
        return self.file.bytes if self.file else 0

    def disk_bytes(self, variant: Variant = "full") -> int:
        """Free disk space that getting it takes: the download, and the conversion beside it."""
        return self.bytes(variant) + self.converted_bytes + self.scratch_bytes

    @property
    def licence_text(self) -> str:
        """The licence in a few words."""
        return self.licence if self.commercial else f"{self.licence}, non-commercial"


def read_catalogue() -> dict[str, Asset]:
    """All assets by name, those of S2V_CATALOGUE included.

    Raises:
        WeightsError: a file that is missing or malformed; names the asset and the key.
    """
    assets = _read(Path(__file__).with_name("catalogue.toml"))
    own = os.environ.get("S2V_CATALOGUE")
    if own:
        assets |= _read(Path(own).expanduser())
    return assets


def find_asset(name: str) -> Asset:
    """The asset of a name.

    Raises:
        WeightsError: there is none; with the nearest name.
    """
    assets = read_catalogue()
    if name in assets:
        return assets[name]
    import difflib

    near = difflib.get_close_matches(name, list(assets), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise WeightsError(f"Unknown weights {name!r}.{hint} Run 's2v weights list' to list all.")


def parse_source(text: str) -> Source:
    """Read `hf:REPO[@REVISION][:PATH]`, `https://...` or `drive:ID`.

    Plain http is accepted from this machine alone.

    Raises:
        ValueError: anything else.
    """
    kind, _, rest = text.partition(":")
    if kind == "https" or text.startswith(_LOOPBACK):
        return Source("https", text)
    if kind == "drive" and rest:
        return Source("drive", rest)
    place, _, path = rest.partition(":")
    repo, _, revision = place.partition("@")
    inside = not path.startswith("/") and ".." not in path.split("/")
    if kind == "hf" and repo.count("/") == 1 and inside:
        return Source("hf", repo, path, revision or None)
    raise ValueError(f"{text!r}; allowed: hf:REPO[@REVISION]:PATH, https://..., drive:ID")


def human_bytes(count: int) -> str:
    """A size for people, in decimal units: 51 MB, 3.5 GB."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            number = count / size
            return f"{number:.1f} {unit}" if number < 10 else f"{number:.0f} {unit}"
    return f"{count} bytes"


def _read(path: Path) -> dict[str, Asset]:
    import tomllib

    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"Cannot read the catalogue {path}: {error}.") from error
    assets = {}
    for name, table in tables.items():
        try:
            assets[name] = _asset(name, table)
        except KeyError as error:
            raise WeightsError(f"{name} of {path} lacks the key {error}.") from None
        except (TypeError, ValueError, AttributeError) as error:
            raise WeightsError(f"{name} of {path} is malformed: {error}.") from None
    return assets


def _asset(name: str, table: dict[str, Any]) -> Asset:
    table = dict(table)
    if Path(name).name != name or name.startswith("."):
        raise ValueError("its name must do as a file name")
    if table["kind"] not in get_args(AssetKind):
        raise ValueError(f"kind is {table['kind']!r}; allowed: {', '.join(get_args(AssetKind))}")
    file = _file(table.pop("file")) if "file" in table else None
    sizes: dict[str, int] = {}
    if table["kind"] == "folder":
        sizes["full"] = int(table.pop("bytes"))
        if "fp16_bytes" in table:
            sizes["fp16"] = int(table.pop("fp16_bytes"))
        if not table["sources"] or not table["patterns"]:
            raise ValueError("a folder needs sources and patterns")
    elif file is None:
        raise ValueError("it has no file")
    estimated = bool(table.pop("estimated", False)) or (file is not None and file.estimated)
    return Asset(
        name=name,
        file=file,
        sources=_sources(table.pop("sources", ())),
        patterns=tuple(table.pop("patterns", ())),
        pipeline=tuple(table.pop("pipeline", ())),
        marks=tuple(table.pop("marks", ())),
        signature=_shapes(table.pop("signature", {})),
        folder_bytes=sizes,
        estimated=estimated,
        **table,
    )


def _file(entry: Mapping[str, Any]) -> PublishedFile:
    name = entry["name"]
    if Path(name).name != name or name.startswith("."):
        raise ValueError(f"file.name is {name!r}; allowed: a bare file name")
    return PublishedFile(
        name=name,
        bytes=int(entry["bytes"]),
        estimated=bool(entry.get("estimated", False)),
        sha256=entry.get("sha256"),
        sources=_sources(entry["sources"]),
    )


def _shapes(table: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(shape) for key, shape in table.items()}


def _sources(texts: Iterable[str]) -> tuple[Source, ...]:
    return tuple(parse_source(text) for text in texts)
