"""Class folders with tables: the layout that `mini` was made from.

`images/`, `faces/` and `sounds/`, each with a `SOURCES.csv` (class, file, ...; for sounds also the
recording), and `sounds/image_classes.csv`, which names the photo class that each sound class is
paired with. `speech/` may be there too; its classes are those of `faces/`, and its `SOURCES.csv`
names the speaker. Faces and speech may be missing.
"""

from __future__ import annotations

import csv
from pathlib import Path

from s2v_cli.errors import TrainingError
from s2v_cli.training.dataset import FACE, Clip, Photo, hash_share, photo_split
from s2v_cli.training.manifest import Split

FOLDERS = ("images", "sounds")  # with a table in each
SOURCES = "SOURCES.csv"
FOLDS = 5  # of the speakers

# Of the collection that has ESC-50's folds, which `mini` was made from; other data follow none of
# this.
FOLD_COLUMN = "esc50_fold"
TEST_FOLD = "4"
EXTRA_PAIRS = {"wind": "mountain"}  # a fair pair that the list does not name
UNSCORED = frozenset({"snow"})  # one recording only: trained on, never scored


def has_tables(root: Path) -> bool:
    """Whether a folder is in this layout, complete or not."""
    return any((root / folder / SOURCES).is_file() for folder in FOLDERS)


def rows_of(path: Path, *columns: str) -> list[dict[str, str]]:
    """Rows of a table.

    Raises:
        TrainingError: it is missing, cannot be read, or lacks a column.
    """
    if not path.is_file():
        raise TrainingError(f"{path} is missing; a dataset folder needs it.")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            rows = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"Cannot read {path}: {error}.") from None
    for column in columns:
        if column not in (table.fieldnames or ()):
            raise TrainingError(
                f"{path} has no column {column!r}; it has: {', '.join(table.fieldnames or ())}."
            )
    return rows


def _by_hash(name: str) -> tuple[float, str]:
    """An order of recordings; the name settles ties, so that it is the same in every process."""
    return hash_share(name), name


def _by_second_hash(name: str) -> tuple[float, str]:
    return hash_share("validation/" + name), name


def table_photos(root: Path) -> list[Photo]:
    """All photos and faces below `root`; faces get groups named `face_<gender>_<age>`."""
    photos = []
    for folder, prefix in (("images", ""), ("faces", FACE)):
        if prefix and not (root / folder).is_dir():
            continue
        for row in rows_of(root / folder / SOURCES, "class", "file"):
            key = row["file"] if not prefix else f"faces/{row['file']}"
            path = root / folder / row["file"]
            photos.append(Photo(prefix + row["class"], path, key, photo_split(key)))
    return photos


def table_clips(root: Path) -> list[Clip]:
    """All sound clips below `root`, split by recording.

    Test: of each paired class the fifth of the recordings (at least one) with the lowest hash, and
    where the table has ESC-50's folds, the recordings with a clip in fold 4 instead. Validation:
    an eighth of the other recordings of each class with two or more, by hash. A paired class of
    one recording is trained on.
    """
    rows = rows_of(root / "sounds" / SOURCES, "class", "file", "recording")
    pairs = {
        row["sound_class"]: row["image_class"]
        for row in rows_of(root / "sounds/image_classes.csv", "sound_class", "image_class")
    }
    pairs = {sound: photo for sound, photo in pairs.items() if photo}
    has_folds = bool(rows) and FOLD_COLUMN in rows[0]
    if has_folds:
        pairs |= EXTRA_PAIRS
    by_class: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_class.setdefault(row["class"], []).append(row)
    clips = []
    test = {row["recording"] for row in rows if row.get(FOLD_COLUMN) == TEST_FOLD}
    for name, members in by_class.items():
        recordings = sorted({row["recording"] for row in members}, key=_by_hash)
        held: set[str] = set()
        validation: set[str] = set()
        if not (name in UNSCORED if has_folds else len(recordings) == 1):
            held = test & set(recordings)
            if name in pairs and not any(r.get(FOLD_COLUMN) for r in members):
                held |= set(recordings[: max(1, round(len(recordings) / 5))])
            rest = [r for r in recordings if r not in held]
            rest.sort(key=_by_second_hash)
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


def table_voices(root: Path, fold: int) -> list[Clip]:
    """All utterances below `root/speech`, split by speaker; none where there is no such folder.

    Within each class and source a fifth of the speakers is test, and an eighth of the others is
    validation, by hash; a source's only speaker is trained on.
    """
    if not (root / "speech").is_dir():
        return []
    rows = rows_of(root / "speech" / SOURCES, "class", "file", "source_repo", "speaker")
    cells: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        cells.setdefault((row["class"], row["source_repo"]), set()).add(row["speaker"])
    splits: dict[str, Split] = {}
    for speakers in cells.values():
        ordered = sorted(speakers, key=_by_hash)
        test = ordered[fold::FOLDS] if len(ordered) > 1 else []
        rest = sorted(set(ordered) - set(test), key=_by_second_hash)
        held = set(rest[: max(1, round(len(rest) / 8))]) if len(rest) > 1 else set()
        for speaker in rest:
            splits[speaker] = "validation" if speaker in held else "train"
        splits.update(dict.fromkeys(test, "test"))
    return [
        Clip(
            row["class"],
            FACE + row["class"],
            root / "speech" / row["file"],
            row["speaker"],
            splits[row["speaker"]],
        )
        for row in rows
    ]


def fold_classes(root: Path) -> set[str]:
    """Sound classes with clips in ESC-50's fold 4 that are paired with photos by the table.

    None where the data have no such folds.
    """
    if not has_tables(root):
        return set()
    rows = rows_of(root / "sounds" / SOURCES, "class")
    found = {row["class"] for row in rows if row.get(FOLD_COLUMN) == TEST_FOLD}
    pairs = rows_of(root / "sounds/image_classes.csv", "sound_class", "image_class")
    paired = {row["sound_class"] for row in pairs if row["image_class"]}
    return (found & paired) - set(EXTRA_PAIRS) - UNSCORED


def unscored_of(root: Path) -> frozenset[str]:
    """Sound classes that are trained on and never scored."""
    if not has_tables(root):
        return frozenset()
    rows = rows_of(root / "sounds" / SOURCES, "class")
    return UNSCORED if rows and FOLD_COLUMN in rows[0] else frozenset()
