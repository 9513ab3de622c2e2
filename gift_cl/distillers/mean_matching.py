"""What is matched of two sets of features: their means, class by class."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def class_moments(features: Tensor, owners: Tensor, *, order: int = 1) -> Tensor:
    """Means of each class of the features, and of their powers up to ``order``.

    Args:
        features: (N, D), on any device.
        owners: The class of each row, from 0 to C - 1, int64 (N,) on the CPU; each class has a row.
        order: At least 1.

    Returns:
        (C, order · D), first powers first; differentiable with respect to the features.

    Example:
        >>> class_moments(torch.tensor([[0.0], [2.0], [3.0]]), torch.tensor([0, 0, 1]), order=2)
        tensor([[1., 2.],
                [3., 9.]])
    """
    members = nn.functional.one_hot(owners).T.to(features.dtype)
    shares = (members / members.sum(1, keepdim=True)).to(features.device)
    return torch.cat([shares @ features**power for power in range(1, order + 1)], 1)
