"""The catalogue of published weights, and the message about missing ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from s2v_cli.errors import MissingWeightsError, WeightsError
from s2v_cli.networks import converters
from s2v_cli.presets import Preset, list_presets, load_preset
from s2v_cli.weights.catalogue import (
    Source,
    find_asset,
    human_bytes,
    parse_source,
    read_catalogue,
)
from s2v_cli.weights.pull import Dialogue, PullOptions, assets_of, ensure_weights, pull_command
from s2v_cli.weights.store import asset_sha256, weights_status

if TYPE_CHECKING:
    from conftest import MakeTensors, Site, WriteCatalogue

TWO = """
[toy]
title = "A toy"
kind = "tensors"
licence = "MIT"
commercial = true
page = "https://example.org/toy"
[toy.file]
name = "toy.pth"
bytes = 51_000_000
estimated = true
sources = ["SITE/toy.pth"]

[other]
title = "Another"
kind = "file"
licence = "CC BY-NC 4.0"
commercial = false
page = "https://example.org/other"
[other.file]
name = "other.onnx"
bytes = 3_480_000_000
estimated = true
sources = ["SITE/other.onnx"]
"""
PRESET = """
name = "two"
title = "Two"
description = ""
model = "two"
bundled = false
resolution = 64
licence = "CC0"
commercial = true
[space]
name = "own"
dimension = 8
scale = "unit"
[sound]
sample_rate = 8000
window_s = 2
[[weights]]
role = "sound_encoder"
network = "sound2scene-sound-encoder"
assets = ["toy"]
[[weights]]
role = "generator"
network = "biggan-generator"
assets = ["other"]
[[weights]]
role = "image_encoder"
network = "swav-image-encoder"
assets = ["toy", "other"]
"""


@pytest.fixture
def preset(home: Path, catalogue: WriteCatalogue, site: Site, tensors: MakeTensors) -> Preset:
    catalogue(TWO)
    site.files |= {"/toy.pth": tensors(), "/other.onnx": b"o" * 1000}
    folder = home.parent / "two"
    folder.mkdir()
    (folder / "preset.toml").write_text(PRESET)
    return load_preset(folder)


def test_every_asset_of_a_preset_is_in_the_catalogue() -> None:
    known = read_catalogue()
    for shipped in list_presets():
        assert set(shipped.assets) <= known.keys(), shipped.name


def test_what_is_converted_has_a_converter() -> None:
    tensors = {name for name, asset in read_catalogue().items() if asset.kind == "tensors"}
    assert tensors == converters().keys()


@pytest.mark.parametrize("name", read_catalogue())
def test_shipped_entries(name: str) -> None:
    asset = find_asset(name)
    assert asset.bytes() > 100_000
    assert asset.bytes("fp16") <= asset.bytes()
    assert asset.disk_bytes() >= asset.bytes()
    assert asset.page.startswith("https://")
    assert (asset.commercial is False) == ("NC" in asset.licence)
    assert bool(asset.converted_bytes) == (asset.kind == "tensors")
    assert asset.signature or asset.pipeline or asset.config or asset.marks
    for source in asset.file.sources if asset.file else asset.sources:
        assert source.kind == "hf" or not source.place.startswith("http:")


def test_presets_tell_the_licences_of_their_weights() -> None:
    for shipped in list_presets():
        for name in assets_of(shipped):
            assert find_asset(name).commercial or not shipped.commercial, shipped.name


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hf:a/b:c/d.x", Source("hf", "a/b", "c/d.x")),
        ("hf:a/b@1234:d.x", Source("hf", "a/b", "d.x", "1234")),
        ("hf:a/b", Source("hf", "a/b")),
        ("drive:1Mf-_x", Source("drive", "1Mf-_x")),
        ("https://h/x.pth?d=1", Source("https", "https://h/x.pth?d=1")),
    ],
)
def test_sources(text: str, source: Source) -> None:
    assert parse_source(text) == source
    assert str(source) == text
    name = {"hf": source.path, "https": "x.pth", "drive": ""}[source.kind]
    assert source.file_name == name.rpartition("/")[2]


@pytest.mark.parametrize(
    "text",
    ["http://example.org/x", "ftp://x", "hf:a", "hf:a/b:../x", "hf:a/b:/x", "drive:", "x", ""],
)
def test_wrong_sources(text: str) -> None:
    with pytest.raises(ValueError, match="allowed: hf:REPO"):
        parse_source(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("kind", "king"), "toy of .* lacks the key 'kind'"),
        (('"tensors"', '"tensor"'), "kind is 'tensor'; allowed: tensors, file, folder"),
        (("SITE/toy.pth", "http://example.org/x"), "'http://example.org/x'; allowed: hf:REPO"),
        (('name = "toy.pth"', 'name = "../toy.pth"'), r"file\.name is '\.\./toy\.pth'"),
        (("[toy.file]", "[toy.files]"), "toy of .* is malformed"),
        (('title = "A toy"', 'title = "A toy"\ncolour = 1'), "colour"),
        (("[other]", '["a/b"]'), "must do as a file name"),
        (("[toy]", "[toy"), "Cannot read the catalogue"),
    ],
)
def test_a_malformed_catalogue(
    catalogue: WriteCatalogue, change: tuple[str, str], message: str
) -> None:
    catalogue(TWO.replace(*change))
    with pytest.raises(WeightsError, match=message) as caught:
        read_catalogue()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("count", "text"),
    [(999, "999 bytes"), (1_100, "1.1 kB"), (51_000_000, "51 MB"), (3_480_000_000, "3.5 GB"),
     (12_000_000_000, "12 GB")],
)  # fmt: skip
def test_sizes(count: int, text: str) -> None:
    assert human_bytes(count) == text


MESSAGE = (
    r"Missing weights of preset 'two': toy \(51 MB, MIT\), "
    r"other \(3\.5 GB, CC BY-NC 4\.0, non-commercial\); about 3\.5 GB in all\. "
    r"Get them: s2v weights pull \S*two"
)


def test_nobody_to_ask(preset: Preset, site: Site) -> None:
    with pytest.raises(MissingWeightsError) as caught:
        ensure_weights(preset, ["sound_encoder", "generator"], {})
    assert re.fullmatch(MESSAGE, str(caught.value))
    assert caught.value.assets == ("toy", "other")
    assert caught.value.bytes == 3_531_000_000
    assert caught.value.licences == ("MIT", "CC BY-NC 4.0")
    assert caught.value.command == f"s2v weights pull {preset.folder}"
    assert caught.value.exit_code == 1
    assert site.requests == []


def test_a_no(preset: Preset, site: Site) -> None:
    asked: list[str] = []
    with pytest.raises(MissingWeightsError):
        ensure_weights(
            preset,
            ["sound_encoder", "generator"],
            {},
            dialogue=Dialogue(ask=lambda question: bool(asked.append(question))),
        )
    assert asked == [
        "Preset 'two' needs toy (51 MB, MIT), other (3.5 GB, CC BY-NC 4.0, non-commercial). "
        "Download 3.5 GB now?"
    ]
    assert site.requests == []


def test_a_yes_to_both_questions(preset: Preset, converters: Any, quick: PullOptions) -> None:
    asked: list[str] = []
    ensure_weights(
        preset,
        ["sound_encoder", "generator"],
        converters,
        quick,
        Dialogue(ask=lambda question: not asked.append(question)),
    )
    assert len(asked) == 2
    assert weights_status(preset) == "here"
    ensure_weights(preset, ["sound_encoder", "generator"], {})  # nothing left to do
    assert len(asset_sha256("toy")) == 64


def test_yes_does_not_agree_to_a_licence(
    preset: Preset, converters: Any, quick: PullOptions, site: Site
) -> None:
    with pytest.raises(WeightsError, match=r"not for commercial use.*--accept-licence"):
        ensure_weights(preset, ["generator"], converters, quick, yes=True)
    assert site.requests == []
    ensure_weights(preset, ["sound_encoder"], converters, quick, yes=True)
    assert [request.path for request in site.requests] == ["/toy.pth"]


def test_offline(
    preset: Preset, converters: Any, quick: PullOptions, monkeypatch: pytest.MonkeyPatch, site: Site
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        ensure_weights(preset, ["sound_encoder"], converters, quick, yes=True)
    assert site.requests == []


def test_the_command_names_the_roles() -> None:
    shipped = load_preset("sound2vision")
    assert pull_command(shipped) == "s2v weights pull sound2vision"
    assert pull_command(shipped, ["generator", "image_encoder"]) == (
        "s2v weights pull sound2vision --with image_encoder"
    )


def test_sound_alone_does_not_need_the_image_encoder() -> None:
    shipped = load_preset("sound2vision")
    assert "unclip-image-encoder" not in assets_of(shipped)
    assert "unclip-image-encoder" in assets_of(shipped, ["image_encoder"])
    assert not any("image_encoder/" in pattern for pattern in find_asset("unclip").patterns)
