"""What the stages of a recipe are trained on: photos, clips and voices, from either layout.

A folder is a prepared dataset (`training.prepared`) or class folders with tables
(`training.tables`); both become the same lists. Only `read_bytes` knows where a file lies: in the
folder, or within a shard.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from s2v_cli.errors import TrainingError
from s2v_cli.training.manifest import Part, Split, is_prepared

PHOTO_SIZE = 160  # px, side of the stored photos
SOUND_RATE = 16_000  # Hz
FACE = "face_"  # begins the groups of faces
OWN = "@"  # begins the groups of photos without a class


@dataclass(frozen=True)
class Photo:
    """One photo.

    Attributes:
        group: photo class, `face_` group, or `@` and the source of a photo without a class.
        path: its file, or the shard that it lies in.
        key: names it within the dataset.
        split: train, validation or test.
        part: where in the shard; None where `path` is the photo itself.
    """

    group: str
    path: Path
    key: str
    split: Split
    part: Part | None = None


@dataclass(frozen=True)
class Clip:
    """One sound clip.

    Attributes:
        sound_class: its class.
        photo_class: group of the photos that it is paired with, or None.
        path: its file, or the shard that it lies in.
        recording: that it was cut from; or who speaks.
        split: train, validation or test; a recording is in one.
        part: where in the shard; None where `path` is the clip itself.
    """

    sound_class: str
    photo_class: str | None
    path: Path
    recording: str
    split: Split
    part: Part | None = None


def hash_share(key: str) -> float:
    """A number in [0, 1) that depends on `key` alone: int(sha256) % 1000 / 1000."""
    return int(hashlib.sha256(key.encode()).hexdigest(), 16) % 1000 / 1000


def photo_split(key: str) -> Split:
    """A tenth is test (int(sha256) % 10 == 0), a twentieth of the rest is validation."""
    if int(hashlib.sha256(key.encode()).hexdigest(), 16) % 10 == 0:
        return "test"
    return "validation" if hash_share("validation/" + key) < 0.05 else "train"


def is_readable(root: Path) -> bool:
    """Whether a folder is in one of the two layouts; others have to be prepared first."""
    from s2v_cli.training.tables import has_tables

    return is_prepared(root) or has_tables(root)


def find_photos(root: Path) -> list[Photo]:
    """All photos of a dataset.

    Raises:
        TrainingError: a table or the manifest is missing or malformed.
    """
    from s2v_cli.training.prepared import prepared_photos
    from s2v_cli.training.tables import table_photos

    return prepared_photos(root) if is_prepared(root) else table_photos(root)


def find_clips(root: Path) -> list[Clip]:
    """All sound clips of a dataset but its voices.

    Raises:
        TrainingError: a table or the manifest is missing or malformed.
    """
    from s2v_cli.training.prepared import prepared_clips
    from s2v_cli.training.tables import table_clips

    return prepared_clips(root) if is_prepared(root) else table_clips(root)


def find_voices(root: Path, fold: int = 0) -> list[Clip]:
    """All voices of a dataset, paired with the faces of their group; none where there are none.

    A class `male_adult` is paired with the faces `face_male_adult`; `recording` is the speaker, and
    no speaker is in two splits.

    Args:
        root: folder of the dataset.
        fold: of class folders with tables, which fifth of the speakers is test, 0 to 4; 0 is that
            of the bundled model. A prepared dataset has its splits.

    Raises:
        TrainingError: a table or the manifest is missing or malformed.
    """
    from s2v_cli.training.prepared import prepared_voices
    from s2v_cli.training.tables import table_voices

    return prepared_voices(root) if is_prepared(root) else table_voices(root, fold)


def read_bytes(file: Photo | Clip) -> BinaryIO:
    """The content of a photo or clip, wherever it lies.

    Raises:
        TrainingError: it is gone, or is not what the manifest says.
    """
    try:
        with file.path.open("rb") as stream:
            if file.part is None:
                return io.BytesIO(stream.read())
            stream.seek(file.part.offset)
            content = stream.read(file.part.size)
    except OSError as error:
        again = "" if file.part is None else " Run 's2v prepare' again."
        raise TrainingError(f"Cannot read {file.path}: {error.strerror}.{again}") from None
    if hashlib.sha256(content).hexdigest() != file.part.sha256:
        raise TrainingError(
            f"{file.path} is damaged at byte {file.part.offset}: its content is not what the "
            "manifest says. Run 's2v prepare' again."
        )
    return io.BytesIO(content)


def identity(file: Photo | Clip) -> str:
    """A line that tells a file from others, for digests: by content where that is known."""
    if file.part is not None:
        return f"{file.path.name}:{file.part.offset}:{file.part.sha256}"
    return file.key if isinstance(file, Photo) else str(file.path)


def digest_of(files: Sequence[Photo | Clip]) -> str:
    """16 hexadecimal digits of the identities, in order."""
    return hashlib.sha256("\n".join(map(identity, files)).encode()).hexdigest()[:16]


def load_photos(
    photos: Sequence[Photo], cache: Path | None = None, size: int = PHOTO_SIZE
) -> Tensor:
    """Centre squares of photos as uint8 [N, 3, size, size].

    With `cache` they are kept there for the next time, and stay on the disk until they are used,
    so that memory does not grow with their number.

    Raises:
        TrainingError: a photo cannot be read, or the cache cannot be written.
    """
    shape = (len(photos), 3, size, size)
    if cache is None or not photos:
        return torch.from_numpy(_fill(np.empty(shape, np.uint8), photos))
    name = "" if size == PHOTO_SIZE else f"{size}-"
    file = cache / f"photos-{name}{digest_of(photos)}.npy"
    if not file.is_file():
        with _whole(file) as partial:
            _fill(np.lib.format.open_memmap(partial, "w+", np.uint8, shape), photos)
    return torch.from_numpy(np.load(file, mmap_mode="c"))


def _fill(array: np.ndarray, photos: Sequence[Photo]) -> np.ndarray:
    """Decode photos into uint8 [N, 3, S, S]."""
    size = array.shape[-1]
    for index, photo in enumerate(photos):
        try:
            with Image.open(read_bytes(photo)) as image:
                rgb = image.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise TrainingError(f"Cannot read the photo {photo.key}: {error}.") from None
        side = min(rgb.size)
        left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
        rgb = rgb.crop((left, top, left + side, top + side))
        if side != size:
            rgb = rgb.resize((size, size), Image.Resampling.LANCZOS)
        array[index] = np.asarray(rgb).transpose(2, 0, 1)
    return array


def load_waves(clips: Sequence[Clip], cache: Path | None = None) -> list[Tensor]:
    """Clips as float32 waves [T] at 16 kHz, levels as stored.

    With `cache` they are kept there for the next time, and stay on the disk until they are used.

    Raises:
        TrainingError: a clip cannot be read or is at another rate, or the cache cannot be written.
    """
    if cache is None or not clips:
        return [torch.from_numpy(_decode(clip)) for clip in clips]
    file = cache / f"sounds-{digest_of(clips)}.f32"
    lengths_file = file.with_suffix(".lengths.npy")
    if not (file.is_file() and lengths_file.is_file()):
        lengths = []
        with _whole(file) as partial, partial.open("wb") as stream:
            for clip in clips:
                wave = _decode(clip)
                lengths.append(len(wave))
                stream.write(wave.tobytes())
        with _whole(lengths_file) as partial, partial.open("wb") as stream:
            np.save(stream, np.array(lengths))
    flat = torch.from_numpy(np.memmap(file, np.float32, "c"))
    return list(flat.split([int(n) for n in np.load(lengths_file)]))


def _decode(clip: Clip) -> np.ndarray:
    """One clip as float32 [T]."""
    import soundfile

    where = clip.path if clip.part is None else f"{clip.sound_class} in {clip.path.name}"
    try:
        wave, rate = soundfile.read(read_bytes(clip), dtype="float32", always_2d=True)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"Cannot read the sound {where}: {error}") from None
    if rate != SOUND_RATE:
        raise TrainingError(f"{where} is at {rate} Hz; training sounds need {SOUND_RATE}.")
    if not len(wave):
        raise TrainingError(f"{where} holds no sound.")
    return np.asarray(wave.mean(axis=1))


@contextlib.contextmanager
def _whole(file: Path) -> Iterator[Path]:
    """A name to write to, which becomes `file` at the end; nothing of a failure stays."""
    partial = file.with_suffix(file.suffix + ".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(file)
    except OSError as error:
        raise TrainingError(
            f"Cannot write the cache {file}: {error.strerror or error}. What is done is kept; "
            "run the same command again to go on."
        ) from None
    finally:
        partial.unlink(missing_ok=True)


def members_of(names: Sequence[str], keep: Callable[[int], bool]) -> dict[str, Tensor]:
    """Indices of each group: {name: int64 [n]}, over the indices that `keep` accepts."""
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        if keep(index):
            groups.setdefault(name, []).append(index)
    return {name: torch.tensor(indices) for name, indices in sorted(groups.items())}
