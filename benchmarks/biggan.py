"""Pictures per second of the folded BigGAN beside the published one, interleaved, on the CPU.

    python -m benchmarks.biggan [PATH] [--resolution 128] [--rounds 7] [--threads 0] [--width 96]

PATH is a checkout of ICGAN's published repository (github.com/facebookresearch/ic_gan). Without
one the opponent is our own unfolded network: the published steps, one by one, in a few lines.
Both get the same random weights and make the same pictures under `torch.no_grad`. The ratio is
the median over the rounds of published time over ours. Budget: at least 1.5 at batch 1 and 8.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from s2v_cli.generators.biggan import CHUNKS, FEATURES, WIDTH, BigGan
from s2v_cli.generators.biggan_weights import fold, published_shapes

BATCHES = (1, 8)
BUDGET = 1.5
Draw = Callable[[Tensor, Tensor], Tensor]


def random_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights in the published layout, scaled so that pictures are neither flat nor saturated."""
    random = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in shapes.items():
        tensor = torch.randn(shape, generator=random)
        if key.endswith("stored_var"):
            tensor = 0.5 + tensor.abs()
        elif key.endswith(".u0"):
            tensor = F.normalize(tensor)
        elif len(shape) < 2:
            tensor = 0.1 * tensor + (1.0 if key.endswith(("gamma", "gain")) else 0.0)
        state[key] = tensor
    return state


class Unfolded:
    """The published network's steps on its own state dict: [B, C, H, W], norms in every call."""

    def __init__(self, state: dict[str, Tensor], chunk: int) -> None:
        self.state, self.chunk = state, chunk

    def weight(self, name: str) -> Tensor:
        weight = self.state[f"{name}.weight"]
        matrix = weight.flatten(1)
        right = F.normalize(self.state[f"{name}.u0"] @ matrix, eps=1e-6)
        left = F.normalize(right @ matrix.T, eps=1e-6)
        return weight / (right @ matrix.T @ left.T).squeeze()

    def convolve(self, name: str, x: Tensor) -> Tensor:
        weight = self.weight(name)
        return F.conv2d(x, weight, self.state.get(f"{name}.bias"), padding=weight.shape[-1] // 2)

    def norm(self, name: str, x: Tensor, condition: Tensor) -> Tensor:
        gain = 1 + F.linear(condition, self.weight(f"{name}.gain"))[:, :, None, None]
        bias = F.linear(condition, self.weight(f"{name}.bias"))[:, :, None, None]
        mean, variance = self.state[f"{name}.stored_mean"], self.state[f"{name}.stored_var"]
        return F.batch_norm(x, mean, variance) * gain + bias

    def attend(self, name: str, x: Tensor) -> Tensor:
        query = self.convolve(f"{name}.theta", x).flatten(2)
        key = F.max_pool2d(self.convolve(f"{name}.phi", x), 2).flatten(2)
        value = F.max_pool2d(self.convolve(f"{name}.g", x), 2).flatten(2)
        seen = value @ (query.mT @ key).softmax(dim=-1).mT
        shape = (len(x), -1, *x.shape[2:])
        return x + self.state[f"{name}.gamma"] * self.convolve(f"{name}.o", seen.view(shape))

    def __call__(self, noise: Tensor, embedding: Tensor) -> Tensor:
        state = self.state
        features = F.linear(embedding, self.weight("shared_feat"), state["shared_feat.bias"])
        first, *chunks = noise.split(self.chunk, dim=1)
        x = F.linear(first, self.weight("linear"), state["linear.bias"]).view(len(noise), -1, 4, 4)
        for index, chunk in enumerate(chunks):
            name, condition = f"blocks.{index}.0", torch.cat([features, chunk], 1)
            y = F.interpolate(F.relu(self.norm(f"{name}.bn1", x, condition)), scale_factor=2)
            y = F.relu(self.norm(f"{name}.bn2", self.convolve(f"{name}.conv1", y), condition))
            short = self.convolve(f"{name}.conv_sc", F.interpolate(x, scale_factor=2))
            x = self.convolve(f"{name}.conv2", y) + short
            if f"blocks.{index}.1.gamma" in state:
                x = self.attend(f"blocks.{index}.1", x)
        last = [
            state[f"output_layer.0.{part}"]
            for part in ("stored_mean", "stored_var", "gain", "bias")
        ]
        return torch.tanh(self.convolve("output_layer.2", F.relu(F.batch_norm(x, *last))))


def published(path: Path, state: dict[str, Tensor], resolution: int, width: int) -> Draw:
    """The generator of a checkout of the published repository, with our weights in it."""
    if not (path / "BigGAN_PyTorch" / "BigGAN.py").is_file():
        raise SystemExit(f"{path} has no BigGAN_PyTorch/BigGAN.py: give a checkout of ic_gan.")
    sys.path.insert(0, str(path))
    from BigGAN_PyTorch.BigGAN import Generator

    generator = Generator(
        G_ch=width, dim_z=120, resolution=resolution, G_attn="64", hier=True, G_shared=True,
        shared_dim=128, shared_dim_feat=FEATURES, class_cond=False, instance_cond=True,
        G_shared_feat=True, SN_eps=1e-6, BN_eps=1e-5, skip_init=True, no_optim=True,
        G_activation=torch.nn.ReLU(),
    )  # fmt: skip
    left = generator.load_state_dict(state, strict=False)
    unused = [key for key in left.missing_keys if key != "shared.weight" and ".sv0" not in key]
    if unused or left.unexpected_keys:
        raise SystemExit(f"The published generator has other keys: {unused, left}")
    generator.eval()
    return lambda noise, embedding: generator(noise, None, embedding)  # type: ignore[no-any-return]


def seconds(draw: Draw, noise: Tensor, embedding: Tensor) -> tuple[float, Tensor]:
    start = time.perf_counter()
    image = draw(noise, embedding)
    return time.perf_counter() - start, image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, nargs="?", help="checkout of the published repository")
    parser.add_argument("--resolution", type=int, default=128, choices=sorted(CHUNKS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--width", type=int, default=WIDTH)
    given = parser.parse_args()
    torch.set_num_threads(given.threads or torch.get_num_threads())
    chunk = CHUNKS[given.resolution]
    state = random_state(published_shapes(given.resolution, given.width, chunk, FEATURES))
    folded = fold(state, "random weights")
    ours = BigGan.like(folded)
    ours.load_state_dict(folded, assign=True)
    ours.eval()
    theirs: Draw = Unfolded(state, chunk)
    name = "our unfolded network"
    if given.path is not None:
        theirs = published(given.path, state, given.resolution, given.width)
        name = "published generator"
    random = torch.Generator().manual_seed(1)
    print(f"{given.resolution} px, {torch.get_num_threads()} threads, {given.rounds} rounds")
    for batch in BATCHES:
        noise = torch.randn(batch, ours.noise_size, generator=random)
        embedding = F.normalize(torch.rand(batch, ours.space.dimension, generator=random), dim=1)
        rounds = []
        with torch.no_grad():
            for number in range(given.rounds + 1):
                pair = [seconds(draw, noise, embedding) for draw in (theirs, ours)]
                if number:  # the first round warms up
                    rounds.append((pair[0][0], pair[1][0]))
        error = (pair[0][1] - pair[1][1]).abs().max()
        for label, side in ((name, 0), ("folded (ours)", 1)):
            took = statistics.median(times[side] for times in rounds)
            print(f"batch {batch}  {label:<22}{batch / took:8.2f} pictures/s")
        ratio = statistics.median(old / new for old, new in rounds)
        print(f"batch {batch}  ratio {ratio:.2f} (budget {BUDGET}); largest difference {error:.1e}")


if __name__ == "__main__":
    main()
