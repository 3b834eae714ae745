"""The results of an evaluation as a table: cells, Markdown and comma-separated values."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

HEADINGS = ("", "encoder", "generator", "pictures", "R@1 %", "R@5 %", "FID", "KID x 1000", "IS")
FLOOR = "real against real"
INTERVALS = (
    "Intervals in brackets are of 95%: of R@k by drawing recordings again within their classes, "
    "of KID and IS by leaving them out one by one."
)
KID_SCALE = 1000
_FIGURES = ("r1", "r5", "fid", "kid", "inception_score")


def head(results: dict[str, Any]) -> list[str]:
    """Lines above the table: what was measured, on what, and by what."""
    data, options = results["data"], results["options"]
    lines = [
        f"{results['preset']}, split {data['split']} of {data['folder']}: {data['sounds']} sounds "
        f"of {data['recordings']} recordings in {data['classes']} classes, {options['seeds']} "
        f"pictures each; {data['photos']} real pictures"
    ]
    if (recall := results["recall"]) is not None:
        chance = recall["chance"]
        lines.append(
            f"R@k: by {recall['told']}, among {recall['names']} class names (chance "
            f"{chance['r1']:.1%} and {chance['r5']:.1%}); means over classes"
        )
    if (network := results["inception"]) is not None:
        lines.append(
            f"FID, KID, IS: by {network['told']} ({network['features']} features), against "
            f"{network['reference']} real pictures"
        )
    if (gallery := results["retrieval"]) is not None:
        lines.append(
            f"C retrieves from {gallery['photos']} of {gallery['of']} training pictures: "
            f"{_megabytes(gallery['bytes'])}, where the generator has "
            f"{_megabytes(gallery['generator_bytes'])}"
        )
    return lines


def caption(results: dict[str, Any]) -> str:
    """A line for contact sheets."""
    return f"{results['preset']}, split {results['data']['split']}: the first sound of each class"


def cells(results: dict[str, Any]) -> list[list[str]]:
    """The table's rows, in the columns of `HEADINGS`; intervals are of 95%."""
    rows = []
    for name, row in _all_rows(results):
        rows.append(
            [
                f"({name}) {row['title']}" if name else row["title"],
                row["encoder"],
                row["generator"],
                str(row["pictures"]),
                _percent(row["r1"]),
                _percent(row["r5"]),
                "-" if row["fid"] is None else f"{row['fid']:.2f}",
                _interval(row["kid"], KID_SCALE),
                _interval(row["inception_score"], 1),
            ]
        )
    return rows


def markdown(results: dict[str, Any]) -> str:
    """The results as a page: the table, the classes, and the notes."""
    lines = [f"# {results['preset']} on {results['data']['split']}", ""]
    lines += [f"- {line}" for line in head(results)]
    lines += [
        f"- {INTERVALS}",
        "",
        *_pipes([[h or "row" for h in HEADINGS], *cells(results)]),
    ]
    shown = [row for row in results["rows"] if results["rows"][row]["r1"] is not None]
    if shown:
        heading = ["class", "sounds", *(f"{row} R@{k}" for row in shown for k in (1, 5))]
        body = [
            [
                name,
                str(entry["sounds"]),
                *(_share(entry.get(row, {}).get(f"r{k}")) for row in shown for k in (1, 5)),
            ]
            for name, entry in sorted(results["by_class"].items())
        ]
        lines += ["", *_pipes([heading, *body])]
    if results["notes"]:
        lines += ["", *(f"- {note}" for note in results["notes"])]
    return "\n".join(lines) + "\n"


def comma_separated(results: dict[str, Any]) -> str:
    """One figure a line: row, figure, value, low, high, pictures, and what it was measured by."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("preset", "split", "row", "figure", "value", "low", "high", "pictures", "by"))
    recall, network = results["recall"], results["inception"]
    for name, row in _all_rows(results):
        for figure in _FIGURES:
            found = row[figure]
            if found is None:
                continue
            by = recall if figure in ("r1", "r5") else network
            value, low, high = (
                (found, "", "")
                if figure == "fid"
                else (found["value"], found["low"], found["high"])
            )
            writer.writerow(
                (
                    results["preset"], results["data"]["split"], name or "floor", figure, value,
                    low, high, row["pictures"], by["by"],
                )
            )  # fmt: skip
    return buffer.getvalue()


def _all_rows(results: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from results["rows"].items()
    if (floor := results["floor"]) is not None:
        bare = {"title": FLOOR, "encoder": "-", "generator": "-", "r1": None, "r5": None}
        yield "", bare | floor


def _percent(entry: dict[str, float] | None) -> str:
    if entry is None:
        return "-"
    return f"{100 * entry['value']:.1f} [{100 * entry['low']:.1f}, {100 * entry['high']:.1f}]"


def _interval(entry: dict[str, float] | None, scale: float) -> str:
    if entry is None:
        return "-"
    value, low, high = (scale * entry[key] for key in ("value", "low", "high"))
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _pipes(rows: list[list[str]]) -> list[str]:
    """Rows as a Markdown table; the first column is text, the others are numbers."""
    clean = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    rule = ["---", *("---:" for _ in rows[0][1:])]
    return [f"| {' | '.join(row)} |" for row in (clean[0], rule, *clean[1:])]
