"""Mean and spread of a few runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Statistic:
    """Mean and sample standard deviation of ``n`` values; nan where they do not exist."""

    mean: float
    sd: float
    n: int

    def text(self, *, scale: float = 1.0) -> str:
        """``61.5 ± 1.2``; without a deviation when there is one value, ``-`` when there is none."""
        if self.n == 0:
            return "-"
        mean = f"{self.mean * scale:.1f}"
        return mean if math.isnan(self.sd) else f"{mean} ± {self.sd * scale:.1f}"


def mean_sd(values: Iterable[float | None]) -> Statistic:
    """Mean and sample standard deviation (ddof = 1) of the values that are there.

    Example:
        >>> mean_sd([1.0, 2.0, None, 6.0])
        Statistic(mean=3.0, sd=2.6457513110645907, n=3)
    """
    present = [float(value) for value in values if value is not None]
    mean = statistics.fmean(present) if present else math.nan
    return Statistic(mean, statistics.stdev(present) if len(present) > 1 else math.nan, len(present))
