"""Batch norms that see the whole batch though several processes share it."""

from __future__ import annotations

from functools import partial
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gift_cl.evaluation.processes import Processes


class SharedBatchNorms:
    """In this block the batch norms of a network in training mode have the statistics of all processes.

    Their outputs, gradients and running statistics are those of one process with all rows, but for rounding;
    the running statistics are the same bits in all processes. Names of parameters and buffers do not change.
    With one process, the batch norms are left as they are.

    Args:
        model: Its batch norms get another forward pass.
        processes: Whose rows are shared.
    """

    def __init__(self, model: nn.Module, processes: Processes) -> None:
        self.are_shared = True  # else each process sees its own rows, for batches that all of them have
        self._processes = processes
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        self._norms = norms if processes.count > 1 else []

    def __enter__(self) -> SharedBatchNorms:
        for norm in self._norms:
            vars(norm)["forward"] = partial(self._forward, norm)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for norm in self._norms:
            del vars(norm)["forward"]

    def _forward(self, norm: _BatchNorm, inputs: Tensor) -> Tensor:
        if not (self.are_shared and norm.training):
            own: Tensor = type(norm).forward(norm, inputs)
            return own
        pixels = inputs.float()
        mean, variance, num_values = self._statistics(pixels)
        _track(norm, mean, variance * (num_values / (num_values - 1)))
        scale = (variance + norm.eps).rsqrt()
        if norm.affine:
            scale = scale * norm.weight
        shift = -mean * scale
        if norm.affine:
            shift = shift + norm.bias
        shape = (1, -1, *[1] * (inputs.ndim - 2))
        return torch.addcmul(shift.view(shape), pixels, scale.view(shape)).to(inputs.dtype)

    def _statistics(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, biased variance, and number of values, (C,) each, over the rows of all processes."""
        variance, mean = torch.var_mean(pixels, [0, *range(2, pixels.ndim)], correction=0)
        sizes = torch.full_like(mean, pixels.numel() // len(mean))
        own, rank, count = torch.stack([mean, variance, sizes]), self._processes.rank, self._processes.count
        table = F.pad(own[None], (0, 0, 0, 0, rank, count - rank - 1))
        means, variances, sizes = _sum(table, rank, count).unbind(1)
        num_values = sizes.sum(0)
        shares = sizes / num_values
        mean = (shares * means).sum(0)
        return mean, (shares * (variances + (means - mean) ** 2)).sum(0), num_values


@torch.library.custom_op("gift_cl::sum_over_processes", mutates_args=())
def _sum(tensor: Tensor, rank: int, count: int) -> Tensor:
    """The sum over all processes, as one operation of networks that are compiled."""
    return Processes(rank=rank, count=count).sum(tensor.clone(memory_format=torch.contiguous_format))


@_sum.register_fake
def _(tensor: Tensor, rank: int, count: int) -> Tensor:
    del rank, count
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Tensor, int, int], output: Tensor) -> None:
    del output
    ctx.place = inputs[1:]


def _sum_of_gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    return _sum(gradient, *ctx.place), None, None


_sum.register_autograd(_sum_of_gradients, setup_context=_keep)


@torch.no_grad()
def _track(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Update the running statistics as a batch norm does; ``variance`` is the unbiased one."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    rate = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, rate)
    norm.running_var.lerp_(variance, rate)
