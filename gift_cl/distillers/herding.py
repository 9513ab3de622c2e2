"""Herding: real images whose mean feature stays close to the mean feature of their class."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from gift_cl.distillers.feature_selection import FeatureSelection


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


@dataclass(frozen=True)
class Herding(FeatureSelection):
    """Greedy selection in the teacher's features.

    Source:
        Welling, Herding dynamical weights to learn, ICML 2009; Rebuffi et al., iCaRL, CVPR 2017,
        algorithm 4. No image is taken twice.
    """

    spec: str = field(default="herding", init=False)

    def choose(self, features: Tensor, count: int) -> Tensor:
        """See `herd`."""
        return herd(features, count)
