"""Published files of weights, read without running anything that they hold."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from s2v_cli.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

FileKind = Literal["safetensors", "pickle", "archive", "other"]

ARCHIVE_LIMIT = 20_000_000_000  # bytes that one archive may unpack to
_HEADER_LIMIT = 100_000_000  # bytes; safetensors' own limit
_CHUNK = 1 << 20
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_LFS = b"version https://git-lfs"


def sniff(path: Path) -> FileKind:
    """What a file is by its first bytes.

    Raises:
        WeightsError: missing, empty, a web page, or a Git LFS pointer instead of weights.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(512)
        size = path.stat().st_size
    except OSError as error:
        raise WeightsError(f"Cannot read the weights {path}: {error.strerror}.") from error
    if not head:
        raise WeightsError(f"{path} is empty: download it again.")
    if is_web_page(head):
        raise WeightsError(
            f"{path} is a web page, not weights: the download was answered with a page that asks "
            "for something. Open its address in a browser and download the file itself."
        )
    if head.startswith(_LFS):
        raise WeightsError(
            f"{path} is a Git LFS pointer, not the weights: run 'git lfs pull' where it came from."
        )
    if head.startswith(_GZIP) or head[257:262] == b"ustar":
        return "archive"
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and length < _HEADER_LIMIT:
        if 8 + length > size:
            raise WeightsError(f"{path} is cut short ({size} bytes): download it again.")
        return "safetensors"
    if head.startswith(_ZIP) or head[:1] == b"\x80":
        return "pickle"
    return "other"


def is_web_page(head: bytes) -> bool:
    """Whether the first bytes of a file are those of HTML or XML."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--"))


def read_checkpoint(path: Path, *, allowed: Sequence[type | Callable[..., Any]] = ()) -> Any:
    """What a checkpoint holds, on the CPU: safetensors, or a pickle of tensors and plain values.

    Pickles are opened with `weights_only=True`, so that nothing in them runs; tensors are mapped
    into memory where the format allows it.

    Args:
        path: the file.
        allowed: classes and functions that this one file may name besides tensors.

    Raises:
        WeightsError: missing, cut short, a web page, or a pickle that names anything else.
    """
    kind = sniff(path)
    if kind == "safetensors":
        return _read_safetensors(path)
    if kind != "pickle":
        what = "an archive" if kind == "archive" else "neither safetensors nor a torch file"
        raise WeightsError(f"{path} is {what}: not a checkpoint that s2v can read.")
    import pickle
    import warnings

    import torch

    with path.open("rb") as stream:
        zipped = stream.read(4) == _ZIP
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(allowed)):
            warnings.simplefilter("ignore")  # of old formats
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|class) ([\w.]+\.[\w.]+)", str(error))
        if named:
            raise WeightsError(
                f"{path} names {named[1]}, which is no tensor: it was not opened, since it could "
                "run code. Take it only from its publisher."
            ) from None
        raise WeightsError(_damaged(path, error)) from None
    except Exception as error:  # a damaged file makes torch raise anything, OSError too
        raise WeightsError(_damaged(path, error)) from None


def strip_prefix(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The same entries with `prefix` taken off every key that begins with it."""
    return {key.removeprefix(prefix): value for key, value in state.items()}


def require_keys(
    state: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]], what: str
) -> None:
    """Check that a state dict has exactly the expected keys and shapes.

    Raises:
        WeightsError: names the first key that is missing, not expected, or of another shape.
    """
    if not isinstance(state, Mapping):
        raise WeightsError(f"This is not {what}: it holds {type(state).__name__}, not weights.")
    missing = [key for key in expected if key not in state]
    extra = [key for key in state if key not in expected]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise WeightsError(f"This is not {what}: {missing[0]!r}{more} is missing.")
    if extra:
        more = f" (and {len(extra) - 1} more)" if len(extra) > 1 else ""
        raise WeightsError(f"This is not {what}: {str(extra[0])!r}{more} is not part of it.")
    for key, shape in expected.items():
        actual = getattr(state[key], "shape", None)
        if actual is None or tuple(actual) != tuple(shape):
            found = "no tensor" if actual is None else f"of shape {list(actual)}"
            raise WeightsError(
                f"This is not {what}: {key!r} is {found}; needed: shape {list(shape)}."
            )


def extract_members(
    archive: Path,
    wanted: Callable[[str], bool],
    folder: Path,
    *,
    limit: int = ARCHIVE_LIMIT,
) -> list[Path]:
    """Unpack some members of a tar archive into a folder: plain files inside it, nothing else.

    Args:
        archive: tar, compressed or not.
        wanted: tells from a member's name whether it is needed.
        folder: where they go, under their names in the archive.
        limit: bytes that they may have in all.

    Raises:
        WeightsError: damaged or cut short, or a wanted member is a link or device, has a name
            that leads out of the folder, comes twice, or is too large; the names of those
            members are the archive's, so it is not to be trusted.
    """
    import tarfile
    import zlib

    paths: list[Path] = []
    left = limit
    sniff(archive)
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                if member.isdir() or not wanted(member.name):
                    continue
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts or "\\" in member.name:
                    raise WeightsError(f"{archive} is refused: {member.name!r} leads out of it.")
                if not member.isreg():
                    raise WeightsError(f"{archive} is refused: {member.name!r} is no plain file.")
                left -= member.size
                if left < 0:
                    raise WeightsError(f"{archive} is refused: it unpacks to over {limit} bytes.")
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                content = tar.extractfile(member)
                assert content is not None  # it is a plain file
                with target.open("xb") as stream:
                    while chunk := content.read(_CHUNK):
                        stream.write(chunk)
                if target.stat().st_size != member.size:
                    raise tarfile.ReadError("a member is cut short")
                paths.append(target)
    except FileExistsError as error:
        raise WeightsError(f"{archive} is refused: {error.filename} comes twice.") from None
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise WeightsError(_damaged(archive, error)) from None
    except OSError as error:
        raise WeightsError(f"Cannot unpack {archive}: {error.strerror or error}.") from error
    return paths


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in a checkpoint by key, `module.` taken off.

    Of a file with several dictionaries the first that holds tensors counts, as in
    `{"state_dict": ...}`.

    Raises:
        WeightsError: as in `read_checkpoint`.
    """
    if sniff(path) == "safetensors":
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            try:
                header = json.loads(stream.read(length))
                shapes = {
                    str(key): tuple(entry["shape"])
                    for key, entry in header.items()
                    if key != "__metadata__"
                }
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise WeightsError(_damaged(path, error)) from None
        return {key.removeprefix("module."): shape for key, shape in shapes.items()}
    return _tensor_shapes(read_checkpoint(path))


def _tensor_shapes(held: Any) -> dict[str, tuple[int, ...]]:
    if not isinstance(held, Mapping):
        return {}
    shapes = {
        str(key).removeprefix("module."): tuple(value.shape)
        for key, value in held.items()
        if hasattr(value, "shape")
    }
    inner = (_tensor_shapes(value) for value in held.values() if isinstance(value, Mapping))
    return shapes or next((found for found in inner if found), {})


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(_damaged(path, error)) from None


def _damaged(path: Path, error: Exception) -> str:
    text = " ".join(str(error).split())
    inner = re.search(r"WeightsUnpickler error: (.+)", text)  # torch wraps it in advice
    reason = (inner[1] if inner else text)[:100].rstrip(". ") or type(error).__name__
    return f"{path} is damaged, cut short or no checkpoint: download it again ({reason})."
