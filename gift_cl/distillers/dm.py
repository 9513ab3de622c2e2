"""DM: exemplars whose features are on average those of the real images, whatever the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from itertools import islice
from typing import Literal, get_args

import torch
from torch import Tensor

from gift_cl.dataset import DistilledDataset, count_labels
from gift_cl.distillers.embeddings import Embedding, Kind, Networks, pixel_box
from gift_cl.distillers.herding import Herding
from gift_cl.distillers.matching_targets import Rule, TargetSource, check_matching, pixel_optimizer
from gift_cl.distillers.pixels import PixelBox
from gift_cl.distillers.protocol import Selection, require_input, require_teacher
from gift_cl.distillers.random_images import RandomImages
from gift_cl.distillers.siamese import owners_of
from gift_cl.progress import Progress, silent
from gift_cl.teacher import Teacher
from gift_cl.views import DSA
from gift_cl.views.view import check_number, check_whole

Init = Literal["real", "herding", "noise"]

_AT_ONCE = 1024  # images in one pass, if a single class does not need more


@dataclass(frozen=True)
class DM:
    """Distribution matching: gradient descent on pixels, towards the mean features of each class.

    In each iteration real and distilled images go through one network. Those of a class undergo the same
    operation of `gift_cl.views.DSA` with the same strengths (siamese augmentation).

    Args:
        iterations: Steps for each class.
        lr: Learning rate of SGD on normalised pixels.
        momentum: Of SGD, in [0, 1].
        real: Real images of each class in an iteration, at most.
        pool: Networks and views for which the mean features of real images are computed once, before the
            first iteration, and from which each iteration takes one. 0, as published, draws a network and a
            view for each iteration. Real images are then most of the work, so that a pool of a tenth of the
            iterations saves most of the time.
        optimizer: Of the pixels: ``sgd``, or ``adam``, which needs fewer iterations and a smaller ``lr``.
        strategy: Operations to choose from, joined by ``_``, or ``none``. Leave out ``flip`` where mirrored
            images mean something else, as digits do.
        init: What is optimised: ``real`` images at random, those that ``herding`` chooses, or ``noise``.
        moments: Match the means of the features (1), or also the means of their squares (2).
        embedding: The networks: ``random``, ``teacher`` or ``trained``; for these and what follows see
            `Embedding`.

    Source:
        Zhao and Bilen, Dataset Condensation with Distribution Matching, WACV 2023, eq. 5, with the published
        settings but for 20,000 iterations. Deliberate differences: pixels stay within [0, 1]; a class with
        fewer images than exemplars gives fewer. Second moments, herded starts and other networks than fresh
        ones are ours.
    """

    iterations: int = 1000
    lr: float = 1.0
    momentum: float = 0.5
    real: int = 256
    pool: int = 0
    optimizer: Rule = "sgd"
    strategy: str = DSA.strategy
    init: Init = "real"
    moments: int = 1
    embedding: Kind = "random"
    width: int = 128
    depth: int = 0
    networks: int = 4
    epochs: int = 4
    codec: None = field(default=None, init=False)

    def __post_init__(self) -> None:
        check_whole("iterations", self.iterations)
        check_whole("real", self.real)
        check_matching(self.pool, self.optimizer)
        check_number("lr", self.lr, low_too=False)
        check_number("momentum", self.momentum, high=1)
        if self.moments not in (1, 2):
            raise ValueError(f"Expected `moments` to be 1 or 2, got {self.moments!r}.")
        if self.init not in get_args(Init):
            raise ValueError(f"Expected `init` to be one of {', '.join(get_args(Init))}, got {self.init!r}.")
        _ = self._source, self._augmentation  # they check their options

    @property
    def spec(self) -> str:
        """Name and options."""
        options = (f"{option.name}={getattr(self, option.name)}" for option in fields(self) if option.init)
        return f"dm:{','.join(options)}"

    @property
    def needs_teacher(self) -> bool:
        """Whether features are the teacher's, or the images to start from are its choice."""
        return self._source.needs_teacher or self.init == "herding"

    @property
    def classes_at_once(self) -> int | None:
        """One, unless networks are trained to tell classes apart."""
        return self._source.classes_at_once

    @property
    def _source(self) -> Embedding:
        return Embedding(self.embedding, self.width, self.depth, self.networks, self.epochs)

    @property
    def _augmentation(self) -> DSA | None:
        return None if self.strategy == "none" else DSA("one", self.strategy)

    def distill(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        per_class: int,
        num_classes: int,
        teacher: Teacher | None,
        generator: torch.Generator,
        progress: Progress = silent,
    ) -> DistilledDataset:
        """See `Distiller.distill`."""
        require_input(images, labels, per_class=per_class)
        teacher = require_teacher(teacher, labels, method="dm") if self.needs_teacher else None
        counts = count_labels(labels).values()
        sizes = [min(count, self.real) + min(count, per_class) for count in counts]
        done = self._source.training_images(len(images))
        total = done + self.iterations * sum(min(count, per_class) for count in counts)
        total += (self.pool or self.iterations) * sum(min(count, self.real) for count in counts)
        box = pixel_box(images, teacher)
        networks = self._source.open(
            images,
            labels,
            box=box,
            teacher=teacher,
            generator=generator,
            progress=lambda trained, _: progress(trained, total),
        )
        start = (Herding() if self.init == "herding" else RandomImages()).distill(
            images, labels, per_class=per_class, num_classes=num_classes, teacher=teacher, generator=generator
        )

        def tick(count: int) -> None:
            nonlocal done
            done += count
            progress(done, total)

        parts = []
        for group in labels.unique().cpu().split(max(1, _AT_ONCE // max(sizes))):
            real = [images[labels == label].to(box.device) for label in group]
            own = [box.from_uint8(start.images[start.labels == label]) for label in group]
            parts.append(self._match(real, own, box, networks, generator, tick))
        return Selection(torch.cat(parts), start.labels).as_dataset(
            self, num_classes=num_classes, teacher=teacher
        )

    def _match(
        self,
        real: list[Tensor],
        start: list[Tensor],
        box: PixelBox,
        networks: Networks,
        generator: torch.Generator,
        tick: Callable[[int], None],
    ) -> Tensor:
        """Exemplars of some classes, uint8, class after class.

        Args:
            real: Images of each class, uint8, on the box's device.
            start: What is optimised of each class, normalised.
            box: Both are normalised by it.
            networks: Give the network of an iteration.
            generator: Gives the batches and the augmentation.
            tick: Told how many images went through a network.
        """
        pixels, owners = torch.cat(start), owners_of(start)
        if self.init == "noise":
            box.clamp_(pixels.copy_(torch.randn(pixels.shape, generator=generator)))
        pixels.requires_grad_()
        optimizer = pixel_optimizer(self.optimizer, pixels, lr=self.lr, momentum=self.momentum)
        source = TargetSource(real, box, networks, self._augmentation, self.real, self.moments, "dm")
        targets = source.endless(generator, pool=self.pool, redrawn=self.embedding == "random", tick=tick)
        for target in islice(targets, self.iterations):
            optimizer.zero_grad()
            target.distance(pixels, owners).backward()
            optimizer.step()
            box.clamp_(pixels)
            tick(len(pixels))
        return box.to_uint8(pixels)
