"""Getting assets over plain HTTP: hashes, mirrors, licences, two runs at once, Ctrl-C."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from s2v_cli.errors import MissingWeightsError, WeightsError
from s2v_cli.weights import disk
from s2v_cli.weights.pull import Dialogue, PullOptions, pull_assets
from s2v_cli.weights.store import asset_file, asset_status, load_asset, verify_asset

if TYPE_CHECKING:
    from conftest import MakeTensors, Site, WriteCatalogue

TOY = """
[toy]
title = "A toy"
kind = "tensors"
licence = "MIT"
commercial = true
page = "https://example.org/toy"
converted_bytes = 100_000
[toy.file]
name = "toy.pth"
bytes = 100_000
estimated = true
sources = ["SITE/toy.pth", "SITE/mirror/toy.pth"]
"""
NON_COMMERCIAL = TOY.replace("MIT", "CC BY-NC 4.0").replace("true\npage", "false\npage")


@pytest.fixture
def toy(site: Site, catalogue: WriteCatalogue, tensors: MakeTensors) -> bytes:
    """The asset `toy`, on the server."""
    catalogue(TOY)
    site.files["/toy.pth"] = tensors()
    return site.files["/toy.pth"]


def pull(converters: Any, options: PullOptions, **dialogue: Any) -> Any:
    return pull_assets(["toy"], converters, options, Dialogue(**dialogue))["toy"]


def files_in(home: Path) -> set[str]:
    return {
        str(path.relative_to(home / "weights/toy"))
        for path in (home / "weights/toy").rglob("*")
        if path.is_file()
    }


def test_pulled_converted_and_recorded(
    site: Site, home: Path, toy: bytes, converters: Any, quick: PullOptions
) -> None:
    with pytest.raises(MissingWeightsError) as missing:
        load_asset("toy")
    assert str(missing.value) == (
        "Missing weights: toy (100 kB, MIT). Get them: s2v weights pull toy"
    )
    assert missing.value.assets == ("toy",)
    assert missing.value.bytes == 100_000
    assert asset_status("toy") == "missing"
    manifest = pull(converters, quick)
    assert asset_status("toy") == "here"
    assert files_in(home) == {"manifest.json", "toy.safetensors"}
    assert manifest.source == f"{site.url}/toy.pth"
    (published,) = manifest.published
    assert (published.path, published.bytes) == ("toy.pth", len(toy))
    assert published.sha256 == hashlib.sha256(toy).hexdigest()
    assert manifest.files[0].sha256 == hashlib.sha256(asset_file("toy").read_bytes()).hexdigest()
    loaded = load_asset("toy")
    assert loaded.keys() == {"weight"}
    assert loaded["weight"].dtype == torch.float32
    assert json.loads((home / "known_hashes.json").read_text()) == {
        "toy": {"toy.pth": published.sha256}
    }


def test_what_is_here_is_left_alone(
    site: Site, toy: bytes, converters: Any, quick: PullOptions
) -> None:
    first = pull(converters, quick)
    asked = len(site.requests)
    assert pull(converters, quick) == first
    assert len(site.requests) == asked


@pytest.mark.parametrize("fault", [{"status": 404}, {"status": 500}, {"body": b"<html>"}])
def test_the_next_mirror_helps(
    site: Site, toy: bytes, converters: Any, quick: PullOptions, fault: dict[str, Any]
) -> None:
    site.files["/mirror/toy.pth"] = toy
    site.fail("/toy.pth", always=True, **fault)
    assert pull(converters, quick).source == f"{site.url}/mirror/toy.pth"


def test_no_mirror_helps(
    site: Site, home: Path, toy: bytes, converters: Any, quick: PullOptions
) -> None:
    site.fail("/toy.pth", always=True, status=403)
    with pytest.raises(WeightsError) as caught:
        pull(converters, quick)
    assert str(caught.value) == (
        f"Cannot get toy ({site.url}/toy.pth: it refuses (HTTP 403); {site.url}/mirror/toy.pth: "
        "it is not there (HTTP 404)). Try again later, or get it by hand from "
        "https://example.org/toy and run: s2v weights import PATH --as toy"
    )
    assert asset_status("toy") == "missing"
    assert files_in(home) == set()


def test_a_wrong_checkpoint_is_a_failed_mirror(
    site: Site, home: Path, toy: bytes, converters: Any, quick: PullOptions
) -> None:
    from safetensors.torch import save

    site.files["/toy.pth"] = save({"bias": torch.zeros(3)})
    site.files["/mirror/toy.pth"] = toy[: len(toy) // 2]
    with pytest.raises(WeightsError) as caught:
        pull(converters, quick)
    assert "This is not the test network: 'weight' is missing." in str(caught.value)
    assert "cut short" in str(caught.value)
    assert asset_status("toy") == "missing"
    assert files_in(home) == set()
    assert not (home / "known_hashes.json").exists()
    site.files["/toy.pth"] = toy
    assert pull(converters, quick)


def test_a_later_difference_is_refused(
    site: Site,
    home: Path,
    toy: bytes,
    tensors: MakeTensors,
    converters: Any,
    quick: PullOptions,
) -> None:
    from s2v_cli.weights.removal import remove_assets

    pull(converters, quick)
    remove_assets(["toy"])
    site.files["/toy.pth"] = tensors(seed=1)
    old, new = (hashlib.sha256(c).hexdigest() for c in (toy, site.files["/toy.pth"]))
    with pytest.raises(WeightsError, match=f"SHA-256 is {new} instead of {old}; --accept-changed"):
        pull(converters, quick)
    assert asset_status("toy") == "missing"
    manifest = pull(converters, replace(quick, accept_changed=True))
    assert manifest.published[0].sha256 == new
    remove_assets(["toy"])
    assert pull(converters, quick).published[0].sha256 == new


def test_a_pinned_hash_is_final(
    site: Site,
    catalogue: WriteCatalogue,
    toy: bytes,
    tensors: MakeTensors,
    converters: Any,
    quick: PullOptions,
) -> None:
    right = tensors(seed=1)
    pinned = hashlib.sha256(right).hexdigest()
    catalogue(TOY.replace("estimated = true", f'estimated = true\nsha256 = "{pinned}"'))
    with pytest.raises(WeightsError, match=rf"instead of {pinned}; http"):
        pull(converters, replace(quick, accept_changed=True))
    site.files["/mirror/toy.pth"] = right
    assert pull(converters, quick).source.endswith("/mirror/toy.pth")


def test_damage_after_the_pull_is_found_before_use(
    toy: bytes, converters: Any, quick: PullOptions
) -> None:
    pull(converters, quick)
    load_asset("toy")
    path = asset_file("toy")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert asset_status("toy") == "damaged"
    with pytest.raises(WeightsError, match=r"Damaged weights: .*SHA-256.*s2v weights pull toy"):
        load_asset("toy")
    path.write_bytes(content[:-1])
    with pytest.raises(WeightsError, match=f"{len(content) - 1} bytes instead of {len(content)}"):
        load_asset("toy")
    pull(converters, quick)
    assert load_asset("toy")


def test_unchanged_files_are_not_read_again(
    toy: bytes, converters: Any, quick: PullOptions
) -> None:
    pull(converters, quick)
    read: list[int] = []
    verify_asset("toy", progress=read.append)
    assert read == []
    path = asset_file("toy")
    path.touch()
    verify_asset("toy", progress=read.append)
    assert sum(read) == path.stat().st_size
    verify_asset("toy", progress=read.append)
    assert sum(read) == path.stat().st_size
    verify_asset("toy", reread=True, progress=read.append)
    assert sum(read) == 2 * path.stat().st_size


def test_a_copied_folder_cannot_vouch_for_itself(
    home: Path, toy: bytes, converters: Any, quick: PullOptions
) -> None:
    """Stamps are the cache's own: what comes along with a folder of weights does not count."""
    other = home.parent / "other"
    options = replace(quick, weights_dir=other)
    pull(converters, options)
    assert asset_status("toy") == "missing"
    moved = home.parent / "moved"
    other.rename(moved)
    read: list[int] = []
    verify_asset("toy", moved, progress=read.append)
    assert sum(read) > 0


def test_a_full_disk_is_seen_ahead(
    site: Site,
    home: Path,
    toy: bytes,
    converters: Any,
    quick: PullOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = disk.shutil.disk_usage(home.parent)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage._replace(free=disk.RESERVE + 9))
    with pytest.raises(WeightsError, match=r"Not enough disk space for toy: .* S2V_HOME"):
        pull(converters, quick)
    assert site.requests == []
    assert not home.exists()


def test_licences_need_a_yes(
    site: Site, home: Path, catalogue: WriteCatalogue, toy: bytes, converters: Any, quick: Any
) -> None:
    catalogue(NON_COMMERCIAL)
    with pytest.raises(WeightsError) as nobody:
        pull(converters, quick)
    assert str(nobody.value) == (
        "toy is under CC BY-NC 4.0: not for commercial use (https://example.org/toy). "
        "To agree: --accept-licence."
    )
    asked: list[str] = []
    with pytest.raises(WeightsError, match="Without a yes it is not downloaded"):
        pull(converters, quick, ask=lambda question: bool(asked.append(question)))
    assert asked == [
        "toy is under CC BY-NC 4.0: not for commercial use (https://example.org/toy). Do you agree?"
    ]
    assert site.requests == []
    assert not (home / "licences.json").exists()
    pull(converters, quick, ask=lambda _: True)
    from s2v_cli.weights.removal import remove_assets

    remove_assets(["toy"])
    pull(converters, quick)  # remembered
    catalogue(NON_COMMERCIAL.replace("4.0", "5.0"))
    remove_assets(["toy"])
    with pytest.raises(WeightsError, match=r"CC BY-NC 5\.0"):  # other words, another question
        pull(converters, quick)
    pull(converters, replace(quick, accept_licence=True))


def test_an_unknown_name(home: Path, converters: Any) -> None:
    with pytest.raises(WeightsError, match=r"'icgan-182'\. Did you mean 'icgan-128'"):
        pull_assets(["icgan-182"], converters)


def test_no_converter_is_told_before_the_download(site: Site, toy: bytes, quick: Any) -> None:
    with pytest.raises(WeightsError, match="cannot convert the weights toy"):
        pull({}, quick)
    assert site.requests == []


def test_a_forged_manifest_does_not_lead_out(
    home: Path, toy: bytes, converters: Any, quick: PullOptions
) -> None:
    pull(converters, quick)
    path = home / "weights/toy/manifest.json"
    path.write_text(path.read_text().replace('"toy.safetensors"', '"../../secret"'))
    with pytest.raises(WeightsError, match="is not a manifest of toy"):
        load_asset("toy")


SCRIPT = """
import sys
from s2v_cli.weights.checkpoint import read_checkpoint
from s2v_cli.weights.fetch import FetchOptions
from s2v_cli.weights.pull import Dialogue, PullOptions, pull_assets
def read(files):
    (path,) = files.values()
    return read_checkpoint(path)
print("begun", flush=True)
def heard(label, done, total):
    if done:
        print(done, flush=True)
manifest = pull_assets(
    ["toy"], {"toy": read}, PullOptions(fetch=FetchOptions(timeout_s=5, retries=0)),
    Dialogue(note=lambda text: print(text, flush=True), progress=heard),
)["toy"]
print(manifest.files[0].sha256)
"""


def start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_two_processes_end_with_one_good_copy(
    site: Site, home: Path, catalogue: WriteCatalogue, tensors: MakeTensors
) -> None:
    catalogue(TOY.replace('"tensors"', '"file"').replace("converted_bytes = 100_000\n", ""))
    site.files["/toy.pth"] = tensors(megabytes=1)
    site.fail("/toy.pth", always=True, slow=True)
    runs = [start(), start()]
    outs = [run.communicate(timeout=60) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outs
    hashes = {out.splitlines()[-1] for out, _ in outs}
    assert hashes == {hashlib.sha256(asset_file("toy").read_bytes()).hexdigest()}
    assert len(site.gets("/toy.pth")) == 1
    assert sum("waiting for it" in out for out, _ in outs) == 1
    assert files_in(home) == {"manifest.json", "files/toy.pth"}


def test_ctrl_c_leaves_nothing_to_trust_and_the_next_run_goes_on(
    site: Site, home: Path, toy: bytes, tensors: MakeTensors, converters: Any, quick: PullOptions
) -> None:
    site.files["/toy.pth"] = tensors(megabytes=4)
    site.fail("/toy.pth", slow=True, cut_at=None)
    run = start()
    assert run.stdout is not None
    while (line := run.stdout.readline()) and not line.strip().isdigit():
        pass
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=30)
    assert run.returncode != 0
    assert "KeyboardInterrupt" in err
    assert asset_status("toy") == "missing"
    assert files_in(home) == {"staging/toy.pth.part", "staging/toy.pth.part.json"}
    had = (home / "weights/toy/staging/toy.pth.part").stat().st_size
    assert 0 < had < len(site.files["/toy.pth"])
    pull(converters, quick)
    assert site.gets("/toy.pth")[-1].headers["Range"] == f"bytes={had}-"
    assert load_asset("toy")["weight"].numel() == 1_000_000
    assert files_in(home) == {"manifest.json", "toy.safetensors"}


def test_a_run_killed_while_converting_is_not_trusted(
    site: Site, home: Path, toy: bytes, converters: Any, quick: PullOptions
) -> None:
    """What was downloaded is used again, but only after it was hashed again."""

    def stopped(files: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull({"toy": stopped}, quick)
    assert asset_status("toy") == "missing"
    staged = home / "weights/toy/staging/toy.pth"
    staged.write_bytes(b"x" * staged.stat().st_size)
    pull(converters, quick)
    assert len(site.gets("/toy.pth")) == 2
    assert load_asset("toy")


def test_the_lock_is_free_after_a_crash(
    home: Path, toy: bytes, converters: Any, quick: Any
) -> None:
    locks = home / "weights/.locks"
    locks.mkdir(parents=True)
    (locks / "toy.lock").touch()
    begun = time.monotonic()
    pull(converters, quick)
    assert time.monotonic() - begun < 5


def test_a_cache_that_cannot_be_written(
    home: Path, toy: bytes, converters: Any, quick: PullOptions
) -> None:
    home.write_text("a file")
    with pytest.raises(WeightsError, match=r"Cannot write in .*S2V_HOME"):
        pull(converters, quick)
    assert os.path.isfile(home)
