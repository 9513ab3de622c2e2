"""Avalanche's own memories under our ledger: how many samples a budget buys, and what is kept."""

from __future__ import annotations

from typing import Any

from gift_cl.ledger import Ledger, label_nbytes

_LOGIT = 4  # Avalanche keeps float32


def sample_ledger(*, pixels: int, num_classes: int, num_logits: int = 0) -> Ledger:
    """Bytes of one sample: 1 a pixel value, a label, and float32 logits if the method keeps them."""
    return Ledger(pixels=pixels, labels=label_nbytes(num_classes), soft_labels=_LOGIT * num_logits)


def samples_within(budget_bytes: int, sample: Ledger) -> int:
    """How many samples a budget holds.

    Raises:
        ValueError: If it holds none.
    """
    count = budget_bytes // sample.total
    if count < 1:
        raise ValueError(
            f"Expected `budget_bytes` of at least {sample.total}, the bytes of one sample, "
            f"got {budget_bytes}."
        )
    return count


def count_memory(num_samples: int, sample: Ledger) -> Ledger:
    """Bytes of a memory of equal samples."""
    return Ledger(
        pixels=num_samples * sample.pixels,
        labels=num_samples * sample.labels,
        soft_labels=num_samples * sample.soft_labels,
    )


def num_stored(strategy: Any) -> int:
    """Samples that an Avalanche strategy keeps, wherever it keeps them."""
    for holder in (strategy, *strategy.plugins):
        policy = getattr(holder, "storage_policy", None)
        if policy is not None:
            return len(policy.buffer)
    return 0
