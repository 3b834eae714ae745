"""Free disk space, asked for before it is needed."""

from __future__ import annotations

import shutil
from pathlib import Path

from s2v_cli.errors import WeightsError
from s2v_cli.weights.catalogue import human_bytes

RESERVE = 50_000_000  # bytes that always stay free


def require_space(folder: Path, needed: int, what: str) -> None:
    """Check that a folder, there or not yet, has room for `needed` bytes.

    Raises:
        WeightsError: says how much is needed, how much is free, and where to go.
    """
    nearest = folder.absolute()
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        free = shutil.disk_usage(nearest).free
    except OSError as error:
        raise WeightsError(f"Cannot use the folder {folder}: {error.strerror}.") from error
    if free < needed + RESERVE:
        raise WeightsError(
            f"Not enough disk space for {what}: it needs {human_bytes(needed + RESERVE)}, and "
            f"{human_bytes(free)} are free in {folder}. Make room, or name another folder in "
            "S2V_HOME (for files of the hub: HF_HOME)."
        )
