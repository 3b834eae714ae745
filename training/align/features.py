"""z^V of every picture of a dataset, computed once: the image encoder is frozen (§3.1).

The features lie in a memory-mapped file, named after the dataset and the encoder's weights, that
all runs share. A computation that was ended goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from s2v_cli.errors import S2VError, TrainingError
from s2v_cli.training.manifest import SPLITS
from s2v_cli.training.pairs import BadSample, PairDataset

if TYPE_CHECKING:
    from PIL.Image import Image

    from s2v_cli.pipeline import Sound2Vision

Progress = Callable[[str, int, int, dict[str, float]], None]

STAGE = "image_features"
BATCH = 32  # pictures that go through the encoder together
SYNC_EVERY = 512  # pictures, after which what is done is noted
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
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                if not path.is_file():
                    _compute(dataset, images, teacher, path, progress)
                bad = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["bad"]
        except OSError as error:
            raise TrainingError(
                f"Cannot keep the image features in {cache}: {error.strerror or error}."
            ) from None
        return cls(path, images, np.array(bad, np.int64))

    def __getitem__(self, examples: np.ndarray | Tensor) -> Tensor:
        """z^V float32 [b, D] of examples [b] that have pictures."""
        rows = np.searchsorted(self._images, np.asarray(examples))
        return torch.from_numpy(self._mapped[rows].astype(np.float32))

    def mean(self, dataset: PairDataset) -> Tensor:
        """Mean z^V [D] of the training pictures."""
        rows = self._images[dataset.split[self._images] == SPLITS.index("train")]
        total = np.zeros(self.dimension)
        for part in np.array_split(rows, max(1, len(rows) // 4096)):
            total += self[part].double().sum(dim=0).numpy()
        return torch.from_numpy(total / max(1, len(rows))).float()


def _weights_digest(teacher: Sound2Vision) -> str:
    """What tells the image encoder of a preset from others: its weights' hashes."""
    teacher.image_encoder  # noqa: B018  # notes the hash of its weights
    own = dict(teacher.weights_sha256)
    found = own.get("image_encoder", json.dumps(own, sort_keys=True))
    return hashlib.sha256(f"{teacher.space}/{found}".encode()).hexdigest()


def _compute(
    dataset: PairDataset,
    images: np.ndarray,
    teacher: Sound2Vision,
    path: Path,
    progress: Progress | None,
) -> None:
    """Fill a partial file, batch by batch, and give it its name at the end."""
    partial, state = path.with_suffix(".part.npy"), path.with_suffix(".json")
    done, bad = 0, []
    shape = (len(images), teacher.space.dimension)
    if partial.is_file() and state.is_file():
        try:
            rows = np.load(partial, mmap_mode="r+")
            noted = json.loads(state.read_text(encoding="utf-8"))
            if rows.shape == shape:
                done, bad = int(noted["done"]), list(noted["bad"])
        except (ValueError, KeyError, OSError):
            done, bad = 0, []
    if not done:
        rows = np.lib.format.open_memmap(partial, "w+", np.float32, shape)
    while done < len(images):
        end = min(done + SYNC_EVERY, len(images))
        for start in range(done, end, BATCH):
            part = images[start : min(start + BATCH, end)]
            pictures, kept = [], []
            for place, index in enumerate(part.tolist()):
                try:
                    pictures.append(dataset.image(index))
                    kept.append(start + place)
                except BadSample:
                    bad.append(index)
            if kept:
                rows[kept] = encode_pictures(teacher, pictures).numpy()
            if progress:
                progress(STAGE, start + len(part), len(images), {})
        if len(bad) > max(1, MAX_BAD * len(images)):
            raise TrainingError(
                f"{len(bad)} of the first {end} pictures of {dataset.folder} cannot be decoded, "
                f"for example {dataset.key(bad[0])!r}. Run 's2v prepare' again."
            )
        rows.flush()
        done = end
        _note(state, done, bad)
    del rows
    partial.replace(path)


def _note(state: Path, done: int, bad: list[int]) -> None:
    temporary = state.with_suffix(".json.tmp")
    temporary.write_text(json.dumps({"done": done, "bad": bad}), encoding="utf-8")
    temporary.replace(state)


@torch.inference_mode()
def encode_pictures(teacher: Sound2Vision, pictures: list[Image]) -> Tensor:
    """z^V float32 [b, D] of pictures, as `Sound2Vision.encode_image` gives them one by one."""
    pixels = [teacher.prepare_picture(picture) for picture in pictures]
    sizes = {tuple(picture.shape) for picture in pixels}
    batches = [torch.stack(pixels)] if len(sizes) == 1 else [picture[None] for picture in pixels]
    try:
        found = [teacher.image_encoder(batch).float().cpu() for batch in batches]
    except (RuntimeError, S2VError) as error:
        raise TrainingError(f"The image encoder failed: {error}") from error
    return torch.cat(found)
