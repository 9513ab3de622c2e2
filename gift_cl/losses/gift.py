"""The GIFT loss: cosine distance of student logits to a soft label refined by the hard label."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gift_cl.losses.checks import check_inputs, check_interval, check_labels, check_matrix
from gift_cl.losses.precision import autocast_off, upcast

WEIGHT = 1 / 11  # gamma in the paper; the code's `soft + 0.1 * hard` is this mix times 1.1
ALPHA = 0.1
EPS = 1e-8  # a row shorter than this has no direction


def refine_labels(
    soft_labels: Tensor, labels: Tensor, *, weight: float = WEIGHT, alpha: float = ALPHA
) -> Tensor:
    """Soft labels pulled towards the hard labels: the target of the GIFT loss.

    Each row is ``weight * h / |h| + (1 - weight) * s / |s|``, where ``s`` is the soft label and
    ``h`` the smoothed hard label: ``1 - alpha`` at the true class, ``alpha / (C - 1)`` at every
    other one. A soft label of zeros adds nothing.

    Args:
        soft_labels: Teacher logits, shape ``(N, C)``; any positive scale.
        labels: Class numbers, shape ``(N,)``, int64.
        weight: Share of the hard label, in ``[0, 1]``.
        alpha: Smoothing of the hard label, in ``[0, 1)``. With one class there is none.

    Returns:
        Shape ``(N, C)``, float32 or the wider dtype of the soft labels; not of unit length.

    Raises:
        TypeError: If an argument has an unusable dtype.
        ValueError: If the shapes do not fit, the batch is empty, or an option is out of its range.

    Example:
        >>> refine_labels(torch.tensor([[0.0, 2.0]]), torch.tensor([0]), weight=0.25, alpha=0.0)
        tensor([[0.2500, 0.7500]])

    Source:
        Shang, Sun and Lin, GIFT, ICLR 2025; LINs-lab/GIFT@38db552, validate/losses_benchmark.py.
        Their code adds 0.1 of the hard part to the whole soft part. The cosine ignores the scale of
        its target, so that is ``weight = 1/11``, because (1/11) / (1 - 1/11) = 0.1.
    """
    check_matrix("soft_labels", soft_labels)
    check_labels(labels, num_rows=soft_labels.shape[0])
    _check_options(weight, alpha)
    (soft_labels,) = upcast(soft_labels)
    with autocast_off(soft_labels.device):
        return _refine(soft_labels, labels, weight, alpha)


def gift_loss(
    logits: Tensor,
    soft_labels: Tensor,
    labels: Tensor,
    *,
    weight: float = WEIGHT,
    alpha: float = ALPHA,
) -> Tensor:
    """One minus the mean cosine similarity between student logits and refined soft labels.

    The scale of the logits and of the soft labels does not matter; an offset does. Give logits, not
    probabilities or log-probabilities. A row of zeros counts as cosine 0, and its gradient
    points straight at its target. Gradients reach the soft labels too if these require them.

    Args:
        logits: Raw student outputs, shape ``(N, C)``; half precision is computed in float32.
        soft_labels: Teacher logits for the same views, shape ``(N, C)``; any positive scale.
        labels: Class numbers, shape ``(N,)``, int64.
        weight: Share of the hard label, in ``[0, 1]``: 0 is the cosine to the soft label alone, 1
            to the hard label alone.
        alpha: Smoothing of the hard label, in ``[0, 1)``; nearly without effect.

    Returns:
        Scalar in ``[0, 2]``; 0 when every row is parallel to its refined label.

    Raises:
        TypeError: If an argument has an unusable dtype.
        ValueError: If the shapes do not fit, the batch is empty, or an option is out of its range.

    Example:
        >>> logits, soft_labels = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])
        >>> gift_loss(logits, soft_labels, torch.tensor([0]), weight=0.0)
        tensor(0.2000)
        >>> gift_loss(logits, soft_labels, torch.tensor([0]), weight=1.0, alpha=0.0)
        tensor(0.4000)

    Source:
        Shang, Sun and Lin, GIFT, ICLR 2025; LINs-lab/GIFT@38db552, validate/losses_benchmark.py.
        The default weight equals their ``soft + 0.1 * hard``; see :func:`refine_labels`.
    """
    check_inputs(logits, soft_labels, labels)
    _check_options(weight, alpha)
    logits, soft_labels = upcast(logits, soft_labels)
    with autocast_off(logits.device):
        return cosine_distance(logits, _refine(soft_labels, labels, weight, alpha))


class GIFTLoss(nn.Module):
    """The GIFT loss as a module; it calls :func:`gift_loss`.

    Args:
        weight: Share of the hard label, in ``[0, 1]``.
        alpha: Smoothing of the hard label, in ``[0, 1)``.

    Example:
        >>> GIFTLoss()
        GIFTLoss(weight=0.0909, alpha=0.1)
    """

    def __init__(self, weight: float = WEIGHT, alpha: float = ALPHA) -> None:
        super().__init__()
        _check_options(weight, alpha)
        self.weight = weight
        self.alpha = alpha

    def forward(self, logits: Tensor, soft_labels: Tensor, labels: Tensor) -> Tensor:
        """The loss as a scalar; see :func:`gift_loss` for the arguments."""
        return gift_loss(logits, soft_labels, labels, weight=self.weight, alpha=self.alpha)

    def extra_repr(self) -> str:
        """The options, as they appear in the printed module."""
        return f"weight={self.weight:.3g}, alpha={self.alpha:.3g}"


def cosine_distance(logits: Tensor, targets: Tensor) -> Tensor:
    """One minus the mean cosine similarity of the rows; inputs are trusted."""
    return 1 - (_normalise(logits) * _normalise(targets)).sum(dim=1).mean()


def _refine(soft_labels: Tensor, labels: Tensor, weight: float, alpha: float) -> Tensor:
    num_others = soft_labels.shape[1] - 1
    smoothing = alpha if num_others else 0.0
    # All smoothed labels have the same two values, hence the same length.
    true, other = 1 - smoothing, smoothing / max(num_others, 1)
    scale = weight / math.sqrt(true**2 + num_others * other**2)
    hard_part = soft_labels.new_full(soft_labels.shape, scale * other)
    hard_part.scatter_(1, labels.unsqueeze(1), scale * true)
    return hard_part + (1 - weight) * _normalise(soft_labels)


def _normalise(rows: Tensor) -> Tensor:
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    # Dividing a row of zeros by one, not by a tiny number, keeps its gradient at a usable size.
    divisors: Tensor = norms.masked_fill(norms < EPS, 1.0)
    return rows / divisors


def _check_options(weight: float, alpha: float) -> None:
    check_interval("weight", weight, "[0, 1]")
    check_interval("alpha", alpha, "[0, 1)")
