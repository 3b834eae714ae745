"""Reading what others published: damaged, swapped and malicious files."""

from __future__ import annotations

import fractions
import io
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from s2v_cli.errors import WeightsError
from s2v_cli.weights.checkpoint import (
    extract_members,
    read_checkpoint,
    read_shapes,
    require_keys,
    sniff,
    strip_prefix,
)

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}
OLD = {"_use_new_zipfile_serialization": False}


class Payload:
    """Runs a command wherever a pickle is opened without care."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_whole_files(folder: Path, kind: str) -> None:
    path = folder / "x"
    if kind == "safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, **(OLD if kind == "old" else {}))
    held = read_checkpoint(path)
    assert held.keys() == STATE.keys()
    assert all(torch.equal(held[key], STATE[key]) for key in STATE)
    assert read_shapes(path) == {"a.weight": (2, 3), "a.bias": (2,)}


@pytest.mark.parametrize("kind", ["zip", "old", "bare"])
def test_the_payload_of_a_pickle_does_not_run(folder: Path, kind: str) -> None:
    held = {"weight": torch.zeros(2), "extra": Payload(f"touch {folder}/pwned")}
    path = folder / "evil.pth"
    if kind == "bare":
        path.write_bytes(pickle.dumps(held["extra"], protocol=2))
    else:
        torch.save(held, path, **(OLD if kind == "old" else {}))
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    if kind != "bare":
        assert "system, which is no tensor: it was not opened" in str(caught.value)
    assert [p.name for p in folder.iterdir()] == ["evil.pth"]
    torch.load(path, weights_only=False) if kind != "bare" else pickle.loads(path.read_bytes())
    assert (folder / "pwned").exists(), "the payload would have run"


def test_only_what_is_allowed_for_this_one_file(folder: Path) -> None:
    held = {"best_FID": 8.5, "nonlinearity": torch.nn.ReLU(), "kind": torch.nn.ReLU}
    torch.save(held, folder / "best.pth")
    with pytest.raises(WeightsError, match=r"names torch\.nn\.modules\.activation\.ReLU"):
        read_checkpoint(folder / "best.pth")
    read = read_checkpoint(folder / "best.pth", allowed=[torch.nn.ReLU])
    assert (read["best_FID"], read["kind"]) == (8.5, torch.nn.ReLU)
    with pytest.raises(WeightsError, match="names torch"):
        read_checkpoint(folder / "best.pth")
    torch.save(held | {"extra": Payload("false")}, folder / "best.pth")
    with pytest.raises(WeightsError, match="system"):
        read_checkpoint(folder / "best.pth", allowed=[torch.nn.ReLU])
    torch.save({"x": fractions.Fraction(1, 3)}, folder / "best.pth")
    with pytest.raises(WeightsError, match=r"fractions\.Fraction"):
        read_checkpoint(folder / "best.pth", allowed=[torch.nn.ReLU])


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.99])
def test_cut_files(folder: Path, kind: str, share: float) -> None:
    path = folder / "x"
    state = {"weight": torch.randn(5000)}
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, **(OLD if kind == "old" else {}))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(WeightsError, match=r"cut short.*download it again") as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html>\n<html>quota</html>", "is a web page, not weights"),
        (b"\n\n  <HTML><body>", "is a web page, not weights"),
        (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "is a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer"),
        (b"\x1f\x8b\x08\x00 compressed", "is an archive: not a checkpoint"),
        (b"just some text", "neither safetensors nor a torch file"),
        (os.urandom(8).replace(b"<", b"x") + b"garbage", "neither safetensors nor|cut short"),
    ],
)
def test_other_files(folder: Path, content: bytes, message: str) -> None:
    (folder / "x.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(folder / "x.pth")


def test_missing_files(folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"Cannot read the weights .*: No such file"):
        sniff(folder / "nowhere.pth")


def test_prefixes() -> None:
    assert strip_prefix({"module.a": 1, "b": 2}, "module.") == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"a.bias": None}, "This is not the network: 'a.bias' is missing."),
        (
            {"a.bias": None, "a.weight": None},
            "This is not the network: 'a.weight' (and 1 more) is missing.",
        ),
        ({"b": torch.zeros(1)}, "This is not the network: 'b' is not part of it."),
        (
            {"a.bias": torch.zeros(3)},
            "This is not the network: 'a.bias' is of shape [3]; needed: shape [2].",
        ),
        ({"a.bias": "text"}, "This is not the network: 'a.bias' is no tensor; needed: shape [2]."),
    ],
)
def test_keys_and_shapes(change: dict[str, Any], message: str | None) -> None:
    state = {key: value for key, value in (STATE | change).items() if value is not None}
    expected = {"a.weight": (2, 3), "a.bias": (2,)}
    if message is None:
        require_keys(state, expected, "the network")
        return
    with pytest.raises(WeightsError) as caught:
        require_keys(state, expected, "the network")
    assert str(caught.value) == message


def test_no_dictionary_at_all() -> None:
    with pytest.raises(WeightsError, match="it holds list, not weights"):
        require_keys([1], {"a": (1,)}, "the network")  # type: ignore[arg-type]


def test_shapes_inside(folder: Path) -> None:
    inner = {"module.a": torch.zeros(2, 3)}
    torch.save({"epoch": 3, "state_dict": inner, "optimizer": {}}, folder / "x.pth")
    assert read_shapes(folder / "x.pth") == {"a": (2, 3)}
    torch.save([1, 2], folder / "x.pth")
    assert read_shapes(folder / "x.pth") == {}


def write_tar(path: Path, *members: tarfile.TarInfo | tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member, io.BytesIO(b"\0" * member.size))
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_only_wanted_members_are_unpacked(folder: Path) -> None:
    archive = write_tar(
        folder / "x.tar.gz",
        ("./deep/a.pth", b"a" * 100),
        ("deep/b.txt", b"b"),
        link("deep/c.txt", "/etc/passwd", tarfile.SYMTYPE),
    )
    (path,) = extract_members(archive, lambda name: name.endswith(".pth"), folder / "out")
    assert path == folder / "out/deep/a.pth"
    assert path.read_bytes() == b"a" * 100
    assert [p for p in (folder / "out").rglob("*") if p.is_file()] == [path]


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (("../../pwned.pth", b"x"), "leads out of it"),
        (("/{folder}/pwned.pth", b"x"), "leads out of it"),
        (("..\\pwned.pth", b"x"), "leads out of it"),
        (link("pwned.pth", "/etc/passwd", tarfile.SYMTYPE), "is no plain file"),
        (link("pwned.pth", "ok.pth", tarfile.LNKTYPE), "is no plain file"),
        (link("pwned.pth", "", tarfile.FIFOTYPE), "is no plain file"),
        (link("pwned.pth", "", tarfile.CHRTYPE), "is no plain file"),
        (("ok.pth", b"twice"), "comes twice"),
    ],
)
def test_a_malicious_archive_is_refused(folder: Path, member: Any, message: str) -> None:
    if isinstance(member, tuple):
        member = (member[0].replace("{folder}", str(folder)), member[1])
    archive = write_tar(folder / "x.tar.gz", ("ok.pth", b"fine"), member)
    out = folder / "deep/out"
    out.mkdir(parents=True)
    with pytest.raises(WeightsError, match=message):
        extract_members(archive, lambda name: name.endswith(".pth"), out)
    assert [p.name for p in folder.rglob("*.pth")] == ["ok.pth"]
    assert (out / "ok.pth").read_bytes() == b"fine"


def test_a_link_out_of_the_folder_is_not_written_through(folder: Path) -> None:
    """The classic: first a link to elsewhere, then a file below its name."""
    (folder / "victim").mkdir()
    archive = write_tar(
        folder / "x.tar.gz",
        link("door", str(folder / "victim"), tarfile.SYMTYPE),
        ("door/pwned.pth", b"x"),
    )
    extract_members(archive, lambda name: name.endswith(".pth"), folder / "out")
    assert list((folder / "victim").iterdir()) == []
    assert not (folder / "out/door").is_symlink()


def test_a_bomb_is_refused(folder: Path) -> None:
    info = tarfile.TarInfo("a.pth")
    info.size = 50_000_000
    archive = write_tar(folder / "x.tar.gz", info)
    assert archive.stat().st_size < 100_000
    with pytest.raises(WeightsError, match="unpacks to over 1000000 bytes"):
        extract_members(archive, lambda _: True, folder / "out", limit=1_000_000)
    assert not (folder / "out").exists()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_cut_archive(folder: Path, share: float) -> None:
    archive = write_tar(folder / "x.tar.gz", ("a.pth", os.urandom(200_000)))
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * share)])
    with pytest.raises(WeightsError, match="download it again"):
        extract_members(archive, lambda _: True, folder / "out")
