"""Which images the rows of a stream belong to, told from what the teacher answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from gift_cl.errors import LayoutError
from gift_cl.label_streams.agreement import Agreement, Answers
from gift_cl.label_streams.order import SamplerOrder
from gift_cl.label_streams.stream import Order

PARTS = ("epoch 0", "the epochs after epoch 0", "the last epochs")
"""Parts of a stream that are compared; all of them have to agree."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Answers on the rows of one batch.

    Args:
        part: Place in `PARTS`.
        epoch: Epoch of the batch.
        rows: Its rows of that epoch.
        answers: What the teacher said.
        indices: Image of each row, int64 (B,), if the file says it.
    """

    part: int
    epoch: int
    rows: slice
    answers: Answers
    indices: Tensor | None


@dataclass(frozen=True, eq=False)
class Match:
    """How rows are matched with images.

    Args:
        order: In words.
        sampler: Says the image of each row, unless the order is given.
        agreement: Of the rows compared.
    """

    order: Order
    sampler: SamplerOrder | None
    agreement: Agreement


def match(evidence: Sequence[Evidence], labels: Tensor, *, num_classes: int, seed: int, where: str) -> Match:
    """The order that fits the answers.

    Given indices are taken. Otherwise torch's sampler, seeded with ``seed``, gives the order, by the rule of
    `SamplerOrder` that fits better after epoch 0, where all rules are the same.

    Args:
        evidence: Batches of epoch 0, and of the other parts if there are later epochs.
        labels: Hard labels of the data set, int64 (N,).
        num_classes: ``C``.
        seed: Of the sampler.
        where: What to call the stream in a message.

    Raises:
        LayoutError: If the answers agree with the labels no better than by chance, in one part or in all.
    """
    samplers: dict[Order, SamplerOrder | None] = {"given": None}
    if evidence[0].indices is None:
        rules: dict[Order, int] = {"two draws": 2, "one draw": 1}
        samplers = {
            order: SamplerOrder(len(labels), seed=seed, draws=draws) for order, draws in rules.items()
        }
    frequencies = labels.bincount(minlength=num_classes).double() / len(labels)
    best, parts = None, [Agreement()] * len(PARTS)
    for order, sampler in samplers.items():
        found = [Agreement()] * len(PARTS)
        for item in evidence:
            indices = item.indices if sampler is None else sampler.epoch(item.epoch)[item.rows]
            found[item.part] += item.answers.agreement(labels[indices], frequencies)
        if best is None or found[1].share > parts[1].share:
            best, parts = Match(order, sampler, sum(found, Agreement())), found
    assert best is not None
    if not best.agreement.is_significant:
        raise LayoutError(_refusal(best, best.agreement, f"`{where}`", seed=seed))
    for part, name in zip(parts[1:], PARTS[1:], strict=True):
        if part.rows and not part.is_significant:
            raise LayoutError(_refusal(best, part, f"{name} of `{where}`", seed=seed))
    return replace(best, order="either") if best.sampler and not parts[1].rows else best


def _refusal(best: Match, found: Agreement, where: str, *, seed: int) -> str:
    """What is wrong, and what the cause may be."""
    cure = (
        f"The order of the rows was drawn anew with seed {seed}. Usual causes: another folder of images or "
        "another number of images a class; another class order; another `seed`; files of several runs in one "
        "folder, or of one that was resumed; a torch whose sampler draws otherwise; too few rows to tell."
    )
    if best.sampler is None:
        cure = (
            "The files say their images, so these are others, or in another class order; or too few to tell."
        )
    return (
        f"Expected answers in {where} that agree with the labels of the data set more often than by chance, "
        f"got {found.share:.2%} of {found.rows} rows (by chance {found.chance:.2%}). {cure}"
    )
