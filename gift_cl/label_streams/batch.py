"""What a teacher said of one batch of views, and how the views were made."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

Box = tuple[int, int, int, int]

_TOLERANCE = 1e-5  # of coordinates, which are quotients in single precision


@dataclass(frozen=True, eq=False)
class Mixup:
    """Every view is blended with another one of its batch.

    Args:
        partner: Row of the other view, int64 (B,).
        lam: Weight of the view itself, in [0, 1].
    """

    partner: Tensor
    lam: float

    def __post_init__(self) -> None:
        _check_lam(self.lam)

    def own_share(self, size: int) -> float:
        """Part of a view that is its own image."""
        del size
        return self.lam


@dataclass(frozen=True, eq=False)
class Cutmix:
    """A box of every view shows another one of its batch.

    Args:
        partner: Row of the other view, int64 (B,).
        lam: What the size of the box was drawn from, in [0, 1].
        box: First row, first column, end of the rows and end of the columns, in pixels of the view; it
            may be empty.
    """

    partner: Tensor
    lam: float
    box: Box

    def __post_init__(self) -> None:
        _check_lam(self.lam)
        top, left, bottom, right = self.box
        if not (0 <= top <= bottom and 0 <= left <= right):
            raise ValueError(
                f"Expected `box` as (first row, first column, end row, end column), got {self.box}."
            )

    def own_share(self, size: int) -> float:
        """Part of a view of ``size`` × ``size`` pixels that is its own image."""
        top, left, bottom, right = self.box
        return 1 - (bottom - top) * (right - left) / size**2


Mix = Mixup | Cutmix


@dataclass(frozen=True, eq=False)
class StreamBatch:
    """Soft labels of ``B`` views, and all that it takes to make the views again.

    Args:
        coords: Crop of each stored image, float32 (B, 4): top and height as parts of the image's height,
            left and width as parts of its width, in the order top, left, height, width.
        flips: Whether the crop is mirrored, bool (B,).
        mix: How the views are mixed with each other, if they are.
        logits: Answers of the teacher on the mixed views, float16 (B, C).
        indices: Image of each row, int64 (B,); none appears twice.

    Raises:
        ValueError: If a part has another type or shape, or values that cannot be.
    """

    coords: Tensor
    flips: Tensor
    mix: Mix | None
    logits: Tensor
    indices: Tensor

    def __post_init__(self) -> None:
        if self.logits.ndim != 2 or 0 in self.logits.shape:
            raise ValueError(f"Expected `logits` of shape (B, C), got {tuple(self.logits.shape)}.")
        rows, num_classes = self.logits.shape
        _check("logits", self.logits, torch.float16, (rows, num_classes))
        # The sum of half-precision numbers is finite if they are, and much faster than `isfinite`.
        if not math.isfinite(self.logits.sum(dtype=torch.float32)):
            raise ValueError("Expected finite `logits`, got NaN or infinite ones.")
        _check("coords", self.coords, torch.float32, (rows, 4))
        _check_crops(self.coords)
        _check("flips", self.flips, torch.bool, (rows,))
        _check("indices", self.indices, torch.int64, (rows,))
        if int(self.indices.min()) < 0 or len(self.indices.unique()) < rows:
            raise ValueError("Expected `indices` of different images, got one twice or a negative one.")
        if self.mix is not None:
            _check("mix.partner", self.mix.partner, torch.int64, (rows,))
            _check_range("mix.partner", self.mix.partner, rows)

    def __len__(self) -> int:
        return len(self.logits)


def _check(name: str, values: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    if values.dtype != dtype or values.shape != shape:
        raise ValueError(f"Expected `{name}` of {dtype} {shape}, got {values.dtype} {tuple(values.shape)}.")


def _check_range(name: str, values: Tensor, end: int) -> None:
    low, high = (int(value) for value in values.aminmax())
    if low < 0 or high >= end:
        raise ValueError(f"Expected `{name}` in [0, {end}), got [{low}, {high}].")


def _check_crops(coords: Tensor) -> None:
    low, high = (float(value) for value in coords.aminmax())
    if not (low >= 0 and high <= 1):  # neither holds for NaN
        raise ValueError(f"Expected `coords` in [0, 1], got [{low:.6g}, {high:.6g}].")
    start, extent = coords[:, :2], coords[:, 2:]
    if not float(extent.min()) > 0:
        raise ValueError("Expected `coords` of crops with a positive height and width, got an empty crop.")
    if (end := float((start + extent).max())) > 1 + _TOLERANCE:
        raise ValueError(
            f"Expected `coords` of crops inside the image, got one that ends at {end:.6g} of it."
        )


def _check_lam(lam: float) -> None:
    if not 0 <= lam <= 1:
        raise ValueError(f"Expected `lam` in [0, 1], got {lam}.")
