"""Views that show a part of the image, or its parts in another place."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gift_cl import augmentations
from gift_cl.transfer import sent
from gift_cl.views.operations import pick, resize
from gift_cl.views.view import check_inputs, check_number, check_whole, restored, widened, written_spec

_ATTEMPTS = 10  # as torchvision


@dataclass(frozen=True)
class Flip:
    """Mirrors samples left to right, exactly.

    Args:
        probability: Of each sample, in [0, 1].
    """

    probability: float = 0.5

    def __post_init__(self) -> None:
        check_number("probability", self.probability, high=1)

    @property
    def spec(self) -> str:
        """See ``View``."""
        return written_spec("flip", self)

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """See ``View``."""
        check_inputs(inputs)
        flips = torch.rand(len(inputs), 1, 1, 1, dtype=torch.float64, generator=generator) < self.probability
        return torch.where(sent(flips, inputs.device), inputs.flip(3), inputs)


@dataclass(frozen=True)
class CropFlip:
    """Random crop after zero padding, and a flip of half of the samples; exact.

    Args:
        pad: Pixels on each side, 0 to 63.
        flip: Whether to flip at all.
    """

    pad: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        self._augmentation()

    @property
    def spec(self) -> str:
        """See ``View``."""
        return written_spec("crop_flip", self)

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """See ``View``."""
        augmentation = self._augmentation()
        return augmentation.apply(check_inputs(inputs), augmentation.draw(len(inputs), generator))

    def _augmentation(self) -> augmentations.CropFlip:
        return augmentations.CropFlip(self.pad, self.flip)


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of each image, of random area and shape, at the size of the image.

    The parts are drawn as torchvision draws them: up to ten attempts, then the largest central part with an
    allowed shape. There is no antialiasing, which matters only where a part is larger than ``size``.

    Args:
        min_scale: Smallest share of the image's area, in (0, 1].
        max_scale: Largest share, in [min_scale, 1].
        min_ratio: Smallest width over height, above 0; the ratio is uniform on a logarithmic scale.
        max_ratio: Largest width over height.
        size: Height and width of the views in pixels; None keeps those of the inputs.

    Source:
        torchvision.transforms.v2.RandomResizedCrop with ``antialias=False``.
    """

    min_scale: float = 0.08
    max_scale: float = 1.0
    min_ratio: float = 3 / 4
    max_ratio: float = 4 / 3
    size: int | None = None

    def __post_init__(self) -> None:
        check_number("max_scale", self.max_scale, high=1, low_too=False)
        check_number("min_scale", self.min_scale, high=self.max_scale, low_too=False)
        check_number("max_ratio", self.max_ratio, low_too=False)
        check_number("min_ratio", self.min_ratio, high=self.max_ratio, low_too=False)
        if self.size is not None:
            check_whole("size", self.size)

    @property
    def spec(self) -> str:
        """See ``View``."""
        return written_spec("rrc", self)

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """See ``View``."""
        images = widened(inputs)
        num_images, _, height, width = images.shape
        boxes = self.draw(num_images, height, width, generator)
        size = (height, width) if self.size is None else (self.size, self.size)
        return restored(resize(images, _moved(boxes, images), size), inputs)

    def draw(self, num_images: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """First row, first column, height and width of the parts in whole pixels, float64 (N, 4)."""
        uniform = torch.rand(num_images, 2 * _ATTEMPTS + 2, dtype=torch.float64, generator=generator)
        areas, ratios, place = uniform.split([_ATTEMPTS, _ATTEMPTS, 2], 1)
        areas = height * width * (self.min_scale + areas * (self.max_scale - self.min_scale))
        low, high = math.log(self.min_ratio), math.log(self.max_ratio)
        ratios = (low + ratios * (high - low)).exp()
        tries = torch.stack([(areas / ratios).sqrt().round(), (areas * ratios).sqrt().round()], 2)
        sides = torch.tensor([height, width], dtype=torch.float64)
        fits = ((tries >= 1) & (tries <= sides)).all(2)
        first = fits.to(torch.uint8).argmax(1)  # the first one that fits, if any does
        chosen = tries[torch.arange(num_images), first]
        start = (place * (sides - chosen + 1)).floor()
        central = self._central(height, width)
        central_start = ((sides - central) / 2).floor()
        found = fits.any(1, keepdim=True)
        return torch.where(found, torch.cat([start, chosen], 1), torch.cat([central_start, central]))

    def _central(self, height: int, width: int) -> Tensor:
        """Height and width of the largest part whose shape is allowed, float64 (2,)."""
        ratio = min(max(width / height, self.min_ratio), self.max_ratio)
        sides = min(height, round(width / ratio)), min(width, round(height * ratio))
        return torch.tensor(sides, dtype=torch.float64).clamp(min=1)


@dataclass(frozen=True)
class FactorCrop:
    """One cell of a mosaic at full size, or, with probability 1 / factor², the whole mosaic.

    Args:
        factor: Cells along each side; height and width must be multiples of it. 1 changes nothing.

    Source:
        LINs-lab/GIFT@38db552, for mosaics of factor 2: a random quadrant with probability 3/4. What
        other factors do is our generalisation.
    """

    factor: int = 2

    def __post_init__(self) -> None:
        check_whole("factor", self.factor)

    @property
    def spec(self) -> str:
        """See ``View``."""
        return written_spec("factor_crop", self)

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """See ``View``."""
        images = widened(inputs)
        num_images, _, height, width = images.shape
        boxes = self.draw(num_images, height, width, generator)
        return restored(resize(images, _moved(boxes, images), (height, width)), inputs)

    def draw(self, num_images: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """First row, first column, height and width of the parts in whole pixels, float64 (N, 4)."""
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"Expected images whose height and width are multiples of `factor` {self.factor}, got "
                f"{height} x {width}. Use the factor that the mosaics were made with."
            )
        uniform = torch.rand(num_images, 3, dtype=torch.float64, generator=generator)
        sides = torch.tensor([height, width], dtype=torch.float64)
        cell = sides / self.factor
        start = (uniform[:, 1:] * self.factor).floor() * cell
        parts = torch.cat([start, cell.expand(num_images, 2)], 1)
        whole = torch.cat([torch.zeros_like(sides), sides])
        return torch.where(uniform[:, :1] < 1 / self.factor**2, whole, parts)


@dataclass(frozen=True)
class ShufflePatches:
    """The columns of patches of each image in a random order, and then its rows of patches; exact.

    Args:
        factor: Patches along each side, at most the pixels; the last one takes the remainder.

    Source:
        Sun et al., RDED, CVPR 2024; LINs-lab/RDED@3f6453d, validation/utils.py.
    """

    factor: int = 2

    def __post_init__(self) -> None:
        check_whole("factor", self.factor)

    @property
    def spec(self) -> str:
        """See ``View``."""
        return written_spec("shuffle_patches", self)

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """See ``View``."""
        images = widened(inputs)
        num_images, _, height, width = images.shape
        rows, columns = self.draw(num_images, height, width, generator)
        return restored(pick(images, _moved(rows, images), _moved(columns, images)), inputs)

    def draw(
        self, num_images: int, height: int, width: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Which rows and which columns of the images the views show, int64 (N, H) and (N, W)."""
        if self.factor > min(height, width):
            raise ValueError(
                f"Expected images of at least `factor` {self.factor} pixels a side, got {height} x {width}."
            )
        ranks = torch.rand(num_images, 2, self.factor, dtype=torch.float64, generator=generator).argsort(2)
        return self._order(ranks[:, 0], height), self._order(ranks[:, 1], width)

    def _order(self, ranks: Tensor, size: int) -> Tensor:
        """Pixels along one side, sorted by the rank of their strip."""
        pixels = torch.arange(size)
        strips = (pixels // (size // self.factor)).clamp(max=self.factor - 1)
        return (ranks[:, strips] * size + pixels).argsort(1)


def _moved(parameters: Tensor, images: Tensor) -> Tensor:
    return sent(parameters.to(images.dtype), images.device)
