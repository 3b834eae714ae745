"""ICGAN's published files into the folded tensors of `BigGan`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from s2v_cli.errors import WeightsError
from s2v_cli.generators.biggan import (
    CHANNELS,
    PUBLISHED,
    START,
    BigGan,
    attention_side,
    up_kind,
)
from s2v_cli.space import SWAV_SPACE
from s2v_cli.weights.checkpoint import (
    extract_members,
    read_checkpoint,
    require_keys,
    sniff,
    strip_prefix,
)

SPECTRAL_EPSILON = 1e-6
NORM_EPSILON = 1e-5
COPIES = ("best0", "best1")
WHAT = "ICGAN's BigGAN generator"


def convert(files: Mapping[str, Path]) -> dict[str, Tensor]:
    """Tensors of `BigGan` from the published archive, or from the files that lay in it.

    Of the two copies in the archive that with the lower `best_FID` is taken, as published.

    Args:
        files: one tar archive; or one `G_ema_*.pth`; or `state_dict_best*.pth` with their
            `G_ema_best*.pth`. Folders' names do not count.

    Raises:
        WeightsError: they are not such files.
    """
    paths = list(files.values())
    if len(paths) == 1 and sniff(paths[0]) == "archive":
        with tempfile.TemporaryDirectory(dir=paths[0].parent, prefix=".icgan-") as folder:
            members = extract_members(paths[0], _wanted, Path(folder))
            return fold(_generator(members, paths[0].name), paths[0].name)
    what = ", ".join(path.name for path in paths)
    return fold(_generator(paths, what), what)


def convert_128(files: Mapping[str, Path]) -> dict[str, Tensor]:
    """`convert` of the generator for 128 px alone, of any width.

    Raises:
        WeightsError: the files are not that generator's.
    """
    return _of_resolution(convert(files), files, 128)


def convert_256(files: Mapping[str, Path]) -> dict[str, Tensor]:
    """`convert` of the generator for 256 px alone, of any width.

    Raises:
        WeightsError: the files are not that generator's.
    """
    return _of_resolution(convert(files), files, 256)


def _of_resolution(
    tensors: dict[str, Tensor], files: Mapping[str, Path], resolution: int
) -> dict[str, Tensor]:
    drawn = BigGan.like(tensors).resolution
    if drawn != resolution:
        names = ", ".join(path.name for path in files.values())
        raise WeightsError(
            f"This is not {WHAT} of {resolution} px ({names}): it draws {drawn} px. "
            f"Give icgan_biggan_imagenet_res{resolution}.tar.gz."
        )
    return tensors


def _wanted(name: str) -> bool:
    wanted = [f"{kind}_{copy}.pth" for kind in ("state_dict", "G_ema") for copy in COPIES]
    return name.rpartition("/")[2] in wanted


def _generator(paths: list[Path], what: str) -> dict[str, Tensor]:
    """State dict of the better generator among files."""
    named = {path.name: path for path in paths}
    if len(paths) == 1 and not paths[0].name.startswith("state_dict"):
        return _state_dict(paths[0])
    scores = {}
    for copy in COPIES:
        run, weights = named.get(f"state_dict_{copy}.pth"), named.get(f"G_ema_{copy}.pth")
        if run is not None and weights is not None:
            scores[weights] = _best_fid(run)
    if not scores:
        raise WeightsError(
            f"This is not ICGAN's generator: {what} has no pair of state_dict_best0.pth and "
            "G_ema_best0.pth (or best1). Give the published archive."
        )
    return _state_dict(min(scores, key=lambda path: scores[path]))


def _state_dict(path: Path) -> dict[str, Tensor]:
    state = read_checkpoint(path)
    if not isinstance(state, Mapping):
        raise WeightsError(f"This is not {WHAT} ({path.name}): it holds no tensors by name.")
    return strip_prefix(state, "module.")


def _best_fid(path: Path) -> float:
    """`best_FID` of a run; beside it lies a configuration with modules and numpy numbers."""
    run = read_checkpoint(path, allowed=_configuration_types())
    try:
        return float(run["best_FID"])
    except (KeyError, TypeError, ValueError):
        raise WeightsError(f"{path.name} has no number 'best_FID'; give ICGAN's own.") from None


def _configuration_types() -> list[Any]:
    """All that the pickled configuration may hold beside plain Python."""
    import numpy as np
    from numpy._core.multiarray import scalar

    return [
        torch.nn.ReLU,
        np.dtype,
        (scalar, "numpy.core.multiarray.scalar"),  # its name before numpy 2
        (scalar, "numpy._core.multiarray.scalar"),
        *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")),
    ]


def published_shapes(
    resolution: int, width: int, chunk: int, features: int
) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor of the published generator that the pictures depend on."""
    channels = [width * times for times in CHANNELS[resolution]]
    condition = features + chunk
    shapes: dict[str, tuple[int, ...]] = {}

    def normed(name: str, *shape: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = shape
        shapes[f"{name}.u0"] = (1, shape[0])
        if bias:
            shapes[f"{name}.bias"] = shape[:1]

    def statistics(name: str, size: int) -> None:
        shapes[f"{name}.stored_mean"] = shapes[f"{name}.stored_var"] = (size,)

    normed("shared_feat", features, SWAV_SPACE.dimension)
    normed("linear", START * START * channels[0], chunk)
    for index, (inputs, outputs) in enumerate(pairwise(channels)):
        block = f"blocks.{index}.0"
        normed(f"{block}.conv1", outputs, inputs, 3, 3)
        normed(f"{block}.conv2", outputs, outputs, 3, 3)
        normed(f"{block}.conv_sc", outputs, inputs, 1, 1)
        for norm, size in (("bn1", inputs), ("bn2", outputs)):
            statistics(f"{block}.{norm}", size)
            for part in ("gain", "bias"):
                normed(f"{block}.{norm}.{part}", size, condition, bias=False)
        if START * 2 ** (index + 1) == attention_side(resolution):
            block = f"blocks.{index}.1"
            for part, size in (("theta", outputs // 8), ("phi", outputs // 8), ("g", outputs // 2)):
                normed(f"{block}.{part}", size, outputs, 1, 1, bias=False)
            normed(f"{block}.o", outputs, outputs // 2, 1, 1, bias=False)
            shapes[f"{block}.gamma"] = ()
    statistics("output_layer.0", width)
    shapes["output_layer.0.gain"] = shapes["output_layer.0.bias"] = (width,)
    normed("output_layer.2", 3, width, 3, 3)
    return shapes


def fold(published: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """The published generator's state dict, folded into that of `BigGan`.

    Raises:
        WeightsError: keys or shapes are not those of such a generator.
    """
    state = {
        key: tensor
        for key, tensor in published.items()
        if key != "shared.weight" and not key.endswith(".sv0")
    }
    blocks = sum(1 for key in state if key.endswith(".0.conv1.weight"))
    resolution = START * 2**blocks
    if resolution not in PUBLISHED:
        raise WeightsError(
            f"This is not {WHAT} ({what}): it has {blocks} blocks of a BigGAN; needed: 5 or 6, of "
            "the archives for 128 and 256 px."
        )
    try:
        width = state["output_layer.2.weight"].shape[1]
        chunk, features = state["linear.weight"].shape[1], len(state["shared_feat.weight"])
    except (KeyError, IndexError, AttributeError) as error:
        raise WeightsError(f"This is not {WHAT} ({what}): {error} is not as published.") from None
    shapes = published_shapes(resolution, width, chunk, features)
    require_keys(state, shapes, f"{WHAT} ({what})")
    with torch.no_grad():
        return dict(_Folding({key: tensor.float() for key, tensor in state.items()}).tensors())


def fold_trained(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As `fold`, of a generator trained here: the spectral norms are within its weights already.

    Args:
        state: tensors under the published names, without the vectors `u0`, of any resolution.
    """
    with torch.no_grad():
        return dict(_Folding({key: tensor.float() for key, tensor in state.items()}).tensors())


class _Folding:
    """One conversion."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = state
        self.blocks = sum(1 for key in state if key.endswith(".0.conv1.weight"))

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Tensors of `BigGan`, in the order of its state dict."""
        yield "embed.weight", self._weight("shared_feat")
        yield "embed.bias", self.state["shared_feat.bias"].clone()
        # The first map is [H, W, C] here.
        weight = self._weight("linear").unflatten(0, (-1, START * START))
        yield "start.weight", weight.transpose(0, 1).flatten(0, 1).contiguous()
        bias = self.state["linear.bias"].unflatten(0, (-1, START * START))
        yield "start.bias", bias.T.flatten().contiguous()
        for index in range(self.blocks):
            for name, tensor in self._block(index):
                yield f"blocks.{index}.{name}", tensor
        for index in range(self.blocks):
            if f"blocks.{index}.1.gamma" in self.state:
                for name, tensor in self._attention(f"blocks.{index}.1"):
                    yield f"attention.{index}.{name}", tensor
        yield "out.weight", _channels_last(self._weight("output_layer.2"))
        yield "out.bias", self.state["output_layer.2.bias"].clone()

    def _weight(self, name: str) -> Tensor:
        """Weights over their largest singular value, as one step from the stored vector tells it.

        The published code does this step in each call, in evaluation mode too, and keeps nothing.
        Weights without such a vector are as they are used.
        """
        weight = self.state[f"{name}.weight"]
        if f"{name}.u0" not in self.state:
            return weight.clone()
        matrix = weight.flatten(1)
        right = F.normalize(self.state[f"{name}.u0"] @ matrix, eps=SPECTRAL_EPSILON)
        image = right @ matrix.T
        left = F.normalize(image, eps=SPECTRAL_EPSILON)
        return weight / (image @ left.T).squeeze()

    def _block(self, index: int) -> Iterator[tuple[str, Tensor]]:
        block = f"blocks.{index}.0"
        yield from self._norm(f"{block}.bn1", "norm1")
        up = self._weight(f"{block}.conv1")
        yield "up.weight", doubling_weight(up, up_kind(START * 2**index))
        yield "up.bias", self.state[f"{block}.conv1.bias"].clone()
        yield from self._norm(f"{block}.bn2", "norm2")
        conv, shortcut = self._weight(f"{block}.conv2"), self._weight(f"{block}.conv_sc")
        bias = self.state[f"{block}.conv2.bias"] + self.state[f"{block}.conv_sc.bias"]
        if index == self.blocks - 1:  # the last batch norm, before the output's rectifier
            scale, mean = self._scale("output_layer.0"), self.state["output_layer.0.stored_mean"]
            scale = scale * self.state["output_layer.0.gain"]
            conv, shortcut = (
                conv * scale[:, None, None, None],
                shortcut * scale[:, None, None, None],
            )
            bias = (bias - mean) * scale + self.state["output_layer.0.bias"]
        yield "conv.weight", _channels_last(conv)
        yield "conv.bias", bias
        yield "shortcut.weight", shortcut.flatten(1)

    def _norm(self, published: str, name: str) -> Iterator[tuple[str, Tensor]]:
        """((x - mean) / deviation) (1 + gain) + bias as one scale and one shift of x."""
        scale, mean = self._scale(published), self.state[f"{published}.stored_mean"]
        gain = self._weight(f"{published}.gain") * scale[:, None]
        shift = self._weight(f"{published}.bias") - gain * mean[:, None]
        yield f"{name}.weight", torch.cat([gain, shift])
        yield f"{name}.bias", torch.cat([scale, -scale * mean])

    def _scale(self, published: str) -> Tensor:
        return torch.rsqrt(self.state[f"{published}.stored_var"] + NORM_EPSILON)

    def _attention(self, block: str) -> Iterator[tuple[str, Tensor]]:
        yield "query.weight", self._weight(f"{block}.theta").flatten(1)
        key_value = [self._weight(f"{block}.{part}").flatten(1) for part in ("phi", "g")]
        yield "key_value.weight", torch.cat(key_value)
        out = self._weight(f"{block}.o").flatten(1) * self.state[f"{block}.gamma"]
        yield "out.weight", out


def _channels_last(weight: Tensor) -> Tensor:
    """[O, I, 3, 3] -> [O, 9, I]."""
    return weight.flatten(2).mT.contiguous()


def doubling_weight(weight: Tensor, kind: str) -> Tensor:
    """A 3x3 kernel [O, I, 3, 3] that follows a doubling, as `UpConvolution` stores it.

    Of three rows of doubled pixels two are the same input row: the upper two for odd rows of the
    output, the lower two for even ones; columns alike.
    """
    if kind == "plain":
        return _channels_last(weight)
    even = weight.new_tensor([[1.0, 0, 0], [0, 1, 1]])
    odd = weight.new_tensor([[1.0, 1, 0], [0, 0, 1]])
    sums = torch.stack([even, odd])  # [position, tap, 3]
    if kind == "matrix":
        parts = torch.einsum("oiyx,pay,qbx->pqoabi", weight, sums, sums)
        return parts.flatten(3).flatten(0, 1).contiguous()
    # Row t of the transposed kernel adds to output row 2i + t - 1: odd rows of the kernel are
    # even rows of the output, and the first tap comes from the earlier input row.
    rows = torch.stack([odd[1], even[1], odd[0], even[0]])
    return torch.einsum("oiyx,ty,ux->ituo", weight, rows, rows).flatten(1, 2).contiguous()
