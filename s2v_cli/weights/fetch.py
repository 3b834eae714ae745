"""Plain HTTPS downloads: resumed, bounded in time, and refused when they are not the file."""

from __future__ import annotations

import email.utils
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2v_cli.errors import WeightsError
from s2v_cli.weights.checkpoint import is_web_page
from s2v_cli.weights.disk import require_space
from s2v_cli.weights.jsonfile import read_json, write_json

if TYPE_CHECKING:
    from requests import Response, Session

Progress = Callable[[str, float, float | None], None]

_CHUNK = 1 << 18  # bytes between two looks at the clock and the progress
SOON = {408, 425, 429, 500, 502, 503, 504}  # states of a server that pass


class SourceFailed(Exception):
    """One source of a file does not give it; another one might.

    Attributes:
        reason: one line without the source's name.
    """

    def __init__(self, reason: object) -> None:
        self.reason = " ".join(str(reason).split())[:300]
        super().__init__(self.reason)


@dataclass(frozen=True)
class FetchOptions:
    """How patient downloads are.

    Attributes:
        timeout_s: without a single byte, seconds.
        retries: in a row that brought nothing.
        backoff_s: before the first retry; doubles with each.
        longest_wait_s: between two tries, whatever the server asks for.
    """

    timeout_s: float = 30.0
    retries: int = 4
    backoff_s: float = 1.0
    longest_wait_s: float = 60.0


@dataclass
class _Part:
    """What is there of a download: PATH.part with the bytes, PATH.part.json with their origin."""

    path: Path
    note: Path
    url: str
    identity: str | None

    @property
    def bytes(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def belongs(self) -> bool:
        """Whether the bytes on disk are of this download, as far as can be told."""
        known = read_json(self.note)
        if self.identity is not None:
            return known.get("identity") == self.identity
        return known.get("url") == self.url and bool(known.get("validator"))

    def remember(self, response: Response) -> None:
        etag = response.headers.get("ETag", "")
        validator = etag if etag and not etag.startswith("W/") else ""
        validator = validator or response.headers.get("Last-Modified", "")
        note = {"url": self.url, "identity": self.identity, "validator": validator}
        write_json(self.note, note)

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def fetch_https(
    url: str,
    target: Path,
    *,
    label: str,
    size: int | None = None,
    identity: str | None = None,
    headers: Mapping[str, str] | None = None,
    options: FetchOptions | None = None,
    progress: Progress | None = None,
) -> None:
    """Download a file to `target`; what an earlier run left of it is taken up again.

    Args:
        url: its address.
        target: where the whole file goes, by renaming; its folder is there.
        label: for progress.
        size: in bytes, where it is known for sure.
        identity: names the content (a hash), where known; else the server's ETag or date decides
            whether a rest may be joined to what is there.
        headers: for the request.
        options: timeout and retries.
        progress: hears label, bytes so far and in all.

    Raises:
        SourceFailed: the server refuses, hangs, breaks off too often, or sends something else.
        WeightsError: the disk is full or cannot be written.
    """
    import requests

    options = options or FetchOptions()
    part = _Part(
        target.with_name(target.name + ".part"),
        target.with_name(target.name + ".part.json"),
        url,
        identity,
    )
    fails, wait = 0, 0.0
    with requests.Session() as session:
        while True:
            before = part.bytes
            try:
                _receive(session, part, label, size, dict(headers or {}), options, progress)
                break
            except _Pass as trouble:
                fails = 1 if part.bytes > before else fails + 1
                wait = options.backoff_s * 2 ** (fails - 1)
                if trouble.wait_s is not None:
                    wait = max(wait, trouble.wait_s)
                if fails > options.retries:
                    raise SourceFailed(trouble.reason) from None
                if wait > options.longest_wait_s and trouble.wait_s is not None:
                    text = f"{trouble.reason}; the server asks to wait {wait:.0f} s"
                    raise SourceFailed(text) from None
            except OSError as error:
                raise WeightsError(_write_failed(part.path, error)) from error
            if progress:
                progress(f"{label} (again)", part.bytes, size)
            time.sleep(min(wait, options.longest_wait_s))
    try:
        os.replace(part.path, target)
        part.note.unlink(missing_ok=True)
    except OSError as error:
        raise WeightsError(_write_failed(target, error)) from error


class _Pass(Exception):
    """Trouble that may pass."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        self.reason, self.wait_s = reason, wait_s
        super().__init__(reason)


def _receive(
    session: Session,
    part: _Part,
    label: str,
    size: int | None,
    headers: dict[str, str],
    options: FetchOptions,
    progress: Progress | None,
) -> None:
    """One request; returns when the whole file lies in `part.path`."""
    import requests

    headers["Accept-Encoding"] = "identity"  # ranges count the bytes on disk
    start = part.bytes if part.belongs() else 0
    if size is not None and start == size:
        return
    if start and (size is None or start < size):
        headers["Range"] = f"bytes={start}-"
        validator = read_json(part.note).get("validator")
        if part.identity is None:
            headers["If-Range"] = str(validator)
    else:
        start = 0
    try:
        with session.get(
            part.url, headers=headers, stream=True, timeout=options.timeout_s
        ) as response:
            start, total = _check(response, part, start, size)
            require_space(part.path.parent, (total or 0) - start, label)
            received = _write(response, part, start, label, total, progress)
    except requests.exceptions.SSLError as error:
        raise SourceFailed(f"no trusted connection: {_reason(error)}") from None
    except requests.exceptions.Timeout:
        raise _Pass(f"no answer within {options.timeout_s:g} s") from None
    except requests.exceptions.TooManyRedirects:
        raise SourceFailed("it redirects in circles") from None
    except requests.exceptions.RequestException as error:
        # A connection that hangs in mid-download comes as one that broke.
        if "timed out" in str(error).lower():
            raise _Pass(f"no answer within {options.timeout_s:g} s") from None
        raise _Pass(f"no connection, or it broke: {_reason(error)}") from None
    if total is not None and received < total:
        raise _Pass(f"the download broke off at {received} of {total} bytes")
    if total is not None and received > total:
        part.drop()
        raise SourceFailed(f"the server sent {received} bytes instead of {total}")


def _check(response: Response, part: _Part, start: int, size: int | None) -> tuple[int, int | None]:
    """From which byte on the body is, and how long the whole file is."""
    status = response.status_code
    if status in SOON:
        raise _Pass(status_text(status), _retry_after(response.headers.get("Retry-After")))
    if status == 416:  # what is there is longer than the file, or of another one
        part.drop()
        raise _Pass("the download had to start over")
    if status not in (200, 206):
        raise SourceFailed(status_text(status))
    if part.url.startswith("https:") and not response.url.startswith("https:"):
        raise SourceFailed("it redirects to an address without encryption")
    if response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise SourceFailed("it answers with a web page instead of the file")
    length = response.headers.get("Content-Length")
    if status == 206:
        begin, whole = _content_range(response.headers.get("Content-Range", ""))
        if begin != start:
            part.drop()
            raise _Pass("the server sent another part than asked for")
        total = whole
    else:
        start = 0
        total = int(length) if length and length.isdigit() else None
    if size is not None and total is not None and total != size:
        part.drop()
        raise SourceFailed(f"the file has {total} bytes instead of {size}")
    return start, total if total is not None else size


def _write(
    response: Response,
    part: _Part,
    start: int,
    label: str,
    total: int | None,
    progress: Progress | None,
) -> int:
    """Write the body; returns how many bytes of the file are on disk then."""
    if not start:
        part.drop()
        part.remember(response)
    done = start
    with part.path.open("ab") as stream:
        for chunk in response.iter_content(_CHUNK):
            if done == 0 and is_web_page(chunk[:512]):
                part.drop()
                raise SourceFailed("it sends a web page instead of the file")
            stream.write(chunk)
            done += len(chunk)
            if progress:
                progress(label, done, total)
        stream.flush()
        os.fsync(stream.fileno())
    return done


def _content_range(text: str) -> tuple[int, int | None]:
    """First byte and whole length of `bytes 0-99/1000`."""
    span, _, whole = text.removeprefix("bytes ").partition("/")
    begin = span.partition("-")[0]
    return (int(begin) if begin.isdigit() else -1), (int(whole) if whole.isdigit() else None)


def _retry_after(text: str | None) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date."""
    if not text:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def status_text(status: int) -> str:
    """What an HTTP status means for a download."""
    meanings = {
        401: "it wants a login",
        403: "it refuses",
        404: "it is not there",
        410: "it is gone",
        429: "too many requests",
    }
    meaning = meanings.get(status, "the server failed" if status >= 500 else "unexpected answer")
    return f"{meaning} (HTTP {status})"


def _reason(error: BaseException) -> str:
    """The innermost reason of a chain of network errors."""
    seen: Any = error
    while isinstance(seen, BaseException):
        inner = getattr(seen, "reason", None) or seen.__context__ or (seen.args or (None,))[0]
        if not isinstance(inner, BaseException):
            break
        seen = inner
    return str(seen)


def _write_failed(path: Path, error: OSError) -> str:
    return f"Cannot write {path}: {error.strerror or error}."
