"""The order in which torch's sampler went through a data set."""

from __future__ import annotations

import torch
from torch import Tensor


class SamplerOrder:
    """The shuffles of ``torch.utils.data.RandomSampler`` with a seeded generator, epoch by epoch.

    An epoch is asked for in any order; later ones first draw all that come before them, once.

    Args:
        num_images: ``N``.
        seed: Of the generator.
        draws: Permutations drawn in each epoch, of which the first one counts. Since torch 2 the sampler
            draws a second one for the part of its samples that does not fill a round, and uses nothing
            of it.

    Example:
        >>> SamplerOrder(5, seed=42, draws=2).epoch(1)
        tensor([0, 2, 3, 1, 4])
    """

    def __init__(self, num_images: int, *, seed: int, draws: int) -> None:
        self._num_images = num_images
        self._draws = draws
        self._states = [torch.Generator().manual_seed(seed).get_state()]  # at the start of each epoch
        self._last = (-1, torch.empty(0, dtype=torch.int64))

    def epoch(self, number: int) -> Tensor:
        """Image of each row of an epoch, int64 (N,)."""
        if self._last[0] != number:
            self._last = (number, self._draw(number))
        return self._last[1]

    def _draw(self, number: int) -> Tensor:
        generator = torch.Generator()
        known = min(number, len(self._states) - 1)
        generator.set_state(self._states[known])
        for epoch in range(known, number + 1):
            order = torch.randperm(self._num_images, generator=generator)
            for _ in range(self._draws - 1):
                torch.randperm(self._num_images, generator=generator)
            if epoch + 1 == len(self._states):
                self._states.append(generator.get_state())
        return order
