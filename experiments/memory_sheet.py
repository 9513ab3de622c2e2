"""A picture of a memory: its exemplars side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.canvas import CHAR_WIDTH, class_ticks, new_figure, set_title
from gift_cl.dataset import DistilledDataset
from gift_cl.dataset_file import load_dataset

_MAX_COLUMNS = 10
_MAX_CLASSES = 20
_SIDE = 0.56  # inches of an image and its gap


def memory_sheet(path: str | os.PathLike[str], class_names: Sequence[str] | None = None) -> Figure:
    """A contact sheet of a memory: a row for each class, its first exemplars as a student sees them.

    Args:
        path: A file that `gift_cl.dataset_file.save_dataset` wrote.
        class_names: Name of each class; numbers without.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedFileError: If it cannot be read.
    """
    dataset = load_dataset(path)
    labels = dataset.labels.numpy()
    classes = dataset.classes[:_MAX_CLASSES]
    chosen = [np.flatnonzero(labels == label)[:_MAX_COLUMNS] for label in classes]
    ticks = class_ticks(class_names, dataset.num_classes)
    names = [ticks[label] for label in classes]
    num_columns = max((len(indices) for indices in chosen), default=0)
    _, height, width = dataset.encoded.image_shape
    margin = 0.5 + 1.5 * CHAR_WIDTH * max((len(name) for name in names), default=0)
    figure, axes = new_figure(
        max(1, len(classes)) * _SIDE * height / width + 0.5,
        width=max(6.0, num_columns * _SIDE + margin),
    )
    if classes:
        _draw(axes, _tile(dataset.images.numpy(), chosen, num_columns), names)
    else:
        axes.set_axis_off()
    set_title(axes, _describe(dataset, len(classes), num_columns), width=100)
    return figure


def _tile(images: NDArray[Any], chosen: Sequence[NDArray[Any]], num_columns: int) -> NDArray[np.uint8]:
    """The chosen images side by side on white, uint8 (H, W, 3)."""
    channels, height, width = images.shape[1:]
    gap = max(1, height // 12)
    sheet = np.full((len(chosen) * (height + gap), num_columns * (width + gap), 3), 255, np.uint8)
    for row, indices in enumerate(chosen):
        for column, index in enumerate(indices):
            # One channel spreads over all three colors.
            image = images[index] if channels == 3 else images[index, :1]
            top, left = row * (height + gap) + gap // 2, column * (width + gap) + gap // 2
            sheet[top : top + height, left : left + width] = image.transpose(1, 2, 0)
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
    """What the memory holds, and how much of it is shown."""
    text = f"{len(dataset)} exemplars ({dataset.provenance.method}, {dataset.encoded.codec})"
    if num_classes < len(dataset.classes):
        text += f", {num_classes} of {len(dataset.classes)} classes"
    if num_columns < max(dataset.images_per_class.values(), default=0):
        text += f", the first {num_columns} of each class"
    return text
