"""`s2v analyze`: the modality gap of presets on a dataset's pairs, as figures and plots (§4.4).

The paper's features have unit norm. Here too every embedding is divided by its norm first, unless
the options say that it is taken as it is: of a raw space the magnitude is then in its own scale.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from s2v_cli.errors import TrainingError
from s2v_cli.options import DeviceChoice
from s2v_cli.picture import write_file
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.training.evaluation import baselines, gap
from s2v_cli.training.evaluation.gap import Geometry
from s2v_cli.training.evaluation.gap_options import AnalyzeOptions, preset_labels
from s2v_cli.training.evaluation.gap_plots import (
    Map,
    flatten,
    plot_geometry,
    plot_maps,
    require_packages,
)
from s2v_cli.training.evaluation.held_out import HeldOut, class_of, open_held_out
from s2v_cli.training.judge import Progress
from s2v_cli.training.metrics import spread
from s2v_cli.training.prepare.work import ensure_prepared

FEWEST_MAPPED = 4  # pairs, for t-SNE
QUANTILES = (0.025, 0.25, 0.5, 0.75, 0.975)
FILES = {"gap": "gap.png", "map": "tsne.png", "figures": "analysis.json"}


@dataclass(frozen=True)
class Pairs:
    """Embeddings of the pairs of a split.

    Attributes:
        image: z^V, float32 [N, D].
        sound: z^A, float32 [N, D].
        names: class of each pair.
        sources: recording of each pair.
        photos: how many different pictures there are.
        left_out: sounds without a picture.
    """

    image: Tensor
    sound: Tensor
    names: tuple[str, ...]
    sources: tuple[str, ...]
    photos: int
    left_out: int

    def __len__(self) -> int:
        return len(self.names)

    def unit(self) -> Pairs:
        """The same with embeddings of unit norm."""
        image, sound = F.normalize(self.image, dim=1), F.normalize(self.sound, dim=1)
        return Pairs(image, sound, self.names, self.sources, self.photos, self.left_out)


def embed_pairs(model: Sound2Vision, data: HeldOut, progress: Progress | None = None) -> Pairs:
    """z^V and z^A of each sound that has a picture.

    Where a dataset is paired by class, a sound goes with one picture of its class, each in turn.

    Raises:
        TrainingError: less than two pairs, or an embedding that is not finite.
    """
    kept = [place for place, partner in enumerate(data.partners) if partner is not None]
    if len(kept) < 2:
        raise TrainingError(
            f"{data.folder} has {len(kept)} pairs in the split {data.split!r}; a gap needs two or "
            "more. Choose another --split."
        )
    sound = baselines.hear(model, data, progress)[kept]
    seen: dict[str, Tensor] = {}
    for number, place in enumerate(kept):
        partner = data.partners[place]
        assert partner is not None
        if partner.key not in seen:
            seen[partner.key] = model.encode_image(data.picture(partner))
            if not bool(seen[partner.key].isfinite().all()):
                raise TrainingError(
                    f"The embedding of the picture {partner.key!r} is not finite: the preset "
                    f"{model.preset.name!r} is damaged."
                )
        if progress:
            progress("look", number + 1, len(kept), {})
    keys = [partner.key for partner in data.partners if partner is not None]
    sounds = [data.sounds[place] for place in kept]
    return Pairs(
        torch.stack([seen[key] for key in keys]),
        sound,
        tuple(class_of(example) for example in sounds),
        tuple(example.source for example in sounds),
        len(seen),
        len(data.sounds) - len(kept),
    )


def analyze(
    presets: Sequence[str],
    data: Path,
    folder: Path,
    options: AnalyzeOptions = AnalyzeOptions(),  # noqa: B008 (frozen)
    progress: Progress | None = None,
    *,
    note: Callable[[str], None] | None = None,
    device: DeviceChoice = "auto",
    weights_dir: Path | None = None,
) -> dict[str, Any]:
    """Measure the modality gap of presets side by side.

    Args:
        presets: names, folders or TOML files, 1 to 6.
        data: a prepared dataset, or what `s2v prepare` takes, which is then prepared in
            `folder/data`.
        folder: gets `gap.png` (Fig. 6), `tsne.png` (Fig. 7) and `analysis.json`.
        options: what is analysed, and how it is drawn.
        progress: called with stage, step, steps and figures.
        note: told at once, in one line, what a person should know.
        device: where to compute.
        weights_dir: where the presets' weights lie, if not where they say.

    Returns:
        All figures, as JSON can hold them.

    Raises:
        OptionError: an option outside its range, or a preset without an image encoder.
        TrainingError: less than two pairs.
        DependencyError: matplotlib or scikit-learn is missing.
        OutputError: the folder cannot be written.
    """
    require_packages()
    labels = preset_labels(presets)
    prepared = ensure_prepared(data, folder / "data", progress)
    held_out = open_held_out(prepared, options.split, options.limit)
    rows: list[dict[str, Any]] = []
    drawn: list[tuple[str, Geometry]] = []
    maps: list[Map] = []
    for label, preset in zip(labels, presets, strict=True):
        model = Sound2Vision.load(preset, device=device, weights_dir=weights_dir)
        pairs = embed_pairs(model, held_out, progress)
        pairs = pairs.unit() if options.scale == "unit" else pairs
        measured = gap.geometry(pairs.image, pairs.sound)
        rows.append(
            {
                "preset": label,
                "weights_sha256": dict(model.weights_sha256),
                "space": str(model.space),
                "scale": options.scale if options.scale == "unit" else model.space.scale,
                **figures(pairs, measured, options.seed),
            }
        )
        drawn.append((label, measured))
        mapped = spread(pairs.names, options.mapped)
        if len(mapped) >= FEWEST_MAPPED:
            maps.append(map_pairs(label, pairs, mapped, options, progress))
    if note and pairs.left_out:
        note(f"{pairs.left_out} sounds are left out: the split has no picture of their class.")
    if note and options.mapped and not maps:
        note(f"t-SNE is left out: it needs {FEWEST_MAPPED} pairs or more.")
    files = {FILES["gap"]: plot_geometry(drawn, options.theme)}
    if maps:
        files[FILES["map"]] = plot_maps(maps, options.theme)
    results: dict[str, Any] = {
        "data": {
            "folder": str(prepared),
            "pairing": held_out.pairing,
            "split": held_out.split,
            "pairs": len(pairs),
            "photos": pairs.photos,
            "recordings": len(set(pairs.sources)),
            "classes": len(set(pairs.names)),
        },
        "options": asdict(options),
        "presets": rows,
        "files": [str(folder / name) for name in (*files, FILES["figures"])],
    }
    files[FILES["figures"]] = (json.dumps(results, indent=2, sort_keys=True) + "\n").encode()
    for name, content in files.items():
        write_file(content, folder / name, overwrite=True)
    return results


def figures(pairs: Pairs, measured: Geometry, seed: int = 0) -> dict[str, Any]:
    """The numbers of a preset: means with 95% intervals over recordings, and distributions."""

    def described(values: Tensor) -> dict[str, Any]:
        low, high = gap.mean_interval(values, pairs.sources, seed=seed)
        return _described(values) | {"low": low, "high": high}

    mean_gap = float(measured.mean_gap.norm())
    squared = float(measured.magnitude.square().mean())
    turned = {"image": measured.orthogonality_image, "sound": measured.orthogonality_sound}
    return {
        "magnitude": described(measured.magnitude),
        "mean_gap_norm": mean_gap,
        "constant_share": mean_gap**2 / squared if squared else 1.0,
        "direction": described(measured.direction),
        **{f"orthogonality_{kind}": _described(turned[kind]) for kind in turned},
        **{f"orthogonality_{kind}_absolute": described(turned[kind].abs()) for kind in turned},
        "random_spread": gap.random_spread(pairs.image.shape[1]),
        "centre": _described(measured.centre)
        | {"norm": float(measured.centre.norm()), "largest": float(measured.centre.abs().max())},
        "alignment": described(measured.alignment),
        "unpaired_alignment": gap.unpaired_alignment(pairs.image, pairs.sound),
        "uniformity": gap.uniformity(pairs.image, pairs.sound),
    }


def table(results: dict[str, Any]) -> list[list[str]]:
    """The figures for people: a heading, and a row a figure with a column a preset."""

    def interval(row: dict[str, Any], name: str) -> str:
        entry = row[name]
        return f"{entry['mean']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"

    rows = results["presets"]
    cells: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("space", lambda row: row["space"]),
        ("embeddings", lambda row: "unit norm" if row["scale"] == "unit" else "as they are"),
        ("magnitude ||g||", lambda row: interval(row, "magnitude")),
        ("  standard deviation", lambda row: f"{row['magnitude']['sd']:.3f}"),
        ("mean gap ||E[g]||", lambda row: f"{row['mean_gap_norm']:.3f}"),
        ("  share of E||g||^2", lambda row: f"{row['constant_share']:.1%}"),
        ("orthogonality |cos|, z^V", lambda row: interval(row, "orthogonality_image_absolute")),
        ("orthogonality |cos|, z^A", lambda row: interval(row, "orthogonality_sound_absolute")),
        ("centre, largest dimension", lambda row: f"{row['centre']['largest']:.3f}"),
        ("  norm", lambda row: f"{row['centre']['norm']:.3f}"),
        ("alignment", lambda row: interval(row, "alignment")),
        ("  of others than pairs", lambda row: f"{row['unpaired_alignment']:.3f}"),
        ("uniformity", lambda row: f"{row['uniformity']:.3f}"),
    ]
    heading = ["", *(row["preset"] for row in rows)]
    return [heading, *([name, *(cell(row) for row in rows)] for name, cell in cells)]


def map_pairs(
    label: str,
    pairs: Pairs,
    rows: Sequence[int],
    options: AnalyzeOptions,
    progress: Progress | None = None,
) -> Map:
    """t-SNE of some pairs (Fig. 7): both modalities in one map.

    Raises:
        DependencyError: scikit-learn is missing.
    """
    if progress:
        progress(f"t-SNE of {len(rows)} pairs", 0, 0, {})
    index = torch.tensor(rows)
    both = torch.cat([pairs.image[index], pairs.sound[index]])
    flat = flatten(both, options.perplexity, options.seed)
    return Map(label, flat[: len(rows)], flat[len(rows) :], tuple(pairs.names[row] for row in rows))


def _described(values: Tensor) -> dict[str, Any]:
    quantiles = torch.quantile(values, torch.tensor(QUANTILES, dtype=values.dtype)).tolist()
    return {
        "mean": float(values.mean()),
        "sd": float(values.std(correction=0)),
        "quantiles": dict(zip(map(str, QUANTILES), quantiles, strict=True)),
    }
