"""Downloads over plain HTTP from a server that fails."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from s2v_cli.errors import WeightsError
from s2v_cli.weights import disk
from s2v_cli.weights.fetch import FetchOptions, SourceFailed, fetch_https

if TYPE_CHECKING:
    from conftest import Site

CONTENT = os.urandom(1 << 20)
QUICK = FetchOptions(timeout_s=0.5, retries=2, backoff_s=0.01, longest_wait_s=0.2)
PATH = "/file.bin"


@pytest.fixture
def target(home: Path) -> Path:
    home.mkdir()
    return home / "file.bin"


def fetch(site: Site, target: Path, **more: Any) -> None:
    site.files.setdefault(PATH, CONTENT)
    fetch_https(f"{site.url}{PATH}", target, label="file", **{"options": QUICK, **more})


def leftovers(target: Path) -> list[str]:
    return sorted(os.listdir(target.parent))


def test_a_whole_file(site: Site, target: Path) -> None:
    heard: list[tuple[str, float, float | None]] = []
    fetch(site, target, progress=lambda *what: heard.append(what), size=len(CONTENT))
    assert target.read_bytes() == CONTENT
    assert leftovers(target) == ["file.bin"]
    assert heard[-1] == ("file", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in heard] == sorted(done for _, done, _ in heard)


def test_a_cut_connection_goes_on_where_it_broke(site: Site, target: Path) -> None:
    site.fail(PATH, cut_at=600_000)
    fetch(site, target)
    assert target.read_bytes() == CONTENT
    first, second = site.gets(PATH)
    assert "Range" not in first.headers
    start = int(second.headers["Range"].removeprefix("bytes=").removesuffix("-"))
    assert 0 < start <= 600_000
    assert second.headers["If-Range"]


def test_a_later_run_goes_on(site: Site, target: Path) -> None:
    for _ in range(3):
        site.fail(PATH, cut_at=300_000)
    with pytest.raises(SourceFailed, match="broke"):
        fetch(site, target, options=FetchOptions(timeout_s=0.5, retries=0))
    assert leftovers(target) == ["file.bin.part", "file.bin.part.json"]
    had = target.with_name("file.bin.part").stat().st_size
    site.faults.clear()
    fetch(site, target)
    assert target.read_bytes() == CONTENT
    assert site.gets(PATH)[-1].headers["Range"] == f"bytes={had}-"


def test_a_file_that_changed_starts_over(site: Site, target: Path) -> None:
    site.fail(PATH, cut_at=300_000)
    with pytest.raises(SourceFailed):
        fetch(site, target, options=FetchOptions(timeout_s=0.5, retries=0))
    site.files[PATH] = CONTENT[::-1]
    fetch(site, target)
    assert target.read_bytes() == CONTENT[::-1]


def test_a_rest_of_another_identity_is_not_joined(site: Site, target: Path) -> None:
    site.fail(PATH, cut_at=300_000)
    with pytest.raises(SourceFailed):
        fetch(site, target, identity="a", options=FetchOptions(timeout_s=0.5, retries=0))
    fetch(site, target, identity="b")
    assert target.read_bytes() == CONTENT
    assert "Range" not in site.gets(PATH)[-1].headers


@pytest.mark.parametrize(
    ("status", "reason", "tries"),
    [
        (401, "wants a login .HTTP 401", 1),
        (403, "refuses .HTTP 403", 1),
        (404, "not there .HTTP 404", 1),
        (429, "too many requests .HTTP 429", 3),
        (500, "the server failed .HTTP 500", 3),
    ],
)
def test_refusals(site: Site, target: Path, status: int, reason: str, tries: int) -> None:
    site.fail(PATH, always=True, status=status)
    with pytest.raises(SourceFailed, match=reason):
        fetch(site, target)
    assert len(site.gets(PATH)) == tries
    assert leftovers(target) == []


def test_trouble_that_passes(site: Site, target: Path) -> None:
    site.fail(PATH, status=503)
    site.fail(PATH, status=429, headers={"Retry-After": "0"})
    fetch(site, target)
    assert target.read_bytes() == CONTENT


def test_retry_after_is_kept_to_a_limit(site: Site, target: Path) -> None:
    site.fail(PATH, always=True, status=429, headers={"Retry-After": "3600"})
    begun = time.monotonic()
    with pytest.raises(SourceFailed, match="asks to wait 3600 s"):
        fetch(site, target)
    assert time.monotonic() - begun < 2
    assert len(site.gets(PATH)) == 1


@pytest.mark.parametrize("cut_at", [0, 100_000])
def test_a_server_that_hangs(site: Site, target: Path, cut_at: int) -> None:
    site.fail(PATH, always=True, hang=True, cut_at=cut_at)
    with pytest.raises(SourceFailed, match=r"no answer within 0\.2 s"):
        fetch(site, target, options=FetchOptions(timeout_s=0.2, retries=1, backoff_s=0.01))
    assert not target.exists()


def test_nobody_listens(site: Site, target: Path) -> None:
    site.close()
    with pytest.raises(SourceFailed, match="no connection"):
        fetch(site, target)


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "text/html; charset=utf-8"}])
def test_a_web_page_is_no_file(site: Site, target: Path, headers: dict[str, str]) -> None:
    site.fail(PATH, always=True, body=b"<!DOCTYPE html><title>Sorry</title>", headers=headers)
    with pytest.raises(SourceFailed, match="web page instead of the file"):
        fetch(site, target)
    assert leftovers(target) == []


def test_another_size_than_stated(site: Site, target: Path) -> None:
    with pytest.raises(SourceFailed, match=f"has {len(CONTENT)} bytes instead of 5"):
        fetch(site, target, size=5)
    assert leftovers(target) == []


def test_a_full_disk_is_seen_ahead(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = disk.shutil.disk_usage(target.parent)
    monkeypatch.setattr(
        disk.shutil, "disk_usage", lambda _: usage._replace(free=disk.RESERVE + 100_000)
    )
    with pytest.raises(WeightsError, match="Not enough disk space for file: it needs 51 MB"):
        fetch(site, target)
    assert leftovers(target) == []


def test_a_folder_that_cannot_be_written(site: Site, target: Path) -> None:
    (target.parent / "file").touch()
    with pytest.raises(WeightsError, match=r"Cannot write .*file\.bin.*: Not a directory"):
        fetch(site, target.parent / "file/file.bin")
