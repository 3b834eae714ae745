"""One batch on several processes: what each needs to know of the others.

Losses and gradients are those of one process with the whole batch: embeddings are gathered with
their gradients, and batch norm counts all of them. `torch.nn.SyncBatchNorm` does the latter on
CUDA and refuses tensors of the CPU, so there is one of our own for those.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn


def gather_rows(rows: Tensor) -> Tensor:
    """Rows [b, D] of all processes, [B, D], in the order of their ranks, with gradients.

    The gradient of each process's rows is summed over what all processes made of them.
    """
    if not _several():
        return rows
    gathered: Tensor = _GatherRows.apply(rows.contiguous())  # type: ignore[no-untyped-call]
    return gathered


def sum_processes(value: Tensor) -> Tensor:
    """Sum of a tensor over all processes, with gradients."""
    if not _several():
        return value
    summed: Tensor = _SumProcesses.apply(value)  # type: ignore[no-untyped-call]
    return summed


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, rows)
        context.rows = len(rows)
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        summed = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(summed)
        first = distributed.get_rank() * context.rows
        return summed[first : first + context.rows]


class _SumProcesses(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        summed = value.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        summed = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(summed)
        return summed


def _several() -> bool:
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm of [b, C, H, W] over the batches of all processes, on the CPU too.

    Mean and squared deviations are summed over the processes one after the other, so that no
    precision is lost in their difference.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise by the statistics of all processes while training, else by the kept ones."""
        if not self.training or not _several():
            return super().forward(x)
        values = x.float()
        count = torch.tensor(float(x.numel() // x.shape[1]), device=x.device)
        distributed.all_reduce(count)
        mean = sum_processes(values.sum(dim=(0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = sum_processes(centred.square().sum(dim=(0, 2, 3))) / count
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return torch.addcmul(
            self.bias[:, None, None], centred, scale[:, None, None].expand_as(centred)
        ).to(x.dtype)


def synchronise_norms(module: nn.Module, device: torch.device) -> nn.Module:
    """The same network with batch norms that count all processes; weights are shared."""
    if device.type == "cuda":
        synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return synced
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            ours = SyncedBatchNorm2d(child.num_features, child.eps, child.momentum, child.affine)
            ours.load_state_dict(child.state_dict())
            ours.train(child.training)
            setattr(module, name, ours)
        else:
            synchronise_norms(child, device)
    return module


def mean_of_processes(values: Tensor) -> Tensor:
    """Mean of a tensor over the processes, without gradient."""
    values = values.detach().clone()
    if _several():
        distributed.all_reduce(values)
        values /= distributed.get_world_size()
    return values


def of_first_process(value: float, device: torch.device) -> float:
    """What the first process has for a value, so that all decide alike."""
    if not _several():
        return value
    shared = torch.tensor([value], dtype=torch.float64, device=device)
    distributed.broadcast(shared, 0)
    return float(shared)


def lost_others(error: Exception) -> bool:
    """Whether an error only says that another process is gone."""
    if not _several() or not isinstance(error, RuntimeError):
        return False
    kinds = tuple(
        kind
        for name in ("DistError", "DistBackendError", "DistNetworkError")
        if (kind := getattr(distributed, name, None)) is not None
    )
    told = str(error).lower()
    words = ("gloo", "nccl", "connection closed by peer", "connection reset")
    return isinstance(error, kinds) or any(word in told for word in words)
