"""Herding: real images whose mean feature stays close to the mean feature of their class."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gift_cl.dataset import DistilledDataset
from gift_cl.distillers.protocol import Selection, require_finite, require_input, require_teacher
from gift_cl.models import penultimate
from gift_cl.progress import Progress, silent
from gift_cl.teacher import Teacher, as_float


@dataclass(frozen=True)
class Herding:
    """Greedy selection in the teacher's L2-normalised penultimate features.

    Source:
        Welling, Herding dynamical weights to learn, ICML 2009; Rebuffi et al., iCaRL, CVPR 2017,
        algorithm 4. No image is taken twice.
    """

    spec: str = field(default="herding", init=False)
    needs_teacher: bool = field(default=True, init=False)
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
        """See `Distiller.distill`; nothing is drawn."""
        del generator
        require_input(images, labels, per_class=per_class)
        teacher = require_teacher(teacher, labels, method=self.spec)
        features = nn.functional.normalize(_features(teacher, images, progress), dim=1).cpu()
        require_finite(features, method=self.spec)
        parts = []
        for label in labels.unique():
            indices = (labels == label).nonzero().flatten()
            chosen = indices[herd(features[indices], min(per_class, len(indices)))]
            parts.append(Selection(images[chosen], labels[chosen]))
        return Selection.join(parts).as_dataset(self, num_classes=num_classes, teacher=teacher)


def herd(features: Tensor, count: int) -> Tensor:
    """Indices of ``count`` rows whose running mean follows the mean of all rows.

    Args:
        features: (N, D).
        count: At most N.

    Returns:
        int64 (count,), in the order of choice; every prefix is a herding selection itself.
    """
    mean = features.mean(0)
    total = torch.zeros_like(mean)
    free = torch.ones(len(features), dtype=torch.bool, device=features.device)
    squares = features.square().sum(1)
    chosen = []
    for step in range(1, count + 1):
        # |mean - (total + f) / step|², up to terms that are the same for every f
        distance = squares / step - 2 * (features @ (mean - total / step))
        best = int(distance.masked_fill(~free, torch.inf).argmin())
        chosen.append(best)
        free[best] = False
        total = total + features[best]
    return torch.tensor(chosen, dtype=torch.int64)


@torch.no_grad()
def _features(teacher: Teacher, images: Tensor, progress: Progress, batch_size: int = 512) -> Tensor:
    device = next(teacher.model.parameters()).device
    features: list[Tensor] = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size].to(device)
        features.append(penultimate(teacher.model, teacher.normalization.apply(as_float(batch))))
        progress(start + len(batch), len(images))
    return torch.cat(features)
