"""GIFT beside cross-entropy: the direction of the teacher, and the scale that a cosine leaves open."""

from __future__ import annotations

from torch import Tensor

from gift_cl.losses.checks import check_interval
from gift_cl.losses.gift import ALPHA, WEIGHT, gift_loss
from gift_cl.losses.rivals import ce_loss


def gift_ce_loss(
    logits: Tensor,
    soft_labels: Tensor,
    labels: Tensor,
    *,
    weight: float = WEIGHT,
    alpha: float = ALPHA,
    ce_weight: float = 1.0,
) -> Tensor:
    """:func:`gift_loss` plus ``ce_weight`` times :func:`ce_loss`.

    A cosine says nothing of the scale of logits, and its gradient fades as they grow. Beside a
    cross-entropy on current data that is a handicap; here the exemplars have a cross-entropy of their own.

    Args:
        logits: Raw student outputs, shape ``(N, C)``.
        soft_labels: Teacher logits, shape ``(N, C)``; any positive scale.
        labels: Class numbers, shape ``(N,)``, int64.
        weight: Share of the hard label in the refined label of GIFT, in [0, 1].
        alpha: Label smoothing of GIFT, in [0, 1).
        ce_weight: Factor of the cross-entropy, at least 0.

    Returns:
        Scalar, at least 0.

    Example:
        >>> import torch
        >>> logits, soft_labels = torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, 2.0]])
        >>> gift_ce_loss(logits, soft_labels, torch.tensor([0]), weight=0.0)
        tensor(0.6931)

    Source:
        No paper: the analogue of ``mse_ce`` and ``softce_ce`` in LINs-lab/GIFT@38db552 for GIFT.
    """
    check_interval("ce_weight", ce_weight, "[0, inf)")
    gift_part = gift_loss(logits, soft_labels, labels, weight=weight, alpha=alpha)
    return gift_part + ce_weight * ce_loss(logits, None, labels)
