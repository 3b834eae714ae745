"""Inception V3 in two forms: what FID, KID and Inception Score look through (§4.1).

Both have the published tensor names (`Conv2d_1a_3x3.conv.weight`, ...):

- the classifier (Szegedy et al., 2016) as torchvision builds it, which is what the published
  evaluation trained on VGGSound;
- the network of 2015 that FID is defined by (Heusel et al., 2017; pytorch-fid): its average pools
  leave padding out of the count, the last block takes maxima instead, and there are 1008 classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2v_cli.encoders.resnet import network_tensors, read_state
from s2v_cli.encoders.swav import IMAGENET_DEVIATION, IMAGENET_MEAN
from s2v_cli.errors import WeightsError
from s2v_cli.weights.checkpoint import strip_prefix

SEEN = 299  # px, side that the network sees
FEATURES = 2048  # numbers of the last average pool
FID_CLASSES = 1008  # of the network of 2015: ImageNet's thousand and eight unused
IMAGENET_CLASSES = 1000

Pool = Literal["padded", "inner", "maximum"]


class ConvNorm(nn.Module):
    """Convolution, norm and rectifier."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C', H', W'] of x [B, C, H, W]."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


def pool(x: Tensor, kind: Pool) -> Tensor:
    """A 3x3 pool of stride 1 that keeps the size of x [B, C, H, W].

    Args:
        x: a map.
        kind: `padded` averages zeros at the border in, `inner` leaves them out of the count,
            `maximum` takes the largest.
    """
    if kind == "maximum":
        return F.max_pool2d(x, 3, 1, 1)
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=kind == "padded")


class BlockA(nn.Module):
    """35x35: 1x1, 5x5, two 3x3, pool (Szegedy et al., Fig. 5)."""

    def __init__(self, inputs: int, pooled: int, kind: Pool) -> None:
        super().__init__()
        self.kind = kind
        self.branch1x1 = ConvNorm(inputs, 64)
        self.branch5x5_1 = ConvNorm(inputs, 48)
        self.branch5x5_2 = ConvNorm(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = ConvNorm(inputs, 64)
        self.branch3x3dbl_2 = ConvNorm(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3, padding=1)
        self.branch_pool = ConvNorm(inputs, pooled)

    def forward(self, x: Tensor) -> Tensor:
        """Return the branches' outputs side by side."""
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        parts = [
            self.branch1x1(x),
            self.branch5x5_2(self.branch5x5_1(x)),
            self.branch3x3dbl_3(double),
            self.branch_pool(pool(x, self.kind)),
        ]
        return torch.cat(parts, dim=1)


class BlockB(nn.Module):
    """35x35 to 17x17 (Fig. 10)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = ConvNorm(inputs, 384, 3, 2)
        self.branch3x3dbl_1 = ConvNorm(inputs, 64)
        self.branch3x3dbl_2 = ConvNorm(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the branches' outputs and the pooled input side by side."""
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        parts = [self.branch3x3(x), self.branch3x3dbl_3(double), F.max_pool2d(x, 3, 2)]
        return torch.cat(parts, dim=1)


class BlockC(nn.Module):
    """17x17 with 7x7 convolutions in two halves (Fig. 6)."""

    def __init__(self, inputs: int, inner: int, kind: Pool) -> None:
        super().__init__()
        self.kind = kind
        wide: tuple[int, int] = (1, 7)
        tall: tuple[int, int] = (7, 1)
        self.branch1x1 = ConvNorm(inputs, 192)
        self.branch7x7_1 = ConvNorm(inputs, inner)
        self.branch7x7_2 = ConvNorm(inner, inner, wide, padding=(0, 3))
        self.branch7x7_3 = ConvNorm(inner, 192, tall, padding=(3, 0))
        self.branch7x7dbl_1 = ConvNorm(inputs, inner)
        self.branch7x7dbl_2 = ConvNorm(inner, inner, tall, padding=(3, 0))
        self.branch7x7dbl_3 = ConvNorm(inner, inner, wide, padding=(0, 3))
        self.branch7x7dbl_4 = ConvNorm(inner, inner, tall, padding=(3, 0))
        self.branch7x7dbl_5 = ConvNorm(inner, 192, wide, padding=(0, 3))
        self.branch_pool = ConvNorm(inputs, 192)

    def forward(self, x: Tensor) -> Tensor:
        """Return the branches' outputs side by side."""
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        parts = [
            self.branch1x1(x),
            self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
            self.branch7x7dbl_5(self.branch7x7dbl_4(double)),
            self.branch_pool(pool(x, self.kind)),
        ]
        return torch.cat(parts, dim=1)


class BlockD(nn.Module):
    """17x17 to 8x8."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1 = ConvNorm(inputs, 192)
        self.branch3x3_2 = ConvNorm(192, 320, 3, 2)
        self.branch7x7x3_1 = ConvNorm(inputs, 192)
        self.branch7x7x3_2 = ConvNorm(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = ConvNorm(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = ConvNorm(192, 192, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the branches' outputs and the pooled input side by side."""
        long = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        parts = [
            self.branch3x3_2(self.branch3x3_1(x)),
            self.branch7x7x3_4(long),
            F.max_pool2d(x, 3, 2),
        ]
        return torch.cat(parts, dim=1)


class BlockE(nn.Module):
    """8x8 with 3x3 convolutions whose halves lie side by side (Fig. 7)."""

    def __init__(self, inputs: int, kind: Pool) -> None:
        super().__init__()
        self.kind = kind
        self.branch1x1 = ConvNorm(inputs, 320)
        self.branch3x3_1 = ConvNorm(inputs, 384)
        self.branch3x3_2a = ConvNorm(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = ConvNorm(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = ConvNorm(inputs, 448)
        self.branch3x3dbl_2 = ConvNorm(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = ConvNorm(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = ConvNorm(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = ConvNorm(inputs, 192)

    def forward(self, x: Tensor) -> Tensor:
        """Return the branches' outputs side by side."""
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        parts = [
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(pool(x, self.kind)),
        ]
        return torch.cat(parts, dim=1)


class InceptionV3(nn.Module):
    """Image [B, 3, H, W] in [-1, 1] -> features [B, 2048] and logits [B, classes].

    Attributes:
        standardised: whether pixels are shifted and scaled by ImageNet's statistics, as
            torchvision's classifiers take them, rather than used in [-1, 1].
    """

    def __init__(self, classes: int, *, fid: bool) -> None:
        super().__init__()
        self.standardised = not fid
        kind: Pool = "inner" if fid else "padded"
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, 3)
        self.Mixed_5b = BlockA(192, 32, kind)
        self.Mixed_5c = BlockA(256, 64, kind)
        self.Mixed_5d = BlockA(288, 64, kind)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b = BlockC(768, 128, kind)
        self.Mixed_6c = BlockC(768, 160, kind)
        self.Mixed_6d = BlockC(768, 160, kind)
        self.Mixed_6e = BlockC(768, 192, kind)
        self.Mixed_7a = BlockD(768)
        self.Mixed_7b = BlockE(1280, kind)
        self.Mixed_7c = BlockE(2048, "maximum" if fid else kind)
        self.fc = nn.Linear(FEATURES, classes)

    @classmethod
    def like(cls, tensors: Mapping[str, Tensor], *, fid: bool) -> Self:
        """A network, without weights, of as many classes as `tensors` have.

        Raises:
            KeyError: the tensors are not of such a network.
        """
        with torch.device("meta"):
            return cls(len(tensors["fc.weight"]), fid=fid)

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], *, fid: bool) -> Self:
        """A network with these weights, on the CPU, in eval mode, without gradients."""
        network = cls.like(tensors, fid=fid)
        network.load_state_dict(dict(tensors), assign=True)
        return network.eval().requires_grad_(False)

    def view(self, image: Tensor) -> Tensor:
        """What the network sees of image [B, 3, H, W] in [-1, 1]: [B, 3, 299, 299].

        Bilinear, as pytorch-fid does it; pictures that are larger are smoothed before, which
        pytorch-fid leaves out (its aliasing changes FID; Parmar et al., 2022).
        """
        size = (SEEN, SEEN)
        seen = F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)
        if not self.standardised:
            return seen
        mean, deviation = (
            image.new_tensor(row)[:, None, None] for row in (IMAGENET_MEAN, IMAGENET_DEVIATION)
        )
        return (seen * 0.5 + 0.5 - mean) / deviation

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, 2048] and logits [B, classes] of image [B, 3, H, W] in [-1, 1]."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(self.view(image))))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, 2))))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        x = self.Mixed_7a(self.Mixed_6e(self.Mixed_6d(x)))
        features = self.Mixed_7c(self.Mixed_7b(x)).mean(dim=(2, 3))
        return features, self.fc(features)


def convert_fid(files: Mapping[str, Path]) -> dict[str, Tensor]:
    """Tensors of `InceptionV3` from pytorch-fid's file `pt_inception-2015-12-05-6726825d.pth`.

    Raises:
        WeightsError: the file is not that checkpoint.
    """
    (path,) = files.values()
    what = f"the Inception network of FID ({path.name})"
    tensors = _converted(path, what, fid=True)
    classes = len(tensors["fc.weight"])
    if classes != FID_CLASSES:
        raise WeightsError(f"This is not {what}: it has {classes} classes; needed: {FID_CLASSES}.")
    return tensors


def convert_vggsound(files: Mapping[str, Path]) -> dict[str, Tensor]:
    """Tensors of `InceptionV3` from the published Inception that was trained on VGGSound.

    The file itself was not at hand when this was written: that it is torchvision's Inception V3 is
    what its publishers say of it. The auxiliary classifier, which only training needs, is left
    out; any number of classes is taken but ImageNet's.

    Raises:
        WeightsError: the file is no Inception V3, or one of ImageNet.
    """
    (path,) = files.values()
    what = f"the Inception network of VGGSound ({path.name})"
    tensors = _converted(path, what, fid=False)
    classes = len(tensors["fc.weight"])
    if classes in (IMAGENET_CLASSES, FID_CLASSES):
        raise WeightsError(f"This is not {what}: its {classes} classes are those of ImageNet.")
    return tensors


def _converted(path: Path, what: str, *, fid: bool) -> dict[str, Tensor]:
    """The state of an Inception V3 in float32, without its auxiliary classifier."""
    state = read_state(path, what)
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state.get(key), Mapping):
            state = state[key]
    plain = {
        key: value
        for key, value in strip_prefix(strip_prefix(state, "module."), "model.").items()
        if not key.startswith("AuxLogits.")
    }
    return network_tensors(plain, partial(InceptionV3.like, fid=fid), what)
