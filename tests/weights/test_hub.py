"""The hub: the real client against a small server."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from s2v_cli.errors import WeightsError
from s2v_cli.weights.fetch import FetchOptions, SourceFailed
from s2v_cli.weights.hub import select_files
from s2v_cli.weights.pull import Dialogue, PullOptions, pull_assets
from s2v_cli.weights.removal import remove_assets
from s2v_cli.weights.store import asset_file, asset_folder, asset_status, load_asset, missing_assets

if TYPE_CHECKING:
    from conftest import MakeTensors, Site, WriteCatalogue

REPO = "acme/pipe"
CATALOGUE = """
[toy]
title = "A pipeline"
kind = "folder"
licence = "MIT"
commercial = true
page = "https://example.org/pipe"
sources = ["hf:gone/pipe", "hf:acme/pipe"]
patterns = ["model_index.json", "unet/*.json", "unet/net*.safetensors", "tokenizer/*"]
bytes = 200_000
fp16_bytes = 100_000

[other]
title = "One file"
kind = "file"
licence = "MIT"
commercial = true
page = "https://example.org/pipe"
[other.file]
name = "net.onnx"
bytes = 100_000
estimated = true
sources = ["hf:acme/pipe:parts/net.onnx"]

[third]
title = "Converted"
kind = "tensors"
licence = "MIT"
commercial = true
page = "https://example.org/pipe"
converted_bytes = 100_000
[third.file]
name = "third"
bytes = 100_000
estimated = true
sources = ["hf:acme/pipe:unet/net.safetensors"]
"""


@pytest.fixture
def pipe(site: Site, catalogue: WriteCatalogue, tensors: MakeTensors) -> dict[str, bytes]:
    """A repository with more in it than is needed."""
    catalogue(CATALOGUE)
    files = {
        "model_index.json": b'{"_class_name": "Pipe"}',
        "README.md": b"read me",
        "unet/config.json": b"{}",
        "unet/net.safetensors": tensors(1, megabytes=1),
        "unet/net.fp16.safetensors": tensors(2),
        "unet/net.non_ema.safetensors": tensors(3),
        "unet/other.bin": b"a pickle",
        "tokenizer/vocab.json": b'{"a": 1}',
        "tokenizer/deep/er.json": b"{}",
        "vae/net.safetensors": tensors(4),
        "parts/net.onnx": os.urandom(300_000),
    }
    site.publish(REPO, files)
    return files


NEEDED = {"model_index.json", "unet/config.json", "tokenizer/vocab.json"}


def pull(name: str, options: PullOptions, converters: Any = None, **dialogue: Any) -> Any:
    return pull_assets([name], converters or {}, options, Dialogue(**dialogue))[name]


def names_in(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_only_needed_files_go_into_the_hubs_cache(
    site: Site, home: Path, pipe: dict[str, bytes], quick: PullOptions
) -> None:
    heard: list[tuple[float, float | None]] = []
    manifest = pull("toy", quick, progress=lambda _, done, total: heard.append((done, total)))
    folder = asset_folder("toy")
    commit = site.heads[REPO]
    assert folder == home.parent / f"hf/hub/models--acme--pipe/snapshots/{commit}"
    assert names_in(folder) == NEEDED | {"unet/net.safetensors"}
    for name in names_in(folder):
        assert (folder / name).read_bytes() == pipe[name]
    total = sum(len(pipe[name]) for name in names_in(folder))
    assert heard[-1] == (total, total)
    assert (manifest.source, manifest.revision) == ("hf:acme/pipe", commit)
    assert {record.path: record.sha256 for record in manifest.files} == {
        name: hashlib.sha256(pipe[name]).hexdigest() for name in names_in(folder)
    }


def test_the_real_client_finds_what_was_pulled(
    site: Site, home: Path, pipe: dict[str, bytes], quick: PullOptions
) -> None:
    from huggingface_hub import hf_hub_download

    pull("toy", quick)
    asked = len(site.requests)
    found = hf_hub_download(
        REPO, "unet/net.safetensors", revision=site.heads[REPO], cache_dir=home.parent / "hf/hub",
        local_files_only=True,
    )  # fmt: skip
    assert Path(found).read_bytes() == pipe["unet/net.safetensors"]
    assert len(site.requests) == asked


def test_what_the_real_client_fetched_is_used(
    site: Site, home: Path, pipe: dict[str, bytes], quick: PullOptions
) -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download(
        REPO, "unet/net.safetensors", revision=site.heads[REPO], cache_dir=home.parent / "hf/hub",
        endpoint=site.url,
    )  # fmt: skip
    pull("toy", quick)
    assert len(site.gets("/unet/net.safetensors")) == 1


def test_half_precision(home: Path, pipe: dict[str, bytes], quick: PullOptions, site: Site) -> None:
    half = replace(quick, variant="fp16")
    assert pull("toy", half).variants == ("fp16",)
    assert names_in(asset_folder("toy")) == NEEDED | {"unet/net.fp16.safetensors"}
    asked = len(site.requests)
    assert pull("toy", quick).variants == ("fp16",)  # will do
    assert len(site.requests) == asked
    both = pull("toy", replace(quick, exact_variant=True))
    assert set(both.variants) == {"full", "fp16"}
    assert names_in(asset_folder("toy")) == NEEDED | {
        "unet/net.safetensors",
        "unet/net.fp16.safetensors",
    }
    assert asset_status("toy") == "here"


def test_weights_dir_gets_plain_files(
    home: Path, pipe: dict[str, bytes], quick: PullOptions
) -> None:
    own = home.parent / "own"
    pull("toy", replace(quick, weights_dir=own))
    assert asset_status("toy") == "missing"
    assert asset_folder("toy", own) == own / "toy/files"
    assert names_in(own / "toy/files") == NEEDED | {"unet/net.safetensors"}
    assert not (home.parent / "hf").exists()


def test_an_interrupted_file_goes_on(
    site: Site, home: Path, pipe: dict[str, bytes], quick: PullOptions
) -> None:
    path = f"/{REPO}/resolve/{site.heads[REPO]}/unet/net.safetensors"
    site.fail(path, cut_at=500_000)
    impatient = replace(quick, fetch=FetchOptions(timeout_s=1, retries=0))
    with pytest.raises(WeightsError, match="broke"):
        pull("toy", impatient)
    assert asset_status("toy") == "missing"
    pull("toy", quick)
    assert asset_status("toy") == "here"
    start = site.gets("/unet/net.safetensors")[-1].headers["Range"]
    assert 0 < int(start.removeprefix("bytes=").removesuffix("-")) <= 500_000


def test_the_first_revision_is_kept(
    site: Site, home: Path, pipe: dict[str, bytes], tensors: MakeTensors, quick: PullOptions
) -> None:
    first = pull("toy", quick)
    remove_assets(["toy"])
    assert names_in(home.parent / "hf/hub/models--acme--pipe/snapshots") == set()
    site.publish(REPO, pipe | {"unet/net.safetensors": tensors(9)})
    assert pull("toy", quick).revision == first.revision
    remove_assets(["toy"])
    del site.repos[REPO][first.revision]
    with pytest.raises(WeightsError, match=f"has no revision {first.revision} any more"):
        pull("toy", quick)
    with_new = pull("toy", replace(quick, accept_changed=True))
    assert with_new.revision == site.heads[REPO]


def test_content_that_is_not_the_hubs(
    site: Site, home: Path, pipe: dict[str, bytes], tensors: MakeTensors, quick: PullOptions
) -> None:
    path = f"/{REPO}/resolve/{site.heads[REPO]}/unet/net.safetensors"
    wrong = bytearray(pipe["unet/net.safetensors"])
    wrong[-1] ^= 1
    site.fail(path, always=True, body=bytes(wrong))
    with pytest.raises(WeightsError, match="another content than the hub states"):
        pull("toy", quick)
    assert asset_status("toy") == "missing"


def test_damage_in_the_hubs_cache(home: Path, pipe: dict[str, bytes], quick: PullOptions) -> None:
    pull("toy", quick)
    path = asset_folder("toy") / "unet/net.safetensors"
    wrong = bytearray(pipe["unet/net.safetensors"])
    wrong[-1] ^= 1
    path.write_bytes(wrong)
    assert asset_status("toy") == "damaged"
    with pytest.raises(WeightsError, match="Damaged weights"):
        asset_folder("toy")
    pull("toy", quick)
    assert path.read_bytes() == pipe["unet/net.safetensors"]


def test_offline(
    site: Site,
    home: Path,
    pipe: dict[str, bytes],
    quick: PullOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set, and the hub's cache does not"):
        pull("toy", quick)
    assert site.requests == []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    pull("toy", quick)
    (home / "weights/toy/manifest.json").unlink()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(site.requests)
    pull("toy", quick)  # all of it is in the hub's cache
    assert asset_status("toy") == "here"
    assert len(site.requests) == asked


@pytest.mark.parametrize(
    ("status", "headers", "reason"),
    [
        (401, {}, "it wants a login .HTTP 401.; a private repository needs HF_TOKEN"),
        (403, {"X-Error-Code": "GatedRepo"}, "wants an agreement: accept it on its page, then set"),
        (404, {}, "it is not there .HTTP 404"),
        (429, {}, "too many requests .HTTP 429"),
        (500, {}, "the server failed .HTTP 500"),
    ],
)
def test_a_hub_that_refuses(
    site: Site,
    home: Path,
    pipe: dict[str, bytes],
    quick: PullOptions,
    status: int,
    headers: dict[str, str],
    reason: str,
) -> None:
    site.fail(f"/api/models/{REPO}", always=True, status=status, headers=headers)
    with pytest.raises(WeightsError, match=rf"hf:acme/pipe: .*{reason}"):
        pull("toy", quick)
    assert not (home.parent / "hf").exists()


def test_a_hub_that_hangs(site: Site, pipe: dict[str, bytes], quick: PullOptions) -> None:
    site.fail(f"/api/models/{REPO}", always=True, hang=True, cut_at=0)
    options = replace(quick, fetch=FetchOptions(timeout_s=0.2, retries=1, backoff_s=0.01))
    with pytest.raises(WeightsError, match=r"hf:acme/pipe: no answer within 0\.2 s"):
        pull("toy", options)


def test_a_hub_that_is_none(site: Site, pipe: dict[str, bytes], quick: PullOptions) -> None:
    site.fail(f"/api/models/{REPO}", always=True, body=b"<html>hello</html>")
    with pytest.raises(WeightsError, match=r"it does not answer like a hub; see HF_ENDPOINT"):
        pull("toy", quick)


def test_trouble_that_passes(site: Site, pipe: dict[str, bytes], quick: PullOptions) -> None:
    site.fail(f"/api/models/{REPO}", status=503)
    site.fail(f"/{REPO}/resolve/{site.heads[REPO]}/unet/config.json", status=502)
    pull("toy", quick)
    assert asset_status("toy") == "here"


def test_the_token_is_sent_to_the_hub_alone(
    site: Site,
    pipe: dict[str, bytes],
    quick: PullOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    path = f"/{REPO}/resolve/{site.heads[REPO]}/unet/net.safetensors"
    elsewhere = site.url.replace("127.0.0.1", "localhost") + "/cdn"
    site.files["/cdn"] = pipe["unet/net.safetensors"]
    site.fail(path, status=302, headers={"Location": elsewhere})
    pull("toy", quick)
    assert site.gets(path)[0].headers["Authorization"] == "Bearer hf_secret"
    (moved,) = site.gets("/cdn")
    assert "Authorization" not in moved.headers


def test_one_file_as_published(home: Path, pipe: dict[str, bytes], quick: PullOptions) -> None:
    pull("other", quick)
    path = asset_file("other")
    assert path.read_bytes() == pipe["parts/net.onnx"]
    assert path.is_relative_to(home.parent / "hf/hub")
    pull("other", replace(quick, weights_dir=home.parent / "own"))
    assert asset_file("other", home.parent / "own") == home.parent / "own/other/files/net.onnx"


def test_one_file_converted_stays_out_of_the_hubs_cache(
    site: Site, home: Path, pipe: dict[str, bytes], converters: Any, quick: PullOptions
) -> None:
    manifest = pull("third", quick, converters)
    assert manifest.revision == site.heads[REPO]
    assert load_asset("third")["weight"].numel() == 250_000
    assert names_in(home / "weights/third") == {"manifest.json", "third.safetensors"}
    assert not (home.parent / "hf").exists()


def test_pickles_of_a_folder_become_safetensors(
    site: Site,
    home: Path,
    catalogue: WriteCatalogue,
    quick: PullOptions,
) -> None:
    import io

    import torch
    from safetensors.torch import load_file

    catalogue(
        CATALOGUE.replace(
            '"unet/net*.safetensors", ', '"unet/model.safetensors|unet/pytorch_model.bin", '
        )
    )
    buffer = io.BytesIO()
    torch.save({"weight": torch.arange(5.0)}, buffer)
    site.publish(
        REPO,
        {
            "model_index.json": b"{}",
            "unet/config.json": b"{}",
            "unet/pytorch_model.bin": buffer.getvalue(),
            "tokenizer/vocab.json": b"{}",
        },
    )
    pull("toy", quick)
    folder = asset_folder("toy")
    assert names_in(folder) == NEEDED | {"unet/model.safetensors"}
    assert load_file(folder / "unet/model.safetensors")["weight"].tolist() == [0, 1, 2, 3, 4]


def test_removal_leaves_what_another_asset_uses(
    home: Path, pipe: dict[str, bytes], quick: PullOptions
) -> None:
    pull("toy", quick)
    pull("other", quick)
    (removed,) = remove_assets(["toy"])
    assert removed.shared
    assert asset_status("toy") == "missing"
    assert asset_file("other").read_bytes() == pipe["parts/net.onnx"]
    blobs = home.parent / "hf/hub/models--acme--pipe/blobs"
    assert [path.stat().st_size for path in blobs.iterdir()] == [len(pipe["parts/net.onnx"])]


PATHS = [
    "unet/net.safetensors",
    "unet/net.fp16.safetensors",
    "unet/net.non_ema.safetensors",
    "vae/net.safetensors",
    "text/net.fp16.safetensors",
    "text/model-00001-of-00002.safetensors",
]


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("full", ["text/model-00001-of-00002.safetensors", "unet/net.safetensors",
                  "vae/net.safetensors"]),
        ("fp16", ["text/net.fp16.safetensors", "unet/net.fp16.safetensors",
                  "vae/net.safetensors"]),
    ],
)  # fmt: skip
def test_one_precision_a_folder(variant: Any, expected: list[str]) -> None:
    assert select_files(PATHS, ["*/*.safetensors"], variant) == expected


def test_a_pattern_without_a_file() -> None:
    with pytest.raises(SourceFailed, match=r"has no file vae/\*\.bin"):
        select_files(PATHS, ["vae/*.bin"])
    assert select_files(PATHS, ["vae/*.bin|vae/net.safetensors"]) == ["vae/net.safetensors"]


def test_the_message_counts_the_variant(pipe: dict[str, bytes]) -> None:
    from s2v_cli.weights.catalogue import find_asset

    toy, other = find_asset("toy"), find_asset("other")
    error = missing_assets([toy, other], whose="preset 'x'", variant="fp16")
    assert str(error) == (
        "Missing weights of preset 'x': toy (100 kB, MIT), other (100 kB, MIT); about 200 kB in "
        "all. Get them: s2v weights pull toy other"
    )
    assert json.dumps(error.bytes) == "200000"
