"""Coverage: real images such that each image of the class has one that is like it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from gift_cl.dataset import DistilledDataset
from gift_cl.distillers.feature_selection import select_by_features
from gift_cl.progress import Progress, silent
from gift_cl.teacher import Teacher


@dataclass(frozen=True)
class Coverage:
    """Greedy facility location in the teacher's L2-normalised penultimate features.

    Herding keeps the mean of a class, which few exemplars can share without being like the others. Here each
    exemplar stands for the images that are most like it.

    Source:
        Cornuéjols, Fisher and Nemhauser, Location of bank accounts to optimize float, Management Science
        1977: the greedy choice has at least 1 - 1/e of the best sum of similarities. As a choice of training
        data: Wei, Iyer and Bilmes, ICML 2015.
    """

    spec: str = field(default="coverage", init=False)
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
        return select_by_features(
            self,
            cover,
            images,
            labels,
            per_class=per_class,
            num_classes=num_classes,
            teacher=teacher,
            progress=progress,
        )


def cover(features: Tensor, count: int) -> Tensor:
    """Indices of ``count`` rows to one of which each row is similar.

    Each choice is the one that adds most to the sum, over all rows, of the largest cosine with a chosen row.

    Args:
        features: (N, D), each of length 1.
        count: At most N.

    Returns:
        int64 (count,), in the order of choice; every prefix is such a selection itself.
    """
    similarities = features @ features.T
    nearest = torch.full_like(similarities[0], -1)  # the least that a cosine can be
    free = torch.ones(len(features), dtype=torch.bool)
    chosen = []
    for _ in range(count):
        gains = (similarities - nearest).clamp_(min=0).sum(1)  # a row of similarities is a candidate
        best = int(gains.masked_fill(~free, -1).argmax())
        chosen.append(best)
        free[best] = False
        nearest = torch.maximum(nearest, similarities[best])
    return torch.tensor(chosen, dtype=torch.int64)
