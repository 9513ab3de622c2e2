"""Coverage: real images to one of which each image of the class is similar."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from gift_cl.distillers.feature_selection import FeatureSelection


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


@dataclass(frozen=True)
class Coverage(FeatureSelection):
    """Greedy facility location in the teacher's features.

    Herding keeps the mean of a class, which few exemplars can share without being like the others. Here each
    exemplar stands for the images that are most like it.

    Source:
        Cornuéjols, Fisher and Nemhauser, Location of bank accounts to optimize float, Management Science
        1977: the greedy choice has at least 1 - 1/e of the best sum of similarities. As a choice of training
        data: Wei, Iyer and Bilmes, ICML 2015.
    """

    spec: str = field(default="coverage", init=False)

    def choose(self, features: Tensor, count: int) -> Tensor:
        """See `cover`."""
        return cover(features, count)
