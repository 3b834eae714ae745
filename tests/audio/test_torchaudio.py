"""torchaudio beside a CPU build of torch; each case in a process of its own."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def run(script: str) -> str:
    """Standard output of a script in a new process; fails with its traceback."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_beside_the_installed_torch() -> None:
    assert (
        run(
            """
import importlib.util, pathlib, sys, torch
from s2v_cli._torchaudio import import_torchaudio, prepare_torchaudio

def loads():
    folder = pathlib.Path(importlib.util.find_spec("torchaudio").origin).parent / "lib"
    for library in [*folder.glob("_torchaudio*"), *folder.glob("libtorchaudio*")]:
        try:
            torch.ops.load_library(str(library))
        except OSError:
            return False
    return True

native = torch.version.cuda is not None or loads()
prepare_torchaudio()
assert ("torchaudio._extension.utils" in sys.modules) is not native
prepare_torchaudio()
import torchaudio, torchaudio.functional, torchaudio.models
assert import_torchaudio() is torchaudio
assert native or torchaudio._extension._IS_TORCHAUDIO_EXT_AVAILABLE is False
tone = torch.sin(torch.arange(44100) * 2 * torch.pi * 440 / 44100)
assert len(torchaudio.functional.resample(tone, 44100, 16000)) == 16000
assert torchaudio.compliance.kaldi.fbank(tone[None], num_mel_bins=40).shape[1] == 40
print("ok")
"""
        )
        == "ok"
    )


@pytest.mark.slow
def test_diffusers_can_be_imported_afterwards() -> None:
    pytest.importorskip("diffusers")
    assert (
        run(
            "from s2v_cli._torchaudio import prepare_torchaudio\n"
            "prepare_torchaudio()\n"
            "import diffusers, torchaudio\n"
            "print(diffusers.__name__, torchaudio.__name__)"
        )
        == "diffusers torchaudio"
    )


# Packages that are torch and torchaudio as far as it matters here: an extension that loads a
# native library while it is imported. The libraries are real files, and really loaded.
FAKES = {
    "torch/__init__.py": """
import ctypes, types
version = types.SimpleNamespace(cuda=None)
ops = types.SimpleNamespace(load_library=ctypes.CDLL)
""",
    "torchaudio/__init__.py": "from . import _extension",
    "torchaudio/_extension/__init__.py": """
from .utils import _load_lib
AVAILABLE = _load_lib("_torchaudio")
""",
    "torchaudio/_extension/utils.py": """
import os, pathlib, torch
def _load_lib(lib):
    suffix = ".pyd" if os.name == "nt" else ".so"
    for path in (pathlib.Path(__file__).parent.parent / "lib").glob(lib + "*" + suffix):
        torch.ops.load_library(str(path))
        return True
    return False
""",
}
NATIVE = "torchaudio/lib/_torchaudio" + (".pyd" if os.name == "nt" else ".so")


@pytest.fixture
def fakes(tmp_path: Path) -> Path:
    """A folder with both packages, and a native library that does not load."""
    for name, content in FAKES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    (tmp_path / NATIVE).parent.mkdir()
    (tmp_path / NATIVE).write_bytes(b"not a library")
    return tmp_path


def prepared(folder: Path) -> tuple[str, str]:
    """Whether the loader was replaced, and what importing says afterwards."""
    replaced, imported = run(
        f"import sys; sys.path.insert(0, {str(folder)!r})\n"
        "from s2v_cli._torchaudio import import_torchaudio, prepare_torchaudio\n"
        "from s2v_cli.errors import DependencyError\n"
        "prepare_torchaudio()\n"
        "print('torchaudio._extension.utils' in sys.modules)\n"
        "try:\n"
        "    print('native', import_torchaudio()._extension.AVAILABLE)\n"
        "except DependencyError as error:\n"
        "    print(error)"
    ).split("\n")
    return replaced, imported


def test_a_library_that_does_not_load_is_passed_over(fakes: Path) -> None:
    assert prepared(fakes) == ("True", "native False")


def test_a_library_that_loads_is_left_alone(fakes: Path) -> None:
    library = importlib.import_module("_ctypes").__file__
    if library is None:
        pytest.skip("this Python has no native library in a file of its own")
    shutil.copy(library, fakes / NATIVE)
    assert prepared(fakes) == ("False", "native True")


def test_a_torchaudio_without_a_library_is_left_alone(fakes: Path) -> None:
    (fakes / NATIVE).unlink()
    assert prepared(fakes) == ("False", "native False")


def test_beside_a_cuda_build_of_torch_nothing_is_replaced(fakes: Path) -> None:
    torch = fakes / "torch" / "__init__.py"
    torch.write_text(torch.read_text().replace("cuda=None", "cuda='12.8'"))
    replaced, error = prepared(fakes)
    assert replaced == "False"
    assert error.startswith("torchaudio cannot be imported (")
    assert error.endswith("pip install --upgrade torch torchaudio")


def test_another_layout_is_left_to_torchaudio(fakes: Path) -> None:
    (fakes / "torchaudio" / "_extension" / "utils.py").rename(fakes / "loader.py")
    replaced, error = prepared(fakes)
    assert replaced == "False" and error.startswith("torchaudio cannot be imported (")


def test_an_imported_torchaudio_is_left_alone() -> None:
    assert (
        run(
            "import sys, types\n"
            "sys.modules['torchaudio'] = imported = types.ModuleType('torchaudio')\n"
            "from s2v_cli._torchaudio import import_torchaudio\n"
            "print(import_torchaudio() is imported, 'torch' in sys.modules)"
        )
        == "True False"
    )
