"""From stored pixels to what a network sees, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normalization:
    """Channel-wise standardisation, ``(pixels - mean) / std`` with pixels in [0, 1].

    Args:
        mean: One value for every channel, or one value for all.
        std: Likewise; positive.

    Raises:
        ValueError: If the lengths differ or a standard deviation is not positive.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError(f"Expected `mean` and `std` of equal length, got {self.mean} and {self.std}.")
        if not all(map(math.isfinite, self.mean)):
            raise ValueError(f"Expected finite `mean`, got {self.mean}.")
        if not all(0 < value < math.inf for value in self.std):
            raise ValueError(f"Expected positive `std`, got {self.std}.")

    def apply(self, pixels: Tensor) -> Tensor:
        """Network inputs for ``pixels`` (N, C, H, W) in [0, 1]."""
        mean, std = self._tensors(pixels)
        return (pixels - mean).div_(std)

    def to_images(self, inputs: Tensor) -> Tensor:
        """Stored images, uint8 (N, C, H, W), of network inputs.

        Raises:
            ValueError: If the inputs are not finite images, or their pixels leave [0, 1], as they do
                when this is not the normalisation that was applied to them.
        """
        if inputs.ndim != 4:
            raise ValueError(
                f"Expected images of shape (N, C, H, W), got {tuple(inputs.shape)}. "
                "An exemplar memory holds images; reshape the inputs of the data set."
            )
        if inputs.dtype == torch.uint8:
            return inputs
        mean, std = self._tensors(inputs)
        pixels = inputs * std + mean
        low, high = (float(v) for v in torch.aminmax(pixels)) if pixels.numel() else (0.0, 1.0)
        if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
            raise ValueError(
                f"Expected pixels in [0, 1] after undoing mean {self.mean} and std {self.std}, got "
                f"[{low:.3g}, {high:.3g}]. Pass as `normalization` the mean and std of the transform "
                "that made these inputs, and check them for NaN."
            )
        return (pixels * 255).round().clamp(0, 255).to(torch.uint8)

    def _tensors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        if len(self.mean) not in (1, like.shape[1]):
            raise ValueError(
                f"Expected images with {len(self.mean)} channels for mean {self.mean}, got {like.shape[1]}."
            )
        shape = (1, -1, 1, 1)
        dtype = like.dtype if like.is_floating_point() else torch.float32
        return (
            torch.tensor(self.mean, device=like.device, dtype=dtype).view(shape),
            torch.tensor(self.std, device=like.device, dtype=dtype).view(shape),
        )


_TOLERANCE = 1 / 512  # half a grey level

IDENTITY = Normalization()
"""Network inputs that are pixels in [0, 1]."""

NORMALIZATIONS = {
    "none": IDENTITY,
    "imagenet": Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "tiny": Normalization((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262)),
    "cifar": Normalization((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar-gvbsm": Normalization((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}
"""Published constants by name.

``imagenet``: ImageNet, RDED on every data set, G-VBSM and GIFT on Tiny-ImageNet. ``tiny``: SRe2L and CDA on
Tiny-ImageNet. ``cifar``: SRe2L on CIFAR-100, DATM without ZCA, GIFT on CIFAR. ``cifar-gvbsm``: G-VBSM on
CIFAR.
Source: the data transforms of VILA-Lab/SRe2L@8d00cba, LINs-lab/RDED@3f6453d, NUS-HPC-AI-Lab/DATM@97ae510,
shaoshitong/G_VBSM_Dataset_Condensation@1ed80b0 and LINs-lab/GIFT@38db552.
"""


def build_normalization(text: str) -> Normalization:
    """The normalisation that ``text`` names or writes out.

    Args:
        text: A name of `NORMALIZATIONS`, or means and standard deviations: ``"0.5,0.5,0.5/0.2,0.2,0.2"``.

    Raises:
        ValueError: If it is neither.

    Example:
        >>> build_normalization("0.5/0.25")
        Normalization(mean=(0.5,), std=(0.25,))
    """
    if text in NORMALIZATIONS:
        return NORMALIZATIONS[text]
    mean, slash, std = text.partition("/")
    try:
        if slash:
            return Normalization(_numbers(mean), _numbers(std))
    except ValueError as error:
        raise ValueError(f"Bad normalisation `{text}`: {error}") from None
    raise ValueError(
        f"Unknown normalisation `{text}`. Known: {', '.join(NORMALIZATIONS)}; or means and standard "
        "deviations, as in 0.5,0.5,0.5/0.2,0.2,0.2."
    )


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))
