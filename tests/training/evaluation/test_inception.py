"""Which networks take features, and what they see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from s2v_cli.encoders.inception import InceptionV3
from s2v_cli.errors import MissingWeightsError
from s2v_cli.networks import converters
from s2v_cli.training.evaluation.inception import (
    ClassifierFeatures,
    InceptionFeatures,
    at_hand,
)
from s2v_cli.training.judge import Judge
from s2v_cli.weights.adopt import import_weights


def draw(side: int, seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def test_pictures_of_several_sizes_keep_their_order() -> None:
    torch.manual_seed(0)
    network = InceptionV3(5, fid=True).eval().requires_grad_(False)
    looker = InceptionFeatures("imagenet", network, torch.device("cpu"))
    images = [draw(40, 0), draw(40, 1), draw(64, 2), draw(40, 3)]
    features, logits = looker.look(images)
    assert features.shape == (4, looker.dimension) == (4, 2048) and logits.shape == (4, 5)
    alone, _ = looker.look([images[3]])
    assert torch.allclose(features[3], alone[0], atol=1e-4)
    assert looker.told == "Inception V3 of ImageNet (pytorch-fid)"


def test_a_classifier_s_features(classifier: Path) -> None:
    looker = ClassifierFeatures(Judge(["a", "b"]).eval(), "told")
    features, logits = looker.look([draw(96, 0), draw(200, 1)])
    assert features.shape == (2, looker.dimension) == (2, 192) and logits.shape == (2, 2)


def test_the_paper_s_network_is_taken_where_it_was_pulled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S2V_HOME", str(tmp_path / "home"))
    assert at_hand() == "classifier"
    with pytest.raises(MissingWeightsError, match="s2v weights pull inception-vggsound"):
        InceptionFeatures.load("vggsound", device=torch.device("cpu"))
    with torch.device("meta"):
        network = InceptionV3(50, fid=False)
    state = {
        name: torch.full(tensor.shape, 0.01)
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()
    }
    save_file(state, tmp_path / "vggsound.safetensors")
    import_weights([tmp_path / "vggsound.safetensors"], converters(), name="inception-vggsound")
    assert at_hand() == "vggsound"
    found = InceptionFeatures.load("vggsound", device=torch.device("cpu"))
    assert found.kind == "vggsound" and found.look([draw(32, 0)])[1].shape == (1, 50)
