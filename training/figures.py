"""The figures of an evaluation: what a judge of real photos says of pictures of held-out sounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from s2v_cli.encoders.mini_image import MiniImageEncoder
from s2v_cli.encoders.mini_sound import MiniSoundEncoder
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.results import SoundEmbedding
from s2v_cli.training import crops
from s2v_cli.training.dataset import (
    Clip,
    Photo,
    hash_share,
    load_waves,
)
from s2v_cli.training.evaluation.baselines import generator_bytes
from s2v_cli.training.familiarity import rank_auc
from s2v_cli.training.image_stage import embed_crops
from s2v_cli.training.judge import (
    BATCH,
    Judge,
    Progress,
    as_images,
    look,
    resize,
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
from s2v_cli.training.zoom_regressor import (
    SoundToPicture,
    loudness_spearman,
    train_zoom_regressor,
)

COPY_ZOOMS = (1.0, 2**0.5, 2.0)  # training photos are searched whole and from nearer
THUMBNAIL = 32  # px
MEAN_PHOTOS = 100  # of each group, for its mean z^V
PAIRS_SHOWN = 10


@dataclass
class Pictures:
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


def rows_of(photos: Sequence[Photo], split: str) -> list[int]:
    """Indices of the photos of a split."""
    return [i for i, photo in enumerate(photos) if photo.split == split]


def photo_means(
    model: Sound2Vision, photos: Sequence[Photo], pixels: Tensor, names: Sequence[str]
) -> Tensor:
    """Unit mean z^V [G, D] of crops of up to 100 training photos of each group."""
    random = torch.Generator().manual_seed(0)
    encoder = cast(MiniImageEncoder, model.image_encoder)
    means = []
    for name in names:
        index = [i for i in rows_of(photos, "train") if photos[i].group == name]
        index = index[:: -(-len(index) // MEAN_PHOTOS)]
        zoom = crops.random_zoom(len(index), random)
        means.append(embed_crops(encoder, pixels[torch.tensor(index)], zoom, random).mean(dim=0))
    return F.normalize(torch.stack(means), dim=1)


def fit(
    judge: Judge,
    model: Sound2Vision,
    made: Pictures,
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


def realism(
    judge: Judge, made: Pictures, photos: Sequence[Photo], pixels: Tensor, split: str
) -> dict[str, Any]:
    """FID, KID and IS against the held-out photos of the scored classes."""
    seeds = made.pixels.shape[1]
    kinds = {clip.photo_class for clip in made.clips}
    held_out = [i for i in rows_of(photos, split) if photos[i].group in kinds]
    groups = [photos[i].group for i in held_out]
    train = rows_of(photos, "train")
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


def lookup(
    judge: Judge,
    model: Sound2Vision,
    made: Pictures,
    photos: Sequence[Photo],
    pixels: Tensor,
    progress: Progress | None,
) -> dict[str, Any]:
    """R@1 and R@5 of the nearest training photo, among as many as the generator's bytes hold."""
    limit = left = generator_bytes(model.preset)
    chosen = []
    order = sorted(rows_of(photos, "train"), key=lambda i: hash_share(photos[i].key))
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


def probe(
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


def diversity(
    judge: Judge, made: Pictures, real: Tensor, real_groups: Sequence[str]
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


def familiarity(heard: Sequence[SoundEmbedding], paired: int) -> dict[str, Any] | None:
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


def copies(
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


def loudness(
    model: Sound2Vision,
    control: SoundToPicture | None,
    made: Pictures,
    count: int,
    photos: Sequence[Photo],
    pixels: Tensor,
    folder: Path,
    options: StageOptions,
    progress: Progress | None,
) -> dict[str, Any]:
    """Does a louder sound look nearer? Mean Spearman over clips, of the model and of a control."""
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
