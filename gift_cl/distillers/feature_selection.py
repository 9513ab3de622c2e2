"""Real images of each class, chosen by the features that a teacher sees in them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gift_cl.dataset import DistilledDataset
from gift_cl.distillers.protocol import Distiller, Selection, require_finite, require_input, require_teacher
from gift_cl.memory_format import images_at_once
from gift_cl.models import penultimate
from gift_cl.progress import Progress
from gift_cl.teacher import Teacher, as_float

Choice = Callable[[Tensor, int], Tensor]
"""Of features (N, D), which are not changed, and a number of at most N: that many indices, the best first."""


def select_by_features(
    distiller: Distiller,
    choose: Choice,
    images: Tensor,
    labels: Tensor,
    *,
    per_class: int,
    num_classes: int,
    teacher: Teacher | None,
    progress: Progress,
) -> DistilledDataset:
    """What a `distiller` makes that chooses images of each class by their L2-normalised features.

    Args:
        distiller: Of which method the result says to be.
        choose: Chooses among the features of a class.

    The others are those of `Distiller.distill`.
    """
    require_input(images, labels, per_class=per_class)
    method = distiller.spec
    teacher = require_teacher(teacher, labels, method=method)
    features = nn.functional.normalize(_features(teacher, images, progress), dim=1).cpu()
    require_finite(features, method=method)
    parts = []
    for label in labels.unique():
        indices = (labels == label).nonzero().flatten()
        chosen = indices[choose(features[indices], min(per_class, len(indices)))]
        parts.append(Selection(images[chosen], labels[chosen]))
    return Selection.join(parts).as_dataset(distiller, num_classes=num_classes, teacher=teacher)


@torch.no_grad()
def _features(teacher: Teacher, images: Tensor, progress: Progress) -> Tensor:
    device = next(teacher.model.parameters()).device
    features: list[Tensor] = []
    done = 0
    for batch in images.split(images_at_once(images, device)):
        inputs = teacher.normalization.apply(as_float(batch.to(device)))
        features.append(penultimate(teacher.model, inputs))
        done += len(batch)
        progress(done, len(images))
    return torch.cat(features)
