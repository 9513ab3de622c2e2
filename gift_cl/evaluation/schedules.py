"""Learning rates by epoch, as factors of the first one: pure functions, by name.

A schedule is written as in ``multistep``, ``step:at=0.5`` or ``warmup:5 | cosine``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

from gift_cl.registry import Registry


class Schedule(Protocol):
    """Factor of the learning rate in an epoch; it stays the same within the epoch."""

    def __call__(self, epoch: int, epochs: int) -> float:
        """The factor in ``epoch``, counted from 0, of ``epochs``; at least 0."""


@dataclass(frozen=True)
class MultiStep:
    """Two drops by the same factor; the first epoch comes before both.

    Args:
        first: Share of the epochs before the first drop, rounded down to whole epochs, in [0, 1].
        second: The same of the second drop.
        factor: Of each drop, at least 0.

    Source:
        LINs-lab/GIFT@38db552: drops to a fifth at 2/3 and 5/6.
    """

    first: float = 2 / 3
    second: float = 5 / 6
    factor: float = 0.2

    def __post_init__(self) -> None:
        _check_share("first", self.first)
        _check_share("second", self.second)
        _check_factor(self.factor)

    def __call__(self, epoch: int, epochs: int) -> float:
        """See ``Schedule``."""
        drops = sum(epoch >= _whole(share, epochs) for share in (self.first, self.second))
        return self.factor**drops


@dataclass(frozen=True)
class Step:
    """One drop; the first epoch comes before it.

    Args:
        at: Share of the epochs before the drop, rounded down to whole epochs, in [0, 1].
        factor: Of the drop, at least 0.

    Source:
        NUS-HPC-AI-Lab/DATM@97ae510: a tenth from half on. Deliberate differences: they drop after
        epoch E/2 + 1, and make a new optimiser there, which forgets its momentum.
    """

    at: float = 0.5
    factor: float = 0.1

    def __post_init__(self) -> None:
        _check_share("at", self.at)
        _check_factor(self.factor)

    def __call__(self, epoch: int, epochs: int) -> float:
        """See ``Schedule``."""
        return self.factor if epoch >= _whole(self.at, epochs) else 1.0


@dataclass(frozen=True)
class Cosine:
    """Half a wave from 1 to 0, which the epoch after the last one would have."""

    def __call__(self, epoch: int, epochs: int) -> float:
        """See ``Schedule``."""
        return (1 + math.cos(math.pi * epoch / epochs)) / 2


@dataclass(frozen=True)
class HalfCosine:
    """The first half of that wave: from 1 to 1/2.

    Source:
        Sun et al., RDED, CVPR 2024; LINs-lab/RDED@3f6453d ("smoothed cosine").
    """

    def __call__(self, epoch: int, epochs: int) -> float:
        """See ``Schedule``."""
        return (1 + math.cos(math.pi * epoch / (2 * epochs))) / 2


@dataclass(frozen=True)
class Constant:
    """Always 1."""

    def __call__(self, epoch: int, epochs: int) -> float:
        """See ``Schedule``."""
        del epoch, epochs
        return 1.0


@dataclass(frozen=True)
class WarmUp:
    """A straight rise before another schedule, which gets the epochs that are left.

    Args:
        epochs: Of the rise, at least 1.
        start: Factor in the first epoch, in [0, 1].
        then: What follows.

    Source:
        torchvision's reference training, which zeyuanyin/tiny-imagenet@275c667 uses: 5 epochs from 0.01.
    """

    epochs: int = 5
    start: float = 0.01
    then: Schedule = Constant()

    def __post_init__(self) -> None:
        if not (isinstance(self.epochs, int) and self.epochs >= 1):
            raise ValueError(f"Expected `epochs` of the warm-up of at least 1, got {self.epochs!r}.")
        _check_share("start", self.start)

    def __call__(self, epoch: int, epochs: int) -> float:
        """See ``Schedule``."""
        if epoch < self.epochs:
            return self.start + (1 - self.start) * epoch / self.epochs
        return self.then(epoch - self.epochs, epochs - self.epochs)


SCHEDULES: Registry[Schedule] = Registry("schedule")
SCHEDULES.add("multistep", MultiStep, reference="LINs-lab/GIFT@38db552")
SCHEDULES.add("cosine", Cosine, reference="Loshchilov and Hutter, SGDR, ICLR 2017, without restarts")
SCHEDULES.add("half_cosine", HalfCosine, reference="LINs-lab/RDED@3f6453d")
SCHEDULES.add("step", Step, reference="NUS-HPC-AI-Lab/DATM@97ae510")
SCHEDULES.add("constant", Constant, reference="the learning rate as it is")


def build_schedule(spec: str) -> Schedule:
    """The schedule that a spec describes, with a warm-up before it or without.

    Args:
        spec: One of `SCHEDULES`, as ``multistep:factor=0.1``; a warm-up goes first, as in
            ``warmup:epochs=5,start=0.01 | cosine``.

    Raises:
        ValueError: If a name or an option is unknown, or an option has an unusable value.

    Example:
        >>> schedule = build_schedule("warmup:5 | cosine")
        >>> [round(schedule(epoch, 15), 3) for epoch in (0, 5, 10, 14)]
        [0.01, 1.0, 0.5, 0.024]
    """
    warm_up, bar, rest = spec.partition("|")
    if not bar:
        return SCHEDULES.create(spec.strip())
    then = SCHEDULES.create(rest.strip())
    return replace(_WARM_UPS.create(warm_up.strip()), then=then)


def _warm_up(epochs: int = 5, start: float = 0.01) -> WarmUp:
    return WarmUp(epochs, start)


_WARM_UPS: Registry[WarmUp] = Registry("warm-up")
_WARM_UPS.add("warmup", _warm_up, reference="zeyuanyin/tiny-imagenet@275c667")


def _whole(share: float, epochs: int) -> int:
    """Epochs before a drop; thirds are not exact."""
    return max(1, math.floor(share * epochs + 1e-9))


def _check_share(name: str, value: float) -> None:
    if isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(f"Expected `{name}` in [0, 1], got {value!r}.")


def _check_factor(value: float) -> None:
    if isinstance(value, bool) or not 0 <= value < math.inf:
        raise ValueError(f"Expected `factor` of at least 0, got {value!r}.")
