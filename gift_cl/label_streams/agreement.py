"""Whether soft labels belong to the images they are matched with."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from gift_cl.label_streams.batch import Mix

_CHANCE_OF_ERROR = 1e-3


@dataclass(frozen=True)
class Agreement:
    """How often a teacher's answer is the label of the image that the row is matched with.

    A row of a mixed view counts as its own label's part of the view where that is the answer, and as the
    partner's part where the partner's label is.

    Args:
        hits: Sum over the rows.
        expected: The same sum if images were matched at random; ``rows / C`` for equally many of each class.
        rows: Rows compared.
    """

    hits: float = 0.0
    expected: float = 0.0
    rows: int = 0

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(self.hits + other.hits, self.expected + other.expected, self.rows + other.rows)

    @property
    def share(self) -> float:
        """Mean over the rows, in [0, 1]."""
        return self.hits / max(self.rows, 1)

    @property
    def chance(self) -> float:
        """The share that a random matching has in the mean."""
        return self.expected / max(self.rows, 1)

    @property
    def is_significant(self) -> bool:
        """Whether rows matched at random would agree as often as this less than once in a thousand times.

        By Hoeffding's bound, which holds for drawing without replacement too, and for any number of rows.

        Example:
            >>> Agreement(hits=30.0, expected=10.0, rows=100).is_significant
            True
            >>> Agreement(hits=3.0, expected=1.0, rows=10).is_significant
            False

        Source:
            Hoeffding, Probability inequalities for sums of bounded random variables, JASA 58 (1963),
            theorem 1 and section 6.
        """
        share, chance = min(self.share, 1.0), self.chance
        if share <= chance:
            return False
        divergence = share * math.log(share / chance)
        if share < 1:
            divergence += (1 - share) * math.log((1 - share) / (1 - chance))
        return self.rows * divergence > -math.log(_CHANCE_OF_ERROR)


@dataclass(frozen=True, eq=False)
class Answers:
    """What a teacher answered on a batch, without its logits.

    Args:
        predicted: Most likely class of each view, int64 (B,).
        mix: How the views are mixed, if they are.
        size: Side of the views in pixels.
    """

    predicted: Tensor
    mix: Mix | None
    size: int

    def agreement(self, labels: Tensor, frequencies: Tensor) -> Agreement:
        """Agreement with hard labels.

        Args:
            labels: Of the image of each row, int64 (B,).
            frequencies: Share of each class in the data set, (C,).
        """
        own = 1.0 if self.mix is None else self.mix.own_share(self.size)
        hits = own * int((self.predicted == labels).sum())
        if self.mix is not None:
            hits += (1 - own) * int((self.predicted == labels[self.mix.partner]).sum())
        return Agreement(hits, float(frequencies[self.predicted].sum()), len(labels))
