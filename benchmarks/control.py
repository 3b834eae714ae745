"""Does a mix follow its weights? Walks between pairs of held-out sounds, seen by the encoders.

    python benchmarks/control.py DATA [--preset mini] [--pairs 30] [--steps 7] [--seeds 8]

For each pair the weights go from sound A to sound B. Spearman's correlation is taken between the
weight of A and (similarity to A minus similarity to B), in three ways: the sound embedding of the
mix against those of A and B alone; the mean image embedding of pictures of the mix against the same
two; and against the mean image embeddings of pictures of A and B alone, with the same seeds. The
paper shows such walks (Fig. 10) and does not measure them.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from s2v_cli import Sound2Vision
from s2v_cli.audio.mixdown import mix_sounds
from s2v_cli.audio.tracks import Track, sweep_weights
from s2v_cli.errors import S2VError
from s2v_cli.latent import similarity
from s2v_cli.training.dataset import Clip, find_clips

MEASURES = ("sound to sounds", "pictures to sounds", "pictures to pictures")
BOOTSTRAPS = 2000


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Rank correlation; equal values share their mean rank, and no spread gives 0."""
    ranks = torch.stack([_ranks(first), _ranks(second)])
    deviation = ranks - ranks.mean(dim=1, keepdim=True)
    norms = deviation.norm(dim=1)
    if not bool(norms.all()):
        return 0.0
    return float(deviation[0] @ deviation[1] / norms.prod())


def _ranks(values: Sequence[float]) -> Tensor:
    column = torch.tensor(values, dtype=torch.float64)
    below = (column[:, None] > column[None]).sum(dim=1)
    equal = (column[:, None] == column[None]).sum(dim=1)
    return below + (equal - 1) / 2


def choose_pairs(clips: Sequence[Clip], count: int, seed: int) -> list[tuple[Clip, Clip]]:
    """Pairs of clips whose photo classes differ; no recording is in two pairs while others last."""
    order = random.Random(seed)
    pairs: list[tuple[Clip, Clip]] = []
    waiting: list[Clip] = []
    while len(pairs) < count:
        if len(waiting) < 2:
            waiting = list(clips)
            order.shuffle(waiting)
        first = waiting.pop()
        partner = next((c for c in reversed(waiting) if c.photo_class != first.photo_class), None)
        if partner is None:
            waiting = []
            continue
        waiting.remove(partner)
        pairs.append((first, partner))
    return pairs


def follow(
    model: Sound2Vision, first: Path, second: Path, steps: int, seeds: int
) -> dict[str, float]:
    """Spearman's correlations of one walk, by what is compared."""
    weights = sweep_weights(steps)
    mixed = mix_sounds(
        [Track(str(first)), Track(str(second))],
        sample_rate=model.sound_encoder.sample_rate,
        window_s=model.sound_encoder.window_s,
        sweep=weights,
    )
    heard = torch.stack([model.encode_sound(sound).embedding for sound in mixed.sounds])
    options = model.preset.generate_options()
    seen = []  # [seeds, steps, D]
    for seed in range(seeds):
        pictures = model.generate_strip(heard, replace(options, seed=seed))
        seen.append(torch.stack([model.encode_image(picture.image) for picture in pictures]))
    drawn = torch.stack(seen).mean(dim=0)
    shares = [one for one, _ in weights]
    found = {}
    for name, row, ends in zip(MEASURES, (heard, drawn, drawn), (heard, heard, drawn), strict=True):
        nearer = similarity(row, ends[0]) - similarity(row, ends[-1])
        found[name] = spearman(shares, nearer.tolist())
    return found


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Bounds of the mean, 95 %, from bootstrap samples of the pairs."""
    column = torch.tensor(values)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(column), (BOOTSTRAPS, len(column)), generator=generator)
    low, high = column[drawn].mean(dim=1).quantile(torch.tensor([0.025, 0.975])).tolist()
    return low, high


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the data set")
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="of the choice of pairs")
    parser.add_argument("--json", action="store_true", help="print all pairs")
    given = parser.parse_args(arguments)
    try:
        clips = [c for c in find_clips(given.data) if c.split == "test" and c.photo_class]
        model = Sound2Vision.load(given.preset, device="cpu")
        walks = []
        for first, second in choose_pairs(clips, given.pairs, given.seed):
            found = follow(model, first.path, second.path, given.steps, given.seeds)
            walks.append({"first": first.path.name, "second": second.path.name, **found})
            print(f"{len(walks)}/{given.pairs}", file=sys.stderr, flush=True)
    except S2VError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if given.json:
        print(json.dumps(walks, indent=2))
    for name in MEASURES:
        values = [float(walk[name]) for walk in walks]
        low, high = interval(values)
        mean = sum(values) / len(values)
        print(f"{name:21} Spearman {mean:.3f} [{low:.3f}, {high:.3f}], least {min(values):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
