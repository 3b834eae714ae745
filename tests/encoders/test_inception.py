"""Inception V3: the published names and sizes, and values that can be worked out by hand.

No published file was at hand; small files of the published layout stand in for them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from s2v_cli.encoders.inception import (
    FID_CLASSES,
    InceptionV3,
    convert_fid,
    convert_vggsound,
    pool,
)
from s2v_cli.errors import WeightsError
from s2v_cli.weights.adopt import recognise


def shapes(classes: int, *, fid: bool) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        network = InceptionV3(classes, fid=fid)
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


def write_inception(
    path: Path, classes: int, *, aux: bool = False, prefix: str = "", nested: str = ""
) -> Path:
    """A file of the published layout; each tensor is one number, repeated, so it is small."""
    state: dict[str, Tensor] = {}
    for number, (key, shape) in enumerate(shapes(classes, fid=True).items()):
        if not key.endswith("num_batches_tracked"):
            state[prefix + key] = torch.tensor(1e-3 * number).expand(shape)
    if aux:
        state[f"{prefix}AuxLogits.conv0.conv.weight"] = torch.zeros(1).expand(128, 768, 1, 1)
        state[f"{prefix}AuxLogits.fc.weight"] = torch.zeros(1).expand(classes, 768)
    torch.save({nested: state, "epoch": 3} if nested else state, path)
    return path


def averaging(fid: bool) -> InceptionV3:
    """A network whose every convolution is the mean of the channels at its middle."""
    network = InceptionV3(FID_CLASSES if fid else 7, fid=fid).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            _, inputs, rows, columns = module.weight.shape
            module.weight.zero_()
            module.weight[:, :, rows // 2, columns // 2] = 1 / inputs
        elif isinstance(module, torch.nn.BatchNorm2d) and module.running_var is not None:
            module.running_var.fill_(1 - module.eps)
    return network


def test_size_and_names_are_the_published_ones() -> None:
    """23,834,568 numbers and 94 convolutions, as torchvision counts them without its side arm."""
    with torch.device("meta"):
        network = InceptionV3(1000, fid=False)
    assert sum(parameter.numel() for parameter in network.parameters()) == 23_834_568
    found = shapes(1000, fid=False)
    assert sum(key.endswith(".conv.weight") for key in found) == 94
    assert found["Conv2d_1a_3x3.conv.weight"] == (32, 3, 3, 3)
    assert found["Mixed_5b.branch5x5_2.conv.weight"] == (64, 48, 5, 5)
    assert found["Mixed_6a.branch3x3.conv.weight"] == (384, 288, 3, 3)
    assert found["Mixed_6b.branch7x7dbl_2.conv.weight"] == (128, 128, 7, 1)
    assert found["Mixed_7a.branch7x7x3_4.bn.running_var"] == (192,)
    assert found["Mixed_7c.branch3x3dbl_3b.conv.weight"] == (384, 384, 3, 1)
    assert found["fc.weight"] == (1000, 2048)


def test_the_pools_treat_the_border_in_three_ways() -> None:
    ones = torch.ones(1, 1, 4, 4)
    padded = pool(ones, "padded")[0, 0]
    assert padded[0, 0] == pytest.approx(4 / 9) and padded[0, 1] == pytest.approx(6 / 9)
    assert padded[1, 1] == pytest.approx(1)
    assert torch.equal(pool(ones, "inner"), ones)
    peak = torch.zeros(1, 1, 4, 4)
    peak[..., 1, 1] = 1
    assert int(pool(peak, "maximum").sum()) == 9


def test_a_constant_picture_stays_constant_through_the_network_of_fid() -> None:
    """Of averages over inner pixels nothing is lost at the borders; zero padding loses some."""
    image = torch.full((2, 3, 40, 60), 0.25)
    features, logits = averaging(fid=True)(image)
    assert features.shape == (2, 2048) and logits.shape == (2, FID_CLASSES)
    assert torch.allclose(features, torch.tensor(0.25), atol=1e-5)
    padded = averaging(fid=False)
    padded.standardised = False
    lost, _ = padded(image)
    assert bool((lost < 0.2499).any()) and bool((lost > 0.1).all())


def test_what_the_networks_see() -> None:
    """FID's takes [-1, 1]; torchvision's classifiers take ImageNet's statistics."""
    image = torch.rand(1, 3, 100, 80) * 2 - 1
    plain = InceptionV3(3, fid=True).view(image)
    assert plain.shape == (1, 3, 299, 299)
    whole = torch.nn.functional.interpolate(image, (299, 299), mode="bilinear")
    assert torch.allclose(plain, whole, atol=1e-5)  # of small pictures as pytorch-fid does it
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    grey = InceptionV3(3, fid=False).view((2 * mean - 1)[None, :, None, None].expand(1, 3, 9, 9))
    assert torch.allclose(grey, torch.zeros(()), atol=1e-5)
    white = InceptionV3(3, fid=False).view(torch.ones(1, 3, 9, 9))[0, :, 0, 0]
    assert torch.allclose(white, (1 - mean) / deviation, atol=1e-4)


def test_large_pictures_are_smoothed_before_they_shrink() -> None:
    """Of stripes one pixel wide at four times the size nothing may be left but grey."""
    stripes = torch.ones(1, 3, 1196, 1196)
    stripes[..., ::2] = -1
    seen = InceptionV3(3, fid=True).view(stripes)
    assert float(seen[..., 2:-2].abs().max()) < 0.05


@pytest.mark.parametrize(("prefix", "nested"), [("", ""), ("module.", "state_dict"), ("", "model")])
def test_files_are_converted(tmp_path: Path, prefix: str, nested: str) -> None:
    path = write_inception(tmp_path / "x.pth", 50, aux=True, prefix=prefix, nested=nested)
    tensors = convert_vggsound({path.name: path})
    assert not any("AuxLogits" in key for key in tensors)
    network = InceptionV3.load(tensors, fid=False)
    assert network.standardised and network.fc.out_features == 50
    keys = [key for key in shapes(50, fid=True) if not key.endswith("num_batches_tracked")]
    assert float(network.fc.bias[0]) == pytest.approx(
        1e-3 * list(shapes(50, fid=True)).index("fc.bias")
    )
    assert set(keys) <= tensors.keys()


def test_the_file_of_fid_is_converted_and_told_from_the_other(tmp_path: Path) -> None:
    fid = write_inception(tmp_path / "pt_inception-2015-12-05-6726825d.pth", FID_CLASSES)
    other = write_inception(tmp_path / "vggsound.pth", 309, aux=True)
    assert len(convert_fid({fid.name: fid})["fc.weight"]) == FID_CLASSES
    assert [found.asset.name for found in recognise(fid)] == ["inception-fid"]
    assert [found.asset.name for found in recognise(other)] == ["inception-vggsound"]
    with pytest.raises(WeightsError, match=r"it has 309 classes; needed: 1008"):
        convert_fid({other.name: other})
    with pytest.raises(WeightsError, match="its 1008 classes are those of ImageNet"):
        convert_vggsound({fid.name: fid})


def test_other_networks_are_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "a.pth")
    torch.save([1, 2], tmp_path / "b.pth")
    for name in ("a.pth", "b.pth"):
        with pytest.raises(WeightsError, match="This is not the Inception network of VGGSound"):
            convert_vggsound({name: tmp_path / name})
