"""The losses GIFT is compared with; all take student logits, soft labels and hard labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gift_cl.losses.checks import check_inputs, check_interval, check_labels, check_matrix
from gift_cl.losses.gift import cosine_distance
from gift_cl.losses.precision import autocast_off, upcast


def cosine_loss(logits: Tensor, soft_labels: Tensor, labels: Tensor) -> Tensor:
    """One minus the mean cosine similarity between student logits and soft labels.

    This is the GIFT loss without its refinement; the hard labels are not used.

    Args:
        logits: Raw student outputs, shape ``(N, C)``.
        soft_labels: Teacher logits, shape ``(N, C)``; any positive scale.
        labels: Class numbers, shape ``(N,)``, int64.

    Returns:
        Scalar in ``[0, 2]``; 0 when every row is parallel to its soft label.

    Example:
        >>> logits, soft_labels = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])
        >>> cosine_loss(logits, soft_labels, torch.tensor([0]))
        tensor(0.2000)

    Source:
        LINs-lab/GIFT@38db552, validate/losses_benchmark.py, ``cosine``.
    """
    check_inputs(logits, soft_labels, labels)
    logits, soft_labels = upcast(logits, soft_labels)
    with autocast_off(logits.device):
        return cosine_distance(logits, soft_labels)


def kl_loss(
    logits: Tensor,
    soft_labels: Tensor,
    labels: Tensor,
    *,
    temperature: float = 20.0,
    t2: bool = False,
) -> Tensor:
    """Mean divergence KL(teacher || student) of the softened class probabilities.

    Without ``t2`` the gradient falls with the square of the temperature. Plain SGD then hardly
    moves at the default of 20, so compare with ``t2=True`` too before blaming the loss.

    Args:
        logits: Raw student outputs, shape ``(N, C)``.
        soft_labels: Teacher logits, shape ``(N, C)``.
        labels: Class numbers, shape ``(N,)``, int64; not used.
        temperature: Divides both kinds of logits before the softmax; above 0.
        t2: Multiply the loss by the squared temperature.

    Returns:
        Scalar, at least 0; the sum over classes, averaged over rows.

    Example:
        >>> logits, soft_labels = torch.tensor([[1.0, 1.0]]), torch.tensor([[20.0, 0.0]])
        >>> kl_loss(logits, soft_labels, torch.tensor([0]))
        tensor(0.1109)

    Source:
        LINs-lab/GIFT@38db552, validate/losses_benchmark.py, ``kl`` (temperature 20, unscaled);
        the factor is that of Hinton, Vinyals and Dean, 2015, section 2.
    """
    check_inputs(logits, soft_labels, labels)
    check_interval("temperature", temperature, "(0, inf)")
    if not isinstance(t2, bool):
        raise TypeError(f"Expected `t2` to be true or false, got {t2!r}.")
    logits, soft_labels = upcast(logits, soft_labels)
    with autocast_off(logits.device):
        divergence = F.kl_div(
            torch.log_softmax(logits / temperature, dim=1),
            torch.log_softmax(soft_labels / temperature, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        return divergence * temperature**2 if t2 else divergence


def soft_ce_loss(logits: Tensor, soft_labels: Tensor, labels: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Mean cross-entropy of the student's class probabilities under the teacher's.

    Args:
        logits: Raw student outputs, shape ``(N, C)``.
        soft_labels: Teacher logits, shape ``(N, C)``.
        labels: Class numbers, shape ``(N,)``, int64; not used.
        temperature: Divides both kinds of logits before the softmax; above 0.

    Returns:
        Scalar, at least 0; the entropy of the teacher's probabilities when the student agrees.

    Example:
        >>> logits, soft_labels = torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0, 0.0]])
        >>> soft_ce_loss(logits, soft_labels, torch.tensor([0]))
        tensor(0.6931)

    Source:
        LINs-lab/GIFT@38db552, validate/losses_benchmark.py, ``softce``; the loss of DATM.
    """
    check_inputs(logits, soft_labels, labels)
    check_interval("temperature", temperature, "(0, inf)")
    logits, soft_labels = upcast(logits, soft_labels)
    with autocast_off(logits.device):
        probs = torch.softmax(soft_labels / temperature, dim=1)
        return F.cross_entropy(logits / temperature, probs)


def mse_loss(logits: Tensor, soft_labels: Tensor, labels: Tensor) -> Tensor:
    """Squared difference between student and teacher logits, averaged over all elements.

    Args:
        logits: Raw student outputs, shape ``(N, C)``.
        soft_labels: Teacher logits, shape ``(N, C)``.
        labels: Class numbers, shape ``(N,)``, int64; not used.

    Returns:
        Scalar, at least 0.

    Example:
        >>> mse_loss(torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0, 1.0]]), torch.tensor([0]))
        tensor(2.)

    Source:
        LINs-lab/GIFT@38db552, validate/losses_benchmark.py, ``mse``.
    """
    check_inputs(logits, soft_labels, labels)
    logits, soft_labels = upcast(logits, soft_labels)
    with autocast_off(logits.device):
        return F.mse_loss(logits, soft_labels)


def ce_loss(logits: Tensor, soft_labels: Tensor | None, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the student's class probabilities under the hard labels.

    Args:
        logits: Raw student outputs, shape ``(N, C)``.
        soft_labels: Not used and not checked; may be None.
        labels: Class numbers, shape ``(N,)``, int64.

    Returns:
        Scalar, at least 0.

    Example:
        >>> ce_loss(torch.tensor([[1.0, 1.0]]), None, torch.tensor([0]))
        tensor(0.6931)
    """
    check_matrix("logits", logits)
    check_labels(labels, num_rows=logits.shape[0])
    (logits,) = upcast(logits)
    with autocast_off(logits.device):
        return F.cross_entropy(logits, labels)


def mse_ce_loss(logits: Tensor, soft_labels: Tensor, labels: Tensor, *, ce_weight: float = 0.1) -> Tensor:
    """:func:`mse_loss` plus ``ce_weight`` times :func:`ce_loss`.

    Args:
        logits: Raw student outputs, shape ``(N, C)``.
        soft_labels: Teacher logits, shape ``(N, C)``.
        labels: Class numbers, shape ``(N,)``, int64.
        ce_weight: Factor of the cross-entropy, at least 0.

    Returns:
        Scalar, at least 0.

    Example:
        >>> logits, soft_labels = torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0, 1.0]])
        >>> mse_ce_loss(logits, soft_labels, torch.tensor([0]))
        tensor(2.0693)

    Source:
        LINs-lab/GIFT@38db552, validate/losses_benchmark.py, ``mse_ce``; the loss of G-VBSM.
    """
    check_interval("ce_weight", ce_weight, "[0, inf)")
    soft_part = mse_loss(logits, soft_labels, labels)
    return soft_part + ce_weight * ce_loss(logits, None, labels)


def soft_ce_ce_loss(logits: Tensor, soft_labels: Tensor, labels: Tensor, *, ce_weight: float = 0.1) -> Tensor:
    """:func:`soft_ce_loss` at temperature 1 plus ``ce_weight`` times :func:`ce_loss`.

    Args:
        logits: Raw student outputs, shape ``(N, C)``.
        soft_labels: Teacher logits, shape ``(N, C)``.
        labels: Class numbers, shape ``(N,)``, int64.
        ce_weight: Factor of the cross-entropy, at least 0.

    Returns:
        Scalar, at least 0.

    Example:
        >>> logits, soft_labels = torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0, 0.0]])
        >>> soft_ce_ce_loss(logits, soft_labels, torch.tensor([0]), ce_weight=1.0)
        tensor(1.3863)

    Source:
        LINs-lab/GIFT@38db552, validate/losses_benchmark.py, ``softce_ce``.
    """
    check_interval("ce_weight", ce_weight, "[0, inf)")
    soft_part = soft_ce_loss(logits, soft_labels, labels)
    return soft_part + ce_weight * ce_loss(logits, None, labels)
