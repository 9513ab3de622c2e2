"""A picture of a data set: its exemplars side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gift_cl.dataset import DistilledDataset
from gift_cl.pictures.canvas import CHAR_WIDTH, class_ticks, new_figure, set_title

_MAX_COLUMNS = 10
_MAX_CLASSES = 20
_TITLE = 1.15 * CHAR_WIDTH  # of a character of a title
_SIDE = 0.56  # inches of an image and its gap
_SPREAD = 2.5  # standard deviations from black to gray, and from gray to white


def contact_sheet(dataset: DistilledDataset, class_names: Sequence[str] | None = None) -> Figure:
    """A row for each class, with its first exemplars as a student sees them.

    At most 20 classes of 10 exemplars are shown, and no others are decoded. Whitened images have no black
    and white: each channel is stretched around its mean.

    Args:
        dataset: What to show.
        class_names: Name of each class; those of the data set, or numbers, without.

    Raises:
        ValueError: If stored bytes are damaged.
    """
    classes = dataset.classes[:_MAX_CLASSES]
    chosen = [(dataset.labels == label).nonzero().flatten()[:_MAX_COLUMNS] for label in classes]
    shown = torch.cat(chosen) if chosen else torch.zeros(0, dtype=torch.int64)
    ticks = class_ticks(class_names or dataset.class_names, dataset.num_classes)
    names = [ticks[label] for label in classes]
    num_columns = max((len(indices) for indices in chosen), default=0)
    _, height, width = dataset.encoded.image_shape
    margin = 0.5 + 1.5 * CHAR_WIDTH * max((len(name) for name in names), default=0)
    figure, axes = new_figure(
        max(1, len(classes)) * _SIDE * height / width + 0.5,
        width=max(6.0, num_columns * _SIDE + margin),
    )
    if classes:
        images = _visible(dataset.encoded.select(shown).decode().numpy())
        rows = np.split(images, np.cumsum([len(indices) for indices in chosen])[:-1])
        _draw(axes, _tile(rows, num_columns), names)
    else:
        axes.set_axis_off()
    set_title(axes, _describe(dataset, len(classes), num_columns), width=_line(figure, axes))
    return figure


def _line(figure: Figure, axes: Any) -> int:
    """Characters of a title that fit above the axes, which it is centred on."""
    box = axes.get_position()
    return int(2 * min(box.x0 + box.width / 2, 1 - box.x0 - box.width / 2) * figure.get_figwidth() / _TITLE)


def _visible(images: NDArray[Any]) -> NDArray[np.uint8]:
    """Images (n, C, H, W) as uint8: pixels in [0, 1] are scaled, other floats stretched."""
    if images.dtype == np.uint8:
        return images
    if images.min() < 0 or images.max() > 1:
        mean = images.mean((0, 2, 3), keepdims=True)
        deviation = np.maximum(images.std((0, 2, 3), keepdims=True), 1e-8)
        images = 0.5 + (images - mean) / (2 * _SPREAD * deviation)
    pixels: NDArray[np.uint8] = (images.clip(0, 1) * 255).round().astype(np.uint8)
    return pixels


def _tile(rows: Sequence[NDArray[np.uint8]], num_columns: int) -> NDArray[np.uint8]:
    """Rows of images (n, C, H, W) side by side on white, uint8 (H, W, 3)."""
    channels, height, width = rows[0].shape[1:]
    gap = max(1, height // 12)
    sheet = np.full((len(rows) * (height + gap), num_columns * (width + gap), 3), 255, np.uint8)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            top, left = row * (height + gap) + gap // 2, column * (width + gap) + gap // 2
            # One channel spreads over all three colors.
            colored = image if channels == 3 else image[:1]
            sheet[top : top + height, left : left + width] = colored.transpose(1, 2, 0)
    return sheet


def _draw(axes: Any, sheet: NDArray[np.uint8], names: Sequence[str]) -> None:
    """The sheet, with a name at each of its rows."""
    axes.imshow(sheet, interpolation="nearest", aspect="equal")
    pitch = len(sheet) / len(names)
    axes.set_yticks([(row + 0.5) * pitch - 0.5 for row in range(len(names))], names)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _describe(dataset: DistilledDataset, num_classes: int, num_columns: int) -> str:
    """What the data set holds, and how much of it is shown."""
    text = f"{len(dataset)} exemplars ({dataset.provenance.method}, {dataset.encoded.codec})"
    if dataset.space != "pixels":
        text += ", whitened, each channel stretched"
    if num_classes < len(dataset.classes):
        text += f", {num_classes} of {len(dataset.classes)} classes"
    if num_columns < max(dataset.images_per_class.values(), default=0):
        text += f", the first {num_columns} of each class"
    return text
