"""Sources: what people have, listed as items of which each becomes some examples.

A layout is a function that lists a folder or file; `LAYOUTS` names them all, and `auto` looks which
one fits. Listing opens no sound, picture or video.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol

from s2v_cli.errors import OptionError, TrainingError
from s2v_cli.training.manifest import Pairing, Split, is_prepared
from s2v_cli.training.prepare.options import PrepareOptions
from s2v_cli.training.prepare.report import Skipped

Kind = Literal["video", "sound", "image"]
Box = tuple[float, float, float, float]

# Name -> home; a file is imported when its layout is named.
_HERE = "s2v_cli.training.prepare"
LAYOUTS = {
    "videos": f"{_HERE}.sources:videos",
    "pairs": f"{_HERE}.sources:pairs",
    "classes": f"{_HERE}.sources:classes",
    "manifest": f"{_HERE}.tables:manifest",
    "vggsound": f"{_HERE}.vggsound:vggsound",
    "vegas": f"{_HERE}.vegas:vegas",
    "celebv": f"{_HERE}.celebv:celebv",
}
MANIFEST_SUFFIXES = (".csv", ".tsv", ".jsonl")
MANIFEST_NAMES = tuple(f"manifest{suffix}" for suffix in MANIFEST_SUFFIXES)
# Which lists give a published dataset away, and which options are of one alone.
INDEX_FILES = {"vggsound.csv": "vggsound", "celebvhq_info.json": "celebv"}
ONLY_OF = {"moments": ("vggsound",), "classes": ("vggsound", "vegas"), "per_class": ("vegas",)}
CLASS_TABLES = ("images/SOURCES.csv", "sounds/SOURCES.csv", "sounds/image_classes.csv")
# fmt: off
SUFFIXES: dict[str, Kind] = {
    **dict.fromkeys((
        ".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv",
    ), "video"),
    **dict.fromkeys((
        ".aac", ".aif", ".aifc", ".aiff", ".amr", ".au", ".caf", ".flac", ".m4a", ".mka", ".mp2",
        ".mp3", ".oga", ".ogg", ".opus", ".w64", ".wav", ".wave", ".wma",
    ), "sound"),
    **dict.fromkeys((
        ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp",
    ), "image"),
}
# Folders that only say what is in them.
KIND_FOLDERS = frozenset({
    "audio", "audios", "clip", "clips", "image", "images", "img", "imgs", "jpg", "jpgs", "photo",
    "photos", "picture", "pictures", "sound", "sounds", "wav", "wavs",
})
SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation",
    "validation": "validation", "dev": "validation", "test": "test", "testing": "test",
}
# fmt: on
_KEY_LENGTH = 80  # a tar of the plain kind holds names of 100


@dataclass(frozen=True)
class Item:
    """One video, pair, sound or picture, of which examples are to be made.

    Attributes:
        key: wished name of the examples; `distinct_keys` makes it one.
        source: the recording that it is from; all items of one end in one split.
        origin: path relative to what is prepared, for the manifest and the report.
        where: what messages call it: the origin, or a line of a list.
        name: class.
        split: where it is given.
        video: a file with frames and sound; then there is no image and no sound.
        image: a picture.
        sound: a sound.
        start_s: where in the video or sound its part begins, seconds.
        duration_s: how long that part is, seconds; None goes to the end.
        moments: where given, the moments of the video to take, seconds from `start_s`, the best
            first; nothing is selected then but the first `top_k` of them.
        box: of the picture, what to keep: left, top, right and bottom in shares of its sides.
    """

    key: str
    source: str
    origin: str
    where: str = ""
    name: str | None = None
    split: Split | None = None
    video: Path | None = None
    image: Path | None = None
    sound: Path | None = None
    start_s: float = 0.0
    duration_s: float | None = None
    moments: tuple[float, ...] = ()
    box: Box | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that it is made of."""
        return tuple(file for file in (self.video, self.image, self.sound) if file is not None)


class Source(Protocol):
    """What a layout found.

    Attributes:
        layout: its name.
        pairing: what makes a picture and a sound a pair.
        told: what the source was taken for, in words.
        notes: lines that a person should read.
        skipped: files that become no item.
    """

    layout: str
    pairing: Pairing
    told: str
    notes: Sequence[str]
    skipped: Sequence[Skipped]

    def items(self) -> Iterator[Item]:
        """All items; each call begins anew."""
        ...


@dataclass
class Listed:
    """A source whose items are known."""

    layout: str
    pairing: Pairing
    told: str
    found: list[Item]
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def items(self) -> Iterator[Item]:
        """All items."""
        return iter(self.found)


def open_source(path: Path, options: PrepareOptions) -> Source:
    """List a source by the layout of the options.

    Args:
        path: a folder, or a file for the layout `manifest`.
        options: which layout, and what it needs to know.

    Raises:
        OptionError: unknown layout.
        TrainingError: missing, or nothing there that can be prepared.
    """
    name = options.layout
    if name != "auto" and name not in LAYOUTS:
        raise OptionError(f"layout is {name!r}; allowed: auto, {', '.join(LAYOUTS)}.")
    if not path.exists():
        raise TrainingError(f"No file or folder at {str(path)!r}; give what is to be prepared.")
    if is_prepared(path):
        raise TrainingError(
            f"{path} is a prepared dataset already. Train with it: s2v train {path}"
        )
    if name == "auto":
        name = detect(path)
    for option, layouts in ONLY_OF.items():
        if getattr(options, option) is not None and name not in layouts:
            raise OptionError(
                f"--{option.replace('_', '-')} goes with --layout {' or '.join(layouts)}; the "
                f"layout is {name}."
            )
    module, function = LAYOUTS[name].split(":")
    open_layout: Callable[[Path, PrepareOptions], Source] = getattr(import_module(module), function)
    return open_layout(path, options)


@dataclass(frozen=True)
class Found:
    """A file of a folder: where it is, and what its place says.

    Attributes:
        path: to open it.
        origin: relative to the folder, with slashes.
        kind: by its suffix.
        split: by a folder such as `train`, which is the first one.
        folders: the others, without those that only name the kind, such as `images`.
    """

    path: Path
    origin: str
    kind: Kind
    split: Split | None
    folders: tuple[str, ...]

    @property
    def stem(self) -> str:
        """Its folders and its name without suffix, which pairs share."""
        return "/".join((self.split or "", *self.folders, self.path.stem))

    @property
    def name(self) -> str | None:
        """Its class: the first folder."""
        return self.folders[0] if self.folders else None


def find_files(folder: Path) -> list[Found]:
    """Videos, sounds and pictures of a folder and those in it, sorted; hidden ones are left out.

    Raises:
        TrainingError: the folder cannot be read.
    """
    root = folder.resolve()
    paths: list[tuple[str, Kind]] = []

    def refuse(error: OSError) -> None:
        raise TrainingError(f"Cannot read {error.filename}: {error.strerror}.")

    for parent, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        folders[:] = [name for name in sorted(folders) if name[0] != "."]
        inside = os.path.relpath(parent, root)
        for name in sorted(files):
            kind = SUFFIXES.get(os.path.splitext(name)[1].lower())
            if kind is not None and name[0] != ".":
                origin = name if inside == "." else f"{inside}/{name}".replace(os.sep, "/")
                paths.append((origin, kind))
    tops = {origin.split("/")[0].lower() for origin, _ in paths if "/" in origin}
    by_split = bool(tops) and tops <= set(SPLIT_FOLDERS) and all("/" in name for name, _ in paths)
    found = []
    for origin, kind in paths:
        *parts, _ = origin.split("/")
        split = SPLIT_FOLDERS[parts.pop(0).lower()] if by_split else None
        inner = tuple(part for part in parts if part.lower() not in KIND_FOLDERS)
        found.append(Found(folder / origin, origin, kind, split, inner))
    return found


def detect(path: Path) -> str:
    """The layout of a source, by what lies in it.

    Raises:
        TrainingError: nothing there that can be prepared.
    """
    for file, layout in INDEX_FILES.items():
        if path.name == file or (path / file).is_file():
            return layout
    if path.is_file():
        if path.suffix.lower() in MANIFEST_SUFFIXES:
            return "manifest"
        if SUFFIXES.get(path.suffix.lower()) == "video":
            return "videos"
        raise TrainingError(
            f"{path} is neither a video nor a manifest ({', '.join(MANIFEST_SUFFIXES)}); give "
            "one of them or a folder."
        )
    if any((path / name).is_file() for name in MANIFEST_NAMES):
        return "manifest"
    if _has_tables(path):
        return "classes"
    files = find_files(path)
    kinds = Counter(file.kind for file in files)
    if not files:
        raise TrainingError(
            f"Nothing to prepare in {path}: it has no video, sound or picture. Give a folder of "
            "videos, of pairs such as a.wav and a.jpg, or of class folders."
        )
    paired = _paired_share(files)
    if kinds["video"] and kinds["video"] >= min(kinds["sound"], kinds["image"]):
        return "videos"
    if not (kinds["sound"] and kinds["image"]):
        there, missing = ("sound", "picture") if kinds["sound"] else ("picture", "sound")
        number = kinds["sound"] or kinds["image"]
        raise TrainingError(
            f"Nothing to prepare in {path}: it has {counted(number, there)}, but no {missing}. A "
            "dataset needs both."
        )
    if paired < 0.5 and any(file.folders for file in files):
        return "classes"
    return "pairs"


def _paired_share(files: Sequence[Found]) -> float:
    """Share of the sounds with a picture of the same stem, or of the pictures, if these are few."""
    sounds = {file.stem for file in files if file.kind == "sound"}
    images = {file.stem for file in files if file.kind == "image"}
    few = min(len(sounds), len(images))
    return len(sounds & images) / few if few else 0.0


def slug(text: str) -> str:
    """A key from a path: small letters, digits, `_` and `-`; a hash stands for what is lost."""
    plain = re.sub(r"[^a-z0-9-]+", "_", text.lower()).strip("_-")
    if len(plain) <= _KEY_LENGTH and plain and text.isascii():
        return plain
    return f"{plain[: _KEY_LENGTH - 9]}_{_hash(text)}".lstrip("_")


def distinct_keys(items: Sequence[Item]) -> list[Item]:
    """Items whose keys are all different: of those alike, all but the first take a hash."""
    taken: set[str] = set()
    result = []
    for item in sorted(items, key=lambda item: (item.key, item.origin, item.start_s, item.where)):
        key, number = item.key, 0
        while key in taken:
            key = f"{item.key}_{_hash(f'{item.origin}/{item.start_s!r}/{number}')}"
            number += 1
        taken.add(key)
        result.append(item if key == item.key else replace(item, key=key))
    return result


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def counted(number: int, noun: str, several: str | None = None) -> str:
    """`1 video`, `20 videos`."""
    return f"{number} {noun if number == 1 else several or noun + 's'}"


def unused(files: Sequence[Found], kinds: Sequence[Kind], layout: str) -> list[Skipped]:
    """Rows for the files of a folder that a layout does not take."""
    return [
        Skipped(file.origin, "not used", f"the layout {layout} takes no {file.kind}s")
        for file in files
        if file.kind not in kinds
    ]


def videos(path: Path, options: PrepareOptions) -> Listed:
    """A folder of videos, or one video; the last folder above a video is its class."""
    if path.is_file():
        item = Item(slug(path.stem), path.stem, path.name, path.name, video=path)
        return Listed("videos", "file", "one video", [item])
    files = find_files(path)
    items = [
        Item(
            key=slug(os.path.splitext(file.origin)[0]),
            source=file.origin,
            origin=file.origin,
            where=file.origin,
            name=file.folders[-1] if file.folders else None,
            split=file.split,
            video=file.path,
        )
        for file in files
        if file.kind == "video"
    ]
    told = f"a folder of videos: {counted(len(items), 'video')}"
    return Listed("videos", "file", told, items, unused(files, ["video"], "videos"))


def pairs(path: Path, options: PrepareOptions) -> Listed:
    """Sounds and pictures of one stem: a.wav and a.jpg, in one folder or in sounds/ and images/."""
    files = find_files(path)
    skipped = unused(files, ["sound", "image"], "pairs")
    by_stem: dict[str, dict[str, Found]] = {}
    for file in files:
        if file.kind == "video":
            continue
        pair = by_stem.setdefault(file.stem, {})
        other = pair.setdefault(file.kind, file)
        if other is not file:
            skipped.append(Skipped(file.origin, "duplicate name", f"{other.origin} is taken"))
    items = []
    for pair in by_stem.values():
        if len(pair) < 2:
            (file,) = pair.values()
            missing = "picture" if file.kind == "sound" else "sound"
            skipped.append(
                Skipped(file.origin, "no partner", f"no {missing} {file.path.stem}.* beside it")
            )
            continue
        sound, image = pair["sound"], pair["image"]
        stem = os.path.splitext(sound.origin)[0]
        items.append(
            Item(
                key=slug("/".join((*sound.folders, sound.path.stem))),
                source=stem,
                origin=sound.origin,
                where=sound.origin,
                name=sound.name,
                split=sound.split,
                image=image.path,
                sound=sound.path,
            )
        )
    told = f"sounds and pictures of one stem: {counted(len(items), 'pair')}"
    return Listed("pairs", "file", told, items, skipped)


def classes(path: Path, options: PrepareOptions) -> Listed:
    """Class folders: images/CLASS and sounds/CLASS, CLASS/images and CLASS/sounds, or CLASS/.

    With images/SOURCES.csv, sounds/SOURCES.csv and sounds/image_classes.csv, as
    `training.dataset` reads them, their splits, recordings and pairs of classes are taken.
    """
    if _has_tables(path):
        items, skipped = _listed_classes(path), list[Skipped]()
    else:
        items, skipped = _found_classes(path)
    kept, dropped = with_partners(items, options)
    images = [item for item in kept if item.image is not None]
    sounds = len(kept) - len(images)
    told = (
        f"class folders: {counted(len({item.name for item in images}), 'class', 'classes')} of "
        f"{counted(len(images), 'picture')}, {counted(sounds, 'sound')}"
    )
    return Listed("classes", "class", told, kept, skipped + dropped)


def _has_tables(path: Path) -> bool:
    return all((path / name).is_file() for name in CLASS_TABLES)


def _listed_classes(path: Path) -> list[Item]:
    from s2v_cli.training.dataset import find_clips, photo_split

    items = []
    with (path / "images/SOURCES.csv").open(newline="", encoding="utf-8") as table:
        for row in csv.DictReader(table):
            origin = f"images/{row['file']}"
            items.append(
                Item(
                    slug(origin), origin, origin, origin, row["class"], photo_split(row["file"]),
                    image=path / origin,
                )
            )  # fmt: skip
    for clip in find_clips(path):
        origin = clip.path.relative_to(path).as_posix()
        items.append(
            Item(
                slug(origin), clip.recording, origin, origin,
                clip.photo_class or f"~{clip.sound_class}", clip.split, sound=clip.path,
            )
        )  # fmt: skip
    return items


def _found_classes(path: Path) -> tuple[list[Item], list[Skipped]]:
    files = find_files(path)
    items, skipped = [], unused(files, ["sound", "image"], "classes")
    for file in files:
        if file.kind == "video":
            continue
        if file.name is None:
            skipped.append(Skipped(file.origin, "no class", "it lies in no class folder"))
            continue
        items.append(
            Item(
                key=slug(file.origin),
                source=file.origin,
                origin=file.origin,
                where=file.origin,
                name=file.name,
                split=file.split,
                image=file.path if file.kind == "image" else None,
                sound=file.path if file.kind == "sound" else None,
            )
        )
    return items, skipped


def with_partners(
    items: Sequence[Item], options: PrepareOptions
) -> tuple[list[Item], list[Skipped]]:
    """Of a dataset paired by class: items of classes that have sounds and pictures.

    Sounds of other classes are kept as `~CLASS`, if the options say so. Pictures without sounds
    are kept: they are of use to other stages, and to retrieval.
    """
    pictured = {item.name for item in items if item.image is not None}
    kept, dropped = [], []
    for item in items:
        if item.image is not None or item.name in pictured:
            kept.append(item)
            continue
        name = (item.name or "").removeprefix("~")
        if options.unpaired:
            kept.append(replace(item, name=f"~{name}"))
        else:
            detail = f"class {name!r} has no pictures; --unpaired keeps its sounds"
            dropped.append(Skipped(item.origin, "no partner", detail))
    return kept, dropped
