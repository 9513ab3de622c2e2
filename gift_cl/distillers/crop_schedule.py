"""How small random crops may be, from the first to the last iteration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from gift_cl.views.view import check_number

Curriculum = Literal["constant", "step", "linear", "cosine"]


@dataclass(frozen=True)
class CropSchedule:
    """Smallest share of an image's area that a crop covers; the largest is 1 throughout.

    Args:
        curriculum: ``"constant"`` stays at ``min_scale``; the others begin with whole images and come down
            to it at once (``"step"``), in a straight line or along half a cosine.
        min_scale: Share at the end, in (0, 1].
        milestone: Share of the run after which the end is reached, in (0, 1].

    Example:
        >>> [round(CropSchedule("cosine").at(t, 1000), 3) for t in (0, 250, 500, 999)]
        [1.0, 0.865, 0.54, 0.08]

    Source:
        Yin and Shen, CDA, TMLR 2024; VILA-Lab/SRe2L@8d00cba, CDA.
    """

    curriculum: Curriculum = "constant"
    min_scale: float = 0.08
    milestone: float = 1.0

    def __post_init__(self) -> None:
        if self.curriculum not in get_args(Curriculum):
            known = ", ".join(get_args(Curriculum))
            raise ValueError(f"Expected `curriculum` to be one of {known}, got {self.curriculum!r}.")
        for name in ("min_scale", "milestone"):
            check_number(name, getattr(self, name), high=1, low_too=False)

    def at(self, iteration: int, iterations: int) -> float:
        """Smallest share in ``iteration``, counted from 0, of a run of ``iterations``."""
        way = iteration / (self.milestone * iterations)
        if way >= 1 or self.curriculum == "constant":
            return self.min_scale
        above = {"step": 1.0, "linear": 1 - way, "cosine": (1 + math.cos(math.pi * way)) / 2}
        return self.min_scale + (1 - self.min_scale) * above[self.curriculum]
