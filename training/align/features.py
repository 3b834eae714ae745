"""z^V of every picture of a dataset, computed once: the image encoder is frozen (§3.1).

The features lie in a memory-mapped file, named after the dataset and the encoder's weights, that
all runs share. A computation that was ended goes on where it was.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from s2v_cli.errors import S2VError, TrainingError
from s2v_cli.training.pairs import BadSample, PairDataset

if TYPE_CHECKING:
    from s2v_cli.pipeline import Sound2Vision

Progress = Callable[[str, int, int, dict[str, float]], None]

STAGE = "image_features"
BATCH = 32  # pictures that go through the encoder together
SYNC_EVERY = 512  # pictures, after which what is done is noted
READERS = 8  # threads that decode pictures, at most
MAX_BAD = 0.01  # share of the pictures that may be unreadable


class ImageFeatures:
    """z^V [N, D] of the pictures of a dataset, float32, read from the disk as they are needed.

    Attributes:
        dimension: D.
        bad: numbers of the examples whose pictures could not be decoded, int64; their features
            are zeros and must not be used.
    """

    def __init__(self, path: Path, images: np.ndarray, bad: np.ndarray) -> None:
        self._path, self._images, self.bad = path, images, bad
        self._rows: np.ndarray | None = None
        self.dimension = int(self._mapped.shape[1])

    @property
    def _mapped(self) -> np.ndarray:
        if self._rows is None:
            self._rows = np.load(self._path, mmap_mode="r")
        return self._rows

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_rows": None}

    @classmethod
    def open(
        cls,
        dataset: PairDataset,
        teacher: Sound2Vision,
        cache: Path,
        progress: Progress | None = None,
    ) -> ImageFeatures:
        """The features, computed first where they are not there yet.

        Of two processes that ask at once, one computes and the other waits.

        Args:
            dataset: whose pictures are meant.
            teacher: the preset whose image encoder, with its own way to cut pictures, is used.
            cache: folder of the file.
            progress: called with `image_features`, pictures done, pictures, and no figures.

        Raises:
            TrainingError: no pictures, more than a hundredth of them unreadable, or the cache
                cannot be written.
            PresetError: the teacher has no image encoder.
        """
        from filelock import FileLock

        images = dataset.images()
        if not len(images):
            raise TrainingError(f"{dataset.folder} has no pictures to learn from.")
        weights = _weights_digest(teacher)
        path = cache / f"features-{dataset.digest[:16]}-{weights[:16]}.npy"
        shape = (len(images), teacher.space.dimension)
        bad = _kept(path, shape)
        try:
            if bad is None:
                cache.mkdir(parents=True, exist_ok=True)
                with FileLock(path.with_suffix(".lock")):
                    bad = _kept(path, shape)
                    if bad is None:
                        bad = _compute(dataset, images, teacher, path, progress)
        except OSError as error:
            raise TrainingError(
                f"Cannot keep the image features in {cache}: {error.strerror or error}. What is "
                "computed is kept."
            ) from None
        return cls(path, images, np.array(sorted(bad), np.int64))

    def __getitem__(self, examples: np.ndarray | Tensor) -> Tensor:
        """z^V float32 [b, D] of examples [b] that have pictures."""
        wanted = np.asarray(examples)
        rows = np.searchsorted(self._images, wanted)
        assert (self._images.take(rows, mode="clip") == wanted).all(), "examples without pictures"
        return torch.from_numpy(self._mapped[rows])  # a copy, as rows are an index


def _weights_digest(teacher: Sound2Vision) -> str:
    """What tells the image encoder of a preset from others: its weights' hashes."""
    teacher.image_encoder  # noqa: B018  # notes the hash of its weights
    own = dict(teacher.weights_sha256)
    found = own.get("image_encoder", json.dumps(own, sort_keys=True))
    return hashlib.sha256(f"{teacher.space}/{found}".encode()).hexdigest()


def _kept(path: Path, shape: tuple[int, int]) -> list[int] | None:
    """Numbers of bad pictures of a whole file of features; None where it is not there or whole."""
    try:
        rows = np.load(path, mmap_mode="r")
        noted = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if rows.shape == shape and rows.dtype == np.float32 and noted["done"] == shape[0]:
            return [int(number) for number in noted["bad"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _compute(
    dataset: PairDataset,
    images: np.ndarray,
    teacher: Sound2Vision,
    path: Path,
    progress: Progress | None,
) -> list[int]:
    """Fill a partial file, batch by batch, and give it its name at the end.

    Returns:
        Numbers of the pictures that cannot be decoded.
    """
    partial, state = path.with_suffix(".part.npy"), path.with_suffix(".json")
    rows, done, bad = _begin(partial, state, (len(images), teacher.space.dimension))
    with ThreadPoolExecutor(min(READERS, os.cpu_count() or 1)) as pool:
        while done < len(images):
            end = min(done + SYNC_EVERY, len(images))
            for start in range(done, end, BATCH):
                part = images[start : min(start + BATCH, end)].tolist()
                read = list(pool.map(lambda index: _read(dataset, teacher, index), part))
                bad += [index for index, picture in zip(part, read, strict=True) if picture is None]
                kept = [start + place for place, picture in enumerate(read) if picture is not None]
                if kept:
                    pixels = [picture for picture in read if picture is not None]
                    rows[kept] = _encode(teacher, pixels).numpy()
                if progress:
                    progress(STAGE, start + len(part), len(images), {})
            if len(bad) > max(1, MAX_BAD * len(images)):
                raise TrainingError(
                    f"{len(bad)} of the first {end} pictures of {dataset.folder} cannot be "
                    f"decoded, for example {dataset.key(bad[0])!r}. Run 's2v prepare' again."
                )
            rows.flush()
            done = end
            _note(state, done, bad)
    del rows
    partial.replace(path)
    return bad


def _begin(partial: Path, state: Path, shape: tuple[int, int]) -> tuple[np.memmap, int, list[int]]:
    """The file to fill, how many rows of it are done, and bad pictures among them."""
    try:
        rows = np.lib.format.open_memmap(partial, "r+")
        noted = json.loads(state.read_text(encoding="utf-8"))
        if rows.shape == shape and rows.dtype == np.float32 and 0 < noted["done"] <= shape[0]:
            return rows, int(noted["done"]), [int(number) for number in noted["bad"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    state.unlink(missing_ok=True)  # first, else a kill would leave it beside an empty file
    rows = np.lib.format.open_memmap(partial, "w+", np.float32, shape)
    _reserve(partial)
    return rows, 0, []


def _reserve(path: Path) -> None:
    """Ask for the disk space of a sparse file: writing into a mapped one would crash without."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # not every disk can
                raise


def _read(dataset: PairDataset, teacher: Sound2Vision, index: int) -> Tensor | None:
    """A picture as the image encoder wants it; None where it cannot be decoded."""
    try:
        return teacher.prepare_picture(dataset.image(index))
    except BadSample:
        return None


def _note(state: Path, done: int, bad: list[int]) -> None:
    temporary = state.with_suffix(".json.tmp")
    temporary.write_text(json.dumps({"done": done, "bad": bad}), encoding="utf-8")
    temporary.replace(state)


@torch.inference_mode()
def _encode(teacher: Sound2Vision, pictures: list[Tensor]) -> Tensor:
    """z^V float32 [b, D] of pictures [3, H, W], those of one size together."""
    sizes: dict[tuple[int, ...], list[int]] = {}
    for place, picture in enumerate(pictures):
        sizes.setdefault(tuple(picture.shape), []).append(place)
    found = torch.empty(len(pictures), teacher.space.dimension)
    for places in sizes.values():
        try:
            embedding = teacher.image_encoder(torch.stack([pictures[place] for place in places]))
        except (RuntimeError, S2VError) as error:
            raise TrainingError(f"The image encoder failed: {error}") from error
        found[places] = embedding.float().cpu()
    return found
