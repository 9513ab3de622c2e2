"""What readers of tensor files have in common: finding them, and checks of images and labels."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch
from torch import Tensor

from gift_cl.dataset import DistilledDataset
from gift_cl.errors import DamagedFileError, LayoutError
from gift_cl.readers.ipc import check_ipc, check_separable, first_of_each
from gift_cl.soft_labels import SoftLabels

LARGEST_VALUE = 1e4
"""Beyond it, a whitened pixel or a logit is a sign of damage."""

_DEEPEST = 6  # folders
_MOST_ENTRIES = 20_000
_LISTED = 6


def files_below(path: Path, pattern: re.Pattern[str]) -> list[Path]:
    """Files below a folder whose whole name matches, sorted; links to folders are not followed.

    Raises:
        LayoutError: If there is too much in it to look through.
    """
    found, num_entries = [], 0
    for folder, folders, names in os.walk(path):
        num_entries += len(folders) + len(names)
        if num_entries > _MOST_ENTRIES:
            raise LayoutError(
                f"Expected at most {_MOST_ENTRIES} files and folders in `{path}`, got more. Give the folder "
                "that holds the data set, and nothing else."
            )
        found += [Path(folder, name) for name in names if pattern.fullmatch(name)]
        if len(Path(folder).relative_to(path).parts) == _DEEPEST:
            folders.clear()
    return sorted(found)


def is_there(path: Path, pattern: re.Pattern[str]) -> bool:
    """Whether a file has such a name, or a folder holds one that has; never raises."""
    if os.path.isfile(path):
        return pattern.fullmatch(path.name) is not None
    try:
        return bool(files_below(path, pattern))
    except LayoutError:
        return False


def listed(items: list[str]) -> str:
    """The first few of many, for a message."""
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(items[:_LISTED]) + more


def require_images(images: object, where: Path) -> Tensor:
    """``images`` as a tensor (N, C, H, W) of at least one image, gray or colour.

    Raises:
        LayoutError: If it is anything else.
    """
    if not isinstance(images, Tensor):
        raise LayoutError(
            f"Expected images in `{where}` as a tensor (N, C, H, W), got {type(images).__name__}. Save the "
            "tensor itself."
        )
    if images.ndim != 4 or 0 in images.shape or images.shape[1] not in (1, 3):
        raise LayoutError(
            f"Expected images in `{where}` of shape (N, C, H, W) with 1 or 3 channels, got "
            f"{tuple(images.shape)}. Save images of one size, channels first."
        )
    return images.detach()  # parameters may have been saved


def require_finite(values: Tensor, name: str, where: Path) -> tuple[float, float]:
    """Smallest and largest of ``values``, which are not empty.

    Raises:
        DamagedFileError: If one is NaN, or beyond `LARGEST_VALUE`.
    """
    low, high = (float(value) for value in torch.aminmax(values.detach().float()))
    if not -LARGEST_VALUE <= low <= high <= LARGEST_VALUE:
        raise DamagedFileError(
            f"The {name} in `{where}` reach from {low:.3g} to {high:.3g}, which no {name} do. The file may "
            "be damaged, or its distillation diverged: get it again, or distil again."
        )
    return low, high


def as_float32(values: Tensor, name: str, where: Path) -> Tensor:
    """The same values as float32.

    Raises:
        LayoutError: If they are no floating-point numbers, or would be rounded.
    """
    single = values.float()
    if not values.is_floating_point() or not torch.equal(single.to(values.dtype), values):
        raise LayoutError(
            f"Expected {name} in `{where}` as floating-point numbers that float32 holds exactly, got "
            f"{str(values.dtype).removeprefix('torch.')}. Save them as float32."
        )
    return single


def require_logits(labels: object, num_images: int, where: Path) -> Tensor:
    """Soft labels as logits, float32 (N, C), with ``C`` dividing ``N``.

    Raises:
        LayoutError: If they are anything else.
        DamagedFileError: If they are not finite.
    """
    shape = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
    if not isinstance(labels, Tensor) or labels.ndim != 2 or len(labels) != num_images:
        raise LayoutError(
            f"Expected soft labels in `{where}` of shape ({num_images}, C), one row for each image, got "
            f"{shape}. Give images and labels of one run."
        )
    num_classes = labels.shape[1]
    if num_classes == 0 or num_images % num_classes:
        raise LayoutError(
            f"Expected equally many images of each class in `{where}`, got {num_images} images for "
            f"{num_classes} classes. Give images and labels of one run."
        )
    low, _ = require_finite(labels, "soft labels", where)
    logits = as_float32(labels.detach(), "soft labels", where)
    if num_classes > 1 and low >= 0 and bool((logits.sum(1) - 1).abs().max() < 1e-3):
        raise LayoutError(
            f"Expected logits in `{where}`, got rows that sum to 1, as probabilities do. Save what the "
            "teacher answered before the softmax."
        )
    return logits


def class_major_labels(logits: Tensor, where: Path) -> Tensor:
    """Hard labels of rows (N, C) that are sorted by class, int64 (N,): row // (N / C).

    Raises:
        LayoutError: If the highest logits do not bear it out.
    """
    num_images, num_classes = logits.shape
    labels = torch.arange(num_images) // (num_images // num_classes)
    agreement = float((logits.argmax(1) == labels).float().mean())
    chance = 1 / num_classes
    # Learned labels need not all agree, but far more do than by chance.
    if agreement < chance + (1 - chance) / 4:
        raise LayoutError(
            f"Expected rows of `{where}` sorted by class, got the highest logit at the class of the row for "
            f"only {agreement:.0%} of them ({chance:.0%} by chance). Sort images and labels by class, or "
            "check that both are of one run."
        )
    return labels


def one_view(logits: Tensor, labels: Tensor) -> SoftLabels:
    """Logits of the stored images themselves, (N, C), exactly."""
    every = tuple(range(logits.shape[1]))
    covered = dict.fromkeys(range(logits.shape[1]), every)
    return SoftLabels.from_logits(logits[:, None], labels, covered, dtype=torch.float32)


def shorten(dataset: DistilledDataset, ipc: int | None, *, where: Path) -> DistilledDataset:
    """The first ``ipc`` images of each class, or all if None.

    Raises:
        ValueError: If ``ipc`` is less than 1.
        LayoutError: If a class has fewer, or if fewer are no data set of their own.
    """
    check_ipc(ipc)
    if ipc is None or set(dataset.images_per_class.values()) == {ipc}:
        return dataset
    chosen = first_of_each(dataset.labels, ipc, where=str(where))
    check_separable(dataset.provenance.method, ipc, factor=dataset.factor, where=str(where))
    return dataset.select(chosen)
