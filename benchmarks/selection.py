"""Whether the moments that are chosen of a video show what is heard (§3.3, Fig. 3).

    python benchmarks/selection.py DATA --out FOLDER [--preset mini] [--cache FOLDER]

DATA has videos/ with SOURCES.csv (class, file, ...), and images/ and faces/ that a judge is trained
on, which takes no part in the choice. Prints a table of chosen, middle and random frames for each
scorer, and writes it to FOLDER with the scores (JSON) and a contact sheet.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from s2v_cli.errors import S2VError
from s2v_cli.picture import resize, save_picture, to_tensor, write_file
from s2v_cli.training.dataset import find_photos, load_photos
from s2v_cli.training.judge import Judge, look, train_judge
from s2v_cli.training.manifest import SAMPLE_RATE
from s2v_cli.training.prepare.examples import SILENCE, around, shrink
from s2v_cli.training.prepare.moments import grid
from s2v_cli.training.prepare.selection import (
    FRAME_SIZE,
    PresetScorer,
    choose,
    correlate,
    preset_scorer,
)
from s2v_cli.training.prepare.selection_sheet import Comparison, selection_sheet
from s2v_cli.training.prepare.video import Video

STRIDE_S = 0.5
WINDOWS_S = (0.5, 1.0, 2.0, 5.0)
CORRELATIONS = ("dot", "centred")
DEFAULT = "dot, 1 s"
RANDOM_DRAWS = 10_000  # of a frame from each video, for what chance does


@dataclass
class Clip:
    """Moments of one video: frames, embeddings and what the judge says of them."""

    name: str
    shown: str
    times_s: list[float]
    frames: list[Image]
    image: Tensor
    sound: dict[float, Tensor]
    audible: Tensor
    level: Tensor
    probability: Tensor | None = None  # of its class, [M]
    right: Tensor | None = None  # whether the judge names its class, [M]

    def scores(self, setting: str) -> Tensor:
        """C[t] in one of the settings, [M]."""
        if setting == "loudest":
            return self.level
        correlation, window = setting.split(", ")
        sound = self.sound[float(window.removesuffix(" s"))]
        found = correlate(self.image, sound, correlation)  # type: ignore[arg-type]
        return found.masked_fill(~self.audible, float("-inf"))


def read_clip(path: Path, shown: str, scorer: PresetScorer) -> Clip:
    with closing(Video(path, path.name)) as video:
        assert video.picture and video.sound
        low_s, high_s = max(video.picture[0], video.sound[0]), min(video.picture[1], video.sound[1])
        times_s = grid(low_s, high_s, min(STRIDE_S, (high_s - low_s) / 4))
        frames = [shrink(frame.image, FRAME_SIZE) for frame in video.frames(times_s)]
        waves = {}
        for window_s in WINDOWS_S:
            rows = np.zeros(
                (len(times_s), round(min(window_s, high_s - low_s) * SAMPLE_RATE)), "float32"
            )
            for row, time_s in zip(rows, times_s, strict=True):
                wave = video.wave(around(time_s, window_s, low_s, high_s)[0], len(row))
                row[: len(wave)] = wave
            waves[window_s] = torch.from_numpy(rows)
    return Clip(
        path.stem,
        shown,
        times_s,
        frames,
        scorer.embed_frames(frames),
        {window_s: scorer.embed_waves(wave) for window_s, wave in waves.items()},
        waves[1.0].abs().amax(dim=1) >= SILENCE,
        waves[1.0].square().mean(dim=1),
    )


def judged(judge: Judge, clip: Clip) -> None:
    """Fill in what the judge says of each frame, if it knows the class."""
    if clip.shown not in judge.names:
        return
    pixels = torch.stack([to_tensor(resize(square(frame), 160)) for frame in clip.frames])
    logits, column = look(judge, pixels)[1], judge.names.index(clip.shown)
    clip.probability = logits.softmax(dim=1)[:, column]
    clip.right = logits.argmax(dim=1) == column


def square(image: Image) -> Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def settings() -> list[str]:
    return [f"{kind}, {window:g} s" for window in WINDOWS_S for kind in CORRELATIONS] + ["loudest"]


def measure(clips: Sequence[Clip]) -> dict[str, Any]:
    known = [clip for clip in clips if clip.probability is not None]
    rows: dict[str, dict[str, float]] = {}

    def add(label: str, picks: Sequence[int]) -> None:
        rows[label] = {
            "right": mean(float(c.right[i]) for c, i in zip(known, picks, strict=True)),  # type: ignore[index]
            "probability": mean(
                float(c.probability[i])  # type: ignore[index]
                for c, i in zip(known, picks, strict=True)
            ),
        }

    for setting in settings():
        add(f"top-1: {setting}", [choose(c.scores(setting), c.times_s)[0] for c in known])
    add("middle", [choose(c.scores(DEFAULT), c.times_s, "mid")[0] for c in known])
    add("best by the judge", [int(c.probability.argmax()) for c in known])  # type: ignore[union-attr]
    rows["random"] = {
        "right": mean(float(c.right.float().mean()) for c in known),  # type: ignore[union-attr]
        "probability": mean(float(c.probability.mean()) for c in known),  # type: ignore[union-attr]
    }
    random = np.random.default_rng(0)
    draws = np.mean(
        [c.probability.numpy()[random.integers(len(c.times_s), size=RANDOM_DRAWS)] for c in known],  # type: ignore[union-attr]
        axis=0,
    )
    for row in rows.values():
        row["beats_random"] = float((draws < row["probability"]).mean())
    return {
        "clips": len(clips),
        "judged": [clip.name for clip in known],
        "rows": rows,
        "agreement": agreement(clips),
        "own_sound_above_other": own_above_other(clips),
        "own_sound_above_other_judged": own_above_other(known),
        "by_video": {clip.name: by_video(clip) for clip in clips},
    }


def by_video(clip: Clip) -> dict[str, Any]:
    scores = clip.scores(DEFAULT)
    finite = scores[scores.isfinite()]
    top, middle = choose(scores, clip.times_s)[0], choose(scores, clip.times_s, "mid")[0]
    row: dict[str, Any] = {"class": clip.shown, "moments": len(clip.times_s)}
    row |= {"lowest": float(finite.min()), "median": float(finite.median())}
    row |= {"highest": float(finite.max()), "middle": float(scores[middle])}
    row |= {"top_s": clip.times_s[top], "middle_s": clip.times_s[middle]}
    if clip.probability is not None:
        row["judge_top"], row["judge_middle"], row["judge_mean"] = (
            float(value)
            for value in (clip.probability[top], clip.probability[middle], clip.probability.mean())
        )
    return row


def agreement(clips: Sequence[Clip]) -> dict[str, dict[str, float]]:
    """Each setting with the default: mean rank correlation, share of top-1 within a second."""
    found = {}
    for setting in settings():
        ranks, near = [], []
        for clip in (clip for clip in clips if len(clip.times_s) > 5):
            first, second = clip.scores(DEFAULT), clip.scores(setting)
            kept = first.isfinite() & second.isfinite()
            ranks.append(spearman(first[kept], second[kept]))
            one, other = (clip.times_s[choose(s, clip.times_s)[0]] for s in (first, second))
            near.append(abs(one - other) <= 1 + 1e-6)
        found[setting] = {"spearman": mean(ranks), "within_1_s": mean(near)}
    return found


def spearman(first: Tensor, second: Tensor) -> float:
    ranks = torch.stack([first.argsort().argsort(), second.argsort().argsort()]).double()
    return float(torch.corrcoef(ranks)[0, 1])


def own_above_other(clips: Sequence[Clip]) -> dict[str, float]:
    """How often a frame is nearer to its own video's sound than to one of another class."""
    found = {}
    for window_s in WINDOWS_S:
        wins = []
        for clip in clips:
            own = clip.scores(f"dot, {window_s:g} s")[clip.audible, None]
            seen = clip.image[clip.audible]
            strange = [c.sound[window_s][c.audible] for c in clips if c.shown != clip.shown]
            wins += [float((own > seen @ sound.T).float().mean()) for sound in strange]
        found[f"{window_s:g} s"] = mean(wins)
    return found


def table(results: dict[str, Any]) -> str:
    lines = [
        "| frame | judge names the class | judge's probability of it | random draws below |",
        "| --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {label} | {row['right']:.3f} | {row['probability']:.3f} | {row['beats_random']:.0%} |"
        for label, row in results["rows"].items()
    ]
    lines += ["", "| scorer | rank correlation with the default | top-1 within 1 s |"]
    lines += ["| --- | ---: | ---: |"]
    lines += [
        f"| {label} | {row['spearman']:.2f} | {row['within_1_s']:.0%} |"
        for label, row in results["agreement"].items()
    ]
    lines += ["", "| window | own sound above another class's | of classes the judge knows |"]
    lines += ["| --- | ---: | ---: |"]
    lines += [
        f"| {window} | {share:.1%} | {results['own_sound_above_other_judged'][window]:.1%} |"
        for window, share in results["own_sound_above_other"].items()
    ]
    lines += [
        "",
        "| video | C lowest | median | middle | highest | judge: middle | mean | chosen |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in results["by_video"].items():
        cells = [f"{row[key]:.3f}" for key in ("lowest", "median", "middle", "highest")]
        cells += [
            f"{row[key]:.3f}" if key in row else ""
            for key in ("judge_middle", "judge_mean", "judge_top")
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the data set")
    parser.add_argument("--preset", default="mini", help="of the scorer: name, folder or TOML file")
    parser.add_argument("--out", type=Path, required=True, help="folder for figures and the sheet")
    parser.add_argument("--judge", type=Path, help="folder of a trained judge; OUT if left")
    parser.add_argument("--sheet", nargs="+", metavar="CLIP", help="on the sheet; all if left")
    parser.add_argument("--cache", type=Path, help="folder of decoded photos; OUT/cache if left")
    given = parser.parse_args(arguments)
    try:
        scorer = preset_scorer(given.preset, "cpu")
        with (given.data / "videos/SOURCES.csv").open(newline="", encoding="utf-8") as file:
            listed = [(row["file"], row["class"]) for row in csv.DictReader(file)]
        photos = find_photos(given.data)
        pixels = load_photos(photos, given.cache or given.out / "cache")
        judge = train_judge(photos, pixels, given.judge or given.out)
        clips = [read_clip(given.data / "videos" / name, shown, scorer) for name, shown in listed]
        for clip in clips:
            judged(judge, clip)
        results = measure(clips)
        text = table(results)
        write_file((text + "\n").encode(), given.out / "selection.md", overwrite=True)
        content = json.dumps(results, indent=2, sort_keys=True) + "\n"
        write_file(content.encode(), given.out / "selection.json", overwrite=True)
        rows = []
        for clip in clips:
            if given.sheet is None or clip.name in given.sheet:
                scores = clip.scores(DEFAULT)
                rows.append(Comparison.of(clip.name, clip.frames, clip.times_s, scores))
        sheet = selection_sheet(rows)
        save_picture(sheet, given.out / "selection.png", overwrite=True)
    except S2VError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
