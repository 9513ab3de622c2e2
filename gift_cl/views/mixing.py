"""Mixup and CutMix: each sample is mixed with a partner of its own batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from gift_cl.registry import Registry
from gift_cl.transfer import sent
from gift_cl.views.view import check_inputs, check_number, restored, widened, written_spec


@dataclass(frozen=True, eq=False)
class Mixed:
    """A mixed batch, and what its labels need.

    A loss or a stored label of sample j is ``share`` of its own and ``1 - share`` of its partner's; a teacher
    labels ``inputs`` as they are.

    Args:
        inputs: Float (N, C, H, W).
        partner: Index in the batch of what each sample is mixed with, int64 (N,), on the inputs' device.
        share: Of the sample's own image, in [0, 1]; one for the batch.
    """

    inputs: Tensor
    partner: Tensor
    share: float


class Mix(Protocol):
    """Mixes a batch, with one share and one permutation drawn on the CPU."""

    @property
    def spec(self) -> str:
        """What builds this mix again: ``"cutmix:alpha=0.5"``."""
        ...

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Mixed:
        """The batch mixed within itself; ``inputs``, float (N, C, H, W), are not changed."""
        ...


@dataclass(frozen=True)
class NoMix:
    """The inputs themselves, each its own partner; draws nothing."""

    @property
    def spec(self) -> str:
        """See ``Mix``."""
        return "none"

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Mixed:
        """See ``Mix``."""
        del generator
        return Mixed(check_inputs(inputs), torch.arange(len(inputs), device=inputs.device), 1.0)


@dataclass(frozen=True)
class Mixup:
    """A weighted mean of each sample and its partner, computed in float32 or better.

    Args:
        alpha: The share is drawn from Beta(alpha, alpha); above 0.

    Source:
        Zhang et al., mixup, ICLR 2018; one share a batch, as VILA-Lab/SRe2L@8d00cba.
    """

    alpha: float = 0.8

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, low_too=False)

    @property
    def spec(self) -> str:
        """See ``Mix``."""
        return written_spec("mixup", self)

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Mixed:
        """See ``Mix``."""
        images = widened(inputs)
        share, partner = _beta(self.alpha, generator), _partner(inputs, generator)
        return Mixed(restored(torch.lerp(images[partner], images, share), inputs), partner, share)


@dataclass(frozen=True)
class CutMix:
    """One box of each image is replaced by the same box of its partner; exact.

    Args:
        alpha: The area outside the box, before it is clipped, is drawn from Beta(alpha, alpha); above 0.

    Source:
        Yun et al., CutMix, ICCV 2019; one box a batch, as VILA-Lab/SRe2L@8d00cba and LINs-lab/RDED@3f6453d.
        Their side int(S sqrt(1 - lambda)) loses a pixel where it is odd, since half of it, rounded down, lies
        on either side of the centre; so does ours. ``share`` is what is left of the own image in the end.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, low_too=False)

    @property
    def spec(self) -> str:
        """See ``Mix``."""
        return written_spec("cutmix", self)

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Mixed:
        """See ``Mix``."""
        height, width = check_inputs(inputs).shape[2:]
        top, left, bottom, right = self.draw(height, width, generator)
        partner = _partner(inputs, generator)
        mixed = inputs.clone()
        mixed[:, :, top:bottom, left:right] = inputs[:, :, top:bottom, left:right][partner]
        return Mixed(mixed, partner, 1 - (bottom - top) * (right - left) / (height * width))

    def draw(self, height: int, width: int, generator: torch.Generator) -> tuple[int, int, int, int]:
        """The box: first row, first column, and the row and column after the last."""
        side = math.sqrt(1 - _beta(self.alpha, generator))
        centre = torch.rand(2, dtype=torch.float64, generator=generator).tolist()
        starts, stops = [], []
        for size, place in zip((height, width), centre, strict=True):
            middle, half = int(place * size), int(side * size) // 2
            starts.append(max(middle - half, 0))
            stops.append(min(middle + half, size))
        return starts[0], starts[1], stops[0], stops[1]


def _beta(alpha: float, generator: torch.Generator) -> float:
    """A draw from Beta(alpha, alpha), which torch does not offer for a generator."""
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    return float(np.random.default_rng(seed).beta(alpha, alpha))


def _partner(inputs: Tensor, generator: torch.Generator) -> Tensor:
    return sent(torch.randperm(len(inputs), generator=generator), inputs.device)


MIXES: Registry[Mix] = Registry("mix")
MIXES.add("none", NoMix, reference="the batch as it is")
MIXES.add("mixup", Mixup, reference="Zhang et al., mixup, ICLR 2018; alpha of VILA-Lab/SRe2L@8d00cba")
MIXES.add("cutmix", CutMix, reference="Yun et al., CutMix, ICCV 2019; alpha of VILA-Lab/SRe2L@8d00cba")
