"""What DM and IDC have in common: their options, and what is ready before the first step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar, get_args

import torch
from torch import Tensor

from gift_cl.dataset import DistilledDataset, count_labels
from gift_cl.distillers.coverage import Coverage
from gift_cl.distillers.embeddings import Embedding, Kind, Networks, pixel_box
from gift_cl.distillers.herding import Herding
from gift_cl.distillers.matching_targets import Rule
from gift_cl.distillers.pixels import PixelBox
from gift_cl.distillers.protocol import Distiller, require_teacher
from gift_cl.distillers.random_images import RandomImages
from gift_cl.progress import Progress
from gift_cl.teacher import Teacher
from gift_cl.views import DSA
from gift_cl.views.dsa import Form
from gift_cl.views.view import check_number, check_whole

_CHOSEN: dict[str, Callable[[], Distiller]] = {"herding": Herding, "coverage": Coverage}  # by the teacher
_AT_ONCE = 1024  # images in one pass, if those of a single class are not more


@dataclass(frozen=True)
class Start:
    """What is ready before the first step.

    Args:
        box: The space in which pixels are optimised.
        networks: Give the network of an iteration.
        exemplars: The real images to begin with.
        classes_at_once: Classes whose images fit into one pass.
        tick: To be told how many images went through a network.
    """

    box: PixelBox
    networks: Networks
    exemplars: DistilledDataset
    classes_at_once: int
    tick: Callable[[int], None]


@dataclass(frozen=True)
class Matching:
    """Options of distillers that make exemplars have something in common with the real images of a class.

    Args:
        iterations: Steps for each class.
        lr: Learning rate of the pixels, which are normalised.
        momentum: Of SGD, in [0, 1].
        real: Real images of each class in an iteration, at most.
        pool: Networks and views for which the mean features of real images are computed once, before the
            first iteration, and from which each iteration takes one. 0, as published, draws a network and a
            view for each iteration. Real images are then most of the work, so that a pool of a tenth of the
            iterations saves most of the time.
        optimizer: Of the pixels: ``sgd``, or ``adam``, which needs fewer iterations and a smaller ``lr``.
        strategy: Operations of `gift_cl.views.DSA` to choose from, joined by ``_``, or ``none``. Real and
            distilled images of a class undergo them with the same strengths. Leave out ``flip`` where
            mirrored images mean something else, as digits do.
        init: What is optimised: ``real`` images at random, or those that ``herding`` or ``coverage`` chooses.
        embedding: The networks: ``random``, ``teacher`` or ``trained``; for these and what follows see
            `Embedding`.

    Raises:
        ValueError: If an option is unknown or out of range.
    """

    name: ClassVar[str]
    inits: ClassVar[tuple[str, ...]] = ("real", "herding", "coverage")
    form: ClassVar[Form] = "one"  # of DSA

    iterations: int = 1000
    lr: float = 1.0
    momentum: float = 0.5
    real: int = 256
    pool: int = 0
    optimizer: Rule = "sgd"
    strategy: str = DSA.strategy
    init: str = "real"
    embedding: Kind = "random"
    width: int = 128
    depth: int = 0
    networks: int = 4
    epochs: int = 4

    def __post_init__(self) -> None:
        check_whole("iterations", self.iterations)
        check_whole("real", self.real)
        check_whole("pool", self.pool, low=0)
        if self.optimizer not in get_args(Rule):
            raise ValueError(f"Expected `optimizer` to be sgd or adam, got {self.optimizer!r}.")
        check_number("lr", self.lr, low_too=False)
        check_number("momentum", self.momentum, high=1)
        if self.init not in self.inits:
            raise ValueError(f"Expected `init` to be one of {', '.join(self.inits)}, got {self.init!r}.")
        _ = self.source, self.augmentation  # they check their options

    @property
    def spec(self) -> str:
        """Name and options."""
        options = (f"{option.name}={getattr(self, option.name)}" for option in fields(self) if option.init)
        return f"{self.name}:{','.join(options)}"

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher is the network, or the images to start from are its choice."""
        return self.source.needs_teacher or self.init in _CHOSEN

    @property
    def classes_at_once(self) -> int | None:
        """One, unless networks are trained to tell classes apart."""
        return self.source.classes_at_once

    @property
    def source(self) -> Embedding:
        """Where the networks come from."""
        return Embedding(self.embedding, self.width, self.depth, self.networks, self.epochs)

    @property
    def augmentation(self) -> DSA | None:
        """From which the view of an iteration is drawn."""
        return None if self.strategy == "none" else DSA(self.form, self.strategy)

    def own_teacher(self, teacher: Teacher | None, labels: Tensor) -> Teacher | None:
        """The teacher, if one is needed; it is checked.

        Raises:
            ValueError: If there is none.
            UnseenClassError: If it has not seen a class.
        """
        return require_teacher(teacher, labels, method=self.name) if self.needs_teacher else None

    def open(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        per_class: int,
        num_classes: int,
        teacher: Teacher | None,
        device: torch.device,
        generator: torch.Generator,
        progress: Progress,
    ) -> Start:
        """Networks and real images to begin with; for what is given see `Distiller.distill`.

        Args:
            teacher: `own_teacher`.
            device: Where networks without a teacher compute.
        """
        counts = count_labels(labels).values()
        trained = self.source.training_images(len(images))
        real, made = (sum(min(count, most) for count in counts) for most in (self.real, per_class))
        tally = _Tally(progress, trained + self.iterations * made + (self.pool or self.iterations) * real)
        box = pixel_box(images, teacher, device)
        networks = self.source.open(
            images, labels, box=box, teacher=teacher, generator=generator, progress=tally.reach
        )
        exemplars = _CHOSEN.get(self.init, RandomImages)().distill(
            images, labels, per_class=per_class, num_classes=num_classes, teacher=teacher, generator=generator
        )
        largest = max(min(count, self.real) + min(count, per_class) for count in counts)
        return Start(box, networks, exemplars, max(1, _AT_ONCE // largest), tally.add)


class _Tally:
    """Counts images that went through a network, of ``total``."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def reach(self, done: int, of_these: int) -> None:
        """So many are done, of the first ones."""
        del of_these
        self._done = done
        self._progress(done, self._total)

    def add(self, count: int) -> None:
        """So many more are done."""
        self.reach(self._done + count, self._total)
