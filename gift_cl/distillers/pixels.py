"""Pixels that are optimised: between the normalised space of a network and stored images."""

from __future__ import annotations

import torch
from torch import Tensor

from gift_cl.normalization import Normalization
from gift_cl.teacher import as_float


class PixelBox:
    """What pixels in [0, 1] can be after normalisation.

    Args:
        normalization: What the network expects of its inputs.
        device: Where images are optimised.

    Example:
        >>> box = PixelBox(Normalization((0.5,), (0.25,)), "cpu")
        >>> box.clamp_(torch.tensor([[[[-3.0, 0.5, 3.0]]]]))
        tensor([[[[-2.0000,  0.5000,  2.0000]]]])
    """

    def __init__(self, normalization: Normalization, device: torch.device | str) -> None:
        self.normalization = normalization
        self.device = torch.device(device)
        black = torch.zeros(1, len(normalization.mean), 1, 1, device=self.device)
        self._low, self._high = normalization.apply(black), normalization.apply(black + 1)

    @torch.no_grad()
    def clamp_(self, inputs: Tensor) -> Tensor:
        """``inputs`` (N, C, H, W), moved in place to the nearest values that pixels can have."""
        return inputs.clamp_(self._low, self._high)

    def from_uint8(self, images: Tensor) -> Tensor:
        """Network inputs, float32 on the device, for uint8 ``images`` (N, C, H, W) anywhere."""
        return self.normalization.apply(as_float(images.to(self.device)))

    def to_uint8(self, inputs: Tensor) -> Tensor:
        """Images to store, uint8 on the CPU, rounded to the nearest grey level.

        Args:
            inputs: Clamped (N, C, H, W); a gradient is left behind.

        Raises:
            ValueError: If a value is NaN, or beyond what pixels can be.
        """
        return self.normalization.to_images(inputs.detach()).cpu()
