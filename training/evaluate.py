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
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from s2v_cli.encoders.mini_sound import MiniSoundEncoder
from s2v_cli.errors import TrainingError
from s2v_cli.picture import make_grid, save_picture, to_image, write_file
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.results import SoundEmbedding
from s2v_cli.training import figures
from s2v_cli.training.dataset import (
    Clip,
    find_clips,
    find_photos,
    load_photos,
)
from s2v_cli.training.judge import (
    JUDGE_OPTIONS,
    Progress,
    accuracy,
    as_images,
    resize,
    train_judge,
)
from s2v_cli.training.recipe import StageOptions
from s2v_cli.training.tables import fold_classes, unscored_of
from s2v_cli.training.zoom_regressor import (
    ZOOM_OPTIONS,
    SoundToPicture,
)


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
    held_out = figures.rows_of(photos, split)
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
    fold = fold_classes(data)
    results |= figures.fit(judge, model, made, photos, pixels, real, real_groups, fold)
    results["judge"] = dict(
        zip(("accuracy", "by_group"), accuracy(judge, photos, pixels, split), strict=True)
    )
    results["diversity"] = figures.diversity(judge, made, real, real_groups)
    results["realism"] = figures.realism(judge, made, photos, pixels, split)
    results["lookup"] = figures.lookup(judge, model, made, photos, pixels, progress)
    if isinstance(model.sound_encoder, MiniSoundEncoder):
        results["probe"] = figures.probe(model.sound_encoder, clips, scored, fold)
    known = [h.familiarity for h in heard]
    results["familiarity"] = figures.familiarity(heard, len(scored)) if None not in known else None
    train = pixels[torch.tensor(figures.rows_of(photos, "train"))]
    results["copies"], pairs = figures.copies(judge, flat, real, train, progress)
    if loudness_clips:
        results["loudness"] = figures.loudness(
            model, control, made, loudness_clips, photos, pixels, folder, zoom_options, progress
        )
    _save_sheets(folder, split, made, flat, train, pairs)
    text = json.dumps(results, indent=2, sort_keys=True) + "\n"
    write_file(text.encode(), folder / f"evaluation-{split}.json", overwrite=True)
    return results


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
) -> figures.Pictures:
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
    seconds /= len(clips) * seeds
    return figures.Pictures(clips, torch.stack(list(embeddings)), torch.stack(rows), seconds)


def _save_sheets(
    folder: Path,
    split: str,
    made: figures.Pictures,
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
