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
            lambda features, count: cover(features @ features.T, count),
            images,
            labels,
            per_class=per_class,
            num_classes=num_classes,
            teacher=teacher,
            progress=progress,
        )


def cover(similarities: Tensor, count: int, costs: Tensor | None = None) -> Tensor:
    """Indices of ``count`` candidates to one of which each of N things is similar.

    Each choice is the one that adds most to the sum, over all things, of the largest similarity to a chosen
    candidate; or most for what it costs.

    Args:
        similarities: Of things and candidates, (N, M), at least -1.
        count: At most M.
        costs: Of candidates, positive (M,); None if they are equal.

    Returns:
        int64 (count,), in the order of choice; every prefix is such a selection itself.
    """
    candidates = similarities.T.contiguous()
    nearest = torch.full_like(candidates[0], -1)
    prices = torch.ones(len(candidates)) if costs is None else costs
    free = torch.ones(len(candidates), dtype=torch.bool)
    chosen = []
    for _ in range(count):
        gains = (candidates - nearest).clamp_(min=0).sum(1) / prices
        best = int(gains.masked_fill(~free, -1).argmax())
        chosen.append(best)
        free[best] = False
        nearest = torch.maximum(nearest, candidates[best])
    return torch.tensor(chosen, dtype=torch.int64)
