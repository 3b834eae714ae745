"""torchaudio on machines whose torch has no CUDA build.

Some platforms only offer a torchaudio wheel that is linked against CUDA. Beside a CPU build of
torch its native library does not load, and `import torchaudio` fails, although everything that
is used of it (resampling, filter banks) is plain Python. torchaudio itself knows how to go
without its native library where the library file is not there; `prepare_torchaudio` makes a
library that does not load look the same.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from s2v_cli.errors import DependencyError

_LOADER = "torchaudio._extension.utils"  # the module of torchaudio that loads native libraries


def prepare_torchaudio() -> None:
    """Let torchaudio be imported beside a CPU build of torch; call before it is imported.

    Does nothing where torchaudio is imported already or not installed, where torch has a CUDA
    build, and where the native library loads.
    """
    if "torchaudio" in sys.modules or _LOADER in sys.modules:
        return
    torchaudio = importlib.util.find_spec("torchaudio")
    if torchaudio is None or not torchaudio.submodule_search_locations:
        return
    import torch

    if torch.version.cuda is not None:
        return
    folder = Path(next(iter(torchaudio.submodule_search_locations)))
    if _native_libraries_load(folder / "lib"):
        return
    spec = importlib.util.spec_from_file_location(_LOADER, folder / "_extension" / "utils.py")
    if spec is None or spec.loader is None or not Path(spec.origin or "").is_file():
        return  # another layout: leave it to torchaudio, whose error `import_torchaudio` explains
    stand_in = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stand_in)
    stand_in.__dict__["_load_lib"] = _library_is_not_there
    sys.modules[_LOADER] = stand_in


def import_torchaudio() -> ModuleType:
    """The torchaudio module.

    Raises:
        DependencyError: torchaudio is missing or does not fit the installed torch.
    """
    prepare_torchaudio()
    try:
        return importlib.import_module("torchaudio")
    except (ImportError, OSError, RuntimeError) as error:
        raise DependencyError(
            f"torchaudio cannot be imported ({' '.join(str(error).split())}). Install the "
            "torchaudio that fits your torch: pip install --upgrade torch torchaudio"
        ) from error


def _native_libraries_load(folder: Path) -> bool:
    import torch

    suffix = ".pyd" if os.name == "nt" else ".so"
    for name in ("_torchaudio", "libtorchaudio"):  # in the order in which torchaudio loads them
        for library in sorted(folder.glob(f"{name}*{suffix}")):
            try:
                torch.ops.load_library(str(library))
            except OSError:
                return False
    return True


def _library_is_not_there(library: str) -> bool:
    return False
