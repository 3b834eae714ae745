"""Stages compute where they are told to: a step on the `meta` device meets no tensor of the CPU.

Tensors of that device have shapes and no values, and torch refuses to mix devices; so this finds
what a GPU would stumble over, where there is none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from s2v_cli.generators.mini import SHIFT, STEPS
from s2v_cli.generators.mini_flow import LatentFlow
from s2v_cli.training.codec_stage import CodecStage
from s2v_cli.training.dataset import Clip, Photo
from s2v_cli.training.flow_stage import DistilStage, FlowStage, draw_latents
from s2v_cli.training.image_stage import ImageStage
from s2v_cli.training.latents import CropTable
from s2v_cli.training.loop import Stage
from s2v_cli.training.recipe import StageOptions
from s2v_cli.training.sound_stage import SoundStage
from s2v_cli.training.speech_stage import SpeechStage

META = torch.device("meta")
NAMES = ["face_female_adult", "face_male_adult", "fire", "rain"]


def options(**weights: float) -> StageOptions:
    return StageOptions(
        steps=1, batch=8, learning_rate=1e-3, loss_weights=tuple(sorted(weights.items()))
    )


def photos() -> tuple[list[Photo], torch.Tensor]:
    shown = [Photo(NAMES[i % 4], Path(f"{i}.jpg"), str(i), "train") for i in range(12)]
    generator = torch.Generator().manual_seed(0)
    return shown, torch.randint(0, 256, (12, 3, 160, 160), generator=generator, dtype=torch.uint8)


def table() -> CropTable:
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(24, 256, generator=generator)
    return CropTable(
        latent=torch.randn(24, 16, 8, 8, generator=generator).half(),
        embedding=torch.nn.functional.normalize(embedding, dim=1),
        zoom=torch.linspace(1, 1.2, 6).repeat(4),
        group=torch.arange(4).repeat_interleave(6),
        first=torch.arange(0, 24, 6),
        count=torch.full((4,), 6),
        names=NAMES,
    )


def sounds(*names: str) -> tuple[list[Clip], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    clips = [
        Clip(n, None if n == "clock" else n, Path(f"{n}{i}"), f"{n}{i}", "train")
        for n in names
        for i in range(2)
    ]
    return clips, [torch.randn(16_000, generator=generator) for _ in clips]


def image_encoder(device: torch.device) -> Stage:
    return ImageStage("image_encoder", *photos(), options(zoom=0.5), device=device)


def refine(device: torch.device) -> Stage:
    first = ImageStage("image_encoder", *photos(), options(zoom=0.5))
    return ImageStage("refine", *photos(), options(zoom=0.5), first.modules, device)


def polish(device: torch.device) -> Stage:
    def draw(count: int, generator: torch.Generator) -> torch.Tensor:
        return draw_latents(LatentFlow(256).to(device), table(), count, generator)

    teacher = ImageStage("image_encoder", *photos(), options(zoom=0.5)).modules["encoder"]
    weights = options(pixel=1.0, feature=0.3, adversarial=0.05, freeze_encoder=1)
    return CodecStage("polish", *photos(), teacher, None, weights, draw, device)  # type: ignore[arg-type]


def flow(device: torch.device) -> Stage:
    return FlowStage(table(), None, options(), device)


def distil(device: torch.device) -> Stage:
    weights = options(guidance=2.0, substeps=2)
    return DistilStage(LatentFlow(256), table(), weights, STEPS, SHIFT, device)


def sound_encoder(device: torch.device) -> Stage:
    heard = sounds("rain", "fire", "clock")
    return SoundStage(*heard, table(), options(classes=0.5), device=device)


def speech_encoder(device: torch.device) -> Stage:
    clips, waves = sounds("female_adult", "male_adult", "clock")
    return SpeechStage(clips, waves, table(), options(), device=device)


STAGES = [image_encoder, refine, polish, flow, distil, sound_encoder, speech_encoder]


@pytest.mark.parametrize("build", STAGES, ids=lambda build: build.__name__)
def test_a_step_stays_on_its_device(
    build: Callable[[torch.device], Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # has no meta
    torch.manual_seed(0)
    stage = build(META)
    figures = stage.step(0, torch.Generator().manual_seed(0))
    assert next(iter(figures.values())).device == META
    for module in stage.modules.values():
        for name, parameter in module.named_parameters():
            assert parameter.device == META, name


def test_torch_tells_the_devices_apart() -> None:
    """Else the test above could not fail."""
    with pytest.raises(RuntimeError, match="device"):
        torch.ones(2, 3) + torch.ones(2, 3, device=META)
    with pytest.raises(RuntimeError, match="device"):
        torch.nn.Linear(3, 4).to(META)(torch.ones(2, 3))
