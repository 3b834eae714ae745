"""Figures of a run: a CSV file, and TensorBoard where it is installed."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s2v_cli.errors import OutputError, TrainingError
from s2v_cli.picture import write_file

COLUMNS = ("step", "name", "value")
CSV_FILE = "log.csv"
TENSORBOARD_FOLDER = "tensorboard"


class Logs:
    """Figures by step and name.

    A run that goes on from a checkpoint takes the rows behind it out again, so that each step
    stands there once.

    Args:
        folder: of the run.
        step: that the run goes on from.

    Raises:
        TrainingError: the folder cannot be written, or the disk is full.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        self._path = folder / CSV_FILE
        rows = [row for row in self._rows() if int(row["step"]) <= step]
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        try:
            write_file(text.getvalue().encode(), self._path, overwrite=True)
        except OutputError as error:
            raise TrainingError(f"Cannot write the log: {error}") from error
        self._board = _tensorboard(folder / TENSORBOARD_FOLDER, step)

    def _rows(self) -> list[dict[str, str]]:
        try:
            with self._path.open(newline="", encoding="utf-8") as file:
                rows = csv.DictReader(file)
                return [row for row in rows if row["step"].isdecimal() and row["value"]]
        except (OSError, ValueError, KeyError, AttributeError, csv.Error):
            return []

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Add the figures of a step.

        Raises:
            TrainingError: the disk is full, or the file cannot be written.
        """
        try:
            with self._path.open("a", newline="", encoding="utf-8") as file:
                rows = [(step, name, f"{value:.6g}") for name, value in figures.items()]
                csv.writer(file, lineterminator="\n").writerows(rows)
            if self._board is not None:
                for name, value in figures.items():
                    self._board.add_scalar(name, value, step)
        except OSError as error:
            raise TrainingError(f"Cannot write {self._path}: {error.strerror}.") from None

    def show(self, step: int, name: str, picture: Any) -> None:
        """Add a PIL picture to TensorBoard."""
        if self._board is not None:
            import numpy as np

            self._board.add_image(name, np.asarray(picture), step, dataformats="HWC")

    def close(self) -> None:
        """Write what is held back."""
        if self._board is not None:
            self._board.close()


def _tensorboard(folder: Path, step: int) -> Any:
    """A writer of TensorBoard's event files; None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    try:
        return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
    except OSError as error:
        raise TrainingError(f"Cannot write into {folder}: {error.strerror}.") from None


def forget_logs(run: Path) -> None:
    """Remove the figures of an earlier training of this run."""
    for path in (run / CSV_FILE, *(run / TENSORBOARD_FOLDER).glob("events.out.tfevents.*")):
        with contextlib.suppress(OSError):
            path.unlink()
