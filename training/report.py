"""The figures of an evaluation as a table to read."""

from __future__ import annotations

from typing import Any


def report(results: dict[str, Any]) -> str:
    """The figures of `evaluate` as a table to read."""
    lines = [
        f"{results['preset']}, split {results['split']}: {results['clips']} clips of "
        f"{results['recordings']} recordings in {results['classes']} classes, "
        f"{results['seeds']} pictures each; ranked over {results['groups']} photo groups "
        f"(chance R@1 {1 / results['groups']:.3f})",
        "",
        f"{'class means':<18}{'R@1':>7} {'95%':^15}{'R@5':>7} {'95%':^15}"
        f"{'encoder':>8} {'95%':^15}{'real R@1':>9}{'real R@5':>9}",
    ]
    for part, entry in results["retrieval"].items():
        label = f"{part} ({entry['classes']})"
        cells = [f"{label:<18}"]
        for figure, width in (("r1", 7), ("r5", 7), ("encoder", 8)):
            low, high = entry[f"{figure}_interval"]
            cells.append(f"{_share(entry[figure]):>{width}} {f'{low:.3f}-{high:.3f}':^15}")
        cells.append(f"{_share(entry['real_r1']):>9}{_share(entry['real_r5']):>9}")
        lines.append("".join(cells))
    diversity, copies = results["diversity"], results["copies"]
    lines += [
        "",
        f"judge on real photos of all groups: {results['judge']['accuracy']:.3f}",
        f"diversity: generated {_share(diversity['generated'])}, real "
        f"{_share(diversity['real'])}, ratio {_share(diversity['ratio'])}",
    ]
    for kind in ("features", "thumbnails"):
        lines.append(
            f"near-copies by {kind}: {copies[kind]['count']} of {copies['pictures']} "
            f"({copies[kind]['share']:.2%}; real photos {copies['expected_share']:.0%})"
        )
    if (familiarity := results["familiarity"]) is not None:
        lines.append(
            f"familiarity AUC: {familiarity['auc']:.3f}; called right: "
            f"{familiarity['paired_called_familiar']:.3f} of the paired, "
            f"{familiarity['others_called_unfamiliar']:.3f} of {familiarity['others']} others"
        )
    if (loudness := results.get("loudness")) is not None:
        lines.append(
            f"loudness to zoom, mean Spearman over {loudness['clips']} clips: "
            f"{loudness['spearman']:.3f}; without level: {_share(loudness['control'])}"
        )
    lines += [
        f"seconds per picture: {results['seconds_per_picture']:.3f}",
        "",
        f"{'sound class':<16}{'photo class':<16}{'clips':>6}{'R@1':>7}{'R@5':>7}"
        f"{'encoder':>9}{'real R@1':>10}{'real R@5':>10}",
    ]
    for name, entry in sorted(results["by_class"].items()):
        lines.append(
            f"{name:<16}{entry['photo_class']:<16}{entry['clips']:>6}{entry['r1']:>7.3f}"
            f"{entry['r5']:>7.3f}{entry['encoder']:>9.3f}{_share(entry['real_r1']):>10}"
            f"{_share(entry['real_r5']):>10}"
        )
    return "\n".join(lines)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
