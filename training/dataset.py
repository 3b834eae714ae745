"""Datasets of class folders: what is there, how it is split, how it gets into memory.

Layout: `images/`, `faces/` and `sounds/`, each with a `SOURCES.csv` (class, file, ...; for sounds
also esc50_fold and recording), and `sounds/image_classes.csv`, which names the photo class that
each sound class is paired with. `speech/` may be there too; its classes are those of `faces/`, and
its `SOURCES.csv` names the speaker.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from s2v_cli.errors import TrainingError

Split = Literal["train", "validation", "test"]
PHOTO_SIZE = 160  # px, side of the stored photos
SOUND_RATE = 16_000  # Hz
TEST_FOLD = "4"  # ESC-50 fold
EXTRA_PAIRS = {"wind": "mountain"}  # a fair pair that the list does not name
UNSCORED = frozenset({"snow"})  # one recording only: trained on, never scored
FOLDS = 5  # of the speakers


@dataclass(frozen=True)
class Photo:
    """One photo: its group (photo class or `face_` group), file and split."""

    group: str
    path: Path
    key: str
    split: Split


@dataclass(frozen=True)
class Clip:
    """One sound clip: its class, the photo class it is paired with (or none), and its split."""

    sound_class: str
    photo_class: str | None
    path: Path
    recording: str
    split: Split


def hash_share(key: str) -> float:
    """A number in [0, 1) that depends on `key` alone: int(sha256) % 1000 / 1000."""
    return int(hashlib.sha256(key.encode()).hexdigest(), 16) % 1000 / 1000


def photo_split(key: str) -> Split:
    """A tenth is test (int(sha256) % 10 == 0), a twentieth of the rest is validation."""
    if int(hashlib.sha256(key.encode()).hexdigest(), 16) % 10 == 0:
        return "test"
    return "validation" if hash_share("validation/" + key) < 0.05 else "train"


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise TrainingError(f"{path} is missing; a dataset folder needs it.")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def find_photos(root: Path) -> list[Photo]:
    """All photos and faces below `root`; faces get groups named `face_<gender>_<age>`."""
    photos = []
    for folder, prefix in (("images", ""), ("faces", "face_")):
        for row in _rows(root / folder / "SOURCES.csv"):
            key = row["file"] if not prefix else f"faces/{row['file']}"
            path = root / folder / row["file"]
            photos.append(Photo(prefix + row["class"], path, key, photo_split(key)))
    return photos


def find_clips(root: Path) -> list[Clip]:
    """All sound clips below `root`, split by recording.

    Test: recordings with a clip in ESC-50 fold 4; for paired classes without ESC-50 clips, the
    fifth of the recordings (at least one) with the lowest hash. Validation: an eighth of the
    other recordings of each class with two or more, by hash. `snow` is never held out.
    """
    rows = _rows(root / "sounds" / "SOURCES.csv")
    pairs = {r["sound_class"]: r["image_class"] for r in _rows(root / "sounds/image_classes.csv")}
    pairs = {sound: photo for sound, photo in pairs.items() if photo} | EXTRA_PAIRS
    by_class: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_class.setdefault(row["class"], []).append(row)
    clips = []
    test = {r["recording"] for r in rows if r["esc50_fold"] == TEST_FOLD}
    for name, members in by_class.items():
        recordings = sorted({r["recording"] for r in members}, key=lambda r: hash_share(f"{r}"))
        if name in UNSCORED:
            held: set[str] = set()
            validation: set[str] = set()
        else:
            held = test & set(recordings)
            if name in pairs and not any(r["esc50_fold"] for r in members):
                held |= set(recordings[: max(1, round(len(recordings) / 5))])
            rest = [r for r in recordings if r not in held]
            rest.sort(key=lambda r: hash_share("validation/" + r))
            validation = set(rest[: max(1, round(len(rest) / 8))]) if len(rest) > 1 else set()
        for row in members:
            recording = row["recording"]
            split: Split = "train"
            if recording in held:
                split = "test"
            elif recording in validation:
                split = "validation"
            path = root / "sounds" / row["file"]
            clips.append(Clip(name, pairs.get(name), path, recording, split))
    return clips


def find_voices(root: Path, fold: int = 0) -> list[Clip]:
    """All utterances below `root/speech`, split by speaker; none where there is no such folder.

    A class `male_adult` is paired with the faces `face_male_adult`; `recording` is the speaker, and
    no speaker is in two splits. Within each class and source a fifth of the speakers is test, and
    an eighth of the others is validation, by hash; a source's only speaker is trained on.

    Args:
        root: folder of the data set.
        fold: which fifth is test, 0 to 4; 0 is that of the bundled model.
    """
    if not (root / "speech").is_dir():
        return []
    rows = _rows(root / "speech" / "SOURCES.csv")
    cells: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        cells.setdefault((row["class"], row["source_repo"]), set()).add(row["speaker"])
    splits: dict[str, Split] = {}
    for speakers in cells.values():
        ordered = sorted(speakers, key=hash_share)
        test = ordered[fold::FOLDS] if len(ordered) > 1 else []
        rest = sorted(set(ordered) - set(test), key=lambda s: hash_share(f"validation/{s}"))
        held = set(rest[: max(1, round(len(rest) / 8))]) if len(rest) > 1 else set()
        for speaker in rest:
            splits[speaker] = "validation" if speaker in held else "train"
        splits.update(dict.fromkeys(test, "test"))
    return [
        Clip(
            row["class"],
            f"face_{row['class']}",
            root / "speech" / row["file"],
            row["speaker"],
            splits[row["speaker"]],
        )
        for row in rows
    ]


def load_photos(photos: Sequence[Photo], cache: Path | None = None) -> Tensor:
    """Photos as uint8 [N, 3, 160, 160]; kept in the file `cache` for the next time."""
    digest = hashlib.sha256("\n".join(str(p.key) for p in photos).encode()).hexdigest()[:16]
    file = cache / f"photos-{digest}.npy" if cache else None
    if file and file.is_file():
        return torch.from_numpy(np.load(file))
    array = np.empty((len(photos), 3, PHOTO_SIZE, PHOTO_SIZE), np.uint8)
    for index, photo in enumerate(photos):
        with Image.open(photo.path) as image:
            rgb = image.convert("RGB")
            if rgb.size != (PHOTO_SIZE, PHOTO_SIZE):
                rgb = rgb.resize((PHOTO_SIZE, PHOTO_SIZE), Image.Resampling.LANCZOS)
            array[index] = np.asarray(rgb).transpose(2, 0, 1)
    _save_cache(file, array)
    return torch.from_numpy(array)


def load_waves(clips: Sequence[Clip], cache: Path | None = None) -> list[Tensor]:
    """Clips as float32 waves [T] at 16 kHz, levels as stored."""
    import soundfile

    digest = hashlib.sha256("\n".join(str(c.path) for c in clips).encode()).hexdigest()[:16]
    file = cache / f"sounds-{digest}.npy" if cache else None
    lengths_file = cache / f"sounds-{digest}-lengths.npy" if cache else None
    if file and lengths_file and file.is_file() and lengths_file.is_file():
        flat, lengths = torch.from_numpy(np.load(file)), np.load(lengths_file)
        return list(flat.split([int(n) for n in lengths]))
    waves = []
    for clip in clips:
        wave, rate = soundfile.read(clip.path, dtype="float32", always_2d=True)
        if rate != SOUND_RATE:
            raise TrainingError(f"{clip.path} is at {rate} Hz; training sounds need {SOUND_RATE}.")
        waves.append(wave.mean(axis=1))
    _save_cache(file, np.concatenate(waves))
    _save_cache(lengths_file, np.array([len(w) for w in waves]))
    return [torch.from_numpy(w) for w in waves]


def _save_cache(file: Path | None, array: np.ndarray) -> None:
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part")
    with partial.open("wb") as stream:
        np.save(stream, array)
    partial.replace(file)


def members_of(names: Sequence[str], keep: Callable[[int], bool]) -> dict[str, Tensor]:
    """Indices of each group: {name: int64 [n]}, over the indices that `keep` accepts."""
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        if keep(index):
            groups.setdefault(name, []).append(index)
    return {name: torch.tensor(indices) for name, indices in sorted(groups.items())}
