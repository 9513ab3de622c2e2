"""Statistics of what enters the convolutions of a network, by channel and by patch, and their matching."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gift_cl.distillers.batch_norm_statistics import StatisticsDistance, channel_statistics


def patch_moments(inputs: Tensor, patch: int) -> Tensor:
    """First and second moments of each channel, and of each patch.

    A patch is a square of ``patch`` by ``patch`` positions, taken over all images and channels. Inputs whose
    sides are no multiples of ``patch`` are first enlarged to the next one, bilinearly.

    Args:
        inputs: (N, C, H, W).
        patch: Positions along a side of a patch.

    Returns:
        (2, C + P): means in the first row, means of squares in the second; of the channels first, then of
        the ``P`` patches in row-major order. It can be differentiated once.
    """
    maps = tiled = _image_moments(inputs)
    old = inputs.shape[2:]
    new = [side + -side % patch for side in old]
    if old.numel() > 1 and new != list(old):  # a single position stays the same
        larger = nn.functional.interpolate(inputs, new, mode="bilinear", align_corners=False)
        tiled = _image_moments(larger)
    patches = nn.functional.avg_pool2d(tiled.mean(1), [min(patch, side) for side in tiled.shape[2:]])
    return torch.cat([maps.mean((2, 3)), patches.flatten(1)], 1)


def as_statistics(moments: Tensor) -> Tensor:
    """Means and biased variances, (2, n), of first and second moments."""
    mean, square = moments.unbind(0)
    return torch.stack([mean, square - mean.square()])


@torch.no_grad()
def measure_convolutions(model: nn.Module, batches: Iterable[Tensor], *, patch: int) -> dict[str, Tensor]:
    """Statistics of the inputs of each `Conv2d`, over all batches together.

    Args:
        model: In evaluation mode; else its batch norms would follow the batches.
        batches: Network inputs (N, C, H, W), all of one height and width, on the device of the model.
        patch: As for `patch_moments`.

    Returns:
        By the name of the convolution: means and biased variances, float32 (2, C + P), the channels first.
        A convolution that is never run has none.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def add(name: str, layer: nn.Module, inputs: Tensor) -> None:
        del layer
        moments = patch_moments(inputs, patch).double() * len(inputs)
        sums[name] = sums[name] + moments if name in sums else moments
        counts[name] = counts.get(name, 0) + len(inputs)

    convolutions = [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)]
    with _watching(model, convolutions, add):
        for batch in batches:
            model(batch)
    return {name: as_statistics(total / counts[name]).float() for name, total in sums.items()}


class StatisticsMatching:
    """How far the statistics of a batch are from those of real images, throughout a network.

    They are compared at the input of each `Conv2d`, by channel and by patch, and at the input of each
    `BatchNorm2d`, whose running statistics stand for the real images. What counts are the Euclidean distances
    of means and of variances.

    The statistics of a batch are averaged with those of the batches before it, since `forget` was called. The
    gradient passes to the batch as if they were not.

    Args:
        model: Frozen, in evaluation mode.
        convolutions: Statistics of real images, from `measure_convolutions`.
        patch: As there.
        momentum: Weight of the past in the average, in [0, 1).
        first: Weight of the first layer; that of the others is 1.
        drop: Probability that a convolution is passed over in a call, in [0, 1).

    Raises:
        ValueError: If the network has no such layer.

    Source:
        Shao et al., G-VBSM, CVPR 2024; shaoshitong/G_VBSM_Dataset_Condensation@1ed80b0. Deliberate
        difference: an average starts with the first batch. Theirs starts at 0, since the check that should
        notice the first batch never does, and is too small for about twenty batches.
    """

    def __init__(
        self,
        model: nn.Module,
        convolutions: Mapping[str, Tensor],
        *,
        patch: int,
        momentum: float,
        first: float,
        drop: float,
    ) -> None:
        self._model, self._patch, self._momentum, self._drop = model, patch, momentum, drop
        self._convolutions = list(convolutions)
        self._real: dict[str, Tensor] = {}
        self._sizes: dict[str, list[int]] = {}
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Conv2d) and name in convolutions:
                real, channels = convolutions[name], layer.in_channels
            elif isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
                assert layer.running_var is not None
                real, channels = torch.stack([layer.running_mean, layer.running_var]), layer.num_features
            else:
                continue
            self._real[name], self._sizes[name] = real, [channels, real.shape[1] - channels]
        if not self._real:
            raise ValueError(
                f"Expected a network with convolutions or batch norms, got {type(model).__name__} without. "
                "Use another one, such as `conv3`, or a method that needs none of them, such as `rded`."
            )
        # A distance grows with what it compares, so the weight of the first layer is put into its statistics.
        self._first, self._weight = next(iter(self._real)), first
        self._real[self._first] = first * self._real[self._first]
        self._distance = StatisticsDistance(self._split(self._real), first=1.0)
        self._averages: dict[str, Tensor] = {}

    def forget(self) -> None:
        """Begin the averages anew."""
        self._averages.clear()

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Logits, and the weighted sum of the distances; the averages move on.

        Args:
            inputs: Of the network, (N, C, H, W), as large as those that were measured.
            generator: On the CPU; draws the convolutions that are passed over.
        """
        dropped = torch.rand(len(self._convolutions), generator=generator) < self._drop
        passed_over = {name for name, drop in zip(self._convolutions, dropped.tolist(), strict=True) if drop}
        seen: dict[str, Tensor] = {}

        def see(name: str, layer: nn.Module, hidden: Tensor) -> None:
            seen[name] = self._averaged(name, self._statistics(name, layer, hidden))

        with _watching(self._model, self._real.keys() - passed_over, see):
            logits = self._model(inputs)
        return logits, self._distance(self._split({**self._real, **seen}))

    def _statistics(self, name: str, layer: nn.Module, hidden: Tensor) -> Tensor:
        if isinstance(layer, nn.Conv2d):
            statistics = as_statistics(patch_moments(hidden, self._patch))
        else:
            statistics = channel_statistics(hidden)
        return self._weight * statistics if name == self._first else statistics

    def _averaged(self, name: str, batch: Tensor) -> Tensor:
        """The average with earlier batches; its gradient is that of the batch."""
        now = batch.detach()
        average = now.lerp(self._averages.get(name, now), self._momentum)
        self._averages[name] = average
        return batch + (average - now)

    def _split(self, statistics: Mapping[str, Tensor]) -> list[Tensor]:
        """Channels and patches of each layer; a batch norm has no patches."""
        return [part for name in self._real for part in statistics[name].split(self._sizes[name], 1)]


def _image_moments(inputs: Tensor) -> Tensor:
    """Means over images of ``inputs`` (N, C, H, W) and of their squares, (2, C, H, W)."""
    if inputs.is_contiguous(memory_format=torch.channels_last):
        moments: Tensor = _ImageMoments.apply(inputs.permute(0, 2, 3, 1))
        return moments.permute(0, 3, 1, 2)
    moments = _ImageMoments.apply(inputs)
    return moments


class _ImageMoments(torch.autograd.Function):
    """In two passes over the inputs forward, and in one backward."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        ctx.save_for_backward(inputs)
        return torch.stack([inputs.mean(0), inputs.square().mean(0)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (inputs,) = ctx.saved_tensors
        to_mean, to_square = (gradient / len(inputs)).contiguous()
        return torch.addcmul(to_mean, inputs, to_square, value=2)


@contextmanager
def _watching(
    model: nn.Module, names: Collection[str], see: Callable[[str, nn.Module, Tensor], None]
) -> Iterator[None]:
    """Within it, ``see`` is told of each of these layers that is run, and of its input."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda layer, inputs: see(name, layer, inputs[0])

    handles = [model.get_submodule(name).register_forward_pre_hook(hook(name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
