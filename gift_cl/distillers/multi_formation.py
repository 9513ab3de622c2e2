"""Images that take few bytes, inside a loss, as a student will see them once they are stored and decoded."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gift_cl.codecs import Downscale, EncodedImages, Quantize, Webp
from gift_cl.distillers.pixels import PixelBox


class MultiFormation:
    """Images that share the bytes of one: smaller ones, such of few grey levels, or compressed ones.

    Args:
        codec: Stores them: `Downscale` ``factor``² small ones in the place of each, `Quantize` 8 / ``bits``,
            and `Webp` as many as it can.
        box: The space in which they are optimised.
        num_channels: Of the images.

    Source:
        Kim et al., IDC, ICML 2022. They enlarge to values that no stored pixel has; here the
        network sees what the codec decodes, bit for bit.
    """

    def __init__(self, codec: Downscale | Quantize | Webp, box: PixelBox, num_channels: int) -> None:
        self.codec = codec
        self.box = box
        ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, num_channels, 1, 1)
        self._black, white = box.from_uint8(ends).split(1)
        self._span = white - self._black

    def start(self, images: Tensor) -> Tensor:
        """Small images of the box, (N, C, H / factor, W / factor), from uint8 ``images`` (N, C, H, W)."""
        return self.box.from_uint8(self.codec.shrink(images))

    def decode(self, small: Tensor) -> Tensor:
        """What a network sees, (N, C, H, W) of the box: rounded, enlarged, and rounded.

        The gradient is that of enlarging alone: it passes straight through the roundings.
        """
        seen = self.codec.enlarge(self.levels(small))
        smooth = nn.functional.interpolate(
            small, scale_factor=self.codec.factor, mode="bilinear", align_corners=False
        )
        return self.box.from_uint8(seen) + (smooth - smooth.detach())  # the difference is zero

    @torch.no_grad()
    def levels(self, small: Tensor) -> Tensor:
        """The nearest grey levels, uint8 on the device of the box."""
        levels: Tensor = (small - self._black) / self._span * 255
        return levels.round_().to(torch.uint8)

    def encode(self, small: Tensor) -> EncodedImages:
        """The stored form; it decodes to what `decode` shows."""
        return self.codec.encode_small(self.levels(small))
