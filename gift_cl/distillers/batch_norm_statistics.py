"""How far what enters the batch norms of a network is from what entered them in training."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class BatchNormStatistics:
    """Compares statistics of a batch with the running ones, at every `BatchNorm2d`.

    Inside a ``with`` block the statistics of each forward pass are kept until the next one; of a layer that
    runs several times, those of the last time. At its end the hooks are gone, and the network is as before.

    Args:
        model: Frozen, in evaluation mode.
        example: Network inputs (N, C, H, W), run once to see which layers take part.
        first: Weight of the distance of the first layer; that of the others is 1.

    Attributes:
        targets: Running means and variances, (2, C) of each layer, in the order of ``model.modules()``.

    Raises:
        ValueError: If no layer with running statistics takes part.

    Source:
        Yin et al., DeepInversion, CVPR 2020, eq. 4; Yin et al., SRe2L, NeurIPS 2023.
    """

    def __init__(self, model: nn.Module, example: Tensor, *, first: float = 10.0) -> None:
        self._layers = [
            module
            for module in model.modules()
            if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None
        ]
        self._seen: dict[nn.Module, Tensor] = {}
        with self, torch.no_grad():
            model(example)
        self._layers = [layer for layer in self._layers if layer in self._seen]
        if not self._layers:
            raise ValueError(
                "Expected a network with `BatchNorm2d` layers that keep running statistics, got "
                f"{type(model).__name__} without any. They stand for the real images. Use a network that has "
                "some, such as `conv3` or `resnet18_modified`, or a method that needs none, such as `rded`."
            )
        self.targets = [_running(layer) for layer in self._layers]
        self._distance = StatisticsDistance(self.targets, first=first)

    def statistics(self) -> list[Tensor]:
        """Of the last forward pass, means and biased variances, (2, C) of each layer, as `targets`."""
        return [self._seen[layer] for layer in self._layers]

    def distance(self) -> Tensor:
        """Of the last forward pass, see `StatisticsDistance`."""
        return self._distance(self.statistics())

    def __enter__(self) -> BatchNormStatistics:
        self._hooks = [layer.register_forward_pre_hook(self._keep) for layer in self._layers]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keep(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._seen[layer] = channel_statistics(inputs[0])


class StatisticsDistance:
    """Sum over layers of the Euclidean distances of means and of variances: ``Σ k_l (‖Δmean‖ + ‖Δvar‖)``.

    All layers are computed together, since each of them is far too small to keep a GPU busy.

    Args:
        targets: Means and variances, (2, C) of each layer; C may differ.
        first: Weight of the first layer; that of the others is 1.
    """

    def __init__(self, targets: Sequence[Tensor], *, first: float = 10.0) -> None:
        self._targets = torch.cat(list(targets), 1)
        sizes = torch.tensor([target.shape[1] for target in targets], device=self._targets.device)
        layers = torch.arange(len(sizes), device=sizes.device)
        of_channel = layers.repeat_interleave(sizes)
        self._members = (of_channel[:, None] == layers).to(self._targets.dtype)  # (all channels, layers)
        self._weights = torch.where(layers == 0, first, 1.0).to(self._targets.dtype)

    def __call__(self, statistics: Sequence[Tensor]) -> Tensor:
        """Scalar distance of ``statistics``, shaped as the targets; where it is 0, its gradient is too."""
        differences = torch.cat(list(statistics), 1) - self._targets
        squares = differences.square() @ self._members
        tiny = torch.finfo(squares.dtype).tiny  # the slope of a root at 0 is infinite
        return (squares.clamp_min(tiny).sqrt() * self._weights).sum()


def channel_statistics(inputs: Tensor) -> Tensor:
    """Mean and biased variance of each channel, (2, C), of ``inputs`` (N, C, H, W).

    It can be differentiated once. Value and gradient are each made in one pass over the inputs, a fraction
    of what ``var`` and ``mean`` take.
    """
    result: Tensor = _ChannelStatistics.apply(inputs)
    return result


class _ChannelStatistics(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        # Means and biased variances, as batch norm computes them when it trains; there is nothing to update.
        mean, variance = torch.batch_norm_update_stats(inputs, None, None, 0.0)
        ctx.save_for_backward(inputs, mean)
        return torch.stack([mean, variance])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        inputs, mean = ctx.saved_tensors
        # d mean / d x = 1 / M, d var / d x = 2 (x - mean) / M, with M values of each channel.
        to_mean, to_variance = (gradient * (mean.numel() / inputs.numel())).unbind(0)
        offset = torch.addcmul(to_mean, to_variance, mean, value=-2)
        shape = (1, -1, 1, 1)
        return torch.addcmul(offset.view(shape), inputs, to_variance.view(shape), value=2)


def _running(layer: nn.BatchNorm2d) -> Tensor:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return torch.stack([layer.running_mean, layer.running_var])
