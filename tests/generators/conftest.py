"""Tiny diffusion models in published folders, written once a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests import tiny_diffusion


@pytest.fixture(scope="session")
def unclip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_diffusion.write_unclip(tmp_path_factory.mktemp("models") / "unclip")


@pytest.fixture(scope="session")
def diffusion_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_diffusion.write_stable_diffusion(tmp_path_factory.mktemp("models") / "sd15")


@pytest.fixture(scope="session")
def adapter_file(diffusion_folder: Path) -> Path:
    file = diffusion_folder.parent / "models/ip-adapter_sd15.safetensors"
    return tiny_diffusion.write_ip_adapter(file, diffusion_folder)


@pytest.fixture(scope="session")
def photo() -> Tensor:
    """Image [1, 3, 32, 32] in [-1, 1] of soft patches."""
    generator = torch.Generator().manual_seed(50)
    patches = torch.rand(1, 3, 4, 4, generator=generator) * 2 - 1
    return torch.nn.functional.interpolate(patches, (32, 32), mode="bilinear")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny convolutions are faster alone, by far where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(before)
