"""A part of a data set that is small enough for experiments on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from gift_cl.dataset import DistilledDataset
from gift_cl.real_data.real_data import RealData


def subset(data: RealData, *, classes: Sequence[int] | None = None, per_class: int | None = None) -> RealData:
    """Some classes of a data set, and the first training images of each.

    Args:
        data: Left as it is.
        classes: Labels of the classes to keep; they are numbered anew in this order. None for all.
        per_class: Training images of each class, the first ones. None for all. Test images are all kept.

    Returns:
        Copies of the images, in memory and in the order that they had. The name says what it is, as
        ``cifar100-10classes-200each`` does.

    Raises:
        ValueError: If a label is unknown or given twice, there is none, or a class has fewer training images.
    """
    name = data.name
    if classes is not None:
        _check_classes(data, classes)
        name += f"-{_name_classes(classes)}"
        words = f"classes {', '.join(map(str, classes))} of {data.num_classes} only"
        train, test = (_keep_classes(part, classes, words) for part in (data.train, data.test))
        data = RealData(name, train, test)
    if per_class is not None:
        _check_per_class(data, per_class)
        data = RealData(f"{name}-{per_class}each", _keep_first(data.train, per_class), data.test)
    return data


def _keep_classes(dataset: DistilledDataset, classes: Sequence[int], words: str) -> DistilledDataset:
    new_labels = torch.full((dataset.num_classes,), -1)
    new_labels[list(classes)] = torch.arange(len(classes))
    kept = (new_labels[dataset.labels] >= 0).nonzero().flatten()
    names = dataset.class_names
    return replace(
        dataset.select(kept),
        labels=new_labels[dataset.labels[kept]],
        num_classes=len(classes),
        class_names=None if names is None else tuple(names[label] for label in classes),
        provenance=replace(dataset.provenance, source=f"{dataset.provenance.source}, {words}"),
    )


def _keep_first(dataset: DistilledDataset, per_class: int) -> DistilledDataset:
    first = [
        (dataset.labels == label).nonzero().flatten()[:per_class] for label in range(dataset.num_classes)
    ]
    words = f"the first {per_class} of each class only"
    provenance = replace(dataset.provenance, source=f"{dataset.provenance.source}, {words}")
    return replace(dataset.select(torch.cat(first).sort().values), provenance=provenance)


def _name_classes(classes: Sequence[int]) -> str:
    if list(classes) == list(range(len(classes))):
        return f"{len(classes)}classes"
    return f"classes{'+'.join(map(str, classes))}"


def _check_classes(data: RealData, classes: Sequence[int]) -> None:
    unknown = [label for label in classes if not 0 <= label < data.num_classes]
    if unknown or not classes or len(set(classes)) < len(classes):
        raise ValueError(
            f"Expected different `classes` of the {data.num_classes} of {data.name}, at least one and each "
            f"in [0, {data.num_classes}), got {list(classes)}."
        )


def _check_per_class(data: RealData, per_class: int) -> None:
    label, most = min(data.train.images_per_class.items(), key=lambda item: item[1])
    if not 1 <= per_class <= most:
        raise ValueError(
            f"Expected `per_class` in [1, {most}], the training images of `{data.class_names[label]}`, got "
            f"{per_class}."
        )
