"""DM: exemplars whose features are on average those of the real images, whatever the network."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import ClassVar

import torch
from torch import Tensor

from gift_cl.dataset import DistilledDataset
from gift_cl.distillers.matching import Matching, Start
from gift_cl.distillers.matching_targets import TargetSource, pixel_optimizer
from gift_cl.distillers.protocol import Selection, require_input
from gift_cl.distillers.siamese import owners_of
from gift_cl.progress import Progress, silent
from gift_cl.teacher import Teacher


@dataclass(frozen=True)
class DM(Matching):
    """Distribution matching: gradient descent on pixels, towards the mean features of each class.

    In each iteration real and distilled images go through one network, after the same operation of DSA.

    Args:
        init: Also ``noise``.
        moments: Match the means of the features (1), or also the means of their squares (2).

    Other options are those of `Matching`.

    Source:
        Zhao and Bilen, Dataset Condensation with Distribution Matching, WACV 2023, eq. 5, with the published
        settings but for 20,000 iterations. Siamese augmentation: Zhao and Bilen, DSA, ICML 2021. Deliberate
        differences: pixels stay within [0, 1]; a class with fewer images than exemplars gives fewer; classes
        that are made together share the operation of DSA, with strengths of their own; pixels are
        standardised by the images given, which are those of one class where classes are made one by one.
        Second moments, herded starts and other networks than fresh ones are ours.
    """

    name: ClassVar[str] = "dm"
    inits: ClassVar[tuple[str, ...]] = (*Matching.inits, "noise")

    moments: int = 1
    codec: None = field(default=None, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.moments not in (1, 2):
            raise ValueError(f"Expected `moments` to be 1 or 2, got {self.moments!r}.")

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
        """See `Distiller.distill`; a teacher that is not needed gives its device alone."""
        require_input(images, labels, per_class=per_class)
        device = images.device if teacher is None else teacher.device
        teacher = self.own_teacher(teacher, labels)
        start = self.open(
            images,
            labels,
            per_class=per_class,
            num_classes=num_classes,
            teacher=teacher,
            device=device,
            generator=generator,
            progress=progress,
        )
        box, first = start.box, start.exemplars
        parts = []
        for group in labels.unique().cpu().split(start.classes_at_once):
            real = [images[labels == label].to(box.device) for label in group]
            own = [box.from_uint8(first.images[first.labels == label]) for label in group]
            parts.append(self._match(real, own, start, generator))
        return Selection(torch.cat(parts), first.labels).as_dataset(
            self, num_classes=num_classes, teacher=teacher
        )

    def _match(
        self, real: list[Tensor], own: list[Tensor], start: Start, generator: torch.Generator
    ) -> Tensor:
        """Exemplars of some classes, uint8, class after class.

        Args:
            real: Images of each class, uint8, on the box's device.
            own: What is optimised of each class, normalised.
            start: Gives the box and the networks.
            generator: Gives the batches and the augmentation.
        """
        pixels, owners = torch.cat(own), owners_of(own)
        if self.init == "noise":
            start.box.clamp_(pixels.copy_(torch.randn(pixels.shape, generator=generator)))
        pixels.requires_grad_()
        optimizer = pixel_optimizer(self.optimizer, pixels, lr=self.lr, momentum=self.momentum)
        source = TargetSource(
            real, start.box, start.networks, self.augmentation, self.real, self.moments, self.name
        )
        redrawn = self.embedding == "random"
        targets = source.endless(generator, pool=self.pool, redrawn=redrawn, tick=start.tick)
        for target in islice(targets, self.iterations):
            optimizer.zero_grad()
            target.distance(pixels, owners).backward()
            optimizer.step()
            start.box.clamp_(pixels)
            start.tick(len(pixels))
        return start.box.to_uint8(pixels)
