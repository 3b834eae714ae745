"""`s2v animate`: frames a second of computing, and what each part of it costs.

    python benchmarks/animate.py [--seconds 20] [--fps 24] [--size 128] [--threads 2]

The budget is 20 frames a second with `mini` on two cores, from the first window heard to the
finished .mp4; loading the model does not count. Processor time stands beside it: on a machine that
does other work too, it is what can be compared.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import soundfile
import torch

from s2v_cli import Sound2Vision
from s2v_cli.animation import AnimateOptions, sound_track
from s2v_cli.audio.decode import open_decoder
from s2v_cli.motion import Motion
from s2v_cli.video import open_writer

BUDGET_FPS = 20.0


@contextmanager
def timed(name: str, frames: int) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(
        f"{name:<22}{1e3 * wall / frames:7.1f} ms a frame  {frames / wall:6.1f} frames/s"
        f"  {1e3 * cpu / frames:7.1f} ms of processor time"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--fps", type=int, default=AnimateOptions().fps)
    parser.add_argument("--size", type=int, default=None)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = Sound2Vision.load("mini", device="cpu")
    options = model.preset.generate_options(size=given.size)
    frames = round(given.seconds * given.fps)
    samples = round(given.seconds * 44_100)
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "noise.wav"
        wave = np.random.default_rng(0).normal(0, 0.1, (samples, 2))
        soundfile.write(sound, wave.cumsum(axis=0) % 0.5 - 0.25, 44_100)

        def make() -> Motion:
            return Motion(model, options, frames=frames, fps=given.fps, window_s=2.5, drift=0.2)

        with closing(open_decoder(sound, "noise")) as decoder:
            next(iter(_heard(make(), decoder, samples).draw()))  # warms up
            motion = make()
            with timed("listening", frames):
                _heard(motion, decoder, samples)
            with timed("drawing", frames):
                images = list(motion.draw())
            for suffix in (".mp4", ".gif", ".webp"):
                path = Path(folder) / f"a{suffix}"
                track = sound_track(decoder, (0, samples)) if suffix == ".mp4" else None
                with (
                    timed(f"writing {suffix}", frames),
                    open_writer(path, suffix, fps=given.fps, sound=track, comment=None) as writer,
                ):
                    for image in images:
                        writer.add(image)
            with timed("all together, .mp4", frames):
                start = time.perf_counter()
                motion = _heard(make(), decoder, samples)
                track = sound_track(decoder, (0, samples))
                path = Path(folder) / "whole.mp4"
                with open_writer(path, ".mp4", fps=given.fps, sound=track, comment=None) as writer:
                    for image in motion.draw():
                        writer.add(image)
                reached = frames / (time.perf_counter() - start)
    print(f"budget {BUDGET_FPS:.0f} frames/s: {reached / BUDGET_FPS:.1f} times as fast")


def _heard(motion: Motion, decoder: object, samples: int) -> Motion:
    motion.hear(decoder, (0, samples))  # type: ignore[arg-type]
    return motion


if __name__ == "__main__":
    main()
