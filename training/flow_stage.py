"""Stages `flow` and `distil`: the latent flow, and its few-step student with guidance built in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2v_cli.generators.mini import MiniGenerator, walk
from s2v_cli.generators.mini_flow import LatentFlow, shifted_times
from s2v_cli.training.latents import CropTable, blended_embedding
from s2v_cli.training.precision import CPU, device_of, mixed_precision
from s2v_cli.training.recipe import StageOptions

BRIDGED = 0.25  # share of the conditions that lie between two groups
SPREAD = 0.35  # length of the longest noise vector on a condition, in units of the condition's


def draw_conditions(
    table: CropTable, index: Tensor, generator: torch.Generator, alone: float
) -> Tensor:
    """z [B, D] for each crop of index [B]: near to what a sound of its group may be heard as.

    Its own z^V (a share `alone`) or a blend of 2 to 9; a quarter of them moved towards a blend
    of another group, as far as the odds of that group say, since a sound that could be either
    lies between the two. Gaussian noise then covers the gap between sounds and photos (as in
    LAFITE; Zhou et al., 2022, §3.2).
    """
    own = table.embedding[index]
    members = 2 + int(torch.randint(8, (), generator=generator))
    blend = blended_embedding(table, index, members, generator)
    single = torch.rand(len(index), 1, generator=generator) < alone
    condition = torch.where(single, own, blend)
    group = torch.randint(len(table.names), (len(index),), generator=generator)
    other = table.at_zoom(group, table.zoom[index], generator)
    other_blend = blended_embedding(table, other, members, generator)
    # Of density 2 (1 - share): whoever draws from both groups alike finds, at a share, the crop's
    # own group with the odds 1 - share.
    share = 1 - torch.rand(len(index), 1, generator=generator).sqrt()
    share = share * (torch.rand(len(index), 1, generator=generator) < BRIDGED)
    condition = F.normalize(torch.lerp(condition, other_blend, share), dim=1)
    noise = torch.randn(condition.shape, generator=generator) / condition.shape[1] ** 0.5
    reach = SPREAD * torch.rand(len(index), 1, generator=generator)
    return F.normalize(condition + reach * noise, dim=1)


class FlowStage:
    """Trains a `LatentFlow` on encoded crops by flow matching (Lipman et al., 2023, Eq. 9).

    Args:
        train, validation: the crops.
        options: of the training.
        device: where it computes.
        start: flow to go on from, None for random weights.
    """

    name = "flow"
    averaged: tuple[str, ...] = ("flow",)

    def __init__(
        self,
        train: CropTable,
        validation: CropTable | None,
        options: StageOptions,
        device: torch.device = CPU,
        start: LatentFlow | None = None,
    ) -> None:
        self.options, self.train, self.validation = options, train, validation
        self.device = device
        flow = LatentFlow(train.embedding.shape[1])
        if start is not None:
            flow.load_state_dict(start.state_dict())
        flow.to(device)
        self.modules: dict[str, nn.Module] = {"flow": flow}
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "flow": torch.optim.AdamW(
                flow.parameters(), betas=(0.9, 0.98), weight_decay=options.weight_decay
            )
        }
        self.weights = _group_weights(train)

    def step(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """One batch at random times; a tenth of it without a condition."""
        flow = cast(LatentFlow, self.modules["flow"]).train()
        index = torch.multinomial(self.weights, self.options.batch, True, generator=generator)
        condition = draw_conditions(self.train, index, generator, alone=0.4).to(self.device)
        dropped = torch.rand(len(index), 1, generator=generator) < 0.1
        condition = torch.where(dropped.to(self.device), flow.no_embedding, condition)
        latent = self.train.latent[index].float().to(self.device)
        loss = _flow_loss(flow, latent, condition, generator)
        optimiser = self.optimisers["flow"]
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimiser.step()
        return {"loss": loss.detach()}

    def validate(self, averages: Mapping[str, nn.Module]) -> dict[str, float]:
        """The loss on crops of validation photos, if any, same noise and times each time."""
        if self.validation is None:
            return {}
        generator = torch.Generator().manual_seed(0)
        index = torch.randperm(len(self.validation.zoom), generator=generator)[:1024]
        condition = draw_conditions(self.validation, index, generator, alone=0.4).to(self.device)
        latent = self.validation.latent[index].float().to(self.device)
        flow = cast(LatentFlow, averages["flow"])
        return {"validation_loss": float(_flow_loss(flow, latent, condition, generator))}


class DistilStage:
    """Trains a student that takes `count` Euler steps where the guided teacher takes many more.

    Progressive distillation (Salimans & Ho, 2022) of a classifier-free guided field (Ho &
    Salimans, 2022): at each of its times the student learns the mean velocity of the teacher's
    guided walk to its next time.
    """

    name = "distil"
    averaged: tuple[str, ...] = ("flow",)

    def __init__(
        self,
        teacher: LatentFlow,
        train: CropTable,
        options: StageOptions,
        count: int,
        shift: float,
        device: torch.device = CPU,
    ) -> None:
        self.options, self.train, self.device = options, train, device
        self.teacher = teacher.eval().requires_grad_(False).to(device)
        student = LatentFlow(train.embedding.shape[1]).to(device)
        student.load_state_dict(teacher.state_dict())
        self.modules: dict[str, nn.Module] = {"flow": student}
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "flow": torch.optim.AdamW(
                student.parameters(), betas=(0.9, 0.98), weight_decay=options.weight_decay
            )
        }
        self.times = torch.tensor(shifted_times(count, shift))
        self.weights = _group_weights(train)
        self.guidance = options.weight("guidance")
        self.substeps = int(options.weight("substeps"))

    def step(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """One batch; a quarter of it under a crop's own embedding, the rest under blends."""
        student = cast(LatentFlow, self.modules["flow"]).train()
        index = torch.multinomial(self.weights, self.options.batch, True, generator=generator)
        condition = draw_conditions(self.train, index, generator, alone=0.25)
        loss = self._loss(student, index, condition, generator)
        optimiser = self.optimisers["flow"]
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        return {"loss": loss.detach()}

    def _loss(
        self, student: LatentFlow, index: Tensor, condition: Tensor, generator: torch.Generator
    ) -> Tensor:
        device = self.device
        latent, condition = self.train.latent[index].float().to(device), condition.to(device)
        at = torch.randint(len(self.times) - 1, (len(index),), generator=generator)
        start, end = self.times[at].to(device), self.times[at + 1].to(device)
        noise = torch.randn(latent.shape, generator=generator).to(device)
        mix = start[:, None, None, None]
        x = (1 - mix) * latent + mix * noise
        with torch.no_grad(), mixed_precision(device):
            walked = x
            stride = (end - start) / self.substeps
            for i in range(self.substeps):
                velocity = guided_velocity(
                    self.teacher, walked, start + i * stride, condition, self.guidance
                )
                walked = walked + stride[:, None, None, None] * velocity.float()
            target = (walked - x) / (end - start)[:, None, None, None]
        with mixed_precision(device):
            velocity = student(x, start, condition).float()
        return F.mse_loss(velocity, target)

    def validate(self, averages: Mapping[str, nn.Module]) -> dict[str, float]:
        """The loss with the averaged student, same draws each time."""
        generator = torch.Generator().manual_seed(0)
        index = torch.randperm(len(self.train.zoom), generator=generator)[:256]
        condition = draw_conditions(self.train, index, generator, alone=0.25)
        flow = cast(LatentFlow, averages["flow"])
        return {"kept_loss": float(self._loss(flow, index, condition, generator))}


def draw_latents(
    flow: LatentFlow, table: CropTable, count: int, generator: torch.Generator
) -> Tensor:
    """Latents [count, 16, 8, 8] that a distilled flow draws under conditions as in its training.

    They lie on the flow's device.
    """
    index = torch.multinomial(_group_weights(table), count, True, generator=generator)
    condition = draw_conditions(table, index, generator, alone=0.25)
    noise = torch.randn(count, MiniGenerator.noise_size, generator=generator)
    device = device_of(flow)
    with torch.no_grad():
        return walk(flow, noise.to(device), condition.to(device))


def guided_velocity(
    flow: LatentFlow, latent: Tensor, time: Tensor, condition: Tensor, guidance: float
) -> Tensor:
    """v(no condition) + guidance (v(condition) - v(no condition)), [B, 16, 8, 8]."""
    anything = flow.no_embedding.expand_as(condition)
    both = flow(
        torch.cat([latent, latent]), torch.cat([time, time]), torch.cat([condition, anything])
    )
    conditional, free = both.chunk(2)
    return free + guidance * (conditional - free)  # type: ignore[no-any-return]


def _group_weights(table: CropTable) -> Tensor:
    """Weight of each crop [N]: small groups are drawn more often than their size asks for."""
    return (1 / table.count.float().sqrt())[table.group]


def _flow_loss(
    flow: LatentFlow, latent: Tensor, condition: Tensor, generator: torch.Generator
) -> Tensor:
    """Mean squared error of the velocity at logit-normal times (Esser et al., 2024, §3.1)."""
    device = latent.device
    time = torch.sigmoid(torch.randn(len(latent), generator=generator) + 0.2).to(device)
    noise = torch.randn(latent.shape, generator=generator).to(device)
    mix = time[:, None, None, None]
    with mixed_precision(device):
        velocity = flow((1 - mix) * latent + mix * noise, time, condition).float()
    return F.mse_loss(velocity, noise - latent)
