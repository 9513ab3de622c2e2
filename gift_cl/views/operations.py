"""What is done to the pixels of a batch, each sample with its own parameters; nothing here is random.

Images are float32 or float64, shape ``(N, C, H, W)``; parameters are on their device and of their dtype.
All operations are differentiable with respect to the images.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def color(images: Tensor, parameters: Tensor) -> Tensor:
    """Images of another brightness, then saturation, then contrast, in one pass.

    Brightness is added; saturation scales the difference to the mean of the channels at each pixel,
    contrast the difference to the mean of the whole image.

    Args:
        images: In any range; no value is clipped.
        parameters: Brightness, factor of saturation and factor of contrast, shape ``(N, 3)``;
            (0, 1, 1) changes nothing.

    Source:
        Zhao and Bilen, DSA, ICML 2021; VICO-UoE/DatasetCondensation@306245d, utils.py.
    """
    brightness, saturation, contrast = (column.view(-1, 1, 1, 1) for column in parameters.unbind(1))
    gray = images.mean(1, keepdim=True)
    mean = gray.mean((2, 3), keepdim=True)
    # The three steps one after the other leave: k s image + k (1 - s) gray + (1 - k) mean + brightness.
    offset = contrast * (1 - saturation) * gray + ((1 - contrast) * mean + brightness)
    return torch.addcmul(offset, images, contrast * saturation)


def erase(images: Tensor, boxes: Tensor) -> Tensor:
    """Images that are zero in their box and unchanged elsewhere.

    Args:
        images: Finite.
        boxes: First row, first column, and the row and column after the last, shape ``(N, 4)``.
    """
    top, left, bottom, right = boxes[:, :, None].unbind(1)
    rows, columns = (_middles(size, images) for size in images.shape[2:])
    in_rows = (rows >= top) & (rows < bottom)
    in_columns = (columns >= left) & (columns < right)
    return images * ~(in_rows[:, None, :, None] & in_columns[:, None, None, :])


def pick(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Images made of whole rows and columns of others, exactly; zero where there is none.

    Args:
        images: Not changed.
        rows: Which row of the image each row of the view shows, shape ``(N, H')``, whole numbers.
        columns: The same for columns, shape ``(N, W')``.

    Returns:
        Shape ``(N, C, H', W')``.
    """
    grid = _grid(images, rows[:, :, None], columns[:, None, :])
    return F.grid_sample(images, grid, mode="nearest", align_corners=False)


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Images under an affine map of their pixels: bilinear, and zero outside the image.

    A matrix maps a pixel of the view to a point of the image. Both are (x, y) in pixels from the centre, so
    a rotation keeps its angles in images that are not square. Matrices that only mirror and shift by whole
    pixels copy exactly.

    Args:
        images: Not changed.
        matrices: Shape ``(N, 2, 3)``.
    """
    height, width = images.shape[2:]
    y, x = _middles(height, images) - (height - 1) / 2, _middles(width, images) - (width - 1) / 2
    points = matrices[..., None, None]
    to_x, to_y = (
        points[:, axis, 0] * x + points[:, axis, 1] * y[:, None] + points[:, axis, 2] for axis in (0, 1)
    )
    linear, offset = matrices[:, :, :2], matrices[:, :, 2]
    unit = torch.eye(2, dtype=images.dtype, device=images.device)
    copied = (linear.abs() == unit).all((1, 2)) & (offset == offset.round()).all(1)
    return _sample(images, to_y + (height - 1) / 2, to_x + (width - 1) / 2, copied)


def resize(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Parts of images at another size: bilinear, and nothing beyond the part is seen.

    As cutting out and ``interpolate(..., mode="bilinear", align_corners=False)``; a part that has the size
    already is copied exactly. Parts larger than ``size`` are not smoothed first (no antialiasing); for the
    others smoothing would change nothing.

    Args:
        images: Not changed.
        boxes: First row, first column, height and width in whole pixels, inside the image,
            shape ``(N, 4)``.
        size: Height and width of all results.
    """
    top, left, height, width = boxes.unbind(1)
    copied = (height == size[0]) & (width == size[1])
    rows, columns = _stretched(images, top, height, size[0]), _stretched(images, left, width, size[1])
    return _sample(images, rows[:, :, None], columns[:, None, :], copied)


def _stretched(images: Tensor, start: Tensor, length: Tensor, size: int) -> Tensor:
    """Where ``size`` pixels look along one axis of a part, (N, size)."""
    start, length = start[:, None], length[:, None]
    points = (_middles(size, images) + 0.5) * (length / size) - 0.5
    return start + points.clamp(min=0).minimum(length - 1)


def _sample(images: Tensor, rows: Tensor, columns: Tensor, copied: Tensor) -> Tensor:
    """Bilinear values at pixel coordinates; where these are whole (``copied``), without rounding errors."""
    grid = _grid(images, rows, columns)
    smooth = F.grid_sample(images, grid, mode="bilinear", align_corners=False)
    exact = F.grid_sample(images, grid, mode="nearest", align_corners=False)
    return torch.where(copied.view(-1, 1, 1, 1), exact, smooth)


def _grid(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixel coordinates that broadcast to (N, H', W') as ``grid_sample`` wants them, (N, H', W', 2)."""
    height, width = images.shape[2:]
    x, y = (2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1
    return torch.stack(torch.broadcast_tensors(x, y), -1)


def _middles(size: int, images: Tensor) -> Tensor:
    return torch.arange(size, dtype=images.dtype, device=images.device)
