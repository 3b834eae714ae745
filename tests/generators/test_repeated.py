"""Drawing the same shape many times: recorded when it pays, plain everywhere else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from s2v_cli.generators.repeated import PLAIN_CALLS, Draw, Repeated


def draw(noise: Tensor, embedding: Tensor) -> Tensor:
    return noise.sum() + embedding.sum() * 2


class Recorder:
    """Counts recordings; what it records is the function itself."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, draw: Draw, noise: Tensor, embedding: Tensor) -> Draw:
        self.shapes.append(tuple(noise.shape))
        return draw


def repeat(repeated: Repeated, times: int, count: int = 2) -> None:
    for number in range(times):
        noise, embedding = torch.full((count, 3), float(number)), torch.ones(count, 4)
        assert torch.equal(repeated(noise, embedding), draw(noise, embedding))


def test_records_each_shape_once_when_it_keeps_coming() -> None:
    recorder = Recorder()
    repeated = Repeated(draw, recorder, "cpu")
    with torch.no_grad():
        repeat(repeated, PLAIN_CALLS)
        assert recorder.shapes == []
        repeat(repeated, 4)
        assert recorder.shapes == [(2, 3)]
        repeat(repeated, PLAIN_CALLS + 2, count=5)
        assert recorder.shapes == [(2, 3), (5, 3)]


def test_weights_that_moved_are_recorded_again() -> None:
    recorder = Recorder()
    repeated = Repeated(draw, recorder, "cpu")
    noise, embedding, weights = torch.ones(1, 3), torch.ones(1, 4), [torch.ones(2), torch.ones(2)]
    with torch.no_grad():
        for weight in weights:
            for _ in range(PLAIN_CALLS + 1):
                repeated(noise, embedding, weight)
    assert len(recorder.shapes) == 2


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_gradients_and_other_devices_stay_plain(device: str) -> None:
    recorder = Recorder()
    repeated = Repeated(draw, recorder, device)
    with torch.set_grad_enabled(device == "cpu"):
        repeat(repeated, PLAIN_CALLS + 2)
    assert recorder.shapes == []


def test_a_failed_recording_goes_on_plainly() -> None:
    tried = []

    def fail(draw: Draw, noise: Tensor, embedding: Tensor) -> Draw:
        tried.append(noise)
        raise RuntimeError("out of memory")

    with torch.no_grad():
        repeat(Repeated(draw, fail, "cpu"), PLAIN_CALLS + 3)
    assert len(tried) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_graph_draws_the_same() -> None:
    weight = torch.randn(3, 4, device="cuda")
    repeated = Repeated(lambda noise, embedding: torch.tanh(noise @ weight + embedding))
    with torch.inference_mode():
        for _ in range(PLAIN_CALLS + 3):
            noise, embedding = torch.randn(2, 3).cuda(), torch.randn(2, 4).cuda()
            expected = torch.tanh(noise @ weight + embedding)
            assert torch.allclose(repeated(noise, embedding), expected, atol=1e-6)
