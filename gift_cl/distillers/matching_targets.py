"""What the features of exemplars have to match: drawn for each step, or taken from a pool made before."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Literal

import torch
from torch import Tensor, nn

from gift_cl.distillers.embeddings import Networks, constant_features
from gift_cl.distillers.mean_matching import class_moments
from gift_cl.distillers.pixels import PixelBox
from gift_cl.distillers.protocol import require_finite
from gift_cl.distillers.siamese import SiameseView, owners_of
from gift_cl.models import penultimate
from gift_cl.views import DSA

Rule = Literal["sgd", "adam"]


@dataclass(frozen=True)
class Target(ABC):
    """What exemplars are to do as real images do, in one step.

    Args:
        network: Gives features.
        real: What is known of the real images.
    """

    network: nn.Module
    real: Tensor

    @abstractmethod
    def distance(self, images: Tensor, owners: Tensor) -> Tensor:
        """How far they are from it, a scalar; differentiable for the images.

        Args:
            images: Inputs of the network, (N, C, H, W), before the view.
            owners: The class of each, counted from 0, int64 (N,) on the CPU.
        """


@dataclass(frozen=True)
class MeanTarget(Target):
    """Mean features that exemplars are to have in common with real images.

    Args:
        network: Gives features.
        real: Moments of the features of the real images of each class, (C, order · D).
        view: Of the images, by class.
        order: Powers of which there are means.
    """

    view: SiameseView
    order: int = 1

    def distance(self, images: Tensor, owners: Tensor) -> Tensor:
        """Squared distance between moments, summed over classes."""
        features = penultimate(self.network, self.view(images, owners))
        return (class_moments(features, owners, order=self.order) - self.real).square().sum()


@dataclass(frozen=True)
class TargetSource:
    """Draws targets from the real images of some classes.

    Args:
        real: Images of each class, uint8 (n, C, H, W), on the box's device.
        box: Normalises them.
        networks: Give the network of a target.
        augmentation: From which its view is drawn; None changes nothing.
        most: Images of a class in a target, at most.
        order: Powers of the features of which the means are matched.
        method: Who asks, for errors.
    """

    real: Sequence[Tensor]
    box: PixelBox
    networks: Networks
    augmentation: DSA | None
    most: int
    order: int
    method: str

    def batch(self, generator: torch.Generator) -> tuple[nn.Module, Tensor, Tensor]:
        """A network, real images as its inputs, and the class of each."""
        network = self.networks(generator)
        batch = [own[torch.randperm(len(own), generator=generator)[: self.most]] for own in self.real]
        return network, self.box.from_uint8(torch.cat(batch)), owners_of(batch)

    def view(self, inputs: Tensor, generator: torch.Generator) -> SiameseView:
        """A view of real images and exemplars, whose strengths each class shares."""
        return SiameseView(self.augmentation, len(self.real), inputs, generator)

    def draw(self, generator: torch.Generator) -> Target:
        """One target."""
        network, inputs, owners = self.batch(generator)
        view = self.view(inputs, generator)
        features = constant_features(network, view(inputs, owners))
        return MeanTarget(network, class_moments(features, owners, order=self.order), view, self.order)

    def endless(
        self, generator: torch.Generator, *, pool: int, redrawn: bool, tick: Callable[[int], None]
    ) -> Iterator[Target]:
        """Targets for as many steps as are taken.

        Args:
            generator: Gives everything that is random.
            pool: So many targets are made, of which each step gets one at random; 0 draws one for each step.
            redrawn: Whether a network is good until the next is drawn only, so that a pool needs copies.
            tick: Told how many real images went through a network.
        """
        drawn = self._drawn(generator, tick)
        if not pool:
            yield from drawn
        made = [
            replace(target, network=copy.deepcopy(target.network)) if redrawn else target
            for target in islice(drawn, pool)
        ]
        while True:
            yield made[int(torch.randint(len(made), (), generator=generator))]

    def _drawn(self, generator: torch.Generator, tick: Callable[[int], None]) -> Iterator[Target]:
        """New targets without end; the first is checked."""
        size = sum(min(len(own), self.most) for own in self.real)
        for number in count():
            target = self.draw(generator)
            tick(size)
            if number == 0:
                require_finite(target.real, method=self.method)
            yield target


def pixel_optimizer(rule: Rule, pixels: Tensor, *, lr: float, momentum: float) -> torch.optim.Optimizer:
    """What moves pixels: SGD with momentum, or Adam, which needs fewer steps and a smaller rate."""
    if rule == "adam":
        return torch.optim.Adam([pixels], lr=lr)
    return torch.optim.SGD([pixels], lr=lr, momentum=momentum)
