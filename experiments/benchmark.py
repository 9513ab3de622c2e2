"""A class-incremental benchmark in Avalanche's form, from images in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from avalanche.benchmarks import nc_benchmark
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms

from gift_cl.augmentations import AUGMENTATIONS, CropFlip
from gift_cl.normalization import Normalization
from gift_cl.real_data import RealData


@dataclass(frozen=True)
class Stream:
    """A benchmark with what is needed to evaluate on it.

    Args:
        benchmark: Avalanche's.
        classes: Classes of each experience.
        data: The images.
        normalization: What the transforms apply.
    """

    benchmark: Any
    classes: list[list[int]]
    data: RealData
    normalization: Normalization


class _Images(Dataset[tuple[Tensor, int]]):
    """uint8 images that come out as float pixels in [0, 1]; transforms are Avalanche's business."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Any = None) -> None:
        self.images = images
        self.targets = labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index].float().div_(255), self.targets[index]


def make_stream(data: RealData, *, experiences: int, class_order_seed: int, augmentation: str) -> Stream:
    """Split ``data`` into experiences with the same number of new classes each.

    Args:
        data: The images.
        experiences: Their number; it has to divide the number of classes.
        class_order_seed: -1 keeps the order of the labels.
        augmentation: Of the current training images, as a spec.

    Raises:
        ValueError: If the classes cannot be split evenly.
    """
    if data.num_classes % experiences:
        raise ValueError(f"Expected `experiences` to divide {data.num_classes} classes, got {experiences}.")
    order = list(range(data.num_classes))
    if class_order_seed >= 0:
        generator = torch.Generator().manual_seed(class_order_seed)
        order = torch.randperm(data.num_classes, generator=generator).tolist()
    normalization = _rounded(data.channel_statistics)
    normalize = transforms.Normalize(normalization.mean, normalization.std)
    _, size, _ = data.image_shape
    benchmark = nc_benchmark(
        _Images(data.train.images, data.train.labels),
        _Images(data.test.images, data.test.labels),
        n_experiences=experiences,
        task_labels=False,
        fixed_class_order=order,
        train_transform=transforms.Compose([*_augment(augmentation, size), normalize]),
        eval_transform=normalize,
    )
    step = data.num_classes // experiences
    classes = [order[i * step : (i + 1) * step] for i in range(experiences)]
    return Stream(benchmark, classes, data, normalization)


def _rounded(normalization: Normalization) -> Normalization:
    """Four digits, as such constants are published."""
    mean, std = (tuple(round(v, 4) for v in vs) for vs in (normalization.mean, normalization.std))
    return Normalization(mean, std)


def _augment(spec: str, size: int) -> list[Any]:
    """The same augmentation as the memory's, sample by sample, for Avalanche's loaders."""
    augmentation = AUGMENTATIONS.create(spec)
    if not isinstance(augmentation, CropFlip):
        return []
    flip = [transforms.RandomHorizontalFlip()] if augmentation.flip else []
    return [transforms.RandomCrop(size, padding=augmentation.pad), *flip]
