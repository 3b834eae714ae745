"""Google Drive: the real gdown behind a proxy on loopback that answers as Drive does."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from s2v_cli.errors import WeightsError
from s2v_cli.weights.drive import fetch_drive
from s2v_cli.weights.fetch import FetchOptions, SourceFailed, fetch_https
from s2v_cli.weights.pull import PullOptions, pull_assets
from s2v_cli.weights.store import load_asset

if TYPE_CHECKING:
    from conftest import MakeTensors, Site, WriteCatalogue

QUICK = FetchOptions(timeout_s=2.0, retries=0)
FORM = """<html><form id="download-form" action="https://drive.usercontent.google.com/download">
<input type="hidden" name="id" value="abc"><input type="hidden" name="confirm" value="t">
</form></html>""".replace("\n", " ")
QUOTA = """<html><p class="uc-error-caption">Sorry</p><p class="uc-error-subcaption">Too many users
have viewed or downloaded this file recently.</p></html>""".replace("\n", " ")
PRIVATE = "<html>You need access</html>"
FILE = {"Content-Disposition": 'attachment; filename="toy.pth"', "ETag": '"1"'}
TOY = """
[toy]
title = "A toy"
kind = "tensors"
licence = "MIT"
commercial = true
page = "https://example.org/toy"
[toy.file]
name = "toy.pth"
bytes = 100_000
estimated = true
sources = ["drive:abc", "SITE/mirror/toy.pth"]
"""

Answer = Callable[[str], tuple[int, dict[str, str], bytes]]


class Drive:
    """A proxy that answers for every host itself, with TLS; `answer` maps a path."""

    def __init__(self, certificate: Path) -> None:
        self.paths: list[str] = []
        self.heads: list[str] = []
        self.answer: Answer = lambda _: (404, {"Content-Type": "text/html"}, b"")
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certificate)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection: socket.socket) -> None:
        try:
            with connection:
                read_head(connection)
                connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                with self.tls.wrap_socket(connection, server_side=True) as secure:
                    self.heads.append(read_head(secure).decode())
                    path = self.heads[-1].split()[1]
                    self.paths.append(path)
                    status, headers, body = self.answer(path)
                    headers = {"Content-Length": str(len(body)), "Connection": "close"} | headers
                    lines = [f"HTTP/1.1 {status} x", *(f"{k}: {v}" for k, v in headers.items())]
                    secure.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        except OSError:
            pass


def read_head(connection: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        part = connection.recv(4096)
        if not part:
            raise OSError("closed")
        head += part
    return head


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate for Drive's names, made for this run."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not here to make a certificate")
    path = tmp_path_factory.mktemp("tls") / "drive.pem"
    names = ("drive.google.com", "docs.google.com", "drive.usercontent.google.com")
    subprocess.run(
        [
            openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
            "-subj", "/CN=s2v test", "-keyout", path, "-out", path.with_suffix(".crt"),
            "-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in names),
            "-addext", "keyUsage=critical,digitalSignature,keyCertSign",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


@pytest.fixture
def drive(home: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drive]:
    drive = Drive(certificate)
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, drive.url)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.with_suffix(".crt")))
    home.mkdir()
    yield drive
    drive.listener.close()


def fetch(home: Path, **more: Any) -> bytes:
    fetch_drive("abc", home / "toy.pth", label="toy", options=QUICK, **more)
    return (home / "toy.pth").read_bytes()


def test_a_small_file(drive: Drive, home: Path) -> None:
    drive.answer = lambda _: (200, {"Content-Type": "application/octet-stream", **FILE}, b"x" * 999)
    heard: list[tuple[str, float, float | None]] = []
    assert fetch(home, progress=lambda *what: heard.append(what)) == b"x" * 999
    assert drive.paths == ["/uc?id=abc"]
    assert heard[-1] == ("toy", 999, 999)
    assert [path.name for path in home.iterdir()] == ["toy.pth"]


def test_a_large_file_behind_the_page_that_warns_of_viruses(drive: Drive, home: Path) -> None:
    def answer(path: str) -> tuple[int, dict[str, str], bytes]:
        if path.startswith("/download?") and "confirm=t" in path:
            return 200, {"Content-Type": "application/octet-stream", **FILE}, b"y" * 999
        return 200, {"Content-Type": "text/html"}, FORM.encode()

    drive.answer = answer
    assert fetch(home) == b"y" * 999


def test_a_page_that_leads_to_itself(drive: Drive, home: Path) -> None:
    """gdown follows it for ever; somebody has to stop it."""
    drive.answer = lambda _: (200, {"Content-Type": "text/html"}, FORM.encode())
    with pytest.raises(SourceFailed, match=r"no file within 0\.8 s"):
        fetch_drive("abc", home / "toy.pth", label="toy", options=FetchOptions(timeout_s=0.2))
    assert len(drive.paths) > 2
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("page", [QUOTA, PRIVATE])
def test_the_page_about_the_quota(drive: Drive, home: Path, page: str) -> None:
    drive.answer = lambda _: (200, {"Content-Type": "text/html"}, page.encode())
    with pytest.raises(SourceFailed, match="quota for today is used up, or it is not public"):
        fetch(home)
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("status", [403, 404])
def test_a_drive_that_refuses(drive: Drive, home: Path, status: int) -> None:
    drive.answer = lambda _: (status, {"Content-Type": "application/json"}, b"{}")
    with pytest.raises(SourceFailed, match="Google Drive"):
        fetch(home)


def test_a_cut_connection_goes_on_in_the_next_run(drive: Drive, home: Path) -> None:
    content = os.urandom(2_000_000)
    headers = {"Content-Type": "application/octet-stream", **FILE}
    whole = headers | {"Content-Length": str(len(content))}
    drive.answer = lambda _: (200, whole, content[:1_300_000])
    with pytest.raises(SourceFailed, match="incomplete"):
        fetch(home)
    (rest,) = home.iterdir()
    had = rest.stat().st_size
    assert (rest.suffix, 0 < had <= 1_300_000) == (".part", True)

    def answer(_: str) -> tuple[int, dict[str, str], bytes]:
        asked = re.search(r"Range: bytes=(\d+)-", drive.heads[-1])
        if asked is None:
            return 200, whole, content
        start = int(asked[1])
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return 206, headers | {"Content-Range": span}, content[start:]

    drive.answer = answer
    assert fetch(home) == content
    assert f"Range: bytes={had}-" in drive.heads[-1]


def test_no_connection(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(SourceFailed, match="no connection"):
        fetch(home)


def test_nothing_is_written_into_the_home_folder(
    drive: Drive, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(home / "person"))
    test_a_small_file(drive, home)


def test_the_mirror_takes_over_and_the_message_says_what_to_do(
    drive: Drive,
    site: Site,
    catalogue: WriteCatalogue,
    tensors: MakeTensors,
    converters: Any,
) -> None:
    catalogue(TOY)
    drive.answer = lambda _: (200, {"Content-Type": "text/html"}, QUOTA.encode())
    with pytest.raises(WeightsError) as caught:
        pull_assets(["toy"], converters, PullOptions(fetch=QUICK))
    message = str(caught.value)
    assert "drive:abc: Google Drive gives no link: the file's download quota" in message
    assert "/mirror/toy.pth: it is not there (HTTP 404)" in message
    assert message.endswith("run: s2v weights import PATH --as toy")
    site.files["/mirror/toy.pth"] = tensors()
    pull_assets(["toy"], converters, PullOptions(fetch=QUICK))
    assert load_asset("toy")


def test_a_certificate_that_nobody_trusts(
    drive: Drive, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(SourceFailed, match="no trusted connection"):
        fetch_https("https://docs.google.com/x", home / "x", label="x", options=QUICK)
