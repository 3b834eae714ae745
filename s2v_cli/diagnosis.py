"""What this machine offers s2v, what is wrong, and what to do about it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from s2v_cli import __version__
from s2v_cli.errors import WeightsError
from s2v_cli.presets import list_presets
from s2v_cli.weights.store import REINSTALL, cache_folder, verify_weights, weight_path

LEAST_FREE_BYTES = 1_000_000_000  # in the cache folder, below which a warning is due


@dataclass(frozen=True)
class Problem:
    """Something that is wrong.

    Attributes:
        what: is wrong.
        remedy: what to do.
        fatal: whether the preset `mini` cannot work because of it.
    """

    what: str
    remedy: str
    fatal: bool


@dataclass
class Diagnosis:
    """State of this machine; every field is a dictionary that JSON can hold.

    Attributes:
        versions: of s2v, Python and libraries; None where one is missing.
        devices: CPU threads, CUDA devices, MPS.
        codecs: formats that libsndfile reads, PyAV's version, where ffmpeg lies.
        cache: the cache folder: path, exists, writable, free bytes.
        weights: `here`, `missing` or `damaged` for every weight file of the bundled presets.
        problems: what is wrong.
    """

    versions: dict[str, str | None] = field(default_factory=dict)
    devices: dict[str, Any] = field(default_factory=dict)
    codecs: dict[str, Any] = field(default_factory=dict)
    cache: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether the preset `mini` can work."""
        return not any(problem.fatal for problem in self.problems)

    def as_json(self) -> dict[str, Any]:
        """The diagnosis as a dictionary that JSON can hold."""
        return {**asdict(self), "healthy": self.healthy}


def diagnose() -> Diagnosis:
    """Look at everything that s2v needs; never raises for what it finds."""
    found = Diagnosis()
    _look_at_versions(found)
    _look_at_devices(found)
    _look_at_codecs(found)
    _look_at_cache(found)
    _look_at_weights(found)
    return found


def _look_at_versions(found: Diagnosis) -> None:
    found.versions |= {"s2v": __version__, "python": platform.python_version()}
    needed: dict[str, Callable[[], Any]] = {
        "numpy": lambda: importlib.import_module("numpy").__version__,
        "torch": lambda: importlib.import_module("torch").__version__,
        "torchaudio": _torchaudio_version,
        "soundfile": lambda: importlib.import_module("soundfile").__version__,
        "libsndfile": lambda: importlib.import_module("soundfile").__libsndfile_version__,
        "pillow": lambda: importlib.import_module("PIL.Image").__version__,
        "safetensors": lambda: (
            importlib.import_module("safetensors.torch")
            and importlib.metadata.version("safetensors")
        ),
    }
    for name, version in needed.items():
        try:
            found.versions[name] = str(version())
        except Exception as error:  # a broken binary raises anything
            found.versions[name] = None
            package = "soundfile" if name == "libsndfile" else name
            found.problems.append(
                Problem(
                    f"{name} does not load: {type(error).__name__}: {error}",
                    f"Install it again: {sys.executable} -m pip install --force-reinstall "
                    f"{package}",
                    fatal=True,
                )
            )
    for name, package in (("diffusers", "diffusers"), ("pyav", "av")):
        try:
            found.versions[name] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found.versions[name] = None


def _torchaudio_version() -> str:
    from s2v_cli._torchaudio import import_torchaudio

    return str(import_torchaudio().__version__)


def _look_at_devices(found: Diagnosis) -> None:
    found.devices = {"cpu_threads": None, "cuda": [], "mps": False}
    if found.versions["torch"] is None:
        return
    import torch

    cuda = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    found.devices = {
        "cpu_threads": torch.get_num_threads(),
        "cuda": [torch.cuda.get_device_name(number) for number in cuda],
        "mps": torch.backends.mps.is_available(),
    }


def _look_at_codecs(found: Diagnosis) -> None:
    formats: list[str] = []
    if found.versions["soundfile"] is not None:
        import soundfile

        formats = sorted(soundfile.available_formats())
    ffmpeg = shutil.which("ffmpeg")
    found.codecs = {"libsndfile": formats, "pyav": found.versions["pyav"], "ffmpeg": ffmpeg}
    if formats and "MP3" not in formats:
        found.problems.append(
            Problem(
                "This libsndfile reads no mp3",
                f"{sys.executable} -m pip install --upgrade soundfile",
                fatal=False,
            )
        )
    if found.versions["pyav"] is None and ffmpeg is None:
        found.problems.append(
            Problem(
                "Neither PyAV nor ffmpeg is here: m4a, aac and the sound of videos cannot be read",
                "pip install 's2v-cli[video]', or install ffmpeg",
                fatal=False,
            )
        )


def _look_at_cache(found: Diagnosis) -> None:
    folder = Path(os.path.abspath(cache_folder()))
    nearest = folder
    while not nearest.exists():
        nearest = nearest.parent
    writable = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    free = shutil.disk_usage(nearest).free
    found.cache = {
        "path": str(folder),
        "exists": folder.is_dir(),
        "writable": writable,
        "free_bytes": free,
    }
    remedy = "Name another folder in the environment variable S2V_HOME"
    if not writable:
        found.problems.append(Problem(f"Cannot write in {folder}", remedy, fatal=False))
    elif free < LEAST_FREE_BYTES:
        what = f"Only {free / 1e6:.0f} MB are free in {folder}"
        found.problems.append(Problem(what, remedy, fatal=False))


def _look_at_weights(found: Diagnosis) -> None:
    for preset in list_presets():
        for weight in preset.weights if preset.bundled else ():
            key = f"{preset.name}/{weight.role}"
            found.weights[key] = "missing"
            try:
                weight_path(preset, weight.role)
                found.weights[key] = "damaged"
                verify_weights(preset, weight.role)
                found.weights[key] = "here"
            except WeightsError as error:
                what = str(error).removesuffix(REINSTALL).strip()
                found.problems.append(Problem(what, REINSTALL, fatal=preset.name == "mini"))
