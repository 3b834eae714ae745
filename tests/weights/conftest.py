"""A file server and a small hub on loopback that can fail in every way that counts."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import torch
from safetensors.torch import save

from s2v_cli.weights.fetch import FetchOptions
from s2v_cli.weights.pull import PullOptions

QUICK = FetchOptions(timeout_s=1.0, retries=2, backoff_s=0.01, longest_wait_s=0.2)
LARGE = (".safetensors", ".bin", ".onnx", ".pth")


@dataclass
class Fault:
    """How one request goes wrong."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut_at: int | None = None  # bytes of the body after which the connection ends
    hang: bool = False  # no more bytes from there on, until the site closes
    slow: bool = False  # a trickle, so that a download takes some seconds


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # clients here come and go
            super().handle_error(request, client_address)


class Site:
    """Files by path, repositories by name; `faults` are used up one a request, `always` are not."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.heads: dict[str, str] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.always: dict[str, Fault] = {}
        self.requests: list[Request] = []
        self.closing = threading.Event()
        handler = type("Handler", (_Handler,), {"site": self})
        self.server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def publish(self, repo: str, files: dict[str, bytes]) -> str:
        """Make a new commit the head of a repository; returns its id."""
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.repos.setdefault(repo, {})[commit] = files
        self.heads[repo] = commit
        return commit

    def fail(self, path: str, *, always: bool = False, **how: Any) -> None:
        """Let the next request for a path go wrong, or all of them."""
        if always:
            self.always[path] = Fault(**how)
        else:
            self.faults.setdefault(path, []).append(Fault(**how))

    def gets(self, part: str) -> list[Request]:
        return [r for r in self.requests if r.method == "GET" and part in r.path]


class _Handler(BaseHTTPRequestHandler):
    site: Site
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        headers = {name.title(): value for name, value in self.headers.items()}
        self.site.requests.append(Request(self.command, self.path, headers))
        waiting = self.site.faults.get(path)
        fault = waiting.pop(0) if waiting else self.site.always.get(path)
        try:
            if fault is not None and (fault.status != 200 or fault.body is not None):
                self.send(fault.status, fault.body or b"", fault.headers, fault)
            elif path.startswith("/api/models/"):
                self.model_info(path.removeprefix("/api/models/"), fault)
            elif "/resolve/" in path:
                self.resolve(path, fault)
            elif path in self.site.files:
                content = self.site.files[path]
                etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
                self.send_range(content, {"ETag": etag}, fault)
            else:
                self.send(404, b"no", {}, fault)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def model_info(self, rest: str, fault: Fault | None) -> None:
        repo, _, revision = rest.partition("/revision/")
        commits = self.site.repos.get(repo)
        commit = revision if commits and revision in commits else self.site.heads.get(repo)
        if commits is None or commit is None:
            return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, fault)
        if revision not in ("", "main", commit):
            return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, fault)
        siblings = [self.sibling(path, content) for path, content in commits[commit].items()]
        answer = {"id": repo, "sha": commit, "siblings": siblings}
        self.send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"}, fault)
        return None

    def sibling(self, path: str, content: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": blob(content)}
        if path.endswith(LARGE):
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"size": len(content), "sha256": digest, "pointerSize": 134}
        return entry

    def resolve(self, path: str, fault: Fault | None) -> None:
        repo, _, rest = path.lstrip("/").partition("/resolve/")
        commit, _, name = rest.partition("/")
        content = self.site.repos.get(repo, {}).get(commit, {}).get(name)
        if content is None:
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound"}, fault)
        digest = hashlib.sha256(content).hexdigest() if name.endswith(LARGE) else blob(content)
        self.send_range(content, {"ETag": f'"{digest}"', "X-Repo-Commit": commit}, fault)
        return None

    def send_range(self, content: bytes, headers: dict[str, str], fault: Fault | None) -> None:
        asked = self.headers.get("Range", "")
        same = self.headers.get("If-Range") in (None, headers.get("ETag"))
        if asked.startswith("bytes=") and same:
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            if start >= len(content):
                return self.send(416, b"", {}, fault)
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send(206, content[start:], headers | {"Content-Range": span}, fault)
        else:
            self.send(200, content, headers, fault)
        return None

    def send(self, status: int, body: bytes, headers: dict[str, str], fault: Fault | None) -> None:
        self.send_response(status)
        for name, value in ({"Accept-Ranges": "bytes"} | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault is None:
            self.wfile.write(body)
            return
        sent = body[: fault.cut_at]
        for start in range(0, len(sent), 1 << 16) if fault.slow else [0]:
            self.wfile.write(sent[start : start + (1 << 16)] if fault.slow else sent)
            self.wfile.flush()
            if fault.slow:
                time.sleep(0.05)
        if fault.hang:
            self.site.closing.wait(20)
        if fault.cut_at is not None or fault.hang:
            self.close_connection = True


def blob(content: bytes) -> str:
    """Git's id of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def tensors_file(seed: int = 0, *, megabytes: float = 0.1) -> bytes:
    """A safetensors file with one tensor of noise."""
    generator = torch.Generator().manual_seed(seed)
    return save({"weight": torch.randn(int(megabytes * 250_000), generator=generator)})


def read_tensors(files: Any) -> dict[str, torch.Tensor]:
    """A converter: takes the one published file, wants the one key."""
    from s2v_cli.weights.checkpoint import read_checkpoint, require_keys

    (path,) = files.values()
    state = read_checkpoint(path)
    size = next((tuple(v.shape) for v in state.values()), (0,))
    require_keys(state, {"weight": size}, "the test network")
    return {"weight": state["weight"].float()}


WriteCatalogue = Callable[[str], Path]
MakeTensors = Callable[..., bytes]


@pytest.fixture
def tensors() -> MakeTensors:
    """Makes the content of a safetensors file of a given seed."""
    return tensors_file


@pytest.fixture
def converters() -> dict[str, Any]:
    """What turns the published files of the test's assets into tensors."""
    return {name: read_tensors for name in ("toy", "other", "third")}


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture
def home(folder: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> Path:
    """s2v's and the hub's folders in the current one, and the hub on loopback."""
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "S2V_CATALOGUE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("S2V_HOME", str(folder / "home"))
    monkeypatch.setenv("HF_HOME", str(folder / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", site.url)
    for name in ("NO_PROXY", "no_proxy"):  # a proxy of this machine does not see loopback
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    return folder / "home"


@pytest.fixture
def catalogue(home: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> WriteCatalogue:
    """Write a catalogue of one's own; SITE in it stands for the server's address."""

    def write(text: str) -> Path:
        path = home.parent / "catalogue.toml"
        path.write_text(text.replace("SITE", site.url), encoding="utf-8")
        monkeypatch.setenv("S2V_CATALOGUE", str(path))
        return path

    return write


@pytest.fixture
def quick() -> PullOptions:
    """Options with little patience."""
    return PullOptions(fetch=QUICK)
