"""Real images at random: the control that every distiller has to beat."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from gift_cl.dataset import DistilledDataset
from gift_cl.distillers.protocol import Selection, require_input
from gift_cl.progress import Progress, silent
from gift_cl.teacher import Teacher


@dataclass(frozen=True)
class RandomImages:
    """A uniform draw of each class without replacement."""

    spec: str = field(default="random", init=False)
    needs_teacher: bool = field(default=False, init=False)
    classes_at_once: int = field(default=1, init=False)
    codec: None = field(default=None, init=False)

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
        """See `Distiller.distill`; neither teacher nor progress is used."""
        del teacher, progress
        require_input(images, labels, per_class=per_class)
        parts = []
        for label in labels.unique():
            indices = (labels == label).nonzero().flatten()
            chosen = indices[torch.randperm(len(indices), generator=generator)[:per_class]]
            parts.append(Selection(images[chosen], labels[chosen]))
        return Selection.join(parts).as_dataset(self, num_classes=num_classes, teacher=None)
