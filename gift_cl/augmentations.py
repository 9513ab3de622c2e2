"""Batched augmentation: parameters are drawn once, so teacher and student can see the same view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gift_cl.registry import Registry
from gift_cl.transfer import sent


class Augmentation(Protocol):
    """Draws small integer parameters, and applies them purely."""

    @property
    def num_parameters(self) -> int:
        """``P``, integers a view; 0 when the view is the image itself."""

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Parameters of a view for each image, int8 (N, P) on the CPU."""

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Views of ``images`` (N, C, H, W), any dtype and device."""


@dataclass(frozen=True)
class Identity:
    """The image as it is."""

    num_parameters: int = 0

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """No parameters, int8 (N, 0)."""
        del generator
        return torch.zeros(num_images, 0, dtype=torch.int8)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """The images themselves."""
        del parameters
        return images


@dataclass(frozen=True)
class CropFlip:
    """Random crop after zero padding, and a horizontal flip: the usual CIFAR augmentation.

    Args:
        pad: Pixels of padding on each side, 0 to 63; the shift is uniform in [-pad, pad].
        flip: Flip half of the images.
    """

    pad: int = 4
    flip: bool = True
    num_parameters: int = 3

    def __post_init__(self) -> None:
        if not (isinstance(self.pad, int) and 0 <= self.pad <= 63):
            raise ValueError(f"Expected `pad` of 0 to 63 pixels, got {self.pad!r}.")

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Row offset, column offset, flip: int8 (N, 3)."""
        offsets = torch.randint(0, 2 * self.pad + 1, (num_images, 2), generator=generator)
        flips = torch.randint(0, 2 if self.flip else 1, (num_images, 1), generator=generator)
        return torch.cat([offsets, flips], 1).to(torch.int8)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Crops of the padded images at the offsets, mirrored where the flip is 1."""
        height, width = images.shape[2:]
        padded = torch.nn.functional.pad(images, [self.pad] * 4)
        top, left, flip = sent(parameters, images.device).long().unbind(1)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: all crops of all images
        crops = windows[torch.arange(len(images), device=images.device), :, top, left]
        return torch.where(flip.view(-1, 1, 1, 1) == 1, crops.flip(3), crops)


def crop(pad: int = 1) -> CropFlip:
    """Random crop only."""
    return CropFlip(pad=pad, flip=False)


AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation")
AUGMENTATIONS.add("none", Identity, reference="the image as stored")
AUGMENTATIONS.add("crop_flip", CropFlip, reference="He et al., Deep Residual Learning, CVPR 2016, §4.2")
AUGMENTATIONS.add("crop", crop, reference="as crop_flip; digits may not be mirrored")
