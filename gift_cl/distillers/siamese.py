"""Siamese augmentation: real and distilled images of a class are seen in the same way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gift_cl.views import DSA, DSAParameters, apply_dsa


class SiameseView:
    """A view whose strengths are drawn once for each class.

    Args:
        augmentation: What is drawn from; None changes nothing.
        num_classes: Classes.
        like: Images of the height and width wanted, (N, C, H, W).
        generator: On the CPU.

    Source:
        Zhao and Bilen, DSA, ICML 2021: the same strengths for real and synthetic images.
    """

    def __init__(
        self, augmentation: DSA | None, num_classes: int, like: Tensor, generator: torch.Generator
    ) -> None:
        self._parameters = None
        if augmentation is not None:
            height, width = like.shape[2:]
            self._parameters = augmentation.draw(num_classes, height, width, generator)

    def __call__(self, inputs: Tensor, owners: Tensor) -> Tensor:
        """Views of float ``inputs`` (N, C, H, W).

        Args:
            inputs: On any device.
            owners: The class of each, from 0 to num_classes - 1, int64 (N,) on the CPU.
        """
        if self._parameters is None:
            return inputs
        return apply_dsa(inputs, DSAParameters(*(values[owners] for values in self._parameters)))


def owners_of(parts: Sequence[Tensor]) -> Tensor:
    """Which part each row of the joined parts comes from, int64 on the CPU.

    Example:
        >>> owners_of([torch.zeros(2), torch.zeros(1)])
        tensor([0, 0, 1])
    """
    return torch.arange(len(parts)).repeat_interleave(torch.tensor([len(part) for part in parts]))
