"""Reading a prepared dataset: any sound or picture by its number, straight out of the shards.

Nothing is unpacked. What is held in memory is a table of byte ranges, some 100 bytes an example.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from array import array
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from s2v_cli.errors import TrainingError
from s2v_cli.training.manifest import (
    MANIFEST_FILE,
    SAMPLE_RATE,
    SPLITS,
    Dataset,
    Pairing,
    Split,
    read_dataset,
    read_manifest,
)

if TYPE_CHECKING:
    from PIL.Image import Image

OPEN_SHARDS = 32  # file handles that are kept
NEGATIVE = "~"  # begins the names of classes that no picture belongs to


class PairDataset:
    """The examples of a prepared dataset, numbered in the order of their keys.

    It can be handed to other processes: each opens the shards for itself.

    Attributes:
        folder: of the dataset.
        dataset: the contents of its `dataset.json`.
        digest: SHA-256 of its manifest: two datasets with the same one are the same.
        names: of the classes, sorted; empty where examples have none.
        split: of each example, index into `manifest.SPLITS`, int8 [N].
        name: class of each, index into `names`, -1 for none, int32 [N].
        source: recording or video of each, numbered, int32 [N].
    """

    def __init__(self, folder: Path, dataset: Dataset) -> None:
        self.folder, self.dataset = folder, dataset
        files: dict[str, int] = {}
        names: dict[str, int] = {}
        sources: dict[str, int] = {}
        keys, key_ends = bytearray(), array("q", [0])
        columns = {name: array("q") for name in ("split", "name", "source", "shard")}
        ranges = {kind: (array("q"), array("q")) for kind in ("image", "sound")}
        try:
            for example in read_manifest(folder):
                keys += example.key.encode()
                key_ends.append(len(keys))
                columns["split"].append(SPLITS.index(example.split))
                columns["source"].append(sources.setdefault(example.source, len(sources)))
                columns["shard"].append(files.setdefault(example.shard, len(files)))
                number = -1 if example.name is None else names.setdefault(example.name, len(names))
                for kind, (offsets, sizes) in ranges.items():
                    part = getattr(example, kind)
                    offsets.append(-1 if part is None else part.offset)
                    sizes.append(0 if part is None else part.size)
                columns["name"].append(number)
        except (TypeError, AttributeError, OverflowError) as error:
            row = len(columns["name"]) + 1
            raise TrainingError(
                f"Line {row} of {folder / MANIFEST_FILE} has a field of "
                f"another kind: {error}. Run 's2v prepare' again."
            ) from None
        self._keys, self._key_ends = bytes(keys), np.array(key_ends, np.int64)
        self._files = list(files)
        self.names = sorted(names)
        order = {names[name]: place for place, name in enumerate(self.names)} | {-1: -1}
        self.split = np.array(columns["split"], np.int8)
        self.name = np.array([order[number] for number in columns["name"]], np.int32)
        self.source = np.array(columns["source"], np.int32)
        self.shard = np.array(columns["shard"], np.int32)
        self._ranges = {
            kind: (np.array(offsets, np.int64), np.array(sizes, np.int32))
            for kind, (offsets, sizes) in ranges.items()
        }
        self._handles: OrderedDict[int, int] = OrderedDict()
        self._lock = threading.Lock()
        self.digest = _digest(folder / MANIFEST_FILE)

    @classmethod
    def open(cls, folder: Path) -> PairDataset:
        """The dataset in a folder.

        Raises:
            TrainingError: it is not a prepared dataset, or its manifest is damaged.
        """
        return cls(folder, read_dataset(folder))

    def __len__(self) -> int:
        return len(self.split)

    @property
    def pairing(self) -> Pairing:
        """What makes a picture and a sound a pair."""
        return self.dataset.pairing

    def __getstate__(self) -> dict[str, object]:
        state = dict(self.__dict__)
        state["_handles"] = OrderedDict()
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def key(self, index: int) -> str:
        """The key of an example."""
        return self._keys[self._key_ends[index] : self._key_ends[index + 1]].decode()

    def class_name(self, index: int) -> str | None:
        """The class of an example, or None."""
        number = int(self.name[index])
        return None if number < 0 else self.names[number]

    def having(self, kind: str, split: Split | None = None) -> np.ndarray:
        """Numbers of the examples with an `image` or a `sound`, int64 [n], ascending."""
        there = self._ranges[kind][0] >= 0
        if split is not None:
            there &= self.split == SPLITS.index(split)
        return np.flatnonzero(there)

    def images(self, split: Split | None = None) -> np.ndarray:
        """Numbers of the examples of a split that have a picture, int64 [n]."""
        return self.having("image", split)

    def sounds(self, split: Split | None = None) -> np.ndarray:
        """Numbers of the examples of a split that have a sound which pictures go with, int64 [n].

        Those whose split has no picture for them are left out, negatives too.
        """
        found: np.ndarray = self.having("sound", split)
        if self.pairing == "file":
            fits = self._ranges["image"][0][found] >= 0
        else:
            fits = np.isin(self._cells(found), self._cells(self.images()))
            fits &= self.name[found] >= 0
        kept: np.ndarray = found[fits]
        return kept

    def negatives(self, split: Split | None = None) -> np.ndarray:
        """Numbers of the examples whose sounds no picture belongs to, int64 [n]."""
        found = self.having("sound", split)
        strange = [name.startswith(NEGATIVE) for name in self.names]
        return found[np.isin(self.name[found], np.flatnonzero(strange))]

    def partners(self, index: int) -> np.ndarray:
        """Numbers of the pictures that a sound may go with, int64 [n]."""
        if self.pairing == "file":
            return np.array([index] if self._ranges["image"][0][index] >= 0 else [], np.int64)
        none = np.empty(0, np.int64)
        if self.name[index] < 0:
            return none
        return self._of_class.get(int(self._cells(np.array([index]))[0]), none)

    def _cells(self, examples: np.ndarray) -> np.ndarray:
        """Split and class of examples [n] as one number each, int64 [n]."""
        split = self.split[examples].astype(np.int64)
        cells: np.ndarray = split * (len(self.names) + 1) + self.name[examples] + 1
        return cells

    @cached_property
    def _of_class(self) -> dict[int, np.ndarray]:
        """Pictures of each split and class."""
        images = self.images()
        cells = self._cells(images)
        order = np.argsort(cells, kind="stable")
        groups = np.split(images[order], np.flatnonzero(np.diff(cells[order])) + 1)
        return {int(self._cells(group[:1])[0]): group for group in groups if len(group)}

    def content(self, kind: str, index: int) -> bytes:
        """The file of an example's `image` or `sound`, as it lies in its shard.

        Raises:
            TrainingError: the example has none, or its shard is gone or shorter than it was.
        """
        offsets, sizes = self._ranges[kind]
        offset, size = int(offsets[index]), int(sizes[index])
        file = self.folder / self._files[int(self.shard[index])]
        if offset < 0:
            raise TrainingError(f"Example {self.key(index)!r} of {self.folder} has no {kind}.")
        try:
            with self._lock:
                content = os.pread(self._handle(int(self.shard[index])), size, offset)
        except OSError as error:
            raise TrainingError(
                f"Cannot read the shard {file}: {error.strerror}. Put it back, or run "
                "'s2v prepare' again; the checkpoint is kept."
            ) from None
        if len(content) < size:
            raise TrainingError(
                f"The shard {file} is shorter than the manifest says: {kind} of "
                f"{self.key(index)!r} is not whole. Put it back, or run 's2v prepare' again."
            )
        return content

    def _handle(self, number: int) -> int:
        handle = self._handles.get(number)
        if handle is None:
            handle = os.open(self.folder / self._files[number], os.O_RDONLY)
            self._handles[number] = handle
            if len(self._handles) > OPEN_SHARDS:
                os.close(self._handles.popitem(last=False)[1])
        else:
            self._handles.move_to_end(number)
        return handle

    def close(self) -> None:
        """Close the shards; they are opened again when they are needed."""
        with self._lock:
            while self._handles:
                os.close(self._handles.popitem()[1])

    def __del__(self) -> None:
        for handle in self.__dict__.get("_handles", {}).values():
            os.close(handle)

    def wave(self, index: int) -> Tensor:
        """The sound of an example, float32 [T] in [-1, 1], 16 kHz.

        Raises:
            BadSample: it cannot be decoded.
            TrainingError: as in `content`.
        """
        import soundfile

        content = self.content("sound", index)
        try:
            wave, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, RuntimeError, ValueError, MemoryError) as error:
            # A damaged header may tell of more samples than there is memory for.
            raise BadSample(f"{self.key(index)}.flac of {self.folder}: {error}") from None
        if rate != SAMPLE_RATE or not len(wave):
            raise BadSample(
                f"{self.key(index)}.flac of {self.folder}: {len(wave)} samples at {rate} Hz; "
                f"allowed: 1 or more at {SAMPLE_RATE} Hz"
            )
        return torch.from_numpy(np.ascontiguousarray(wave.mean(axis=1)))

    def image(self, index: int) -> Image:
        """The picture of an example, RGB.

        Raises:
            BadSample: it cannot be decoded.
            TrainingError: as in `content`.
        """
        from PIL import Image

        content = self.content("image", index)
        try:
            with Image.open(io.BytesIO(content)) as image:
                return image.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise BadSample(f"{self.key(index)}.jpg of {self.folder}: {error}") from None


class BadSample(TrainingError):
    """A sound or picture in a shard that cannot be decoded."""


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
