"""The Hugging Face hub: listings, authorisation and cache by huggingface_hub, bytes by `fetch`.

huggingface_hub throws away what it has of a file when it is interrupted; here the bytes go
through `fetch_https`, which takes them up again, into the blob of the hub's own cache. So other
programs find the file, and files that other programs fetched are used.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from s2v_cli import __version__
from s2v_cli.weights.catalogue import Source, Variant
from s2v_cli.weights.digest import file_sha256, git_blob_sha1
from s2v_cli.weights.fetch import (
    SOON,
    FetchOptions,
    Progress,
    SourceFailed,
    fetch_https,
    status_text,
)

_TOKEN = "a private repository needs HF_TOKEN"


@dataclass(frozen=True)
class HubFile:
    """A file of a repository.

    Attributes:
        path: in the repository, with `/`.
        bytes: its size.
        etag: the hub's name for its content: SHA-256 of a large file, git's blob id of a small one.
    """

    path: str
    bytes: int
    etag: str


@dataclass(frozen=True)
class Listing:
    """A repository at one commit.

    Attributes:
        repo: its name.
        commit: the revision, resolved.
        files: all of them.
        cached: whether this was read from the cache, without a network.
    """

    repo: str
    commit: str
    files: tuple[HubFile, ...]
    cached: bool = False

    def file(self, path: str) -> HubFile:
        """The file at a path.

        Raises:
            SourceFailed: there is none.
        """
        for file in self.files:
            if file.path == path:
                return file
        raise SourceFailed(f"the repository has no file {path}")


def is_offline() -> bool:
    """Whether the user forbids downloads with HF_HUB_OFFLINE."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def hub_cache() -> Path:
    """Where huggingface_hub keeps files: HF_HUB_CACHE, HF_HOME/hub, or its default."""
    if place := os.environ.get("HF_HUB_CACHE"):
        return Path(place).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def list_repo(source: Source, revision: str | None, options: FetchOptions) -> Listing:
    """A repository's files, from the hub, or from the hub's cache where that cannot be reached.

    Args:
        source: the repository.
        revision: a commit, branch or tag; None is the main branch.
        options: timeout and retries.

    Raises:
        SourceFailed: neither hub nor cache has it.
    """
    if is_offline():
        cached = _cached_listing(source.place, revision)
        if cached is None:
            raise SourceFailed("HF_HUB_OFFLINE is set, and the hub's cache does not have it")
        return cached
    try:
        return _ask_hub(source.place, revision, options)
    except SourceFailed:
        cached = _cached_listing(source.place, revision)
        if cached is None:
            raise
        return cached


def select_files(
    paths: Iterable[str], patterns: Sequence[str], variant: Variant = "full"
) -> list[str]:
    """Files of a repository that are needed.

    Of weights in several precisions one set a folder is taken: half precision for `fp16` where
    there is one, else the plain files. Other variants (`non_ema` and the like) are left out.

    Args:
        paths: all files.
        patterns: segment by segment, `*` stays within one; `a|b` is b where a matches nothing.
        variant: `full` or `fp16`.

    Raises:
        SourceFailed: a pattern matches nothing.
    """
    paths = sorted(paths)
    chosen: set[str] = set()
    for pattern in patterns:
        for choice in pattern.split("|"):
            found = [path for path in paths if _matches(path, choice)]
            if found:
                chosen.update(found)
                break
        else:
            raise SourceFailed(f"the repository has no file {pattern}")
    weights = [path for path in chosen if path.endswith(".safetensors")]
    for folder in {str(PurePosixPath(path).parent) for path in weights}:
        inside = [path for path in weights if str(PurePosixPath(path).parent) == folder]
        plain = {path for path in inside if _precision(path) == ""}
        half = {path for path in inside if _precision(path) == "fp16"}
        wanted = (half or plain) if variant == "fp16" else (plain or half)
        chosen -= set(inside) - wanted
    return sorted(chosen)


def fetch_hub_file(
    listing: Listing,
    file: HubFile,
    target: Path | None,
    *,
    label: str,
    options: FetchOptions,
    progress: Progress | None = None,
) -> Path:
    """Get one file, checked against the hub's hash; it may be there already.

    Args:
        listing: of its repository.
        file: of the listing.
        target: where it goes; None puts it into the hub's cache.
        label: for progress.
        options: timeout and retries.
        progress: hears label, bytes so far and in all.

    Returns:
        Where it lies: `target`, or its path in the hub's cache.

    Raises:
        SourceFailed: the hub does not give it, or gives another content.
        WeightsError: the disk is full or cannot be written.
    """
    kept = snapshot_folder(listing).joinpath(*file.path.split("/"))
    if kept.is_file() and kept.stat().st_size == file.bytes:
        if matches_etag(kept, file.etag):
            return kept
        if not listing.cached:
            kept.resolve().unlink()  # damaged: whoever finds it would use it
    if listing.cached:
        raise SourceFailed(f"the hub's cache has a damaged {file.path}, and there is no connection")
    if target is None:
        return _into_cache(listing, file, label, options, progress)
    _download(listing, file, target, label, options, progress)
    return target


def snapshot_folder(listing: Listing) -> Path:
    """Folder of a repository's files in the hub's cache."""
    return _repo_folder(listing.repo) / "snapshots" / listing.commit


def remove_from_cache(path: Path) -> int:
    """Remove a file from the hub's cache, and its content if no other revision uses it.

    Returns:
        Bytes that became free.
    """
    freed = 0
    blob = path.resolve()
    path.unlink(missing_ok=True)
    snapshots = next((p for p in path.parents if p.name == "snapshots"), None)
    if snapshots is not None and blob.parent == snapshots.parent.resolve() / "blobs":
        others = (p for p in snapshots.rglob("*") if p.is_symlink() and p.resolve() == blob)
        if blob.exists() and next(others, None) is None:
            freed = blob.stat().st_size
            blob.unlink()
    for folder in path.parents:
        if folder.name == "snapshots" or any(folder.iterdir()):
            break
        folder.rmdir()
    return freed


def matches_etag(path: Path, etag: str) -> bool:
    """Whether a file has the content that the hub names so; unknown kinds of names pass."""
    if re.fullmatch("[0-9a-f]{64}", etag):
        return file_sha256(path) == etag
    if re.fullmatch("[0-9a-f]{40}", etag):
        return git_blob_sha1(path) == etag
    return True


def _ask_hub(repo: str, revision: str | None, options: FetchOptions) -> Listing:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    api = HfApi(endpoint=_endpoint(), library_name="s2v", library_version=__version__)
    for attempt in range(options.retries + 1):
        try:
            info = api.model_info(
                repo, revision=revision, timeout=options.timeout_s, files_metadata=True
            )
            break
        except GatedRepoError:
            raise SourceFailed(
                f"{repo} wants an agreement: accept it on its page, then set HF_TOKEN"
            ) from None
        except RevisionNotFoundError:
            raise SourceFailed(f"{repo} has no revision {revision} any more") from None
        except RepositoryNotFoundError as error:
            status = getattr(error.response, "status_code", 404)
            raise SourceFailed(f"{status_text(status)}; {_TOKEN}") from None
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status not in SOON:
                more = f"; {_TOKEN}" if status in (401, 403) else ""
                raise SourceFailed(status_text(status) + more) from None
            failure = status_text(status)
        except Exception as error:  # the hub's HTTP library differs between its versions
            if "timeout" in type(error).__name__.lower():
                failure = f"no answer within {options.timeout_s:g} s"
            elif isinstance(error, ValueError):
                raise SourceFailed("it does not answer like a hub; see HF_ENDPOINT") from None
            else:
                failure = f"no connection: {error}"
        if attempt == options.retries:
            raise SourceFailed(failure)
        time.sleep(min(options.backoff_s * 2**attempt, options.longest_wait_s))
    if not info.sha or not info.siblings:
        raise SourceFailed(f"{repo} is empty")
    return Listing(repo, info.sha, tuple(_hub_file(entry) for entry in info.siblings))


def _hub_file(entry: Any) -> HubFile:
    path = str(entry.rfilename)
    if path.startswith("/") or ".." in path.split("/") or "\\" in path:
        raise SourceFailed(f"the repository has a file with the name {path!r}")
    lfs = entry.lfs
    etag = (lfs.sha256 if lfs else entry.blob_id) or ""
    return HubFile(path, int((lfs.size if lfs else entry.size) or 0), str(etag))


def _cached_listing(repo: str, revision: str | None) -> Listing | None:
    folder = _repo_folder(repo)
    try:
        commit = revision or (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    snapshot = folder / "snapshots" / commit
    files = tuple(
        HubFile(path.relative_to(snapshot).as_posix(), path.stat().st_size, path.resolve().name)
        for path in sorted(snapshot.rglob("*"))
        if path.is_file()
    )
    return Listing(repo, commit, files, cached=True) if files else None


def _into_cache(
    listing: Listing,
    file: HubFile,
    label: str,
    options: FetchOptions,
    progress: Progress | None,
) -> Path:
    from huggingface_hub import hf_hub_download

    blob = _repo_folder(listing.repo) / "blobs" / file.etag
    if not file.etag or not (blob.is_file() and matches_etag(blob, file.etag)):
        blob.unlink(missing_ok=True)
        incoming = blob.with_name(f"{blob.name}.s2v")
        _download(listing, file, incoming, label, options, progress)
        os.replace(incoming, blob)
    try:  # finds the blob and gives it its name in the snapshot
        return Path(
            hf_hub_download(
                listing.repo,
                file.path,
                revision=listing.commit,
                cache_dir=hub_cache(),
                endpoint=_endpoint(),
                etag_timeout=options.timeout_s,
            )
        )
    except Exception as error:  # as above
        raise SourceFailed(f"the hub does not name {file.path}: {error}") from None


def _download(
    listing: Listing,
    file: HubFile,
    target: Path,
    label: str,
    options: FetchOptions,
    progress: Progress | None,
) -> None:
    from huggingface_hub import HfApi, hf_hub_url

    api = HfApi(endpoint=_endpoint(), library_name="s2v", library_version=__version__)
    target.parent.mkdir(parents=True, exist_ok=True)
    fetch_https(
        hf_hub_url(listing.repo, file.path, revision=listing.commit, endpoint=_endpoint()),
        target,
        label=label,
        size=file.bytes,
        identity=file.etag or None,
        headers=api._build_hf_headers(),
        options=options,
        progress=progress,
    )
    if not matches_etag(target, file.etag):
        target.unlink()
        raise SourceFailed(f"{file.path} arrived with another content than the hub states")


def _repo_folder(repo: str) -> Path:
    return hub_cache() / f"models--{repo.replace('/', '--')}"


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def _matches(path: str, pattern: str) -> bool:
    segments, wanted = path.split("/"), pattern.split("/")
    return len(segments) == len(wanted) and all(
        fnmatchcase(segment, part) for segment, part in zip(segments, wanted, strict=True)
    )


def _precision(path: str) -> str:
    """`fp16` of model.fp16.safetensors or model.fp16-00001-of-00002.safetensors."""
    middle = PurePosixPath(path).name.split(".")[1:-1]
    return "" if not middle else middle[0].partition("-")[0]
