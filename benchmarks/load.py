"""How soon, and in how much memory, the published GAN route is ready: child processes.

    python -m benchmarks.load [--runs 5] [--preset sound2scene]

Full-size weights, filled at random, are written in the published formats and go through the same
conversion as a user's own files, once, into a temporary cache. Then each round starts two children:
a bare `import torch`, and one that loads the preset (sound encoder and generator) on the CPU.
Budget on top of the bare one: 1 s, and memory up to 1.3 times the weights' size in float32. The
last lines tell the same of the first picture, which reads all the pages that loading maps.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from s2v_cli.encoders.sound2vision_sound import PREFIX, Sound2SceneEncoder
from s2v_cli.generators.biggan import CHUNKS, FEATURES, WIDTH
from s2v_cli.generators.biggan_weights import published_shapes

BUDGET_S, BUDGET_RATIO = 1.0, 1.3
PRESETS = {"sound2scene": 128, "sound2scene-256": 256}

BARE = """
import json, resource, sys, time
start = time.perf_counter()
import torch
took = {"torch_s": time.perf_counter() - start}
def peak():
    try:  # getrusage would count what the parent had when it forked
        lines = open("/proc/self/status").read().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3
    except OSError:
        unit = 1e6 if sys.platform == "darwin" else 1e3
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
"""
REPORT = 'took["peak_mb"] = peak(); print(json.dumps(took))'
LOAD = """
start = time.perf_counter()
from s2v_cli import Sound2Vision
model = Sound2Vision.load(sys.argv[1], device="cpu")
took["ready_s"] = time.perf_counter() - start
networks = (model.sound_encoder, model.generator)
took["weights_mb"] = sum(
    tensor.nbytes for network in networks for tensor in network.state_dict().values()
) / 1e6
took["ready_peak_mb"] = peak()
start = time.perf_counter()
with torch.inference_mode():
    embedding = model.sound_encoder(torch.rand(1, 160_000) * 2 - 1)
    model.generator(model.noise(0), embedding)
took["picture_s"] = time.perf_counter() - start
"""


def random_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Positive numbers of any size: only how many they are counts here."""
    return {key: 0.1 + torch.rand(shape) for key, shape in shapes.items()}


def write_published(folder: Path, resolution: int) -> list[Path]:
    """Full-size files as they are published, filled at random."""
    with torch.device("meta"):
        encoder = Sound2SceneEncoder()
    shapes = {f"{PREFIX}{key}": tuple(value.shape) for key, value in encoder.state_dict().items()}
    torch.save(random_state(shapes), folder / "sound2scene.pth")
    shapes = published_shapes(resolution, WIDTH, CHUNKS[resolution], FEATURES)
    torch.save(random_state(shapes), folder / "G_ema_best0.pth")
    torch.save({"best_FID": 9.0, "config": {}}, folder / "state_dict_best0.pth")
    archive = folder / f"icgan_biggan_imagenet_res{resolution}.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=0) as tar:
        for name in ("state_dict_best0.pth", "G_ema_best0.pth"):
            tar.add(folder / name, f"icgan/{name}")
            (folder / name).unlink()
    return [folder / "sound2scene.pth", archive]


def convert(home: Path, resolution: int) -> None:
    """Fill a cache folder with the converted weights."""
    from s2v_cli.networks import converters
    from s2v_cli.weights.adopt import import_weights
    from s2v_cli.weights.pull import PullOptions

    os.environ["S2V_HOME"] = str(home)
    with tempfile.TemporaryDirectory(dir=home) as downloads:
        files = write_published(Path(downloads), resolution)
        import_weights(files, converters(), PullOptions(accept_licence=True))


def child(code: str, preset: str) -> dict[str, float]:
    ran = subprocess.run(
        [sys.executable, "-c", BARE + code + REPORT, preset], check=True, capture_output=True
    )
    report: dict[str, float] = json.loads(ran.stdout)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--preset", default="sound2scene", choices=PRESETS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        convert(Path(folder), PRESETS[given.preset])
        rounds = [
            (child("", given.preset), child(LOAD, given.preset)) for _ in range(given.runs + 1)
        ][1:]  # interleaved; the first warms the disk

    def median(side: int, name: str) -> float:
        return statistics.median(round_[side][name] for round_ in rounds)

    floor, bare = median(0, "torch_s"), median(0, "peak_mb")
    ready, weights = median(1, "ready_s"), median(1, "weights_mb")
    extra = median(1, "ready_peak_mb") - bare
    picture, drawn = median(1, "picture_s"), median(1, "peak_mb") - bare
    print(f"import torch  {floor:6.2f} s  {bare:6.0f} MB")
    print(
        f"ready after   {ready:6.2f} s more: {ready / floor:.2f} of import torch "
        f"(budget {BUDGET_S:g} s)"
    )
    print(
        f"and with      {extra:6.0f} MB more: {extra / weights:.2f} of {weights:.0f} MB of weights "
        f"(budget {BUDGET_RATIO})"
    )
    print(f"first picture {picture:6.2f} s later, {drawn:.0f} MB more than import torch")


if __name__ == "__main__":
    main()
