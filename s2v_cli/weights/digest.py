"""SHA-256 of files, and stamps that spare hashing a file again that did not change."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from s2v_cli.weights.jsonfile import read_json, write_json

_CHUNK = 4 << 20
# A change within one tick of the file system's clock leaves its times as they were.
_TICK_S = 0.02


def file_sha256(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file; `progress` hears how many bytes were read since the last call."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            if progress:
                progress(len(chunk))
    return digest.hexdigest()


def git_blob_sha1(path: Path) -> str:
    """The id that git gives a file's content; the hub names small files by it."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


class Stamps:
    """Remembered hashes of one folder's files.

    A file counts as unchanged while its path, size, times of change and inode are as they were
    when it was hashed. Stamps lie in the user's own cache, never beside the files: a folder from
    elsewhere cannot vouch for itself.
    """

    def __init__(self, store: Path, folder: Path) -> None:
        """Open the stamps of `folder`, kept in a file of the folder `store`."""
        name = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:24]
        self._file = store / f"{name}.json"
        self._known = read_json(self._file)

    def sha256(self, path: Path, progress: Callable[[int], None] | None = None) -> str:
        """SHA-256 of a file, from its stamp where it is unchanged."""
        stamp = _stamp(path)
        known = self._known.get(str(path.absolute()))
        if isinstance(known, dict) and known.get("stamp") == stamp:
            return str(known["sha256"])
        return self.rehash(path, progress)

    def rehash(self, path: Path, progress: Callable[[int], None] | None = None) -> str:
        """SHA-256 of a file, read again; its stamp is renewed."""
        before = _stamp(path)
        digest = file_sha256(path, progress)
        newest = max(before[1], before[2]) / 1e9
        if time.time() - newest < _TICK_S:
            time.sleep(_TICK_S)
        if _stamp(path) == before:
            self.remember(path, digest)
        return digest

    def remember(self, path: Path, sha256: str) -> None:
        """Stamp a file whose hash was just found otherwise."""
        self._known[str(path.absolute())] = {"stamp": _stamp(path), "sha256": sha256}
        with contextlib.suppress(OSError):  # a read-only cache costs time, nothing else
            write_json(self._file, self._known)

    def forget(self) -> None:
        """Forget all stamps of the folder."""
        self._known = {}
        with contextlib.suppress(OSError):
            self._file.unlink(missing_ok=True)


def _stamp(path: Path) -> list[int]:
    state = path.stat()
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
