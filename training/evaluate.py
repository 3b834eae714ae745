"""How good a model's pictures of held-out sounds are: fit, diversity, copies, loudness, speed.

`benchmarks/quality.py` is its command, `training.report` its table.

All choices are made on the split `validation`; `test` is for the figures that are published.
Every draw is seeded; but for the time taken, a second run with as many threads on the same machine
gives the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from s2v_cli.encoders.mini_image import MiniImageEncoder
from s2v_cli.encoders.mini_sound import MiniSoundEncoder
from s2v_cli.errors import TrainingError
from s2v_cli.picture import make_grid, save_picture, to_image, write_file
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.results import SoundEmbedding
from s2v_cli.training import crops
from s2v_cli.training.dataset import (
    Clip,
    Photo,
    find_clips,
    find_photos,
    hash_share,
    load_photos,
    load_waves,
)
from s2v_cli.training.evaluation.baselines import generator_bytes
from s2v_cli.training.familiarity import rank_auc
from s2v_cli.training.image_stage import embed_crops
from s2v_cli.training.judge import (
    BATCH,
    JUDGE_OPTIONS,
    Judge,
    Progress,
    accuracy,
    as_images,
    look,
    resize,
    train_judge,
)
from s2v_cli.training.metrics import (
    COPY_QUANTILE,
    bootstrap,
    class_mean,
    class_means,
    near_copies,
    nearest,
    pairwise_distance,
    rank_of,
    spread,
)
from s2v_cli.training.probe import linear_probe, trunk_features
from s2v_cli.training.realism import distances, same_classes
from s2v_cli.training.recipe import StageOptions
from s2v_cli.training.tables import fold_classes, unscored_of
from s2v_cli.training.zoom_regressor import (
    ZOOM_OPTIONS,
    SoundToPicture,
    loudness_spearman,
    train_zoom_regressor,
)

COPY_ZOOMS = (1.0, 2**0.5, 2.0)  # training photos are searched whole and from nearer
THUMBNAIL = 32  # px
MEAN_PHOTOS = 100  # of each group, for its mean z^V
PAIRS_SHOWN = 10


def signatures(
    judge: Judge, pictures: Tensor, zoom: float = 1.0, mirrored: bool = False
) -> tuple[Tensor, Tensor]:
    """Unit judge features [N, F] and thumbnails [N, 3072] of pictures [N, 3, S, S].

    Args:
        judge: whose features are taken.
        pictures: uint8, or float in [-1, 1].
        zoom: of a centred crop.
        mirrored: whether left and right change places.
    """
    features, thumbnails = [], []
    margin = round(pictures.shape[-1] * (1 - 1 / zoom) / 2)
    inner = slice(margin, pictures.shape[-1] - margin)
    for part in pictures.split(BATCH):
        images = as_images(part[:, :, inner, inner])
        images = images.flip(-1) if mirrored else images
        features.append(F.normalize(look(judge, images)[0], dim=1))
        thumbnails.append(resize(images, THUMBNAIL).flatten(1))
    return torch.cat(features), torch.cat(thumbnails)


@dataclass
class _Pictures:
    """Pictures of the scored clips.

    Attributes:
        clips: that were scored.
        embedding: z^A of the clips, [N, D].
        pixels: uint8 [N, seeds, 3, R, R].
        seconds: that one picture took.
    """

    clips: list[Clip]
    embedding: Tensor
    pixels: Tensor
    seconds: float


def evaluate(
    model: Sound2Vision,
    data: Path,
    folder: Path,
    *,
    split: str = "validation",
    seeds: int = 8,
    loudness_clips: int = 60,
    control: SoundToPicture | None = None,
    judge_options: StageOptions = JUDGE_OPTIONS,
    zoom_options: StageOptions = ZOOM_OPTIONS,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a model on the sounds of one split.

    Clips of paired classes are scored, without `snow`. Each is read and encoded as by `s2v gen`
    and drawn with `seeds` seeds of its own. The judge and the zoom regressor are trained in
    `folder` where they are not there yet.

    Args:
        model: on the CPU.
        data: the data set.
        folder: gets `evaluation-SPLIT.json`, the contact sheet `pictures-SPLIT.png`, the nearest
            pairs `nearest-SPLIT.png`, and the checkpoints of judge and regressor.
        split: `validation` or `test`; of sounds and of real photos alike.
        seeds: pictures of each clip.
        loudness_clips: how many clips, spread over the classes, loudness is measured on; 0
            leaves it out.
        control: a model whose encoder was trained and hears without level, for comparison.
        judge_options: of the judge's training.
        zoom_options: of the zoom regressor's.
        cache: of decoded photos; None takes `folder/cache`.
        progress: called with stage, step, steps and figures.

    Returns:
        All figures, as JSON can hold them.

    Raises:
        TrainingError: unknown split, no clips or photos in it, or data that are incomplete.
        OutputError: the folder cannot be written.
    """
    if split not in ("validation", "test"):
        raise TrainingError(f"split is {split!r}; allowed: validation, test.")
    if seeds < 2:
        raise TrainingError(f"seeds is {seeds}; allowed: 2 or more, for the diversity.")
    photos, clips = find_photos(data), find_clips(data)
    unscored = unscored_of(data)
    scored = [
        c
        for c in clips
        if c.split == split and c.photo_class is not None and c.sound_class not in unscored
    ]
    if not scored:
        raise TrainingError(f"{data} has no paired sounds in the split {split!r}.")
    pixels = load_photos(photos, cache or folder / "cache")
    judge = train_judge(photos, pixels, folder, judge_options, progress)
    held_out = _rows(photos, split)
    if not held_out:
        raise TrainingError(f"{data} has no photos in the split {split!r}.")
    real = pixels[torch.tensor(held_out)]
    real_groups = [photos[i].group for i in held_out]

    strange = [c for c in clips if c.split == split and c.photo_class is None]
    heard = _listen(model, [*scored, *strange], progress)
    made = _draw(model, scored, [h.embedding for h in heard[: len(scored)]], seeds, progress)
    flat = made.pixels.flatten(0, 1)  # [N * seeds, 3, R, R]

    results: dict[str, Any] = {
        "preset": model.preset.name,
        "weights_sha256": dict(model.weights_sha256),
        "split": split,
        "clips": len(scored),
        "recordings": len({c.recording for c in scored}),
        "classes": len({c.sound_class for c in scored}),
        "groups": len(judge.names),
        "seeds": seeds,
        "seconds_per_picture": made.seconds,
    }
    results |= _fit(judge, model, made, photos, pixels, real, real_groups, fold_classes(data))
    results["judge"] = dict(
        zip(("accuracy", "by_group"), accuracy(judge, photos, pixels, split), strict=True)
    )
    results["diversity"] = _diversity(judge, made, real, real_groups)
    results["realism"] = _realism(judge, made, photos, pixels, split)
    results["lookup"] = _lookup(judge, model, made, photos, pixels, progress)
    if isinstance(model.sound_encoder, MiniSoundEncoder):
        results["probe"] = _probe(model.sound_encoder, clips, scored, fold_classes(data))
    known = [h.familiarity for h in heard]
    results["familiarity"] = _familiarity(heard, len(scored)) if None not in known else None
    train = pixels[torch.tensor(_rows(photos, "train"))]
    results["copies"], pairs = _copies(judge, flat, real, train, progress)
    if loudness_clips:
        results["loudness"] = _loudness(
            model, control, made, loudness_clips, photos, pixels, folder, zoom_options, progress
        )
    _save_sheets(folder, split, made, flat, train, pairs)
    text = json.dumps(results, indent=2, sort_keys=True) + "\n"
    write_file(text.encode(), folder / f"evaluation-{split}.json", overwrite=True)
    return results


def _rows(photos: Sequence[Photo], split: str) -> list[int]:
    return [i for i, photo in enumerate(photos) if photo.split == split]


def _listen(
    model: Sound2Vision, clips: Sequence[Clip], progress: Progress | None
) -> list[SoundEmbedding]:
    heard = []
    for number, clip in enumerate(clips):
        heard.append(model.encode_sound(clip.path))
        if progress:
            progress("listen", number + 1, len(clips), {})
    return heard


def _draw(
    model: Sound2Vision,
    clips: list[Clip],
    embeddings: Sequence[Tensor],
    seeds: int,
    progress: Progress | None,
) -> _Pictures:
    """Pictures as `s2v gen` makes them; clip i has the seeds from i * seeds on."""
    rows, seconds = [], 0.0
    for number, embedding in enumerate(embeddings):
        options = model.preset.generate_options(seed=number * seeds, count=seeds)
        start = time.perf_counter()
        pictures = model.generate_from_embedding(embedding, options)
        seconds += time.perf_counter() - start
        # Pictures are [H, W, 3] arrays.
        arrays = [np.asarray(p.image).transpose(2, 0, 1) for p in pictures]
        rows.append(torch.from_numpy(np.stack(arrays)))
        if progress:
            progress("draw", number + 1, len(clips), {})
    pixels = torch.stack(rows)
    return _Pictures(clips, torch.stack(list(embeddings)), pixels, seconds / (len(clips) * seeds))


def photo_means(
    model: Sound2Vision, photos: Sequence[Photo], pixels: Tensor, names: Sequence[str]
) -> Tensor:
    """Unit mean z^V [G, D] of crops of up to 100 training photos of each group."""
    random = torch.Generator().manual_seed(0)
    encoder = cast(MiniImageEncoder, model.image_encoder)
    means = []
    for name in names:
        index = [i for i in _rows(photos, "train") if photos[i].group == name]
        index = index[:: -(-len(index) // MEAN_PHOTOS)]
        zoom = crops.random_zoom(len(index), random)
        means.append(embed_crops(encoder, pixels[torch.tensor(index)], zoom, random).mean(dim=0))
    return F.normalize(torch.stack(means), dim=1)


def _fit(
    judge: Judge,
    model: Sound2Vision,
    made: _Pictures,
    photos: Sequence[Photo],
    pixels: Tensor,
    real: Tensor,
    real_groups: Sequence[str],
    fold: set[str],
) -> dict[str, Any]:
    """Do the pictures, and the embeddings, fit their sounds? `retrieval` and `by_class`."""
    seeds = made.pixels.shape[1]
    target = torch.tensor([judge.names.index(c.photo_class or "") for c in made.clips])
    _, logits = look(judge, made.pixels.flatten(0, 1))
    rank = rank_of(logits, target.repeat_interleave(seeds)).view(-1, seeds)
    guess = (made.embedding.float() @ photo_means(model, photos, pixels, judge.names).T).argmax(1)
    clip_values = {
        "r1": (rank <= 1).double().mean(dim=1).tolist(),
        "r5": (rank <= 5).double().mean(dim=1).tolist(),
        "encoder": (guess == target).double().tolist(),
    }
    _, logits = look(judge, real)
    rank = rank_of(logits, torch.tensor([judge.names.index(name) for name in real_groups]))
    real_means = {
        "real_r1": class_means((rank <= 1).double().tolist(), real_groups),
        "real_r5": class_means((rank <= 5).double().tolist(), real_groups),
    }
    by_class: dict[str, dict[str, Any]] = {}
    classes = [c.sound_class for c in made.clips]
    for clip in made.clips:
        entry = by_class.setdefault(clip.sound_class, {"photo_class": clip.photo_class, "clips": 0})
        entry["clips"] += 1
    for figure, values in clip_values.items():
        for name, mean in class_means(values, classes).items():
            by_class[name][figure] = mean
    for figure, means in real_means.items():
        for entry in by_class.values():  # None where a small data set holds out no such photo
            entry[figure] = means.get(entry["photo_class"])
    retrieval = {}
    for part, members in (("all", set(classes)), ("esc50_fold4", fold & set(classes))):
        if not members:
            continue
        kept = [i for i, name in enumerate(classes) if name in members]
        entry = {"classes": len(members), "clips": len(kept)}
        own = [classes[i] for i in kept]
        recordings = [made.clips[i].recording for i in kept]
        for figure, values in clip_values.items():
            chosen = [values[i] for i in kept]
            entry[figure] = class_mean(chosen, own)
            entry[f"{figure}_interval"] = list(bootstrap(chosen, own, recordings))
        for figure in real_means:
            found = [by_class[name][figure] for name in members]
            found = [value for value in found if value is not None]
            entry[figure] = sum(found) / len(found) if found else None
        retrieval[part] = entry
    return {"retrieval": retrieval, "by_class": by_class}


def _realism(
    judge: Judge, made: _Pictures, photos: Sequence[Photo], pixels: Tensor, split: str
) -> dict[str, Any]:
    """FID, KID and IS against the held-out photos of the scored classes."""
    seeds = made.pixels.shape[1]
    kinds = {clip.photo_class for clip in made.clips}
    held_out = [i for i in _rows(photos, split) if photos[i].group in kinds]
    groups = [photos[i].group for i in held_out]
    train = _rows(photos, "train")
    floor = [train[i] for i in same_classes([photos[i].group for i in train], groups)]
    features, logits = look(judge, made.pixels.flatten(0, 1))
    return distances(
        features,
        logits,
        [clip.photo_class or "" for clip in made.clips for _ in range(seeds)],
        [clip.recording for clip in made.clips for _ in range(seeds)],
        look(judge, pixels[torch.tensor(held_out)])[0],
        groups,
        look(judge, pixels[torch.tensor(floor)])[0],
    )


def _lookup(
    judge: Judge,
    model: Sound2Vision,
    made: _Pictures,
    photos: Sequence[Photo],
    pixels: Tensor,
    progress: Progress | None,
) -> dict[str, Any]:
    """R@1 and R@5 of the nearest training photo, among as many as the generator's bytes hold."""
    limit = left = generator_bytes(model.preset)
    chosen = []
    order = sorted(_rows(photos, "train"), key=lambda i: hash_share(photos[i].key))
    for i in order:
        part = photos[i].part
        left -= part.size if part else photos[i].path.stat().st_size
        if left < 0:
            break
        chosen.append(i)
    random = torch.Generator().manual_seed(0)
    encoder = cast(MiniImageEncoder, model.image_encoder)
    gallery = embed_crops(encoder, pixels[torch.tensor(chosen)], torch.ones(len(chosen)), random)
    if progress:
        progress("look up", 1, 1, {})
    found = (F.normalize(made.embedding.float(), dim=1) @ gallery.T).argmax(dim=1)
    _, logits = look(judge, pixels[torch.tensor(chosen)[found]])
    target = torch.tensor([judge.names.index(c.photo_class or "") for c in made.clips])
    rank = rank_of(logits, target)
    classes, recordings = (
        [getattr(c, n) for c in made.clips] for n in ("sound_class", "recording")
    )
    entry: dict[str, Any] = {"photos": len(chosen), "bytes": limit}
    for figure, most in (("r1", 1), ("r5", 5)):
        values = (rank <= most).double().tolist()
        entry[figure] = class_mean(values, classes)
        entry[f"{figure}_interval"] = list(bootstrap(values, classes, recordings))
    return entry


def _probe(
    encoder: MiniSoundEncoder, clips: Sequence[Clip], scored: Sequence[Clip], fold: set[str]
) -> dict[str, Any]:
    """Accuracy of a linear probe on the sound encoder, over all scored classes and fold 4's."""
    known = {c.sound_class for c in scored}
    train = [c for c in clips if c.split == "train" and c.sound_class in known]
    features = trunk_features(encoder, load_waves(train))
    held_out = trunk_features(encoder, load_waves(scored))
    entry = {}
    for part, members in (("all", known), ("esc50_fold4", fold & known)):
        mine = [i for i, c in enumerate(train) if c.sound_class in members]
        theirs = [i for i, c in enumerate(scored) if c.sound_class in members]
        if len({train[i].sound_class for i in mine}) < 2 or not theirs:
            continue
        classes = [scored[i].sound_class for i in theirs]
        values = linear_probe(
            features[mine],
            [train[i].sound_class for i in mine],
            [train[i].recording for i in mine],
            held_out[theirs],
            classes,
        )
        recordings = [scored[i].recording for i in theirs]
        entry[part] = {
            "accuracy": class_mean(values, classes),
            "interval": list(bootstrap(values, classes, recordings)),
        }
    return entry


def _diversity(
    judge: Judge, made: _Pictures, real: Tensor, real_groups: Sequence[str]
) -> dict[str, Any]:
    """Mean pairwise distance within a class, over classes: generated, real, and their ratio."""
    seeds = made.pixels.shape[1]
    drawn, _ = signatures(judge, made.pixels.flatten(0, 1))
    photographed, _ = signatures(judge, real)
    generated, photos = [], []
    for name in sorted({c.sound_class for c in made.clips}):
        clips = [i for i, c in enumerate(made.clips) if c.sound_class == name]
        group = made.clips[clips[0]].photo_class
        members = [i for i, own in enumerate(real_groups) if own == group]
        if len(members) < 2:
            continue
        generated.append(pairwise_distance(drawn.unflatten(0, (-1, seeds))[clips].flatten(0, 1)))
        photos.append(pairwise_distance(photographed[members]))
    if not generated:
        return {"generated": None, "real": None, "ratio": None}
    first, second = sum(generated) / len(generated), sum(photos) / len(photos)
    return {"generated": first, "real": second, "ratio": first / max(second, 1e-12)}


def _familiarity(heard: Sequence[SoundEmbedding], paired: int) -> dict[str, Any] | None:
    """How well familiarity tells sounds of taught kinds, the first `paired`, from others."""
    score = torch.tensor([h.familiarity for h in heard], dtype=torch.float64)
    called = torch.tensor([bool(h.familiar) for h in heard])
    if not paired or paired == len(heard):
        return None
    return {
        "auc": rank_auc(score[:paired], score[paired:]),
        "paired_called_familiar": float(called[:paired].double().mean()),
        "others_called_unfamiliar": float((~called[paired:]).double().mean()),
        "others": len(heard) - paired,
    }


def _copies(
    judge: Judge, flat: Tensor, real: Tensor, train: Tensor, progress: Progress | None
) -> tuple[dict[str, Any], list[tuple[int, int]]]:
    """Near-copies by judge features and by thumbnails; and the pairs (picture, training photo)."""
    queries = [
        torch.cat(both)
        for both in zip(signatures(judge, flat), signatures(judge, real), strict=True)
    ]
    distance = [torch.full((len(q),), float("inf")) for q in queries]
    index = [torch.zeros(len(q), dtype=torch.long) for q in queries]
    versions = [(zoom, mirrored) for zoom in COPY_ZOOMS for mirrored in (False, True)]
    for number, (zoom, mirrored) in enumerate(versions):
        for kind, gallery in enumerate(signatures(judge, train, zoom, mirrored)):
            found, where = nearest(queries[kind], [gallery])
            better = found < distance[kind]
            distance[kind] = torch.where(better, found, distance[kind])
            index[kind] = torch.where(better, where, index[kind])
        if progress:
            progress("copies", number + 1, len(versions), {})
    results: dict[str, Any] = {"pictures": len(flat), "expected_share": COPY_QUANTILE}
    for kind, name in enumerate(("features", "thumbnails")):
        copied, limit = near_copies(distance[kind][: len(flat)], distance[kind][len(flat) :])
        results[name] = {
            "count": int(copied.sum()),
            "share": float(copied.double().mean()),
            "limit": limit,
        }
    order = distance[0][: len(flat)].argsort(stable=True)[:PAIRS_SHOWN].tolist()
    return results, [(i, int(index[0][i])) for i in order]


def _loudness(
    model: Sound2Vision,
    control: SoundToPicture | None,
    made: _Pictures,
    count: int,
    photos: Sequence[Photo],
    pixels: Tensor,
    folder: Path,
    options: StageOptions,
    progress: Progress | None,
) -> dict[str, Any]:
    regressor = train_zoom_regressor(photos, pixels, folder, options, progress)
    clips = [made.clips[i] for i in spread([c.sound_class for c in made.clips], count)]
    waves = load_waves(clips)
    truncation = model.preset.generate_options().truncation or 1.0
    results: dict[str, Any] = {"clips": len(clips), "control": None}
    results["spearman"] = loudness_spearman(
        model, regressor, clips, waves, truncation=truncation, progress=progress
    )
    if control is not None:
        results["control"] = loudness_spearman(
            control,
            regressor,
            clips,
            waves,
            hear_level=False,
            truncation=truncation,
            progress=progress,
        )
    return results


def _save_sheets(
    folder: Path,
    split: str,
    made: _Pictures,
    flat: Tensor,
    train: Tensor,
    pairs: Sequence[tuple[int, int]],
) -> None:
    """The contact sheet (each class's first clip, all seeds) and the nearest pairs."""
    size, cells = made.pixels.shape[-1], []
    first: dict[str, int] = {}
    for index, clip in enumerate(made.clips):
        first.setdefault(clip.sound_class, index)
    for name, index in sorted(first.items()):
        cells.append(_label(f"{name}\n-> {made.clips[index].photo_class}", size))
        cells += [to_image(as_images(image)) for image in made.pixels[index]]
    sheet = make_grid(cells, columns=1 + made.pixels.shape[1])
    save_picture(sheet, folder / f"pictures-{split}.png", overwrite=True)
    cells = [to_image(as_images(flat[i])) for i, _ in pairs]
    cells += [to_image(resize(as_images(train[j][None]), size)[0]) for _, j in pairs]
    sheet = make_grid(cells, columns=len(pairs))
    save_picture(sheet, folder / f"nearest-{split}.png", overwrite=True)


def _label(text: str, size: int) -> Image.Image:
    image = Image.new("RGB", (size, size), (255, 255, 255))
    font = ImageFont.load_default(size=max(8, size // 9))
    ImageDraw.Draw(image).multiline_text((4, size // 3), text, fill=(0, 0, 0), font=font)
    return image
