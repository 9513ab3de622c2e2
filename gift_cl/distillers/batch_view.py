"""What a whole batch of images shows in one iteration."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gift_cl.views import RandomResizedCrop


@dataclass(frozen=True)
class BatchView:
    """What a whole batch shows in one iteration.

    Args:
        part: First row, first column, height and width of the part that is shown at full size.
        flip: Whether it is mirrored left to right.
        roll: Pixels by which it is then rolled down and to the right.
    """

    part: tuple[int, int, int, int]
    flip: bool
    roll: tuple[int, int]

    @classmethod
    def draw(
        cls,
        size: tuple[int, int],
        generator: torch.Generator,
        *,
        min_scale: float | None,
        flip: bool,
        jitter: int,
    ) -> BatchView:
        """A random view of images of ``size`` (height and width).

        Args:
            size: In pixels.
            generator: On the CPU.
            min_scale: Smallest share of the area that is shown, as torchvision's random resized crop draws
                it; None shows everything.
            flip: Mirror with probability 1/2.
            jitter: Largest roll in each direction.
        """
        part = (0, 0, *size)
        if min_scale is not None:
            box = RandomResizedCrop(min_scale=min_scale).draw(1, *size, generator)
            top, left, height, width = box[0].long().tolist()
            part = (top, left, height, width)
        mirrored = flip and bool(torch.randint(0, 2, (), generator=generator))
        down, right = torch.randint(0, jitter + 1, (2,), generator=generator).tolist()
        return cls(part, mirrored, (down, right))

    def apply(self, images: Tensor) -> Tensor:
        """Views of ``images`` (N, C, H, W), of the same shape; bilinear, without antialiasing."""
        size = (images.shape[2], images.shape[3])
        top, left, height, width = self.part
        if (height, width) != size:
            part = images[:, :, top : top + height, left : left + width]
            images = nn.functional.interpolate(part, size, mode="bilinear", align_corners=False)
        if self.flip:
            images = images.flip(3)
        return images.roll(self.roll, (2, 3))
