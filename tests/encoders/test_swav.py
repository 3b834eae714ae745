"""SwAV's ResNet-50: equal to its vector, from a file in the published format."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from s2v_cli.encoders import ImageEncoder
from s2v_cli.encoders.swav import SwavResNet50, convert
from s2v_cli.errors import WeightsError
from s2v_cli.space import SWAV_SPACE
from tests.published import rule_state, swav_shapes, write_sound2scene_pth, write_swav

REFERENCE = Path(__file__).parent.parent / "fixtures" / "reference"


def loaded(tensors: dict[str, torch.Tensor]) -> SwavResNet50:
    encoder = SwavResNet50.like(tensors)
    encoder.load_state_dict(tensors, strict=True, assign=True)
    return encoder.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> SwavResNet50:
    path = write_swav(tmp_path_factory.mktemp("swav") / "swav_800ep_pretrain.pth.tar")
    return loaded(convert({path.name: path}))


def test_equals_the_reference(tmp_path: Path) -> None:
    path = write_swav(tmp_path / "swav_800ep_pretrain.pth.tar", 64)
    encoder = loaded(convert({path.name: path}))
    with np.load(REFERENCE / "swav_resnet50.npz") as stored:
        expected = torch.from_numpy(stored["embedding"])
    expected = expected / expected.norm()
    image = encoder.prepare(Image.open(REFERENCE / "probe.png"))
    embedding = encoder(image[None])[0]
    assert (embedding - expected).norm() / expected.norm() < 1e-4


def test_the_small_file_has_the_published_keys() -> None:
    published = json.loads((REFERENCE / "swav_resnet50.keys.json").read_text())
    shapes = {key: tuple(shape) for key, (shape, _) in published.items()}
    assert {key: shape for key, shape in shapes.items() if not key.startswith("fc.")} == (
        swav_shapes()
    )


def test_a_picture_is_squashed_not_cropped(narrow: SwavResNet50) -> None:
    pixels = np.zeros((30, 90, 3), dtype=np.uint8)
    pixels[:, :30, 0] = pixels[:, 60:, 2] = 255  # red at the left, blue at the right
    image = narrow.prepare(Image.fromarray(pixels))
    assert image.shape == (3, 256, 256) and image.dtype == torch.float32
    assert torch.equal(image[:, 128, 10], torch.tensor([1.0, -1, -1]))
    assert torch.equal(image[:, 128, 128], torch.tensor([-1.0, -1, -1]))
    assert torch.equal(image[:, 128, 245], torch.tensor([-1.0, -1, 1]))
    grey = narrow.prepare(Image.fromarray(np.full((5, 5), 255, dtype=np.uint8)))
    assert torch.equal(grey, torch.ones(3, 256, 256))


def test_embeddings_and_maps(narrow: SwavResNet50) -> None:
    assert isinstance(narrow, ImageEncoder) and narrow.space == SWAV_SPACE
    image = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    embedding = narrow(image)
    assert embedding.shape == (2, 2048) and embedding.min() >= 0
    assert torch.allclose(embedding.norm(dim=1), torch.ones(2))
    maps = narrow.features(image)
    assert [tuple(each.shape[2:]) for each in maps] == [(56, 56), (28, 28), (14, 14), (7, 7)]
    assert torch.equal(narrow.embed(maps), embedding)
    assert not torch.allclose(embedding[0], embedding[1], atol=1e-3)


def test_gradients_reach_the_picture(narrow: SwavResNet50) -> None:
    image = torch.zeros(1, 3, 64, 64, requires_grad=True)
    narrow(image)[0, :9].sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0


def refused(state: Any, path: Path) -> str:
    torch.save(state, path)
    with pytest.raises(WeightsError) as raised:
        convert({path.name: path})
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "swav.pth.tar"
    state = rule_state(swav_shapes(4, 16))
    assert "16 numbers" in refused(state, path)
    state = rule_state(swav_shapes(4))
    assert "layer2.1.bn3.bias" in refused(
        {key: value for key, value in state.items() if key != "layer2.1.bn3.bias"}, path
    )
    assert "surplus" in refused({**state, "surplus": torch.zeros(1)}, path)
    assert "conv1.weight" in refused({**state, "conv1.weight": torch.zeros(4, 1, 7, 7)}, path)
    with pytest.raises(WeightsError, match="SwAV"):
        convert({"x": write_sound2scene_pth(tmp_path / "x.pth")})


def test_counters_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "swav.pth.tar"
    state = rule_state(swav_shapes(4))
    torch.save(OrderedDict((k, v) for k, v in state.items() if "num_batches" not in k), path)
    assert loaded(convert({path.name: path}))(torch.zeros(1, 3, 32, 32)).isfinite().all()
