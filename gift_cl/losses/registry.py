"""Losses by name, as configurations and command lines choose them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from gift_cl.losses import rivals
from gift_cl.losses.checks import check_labels, check_matrix
from gift_cl.losses.gift import ALPHA, WEIGHT, gift_loss
from gift_cl.losses.gift_ce import gift_ce_loss
from gift_cl.registry import Registry


@dataclass(frozen=True)
class Loss:
    """A loss whose options are fixed; call it with logits, soft labels and hard labels.

    It can be pickled as long as ``function`` can.

    Args:
        name: Its name in :data:`LOSSES`.
        function: Called with ``(logits, soft_labels, labels)``; returns a scalar.
        needs_soft_labels: Whether it reads soft labels at all.
        accepts_hard: Whether it works without soft labels. If it reads them, the one-hot hard
            label, which has a direction as a soft label has, takes their place.
    """

    name: str
    function: Callable[..., Tensor]
    needs_soft_labels: bool = True
    accepts_hard: bool = False

    def __call__(self, logits: Tensor, soft_labels: Tensor | None, labels: Tensor) -> Tensor:
        """The loss of a batch, as a scalar.

        Args:
            logits: Raw student outputs, shape ``(N, C)``.
            soft_labels: Teacher logits, shape ``(N, C)``; may be None if ``accepts_hard``.
            labels: Class numbers, shape ``(N,)``, int64.

        Raises:
            ValueError: If soft labels are missing and needed, or the shapes do not fit.
        """
        if soft_labels is None and self.needs_soft_labels:
            if not self.accepts_hard:
                raise ValueError(
                    f"Expected `soft_labels` for the loss `{self.name}`, got None. "
                    "Label the images with a teacher first, or choose a loss that does without."
                )
            soft_labels = _one_hot(logits, labels)
        return self.function(logits, soft_labels, labels)


def build_loss(spec: str) -> Loss:
    """The loss that a spec describes; the same as ``LOSSES.create(spec)``.

    Raises:
        ValueError: If the name or an option is unknown, or an option has an unusable value.

    Example:
        >>> build_loss("kl:temperature=4,t2=true").name
        'kl'
    """
    return LOSSES.create(spec)


def _one_hot(logits: Tensor, labels: Tensor) -> Tensor:
    check_matrix("logits", logits)
    check_labels(labels, num_rows=logits.shape[0])
    return torch.zeros_like(logits).scatter_(1, labels.unsqueeze(1), 1.0)


def _checked(loss: Loss) -> Loss:
    """The same loss, after it has seen one row: a function checks its own options when called."""
    row = torch.zeros(1, 2, device="cpu")
    loss(row, row, torch.zeros(1, dtype=torch.int64, device="cpu"))
    return loss


def _gift(weight: float = WEIGHT, alpha: float = ALPHA) -> Loss:
    function = partial(gift_loss, weight=weight, alpha=alpha)
    return _checked(Loss("gift", function, accepts_hard=True))


def _cosine() -> Loss:
    return Loss("cosine", rivals.cosine_loss, accepts_hard=True)


def _kl(temperature: float = 20.0, t2: bool = False) -> Loss:
    return _checked(Loss("kl", partial(rivals.kl_loss, temperature=temperature, t2=t2)))


def _soft_ce(temperature: float = 1.0) -> Loss:
    return _checked(Loss("softce", partial(rivals.soft_ce_loss, temperature=temperature)))


def _mse() -> Loss:
    return Loss("mse", rivals.mse_loss)


def _ce() -> Loss:
    return Loss("ce", rivals.ce_loss, needs_soft_labels=False, accepts_hard=True)


def _mse_ce(ce_weight: float = 0.1) -> Loss:
    return _checked(Loss("mse_ce", partial(rivals.mse_ce_loss, ce_weight=ce_weight)))


def _soft_ce_ce(ce_weight: float = 0.1) -> Loss:
    return _checked(Loss("softce_ce", partial(rivals.soft_ce_ce_loss, ce_weight=ce_weight)))


def _gift_ce(weight: float = WEIGHT, alpha: float = ALPHA, ce_weight: float = 1.0) -> Loss:
    function = partial(gift_ce_loss, weight=weight, alpha=alpha, ce_weight=ce_weight)
    return _checked(Loss("gift_ce", function, accepts_hard=True))


LOSSES: Registry[Loss] = Registry("loss")
"""GIFT and its rivals, under the names of LINs-lab/GIFT@38db552."""

_CODE = "LINs-lab/GIFT@38db552, validate/losses_benchmark.py"
LOSSES.add("gift", _gift, reference=f"Shang, Sun and Lin, GIFT, ICLR 2025; {_CODE}")
LOSSES.add("cosine", _cosine, reference=f"GIFT without refinement; {_CODE}")
LOSSES.add("kl", _kl, reference=f"Hinton, Vinyals and Dean, 2015; {_CODE}")
LOSSES.add("softce", _soft_ce, reference=f"The loss of DATM; {_CODE}")
LOSSES.add("mse", _mse, reference=_CODE)
LOSSES.add("ce", _ce, reference="Cross-entropy with hard labels, the baseline without a teacher")
LOSSES.add("mse_ce", _mse_ce, reference=f"The loss of G-VBSM; {_CODE}")
LOSSES.add("softce_ce", _soft_ce_ce, reference=_CODE)
LOSSES.add("gift_ce", _gift_ce, reference="GIFT plus cross-entropy; no paper")
