"""Real images of each class, chosen by the features that a teacher sees in them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gift_cl.dataset import DistilledDataset
from gift_cl.distillers.protocol import Selection, require_finite, require_input, require_teacher
from gift_cl.memory_format import images_at_once
from gift_cl.models import penultimate
from gift_cl.progress import Progress, silent
from gift_cl.teacher import Teacher, as_float


@dataclass(frozen=True)
class FeatureSelection(ABC):
    """Images of each class by their L2-normalised penultimate features; a subclass says which."""

    spec: str = field(default="", init=False)
    needs_teacher: bool = field(default=True, init=False)
    classes_at_once: int = field(default=1, init=False)
    codec: None = field(default=None, init=False)

    @abstractmethod
    def choose(self, features: Tensor, count: int) -> Tensor:
        """Indices of ``count`` rows, int64, each once and the best first.

        Args:
            features: Of a class, (N, D), each of length 1; left as they are.
            count: At most N.
        """

    def distill(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        per_class: int,
        num_classes: int,
        teacher: Teacher | None,
        generator: torch.Generator,
        progress: Progress = silent,
    ) -> DistilledDataset:
        """See `Distiller.distill`; nothing is drawn."""
        del generator
        require_input(images, labels, per_class=per_class)
        teacher = require_teacher(teacher, labels, method=self.spec)
        features = nn.functional.normalize(_features(teacher, images, progress), dim=1).cpu()
        require_finite(features, method=self.spec)
        parts = []
        for label in labels.unique():
            indices = (labels == label).nonzero().flatten()
            chosen = indices[self.choose(features[indices], min(per_class, len(indices)))]
            parts.append(Selection(images[chosen], labels[chosen]))
        return Selection.join(parts).as_dataset(self, num_classes=num_classes, teacher=teacher)


@torch.no_grad()
def _features(teacher: Teacher, images: Tensor, progress: Progress) -> Tensor:
    device = teacher.device
    features: list[Tensor] = []
    done = 0
    for batch in images.split(images_at_once(images, device)):
        inputs = teacher.normalization.apply(as_float(batch.to(device)))
        features.append(penultimate(teacher.model, inputs))
        done += len(batch)
        progress(done, len(images))
    return torch.cat(features)
