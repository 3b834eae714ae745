"""How well `s2v edit` finds a photo again, told by a classifier that sees real photos only.

    python benchmarks/inversion.py DATA --out FOLDER [--preset mini] [--photos 50] [--tuned 10]

Of photos of the test split, spread over their classes: whether the reconstruction's nearest photo
is its own, how far its PSNR lies above a picture of the photo's embedding with random noise, what
tuning adds, and the seconds that it all takes. The classifier is the judge of
`benchmarks/quality.py`; where FOLDER holds it already it is not trained again. Writes a contact
sheet (photo, random noise, reconstruction, tuned) and the figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from s2v_cli import Sound2Vision
from s2v_cli.editing import TUNE_STEPS
from s2v_cli.editor import Editor
from s2v_cli.errors import S2VError
from s2v_cli.inversion import psnr_db
from s2v_cli.picture import make_grid, save_picture, to_image, write_file
from s2v_cli.training.dataset import Photo, find_photos, load_photos
from s2v_cli.training.judge import look, train_judge

SEEDS = 4  # of the pictures with random noise


def chosen(photos: Sequence[Photo], count: int) -> list[Photo]:
    """Photos of the test split, without portraits, spread over the list and so over classes."""
    test = [p for p in photos if p.split == "test" and not p.group.startswith("face_")]
    count = min(count, len(test))
    return [test[round(i * (len(test) - 1) / max(1, count - 1))] for i in range(count)]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def interval(share: float, count: int) -> tuple[float, float]:
    """Wilson's interval of a share, 95 %."""
    z = 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + (z / 2 / count) ** 2)
    return middle - half, middle + half


def show(stage: str, done: int, steps: int, figures: dict[str, float]) -> None:
    if done * 10 // steps > (done - 1) * 10 // steps:
        print(f"{stage} {done}/{steps}", file=sys.stderr, flush=True)


def measure(
    model: Sound2Vision, photos: Sequence[Photo], tuned: int
) -> tuple[dict[str, list[float]], dict[str, list[Tensor]]]:
    """Figures of each photo, and the images."""
    figures: dict[str, list[float]] = {
        name: [] for name in ("found", "random", "before tuning", "tuned", "cpu_s", "tune_cpu_s")
    }
    images: dict[str, list[Tensor]] = {name: [] for name in ("photo", "random", "found", "tuned")}
    options = model.preset.generate_options()
    for number, photo in enumerate(photos):
        editor = Editor(model)
        start = time.process_time()
        inversion = editor.invert(photo.path)
        figures["cpu_s"].append(time.process_time() - start)
        target = inversion.target
        embedding = model.encode_image(to_image(target)).expand(SEEDS, -1)
        with torch.inference_mode():
            random = model.draw(model.noise(0, SEEDS), embedding.to(model.device), options).cpu()
        figures["random"].append(mean([psnr_db(image, target) for image in random]))
        figures["found"].append(inversion.psnr_db)
        images["photo"].append(target)
        images["random"].append(random[0])
        images["found"].append(editor.draw(inversion))
        # Those that are tuned are spread too.
        if number * tuned // len(photos) > (number - 1) * tuned // len(photos):
            start = time.process_time()
            better = editor.tune(inversion, TUNE_STEPS)
            figures["tune_cpu_s"].append(time.process_time() - start)
            figures["before tuning"].append(inversion.psnr_db)
            figures["tuned"].append(better.psnr_db)
            images["tuned"].append(editor.draw(better))
        else:
            images["tuned"].append(torch.ones_like(target))
        print(
            f"{number + 1}/{len(photos)} {photo.key}: {figures['found'][-1]:.2f} dB, "
            f"random noise {figures['random'][-1]:.2f} dB",
            file=sys.stderr,
            flush=True,
        )
    return figures, images


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the data set")
    parser.add_argument("--preset", default="mini", help="name, folder or TOML file")
    parser.add_argument("--out", type=Path, required=True, help="folder of judge and results")
    parser.add_argument("--photos", type=int, default=50)
    parser.add_argument("--tuned", type=int, default=10, help="how many of them are tuned")
    parser.add_argument("--cache", type=Path, help="folder of decoded photos; OUT/cache if left")
    given = parser.parse_args(arguments)
    try:
        photos = find_photos(given.data)
        some = chosen(photos, given.photos)
        figures, images = measure(Sound2Vision.load(given.preset, device="cpu"), some, given.tuned)
        pixels = load_photos(photos, given.cache or given.out / "cache")
        judge = train_judge(photos, pixels, given.out, progress=show)
        names = [name for name in images]
        rows = zip(*(images[name] for name in names), strict=True)
        sheet = make_grid([to_image(image) for row in rows for image in row], 2 * len(names))
        save_picture(sheet, given.out / "inversion.png", overwrite=True)
        text = json.dumps({"photos": [photo.key for photo in some], **figures}, indent=1)
        write_file((text + "\n").encode(), given.out / "inversion.json", overwrite=True)
    except S2VError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    features = [
        F.normalize(look(judge, torch.stack(images[name]))[0], dim=1)
        for name in ("photo", "found", "random")
    ]
    own = torch.arange(len(some))
    for name, found in (("reconstruction", features[1]), ("random noise", features[2])):
        share = float(((found @ features[0].T).argmax(dim=1) == own).float().mean())
        low, high = interval(share, len(some))
        print(
            f"nearest of {len(some)} photos is its own, {name}: {share:.0%} "
            f"({low:.0%} to {high:.0%})"
        )
    above = [a - b for a, b in zip(figures["found"], figures["random"], strict=True)]
    print(
        f"PSNR: {mean(figures['found']):.2f} dB, random noise {mean(figures['random']):.2f} dB: "
        f"{mean(above):+.2f} dB, at least {min(above):+.2f}"
    )
    if figures["tuned"]:
        gain = [a - b for a, b in zip(figures["tuned"], figures["before tuning"], strict=True)]
        print(
            f"tuning ({len(gain)} photos): {mean(gain):+.2f} dB, at least {min(gain):+.2f}; "
            f"{mean(figures['tune_cpu_s']):.1f} CPU seconds"
        )
    print(f"inversion: {mean(figures['cpu_s']):.1f} CPU seconds a photo")
    return 0


if __name__ == "__main__":
    sys.exit(main())
