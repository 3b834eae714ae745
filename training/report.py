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
        *_baselines(results),
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


def _baselines(results: dict[str, Any]) -> list[str]:
    """Lines on the linear probe, retrieval, and distances to real photos."""
    lines = []
    for part, entry in results.get("probe", {}).items():
        low, high = entry["interval"]
        lines.append(
            f"linear probe of the sound encoder, {part}: {entry['accuracy']:.3f} "
            f"({low:.3f}-{high:.3f})"
        )
    lookup, real = results["lookup"], results["realism"]
    r1, r5 = (
        f"{lookup[name]:.3f} ({lookup[f'{name}_interval'][0]:.3f}-"
        f"{lookup[f'{name}_interval'][1]:.3f})"
        for name in ("r1", "r5")
    )
    score = real["inception_score"]
    lines += [
        f"retrieval of {lookup['photos']} photos, as large as the generator: R@1 {r1}, R@5 {r5}",
        f"on the judge's {real['dimension']} features, {real['pictures']} pictures, "
        f"{real['real']} real photos (in brackets: as many training photos instead):",
        f"  FID {real['fid']:.2f} ({real['fid_floor']:.2f}), KID {real['kid']['value']:.3f}, "
        f"{real['kid']['low']:.3f} to {real['kid']['high']:.3f} ({real['kid_floor']['value']:.3f}),"
        f" IS {score['value']:.2f}, {score['low']:.2f} to {score['high']:.2f}",
    ]
    return lines


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
