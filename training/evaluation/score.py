"""`s2v eval`: how well a preset draws the sounds of a split, beside the paper's baselines (§4.3).

Every figure is of a stated number of pictures, with a 95% interval over recordings: clips of one
recording, and pictures of one clip, are not independent.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from s2v_cli.errors import OptionError, OutputError, TrainingError
from s2v_cli.options import DeviceChoice
from s2v_cli.picture import save_picture, write_file
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.training.evaluation import baselines, table
from s2v_cli.training.evaluation.baselines import (
    NEEDS_IMAGES,
    PARTS,
    TITLES,
    Drawn,
    Gallery,
)
from s2v_cli.training.evaluation.distances import (
    Estimate,
    frechet_distance,
    inception_score,
    kernel_distance,
)
from s2v_cli.training.evaluation.held_out import HeldOut, class_of, open_held_out
from s2v_cli.training.evaluation.inception import (
    ASSETS,
    ClassifierFeatures,
    FeatureNetwork,
    InceptionFeatures,
    at_hand,
)
from s2v_cli.training.evaluation.look import Looker, Tally
from s2v_cli.training.evaluation.options import ROWS, EvalOptions, RowName
from s2v_cli.training.evaluation.recall import (
    CLIP,
    ClassifierRanker,
    ClipRanker,
    Ranker,
    hit_interval,
    read_classifier,
    train_classifier,
)
from s2v_cli.training.evaluation.sheet import Sheet
from s2v_cli.training.judge import JUDGE_OPTIONS, Judge, Progress
from s2v_cli.training.manifest import MANIFEST_FILE
from s2v_cli.training.metrics import class_mean, class_means
from s2v_cli.training.prepare.work import ensure_prepared
from s2v_cli.training.recipe import StageOptions
from s2v_cli.weights.store import asset_status

TOP = (1, 5)  # k of R@k


def evaluate_preset(
    preset: str | os.PathLike[str] | Sound2Vision,
    data: Path,
    folder: Path,
    options: EvalOptions = EvalOptions(),  # noqa: B008 (frozen)
    progress: Progress | None = None,
    *,
    note: Callable[[str], None] | None = None,
    device: DeviceChoice = "auto",
    weights_dir: Path | None = None,
    judge_options: StageOptions = JUDGE_OPTIONS,
) -> dict[str, Any]:
    """Measure a preset on the sounds of a split.

    Args:
        preset: a loaded model; or a name, folder or TOML file.
        data: a prepared dataset, or what `s2v prepare` takes, which is then prepared in
            `folder/data`.
        folder: gets the results as JSON, CSV and Markdown, contact sheets, and the classifier in
            `classifier/` where one is trained; it goes on from there the next time.
        options: what is measured, and by what.
        progress: called with stage, step, steps and figures.
        note: told at once, in one line, what a person should know; the results hold it too.
        device: where a preset that is not loaded yet computes, and the networks that look.
        weights_dir: where published weights lie, if not in the cache.
        judge_options: of the classifier's training.

    Returns:
        All figures, as JSON can hold them.

    Raises:
        OptionError: an unknown split.
        TrainingError: nothing there to measure on, or nothing to measure it with.
        WeightsError: weights that are missing or damaged.
        DependencyError: torchmetrics is missing.
        OutputError: the folder cannot be written.
    """
    began = time.monotonic()
    prepared = ensure_prepared(data, folder / "data", progress)
    held_out = open_held_out(prepared, options.split, options.limit)
    model = preset
    if not isinstance(model, Sound2Vision):
        model = Sound2Vision.load(model, device=device, weights_dir=weights_dir)
    run = _Run(model, held_out, folder, options, progress, note, weights_dir, judge_options)
    results = run.measure()
    results["seconds"] = time.monotonic() - began
    run.write(results)
    return results


class _Run:
    """One evaluation: its networks, and what is found out."""

    def __init__(
        self,
        model: Sound2Vision,
        data: HeldOut,
        folder: Path,
        options: EvalOptions,
        progress: Progress | None,
        note: Callable[[str], None] | None,
        weights_dir: Path | None,
        judge_options: StageOptions,
    ) -> None:
        self.model, self.data, self.folder, self.options = model, data, folder, options
        self.progress, self.note, self.weights_dir = progress, note, weights_dir
        self.judge_options = judge_options
        self.side = model.preset.resolution
        self.notes: list[str] = []
        self.rows = self._rows()
        self.ranker = self._open_ranker()
        self.network = self._open_network()
        self.looker = Looker(self.ranker, self.network, progress)
        if self.ranker is None and self.network is None:
            raise TrainingError(
                f"{data.folder} has no class names, so there is nothing to rank, and no Inception "
                f"is here. Run: s2v weights pull {ASSETS['vggsound']}"
            )
        self.gallery: Gallery | None = None
        self.seconds = 0.0
        self.sheet = Sheet(data, self.side)
        self.tallies: dict[RowName, Tally] = {}

    def measure(self) -> dict[str, Any]:
        """All figures, but for how long they took."""
        self._make_folder()
        self._look_at_rows()
        reference = self.tallies.get("D")
        if reference is None and self.network is not None:
            photos = baselines.real(self.data, self.data.photos, self.side)
            reference = self.looker.look(photos, "real pictures", len(self.data.photos), rank=False)
        drawn = self.tallies["B"].pictures if "B" in self.tallies else 0
        pairs = {(class_of(example), example.source) for example in self.data.sounds}
        alone = Counter(Counter(name for name, _ in pairs).values())[1]
        if alone == 1:
            self._tell(
                f"1 of {len(self.data.classes)} classes has sounds of one recording only, whose "
                "spread is not known: the intervals of rows A to C are a little too narrow."
            )
        elif alone:
            self._tell(
                f"{alone} of {len(self.data.classes)} classes have sounds of one recording only; "
                "intervals take these as one class, and are rather too wide."
            )
        results: dict[str, Any] = {
            "preset": self.model.preset.name,
            "weights_sha256": dict(self.model.weights_sha256),
            "data": self._describe_data(),
            "options": {**asdict(self.options), "classifier": _shown(self.options.classifier)},
            "recall": self._describe_ranker(),
            "inception": self._describe_network(reference),
            "retrieval": self._describe_gallery(),
            "rows": {row: self._figures(row, reference) for row in self.tallies},
            "floor": self._floor(reference),
            "by_class": self._by_class(),
            "seconds_per_picture": self.seconds / drawn if drawn else None,
            "notes": self.notes,
        }
        return results

    def _make_folder(self) -> None:
        """Fail before anything is drawn, not after, where nothing can be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"Cannot write to {self.folder}: {error.strerror}. Choose another --out."
            ) from None

    def _tell(self, text: str) -> None:
        self.notes.append(text)
        if self.note:
            self.note(text)

    def _look_at_rows(self) -> None:
        """Draw, find or read the pictures of each row, and look at them."""
        model, data, options = self.model, self.data, self.options
        embeddings = torch.empty(0)
        if {"B", "C"} & set(self.rows):
            embeddings = baselines.hear(model, data, self.progress)
        for row in self.rows:
            pictures: Iterator[Drawn]
            if row == "A":
                pictures = baselines.from_images(model, data, options.seeds, options.seed)
            elif row == "B":
                pictures = self._timed(
                    baselines.from_sounds(model, data, embeddings, options.seeds, options.seed)
                )
            elif row == "C":
                self.gallery = baselines.open_gallery(model, data, self.weights_dir, self.progress)
                if self.gallery is None:
                    self._tell(
                        "C is left out: the training split has no picture that fits in the "
                        "generator's bytes."
                    )
                    continue
                pictures = baselines.from_gallery(data, embeddings, self.gallery, self.side)
            else:
                pictures = baselines.real(data, data.photos, self.side)
            total = len(data.photos if row == "D" else data.sounds)
            self.tallies[row] = self.looker.look(
                pictures,
                f"{row} {TITLES[row]}",
                total,
                each=options.seeds if row in ("A", "B") else 1,
                keep=None if row == "D" else partial(self.sheet.add, row),
            )

    def _timed(self, pictures: Iterator[Drawn]) -> Iterator[Drawn]:
        """Pictures, while the time that drawing takes is added up."""
        while True:
            start = time.perf_counter()
            drawn = next(pictures, None)
            self.seconds += time.perf_counter() - start
            if drawn is None:
                return
            yield drawn

    def _rows(self) -> list[RowName]:
        wanted: list[RowName] = [row for row in ROWS if row in self.options.rows]
        if baselines.has_image_encoder(self.model.preset):
            missing = sum(partner is None for partner in self.data.partners)
            if "A" in wanted and missing:
                self._tell(
                    f"A leaves out {missing} sounds whose class has no picture in the split."
                )
            return wanted
        left = [row for row in wanted if row in NEEDS_IMAGES]
        if left:
            self._tell(
                f"{' and '.join(left)} {'is' if len(left) == 1 else 'are'} left out: preset "
                f"{self.model.preset.name!r} has no image encoder."
            )
        kept = [row for row in wanted if row not in left]
        if not kept:
            raise OptionError(
                f"rows is {self.options.rows!r}, but preset {self.model.preset.name!r} has no "
                "image encoder; allowed: B, D."
            )
        return kept

    @cached_property
    def _classifier(self) -> tuple[Judge, str]:
        """The classifier that was given, or one of the dataset's own; and what to call it."""
        if self.options.classifier is not None:
            return read_classifier(self.options.classifier), "the classifier given"
        self._make_folder()
        judge = train_classifier(
            self.data, self.folder / "classifier", self.judge_options, self.progress
        )
        return judge, "a classifier trained on the training pictures"

    def _open_ranker(self) -> Ranker | None:
        names, kind = self.data.names, self.options.recall
        if len(names) < 2:
            count = "one class name" if names else "no class names"
            self._tell(f"R@k is left out: the dataset has {count}; it needs two or more.")
            return None
        if kind == "auto":
            given = self.options.classifier is not None
            here = asset_status(CLIP, self.weights_dir) == "here"
            kind = "classifier" if given or not here else "clip"
            if not here and not given:
                self._tell(
                    "CLIP is not here, so a classifier ranks the classes: its R@k are not the "
                    f"paper's. Get it: s2v weights pull {CLIP}"
                )
        if kind == "classifier":
            judge, told = self._classifier
            if self.options.classifier is None:
                names = self._known(names, judge)
            return ClassifierRanker(judge, names, told)
        return ClipRanker.load(
            names,
            self.options.template,
            device=self.model.device,
            weights_dir=self.weights_dir,
        )

    def _known(self, names: Sequence[str], judge: Judge) -> tuple[str, ...]:
        """Names that a classifier trained here knows: all but those without training pictures."""
        known = tuple(name for name in names if name in judge.names)
        if left := [name for name in names if name not in known]:
            self._tell(
                f"Class names without training pictures are not ranked: {len(left)} of "
                f"{len(names)}, such as {left[0]!r}."
            )
        return known

    def _open_network(self) -> FeatureNetwork | None:
        kind = self.options.inception
        if kind == "auto":
            kind = at_hand(self.weights_dir)
            if kind == "classifier" and len(self.data.names) < 2 and not self.options.classifier:
                self._tell(
                    "FID, KID and IS are left out: no Inception is here. Get one: s2v weights "
                    f"pull {ASSETS['vggsound']}"
                )
                return None
        if kind == "classifier":
            return ClassifierFeatures(*self._classifier)
        return InceptionFeatures.load(kind, device=self.model.device, weights_dir=self.weights_dir)

    def _figures(self, row: RowName, reference: Tally | None) -> dict[str, Any]:
        tally, (encoder, generator) = self.tallies[row], PARTS[row]
        figures: dict[str, Any] = {
            "title": TITLES[row],
            "encoder": encoder,
            "generator": generator,
            "sounds": 0 if row == "D" else len(tally.classes),
            "pictures": tally.pictures,
        }
        for k in TOP:
            figures[f"r{k}"] = None
            if tally.ranks:
                hits = tally.hits(k)
                figures[f"r{k}"] = _as_json(
                    Estimate(
                        class_mean(hits, tally.classes),
                        *hit_interval(hits, tally.classes, tally.sources),
                    )
                )
        figures |= {"fid": None, "fid_left_out": None, "kid": None, "inception_score": None}
        if not tally.features or reference is None:
            return figures
        classes, sources = (tally.repeated(v) for v in (tally.classes, tally.sources))
        logits = torch.cat(tally.logits)
        figures["inception_score"] = _as_json(inception_score(logits, classes, sources))
        if row != "D":
            figures |= self._distances(tally, reference, fid=row != "C")
        return figures

    def _distances(self, tally: Tally, reference: Tally, *, fid: bool = True) -> dict[str, Any]:
        """FID, unless it is refused, and KID; retrieval has none, for its count is another."""
        features, real = torch.cat(tally.features), torch.cat(reference.features)
        fewest = min(len(features), len(real))
        if fewest < 2:
            return {"fid": None, "fid_left_out": "it needs two pictures or more", "kid": None}
        classes, sources = (tally.repeated(v) for v in (tally.classes, tally.sources))
        kid = kernel_distance(
            features, real, classes, sources, reference.classes, reference.sources
        )
        found: dict[str, Any] = {"fid": None, "fid_left_out": None, "kid": _as_json(kid)}
        if not fid:
            found["fid_left_out"] = "retrieval has one picture a sound, A and B have several"
        elif fewest < features.shape[1] and not self.options.force_fid:
            found["fid_left_out"] = (
                f"{len(features)} pictures against {len(real)} real ones are fewer than the "
                f"{features.shape[1]} features"
            )
            if not any(note.startswith("FID is left out") for note in self.notes):
                self._tell(
                    f"FID is left out: {found['fid_left_out']}. --force-fid computes it all the "
                    "same."
                )
        else:
            found["fid"] = frechet_distance(features, real)
        return found

    def _floor(self, reference: Tally | None) -> dict[str, Any] | None:
        """Real training pictures, as many and of the same classes as drawn ones, as a row."""
        rows: tuple[RowName, ...] = ("B", "A", "C")
        drawn = next((self.tallies[row] for row in rows if row in self.tallies), None)
        if drawn is None or reference is None or self.network is None:
            return None
        wanted = drawn.repeated(drawn.classes)
        chosen = baselines.alike(self.data.training, wanted)
        if len(chosen) < 2:
            self._tell("The floor is left out: the training split has no such pictures.")
            return None
        if len(chosen) < len(wanted):
            self._tell(
                f"The floor is of {len(chosen)} real pictures, not {len(wanted)}: the training "
                "split has no more of these classes."
            )
        photos = baselines.real(self.data, chosen, self.side)
        tally = self.looker.look(photos, "floor: real against real", len(chosen), rank=False)
        logits = torch.cat(tally.logits)
        score = inception_score(logits, tally.classes, tally.sources)
        return {
            "pictures": tally.pictures,
            **self._distances(tally, reference),
            "inception_score": _as_json(score),
        }

    def _by_class(self) -> dict[str, dict[str, Any]]:
        counts = [class_of(example) for example in self.data.sounds]
        found: dict[str, dict[str, Any]] = {
            name: {"sounds": counts.count(name)} for name in self.data.classes
        }
        for row, tally in self.tallies.items():
            for k in TOP:
                if tally.ranks:
                    for name, mean in class_means(tally.hits(k), tally.classes).items():
                        found[name].setdefault(row, {})[f"r{k}"] = mean
        return found

    def _describe_data(self) -> dict[str, Any]:
        data = self.data
        manifest = (data.folder / MANIFEST_FILE).read_bytes()
        return {
            "folder": str(data.folder),
            "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
            "pairing": data.pairing,
            "split": data.split,
            "sounds": len(data.sounds),
            "recordings": data.recordings,
            "classes": len(data.classes),
            "photos": len(data.photos),
            "training_photos": len(data.training),
        }

    def _describe_ranker(self) -> dict[str, Any] | None:
        if self.ranker is None:
            return None
        count = len(self.ranker.names)
        clip = isinstance(self.ranker, ClipRanker)
        return {
            "by": "clip" if clip else "classifier",
            "told": self.ranker.told,
            "template": self.options.template if clip else None,
            "names": count,
            "chance": {f"r{k}": min(1.0, k / count) for k in TOP},
        }

    def _describe_gallery(self) -> dict[str, Any] | None:
        if self.gallery is None:
            return None
        return {
            "photos": len(self.gallery.examples),
            "of": self.gallery.of,
            "bytes": self.gallery.bytes,
            "generator_bytes": self.gallery.generator_bytes,
        }

    def _describe_network(self, reference: Tally | None) -> dict[str, Any] | None:
        if self.network is None or reference is None:
            return None
        return {
            "by": self.network.kind,
            "told": self.network.told,
            "features": self.network.dimension,
            "reference": reference.pictures,
        }

    def write(self, results: dict[str, Any]) -> None:
        """Write the sheets, the tables and all figures; the names of the files join the figures."""
        stem = f"{results['preset']}-{results['data']['split']}"
        files = []
        for number, sheet in enumerate(self.sheet.draw(table.caption(results)), start=1):
            name = f"{stem}-pictures{'' if number == 1 else f'-{number}'}.png"
            save_picture(sheet, self.folder / name, overwrite=True)
            files.append(name)
        files += [f"{stem}.md", f"{stem}.csv", f"{stem}.json"]
        results["files"] = [str(self.folder / name) for name in files]
        contents = {
            f"{stem}.md": table.markdown(results),
            f"{stem}.csv": table.comma_separated(results),
            f"{stem}.json": json.dumps(results, indent=2, sort_keys=True) + "\n",
        }
        for name, text in contents.items():
            write_file(text.encode(), self.folder / name, overwrite=True)


def _as_json(estimate: Estimate) -> dict[str, float]:
    return asdict(estimate)


def _shown(path: Path | None) -> str | None:
    return None if path is None else str(path)
