"""What was skipped, and why: the rows of `report.csv`."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from s2v_cli.training.manifest import REPORT_FILE

Reason = Literal[
    "missing",  # named in a list, but not there
    "broken",  # damaged, cut short, or of an unknown format
    "crashed",  # its decoder ended the process
    "no sound",
    "no picture",
    "silent",
    "too short",
    "too small",
    "no partner",  # a sound without a picture of its name or class, or the reverse
    "duplicate name",
    "duplicate content",
    "no class",
    "not listed",  # there, but in none of the lists of a published dataset
    "other split",  # a published list gives its recording to two splits
    "not used",  # of another kind than the layout takes
]
COLUMNS = ("file", "reason", "kept", "detail")


@dataclass(frozen=True)
class Skipped:
    """One row of a report.

    Attributes:
        file: relative to the source.
        reason: why.
        detail: in words.
        kept: whether it is in the dataset all the same, as silent sounds may be.
    """

    file: str
    reason: Reason
    detail: str = ""
    kept: bool = False

    def to_row(self) -> list[str]:
        """Its cells, in the order of `COLUMNS`."""
        return [self.file, self.reason, "yes" if self.kept else "no", self.detail]


def write_report(folder: Path, rows: Iterable[Skipped]) -> None:
    """Write `report.csv`, whole or not at all.

    Raises:
        OutputError: the folder cannot be written.
    """
    from s2v_cli.picture import whole_file

    with (
        whole_file(folder / REPORT_FILE, overwrite=True) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(row.to_row() for row in rows)


def counted(skipped: Counter[str]) -> str:
    """Reasons with their numbers, the most frequent first: `3 broken, 1 silent`."""
    return ", ".join(
        f"{number} {reason}"
        for reason, number in sorted(skipped.items(), key=lambda entry: (-entry[1], entry[0]))
    )
