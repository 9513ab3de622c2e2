"""Real images as exemplars: what every distilled data set of the same size is compared with."""

from __future__ import annotations

from dataclasses import replace

import torch

from gift_cl.dataset import DistilledDataset
from gift_cl.distillers import DISTILLERS
from gift_cl.real_data.real_data import RealData
from gift_cl.teacher import Teacher


def real_exemplars(
    data: RealData, method: str = "random", *, ipc: int, teacher: Teacher | None = None, seed: int = 0
) -> DistilledDataset:
    """A few training images of each class, or what a distiller makes of them.

    Args:
        data: Its training images are used, and no others.
        method: Spec of a distiller: ``"random"``, ``"coverage"``, ``"rded:factor=2"``.
        ipc: Exemplars of each class, at least 1.
        teacher: For methods that need one; it has seen all classes.
        seed: Of the method's draws.

    Returns:
        Exactly ``ipc`` raw images of each class, class after class.

    Raises:
        UnseenClassError: If the teacher has not seen a class.
        ValueError: If the method is unknown or needs a teacher, or a class has too few images.
    """
    made = DISTILLERS.create(method).distill(
        data.train.images,
        data.train.labels,
        per_class=ipc,
        num_classes=data.num_classes,
        teacher=teacher,
        generator=torch.Generator().manual_seed(seed),
    )
    label, count = min(made.images_per_class.items(), key=lambda item: item[1])
    if count < ipc:
        raise ValueError(
            f"Expected at most {count} for `ipc`, as many as `{method}` makes of the images of "
            f"`{data.class_names[label]}`, got {ipc}."
        )
    provenance = replace(made.provenance, source=data.train.provenance.source)
    return replace(made, class_names=data.class_names, provenance=provenance)
