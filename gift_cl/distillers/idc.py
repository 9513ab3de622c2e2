"""IDC: several exemplars in the bytes of one, each made for the codec that stores it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from itertools import islice
from typing import Literal, get_args

import torch
from torch import Tensor

from gift_cl.codecs import Downscale, EncodedImages, Quantize, concat
from gift_cl.dataset import DistilledDataset, count_labels
from gift_cl.distillers.embeddings import Embedding, Kind, pixel_box
from gift_cl.distillers.gradient_matching import GradientTarget
from gift_cl.distillers.herding import Herding
from gift_cl.distillers.matching_targets import Rule, TargetSource, check_matching, pixel_optimizer
from gift_cl.distillers.multi_formation import MultiFormation
from gift_cl.distillers.protocol import provenance_of, require_finite, require_input, require_teacher
from gift_cl.distillers.random_images import RandomImages
from gift_cl.distillers.siamese import owners_of
from gift_cl.progress import Progress, silent
from gift_cl.teacher import Teacher, UnseenClassError
from gift_cl.views import DSA
from gift_cl.views.view import check_number, check_whole

Match = Literal["feature", "gradient"]
Init = Literal["real", "herding"]

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of inputs (N, C, H, W) that show the exemplars, and the class of each, int64 (N,), counted from 0."""

_SMALLEST_SIDE = 4
_AT_ONCE = 1024  # images in one pass, if those of a single class are not more


@dataclass(frozen=True)
class IDC:
    """Optimises images of 1/``factor`` of the height and width, as the codec ``downscale`` stores them.

    The bytes of one raw image hold ``factor``² exemplars, and more if values have few bits; each counts as
    one. The networks see them as a student will, enlarged by the codec, and what is matched is what is
    stored, bit for bit.

    Args:
        factor: How much smaller exemplars are stored; 1 keeps their size and stores them by ``quantize``.
        bits: Bits of a stored value, in [1, 8], less than 8 for ``factor`` 1.
        match: ``feature``: mean features of each class, as in `DM`. ``gradient``: directions of the gradients
            that each class gives to the weights of the network; takes more time.
        iterations: Steps for each class.
        lr: Learning rate of SGD on normalised pixels, as if each pixel that is shown had a gradient of its
            own. For gradients, 1 is about what was published for ten images of CIFAR; see `gradient_loss`.
        momentum: Of SGD, in [0, 1].
        real: Real images of each class in an iteration, at most.
        init: Real images that are optimised: ``real`` ones at random, or those that ``herding`` chooses.
        pool: As in `DM`, for features.
        optimizer: As in `DM`.
        strategy: Operations of `gift_cl.views.DSA`, joined by ``_``, or ``none``. Real and distilled images
            of a class undergo them with the same strengths.
        embedding: The networks: ``random``, ``teacher`` or ``trained``; see `Embedding`, also for the rest.

    Raises:
        ValueError: If an option is unknown or out of range.

    Source:
        Kim et al., IDC, ICML 2022; snu-mllab/Efficient-Dataset-Condensation@086273c: multi-formation, its
        start from real images, its augmentation, and a learning rate in proportion to the pixels. They match
        gradients in 200,000 steps, by squared or absolute differences of kernels, on networks in training.
        Zhao et al., DC, ICLR 2021: gradients by cosines, the last layer too; 0.1 on the sum over outputs,
        which is 1.3 here. Deliberate differences: features by default, with the numbers of `DM`, and few
        steps, which cost less; networks of `Embedding`; each image starts from averaged areas of another real
        one, so that a class gives no more than it has; the codec's roundings are part of what is matched.
    """

    factor: int = 2
    bits: int = 8
    match: Match = "feature"
    iterations: int = 1000
    lr: float = 1.0
    momentum: float = 0.5
    real: int = 256
    init: Init = "real"
    pool: int = 0
    optimizer: Rule = "sgd"
    strategy: str = "color_crop_cutout"
    embedding: Kind = "random"
    width: int = 128
    depth: int = 0
    networks: int = 4
    epochs: int = 4

    def __post_init__(self) -> None:
        if self.match not in get_args(Match):
            raise ValueError(
                f"Expected `match` to be one of {', '.join(get_args(Match))}, got {self.match!r}."
            )
        check_whole("iterations", self.iterations)
        check_whole("real", self.real)
        check_number("lr", self.lr, low_too=False)
        check_number("momentum", self.momentum, high=1)
        check_matching(self.pool, self.optimizer)
        if self.pool and self.match == "gradient":
            raise ValueError("Expected `pool` 0 for `match=gradient`, which keeps no targets, got more.")
        if self.init not in get_args(Init):
            raise ValueError(f"Expected `init` to be one of {', '.join(get_args(Init))}, got {self.init!r}.")
        if self.factor == 1 and self.bits == 8:
            raise ValueError("Expected a `factor` of at least 2 or fewer `bits` than 8. Use `dm`.")
        _ = self._codec, self._source, self._augmentation  # they check their options

    @property
    def spec(self) -> str:
        """Name and options."""
        return "idc:" + ",".join(f"{option.name}={getattr(self, option.name)}" for option in fields(self))

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher is the network, or the images to start from are its choice."""
        return self._source.needs_teacher or self.init == "herding"

    @property
    def classes_at_once(self) -> int | None:
        """One, unless networks tell the classes given apart."""
        if self.match == "gradient" and not self._source.needs_teacher:
            return None
        return self._source.classes_at_once

    @property
    def codec(self) -> str:
        """The codec that stores the small images."""
        return self._codec.spec

    @property
    def _codec(self) -> Downscale | Quantize:
        return Quantize(self.bits) if self.factor == 1 else Downscale(self.factor, self.bits)

    @property
    def _source(self) -> Embedding:
        return Embedding(self.embedding, self.width, self.depth, self.networks, self.epochs)

    @property
    def _augmentation(self) -> DSA | None:
        return None if self.strategy == "none" else DSA("all", self.strategy)

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
        """See `Distiller.distill`. Exemplars of a class are in the order of what they start from."""
        require_input(images, labels, per_class=per_class)
        teacher = require_teacher(teacher, labels, method="idc") if self.needs_teacher else None
        self._check_size(*images.shape[2:])
        columns: dict[int, list[int]] = {}
        if self.match == "gradient":
            columns = self._columns(
                labels.unique().tolist(), teacher if self._source.needs_teacher else None, images[:1]
            )
        counts = count_labels(labels).values()
        sizes = [min(count, self.real) + min(count, per_class) for count in counts]
        done = self._source.training_images(len(images))
        total = done + self.iterations * sum(min(count, per_class) for count in counts)
        total += (self.pool or self.iterations) * sum(min(count, self.real) for count in counts)
        box = pixel_box(images, teacher)
        formation = MultiFormation(self._codec, box, images.shape[1])
        start = (Herding() if self.init == "herding" else RandomImages()).distill(
            images, labels, per_class=per_class, num_classes=num_classes, teacher=teacher, generator=generator
        )
        small = formation.start(start.images)
        networks = self._source.open(
            images,
            labels,
            box=box,
            teacher=teacher,
            generator=generator,
            progress=lambda trained, _: progress(trained, total),
        )

        def tick(count: int) -> None:
            nonlocal done
            done += count
            progress(done, total)

        parts = []
        at_once = max(1, _AT_ONCE // max(sizes)) if self.match == "feature" else 1
        for group in labels.unique().split(at_once):
            real = [images[labels == label].to(box.device) for label in group]
            own = [small[start.labels == label] for label in group]
            source = TargetSource(real, formation.box, networks, self._augmentation, self.real, 1, "idc")
            losses = self._features(source, generator, tick)
            if self.match == "gradient":
                losses = self._gradients(source, columns[int(group)], generator, tick)
            parts.append(self._match(own, formation, losses, tick))
        return DistilledDataset(
            encoded=concat(parts),
            labels=start.labels,
            num_classes=num_classes,
            normalization=teacher.normalization if teacher else None,
            provenance=provenance_of(self, teacher),
        )

    def _check_size(self, height: int, width: int) -> None:
        if (smallest := min(height, width) // self.factor) < _SMALLEST_SIDE:
            raise ValueError(
                f"Expected small images of at least {_SMALLEST_SIDE} pixels a side, got {smallest} "
                f"({height} x {width} pixels, `factor` {self.factor}): they would show nothing. Use a "
                "smaller `factor`, or `dm`, whose images are not small."
            )

    def _columns(self, classes: list[int], teacher: Teacher | None, image: Tensor) -> dict[int, list[int]]:
        """Logits that take part in the gradients of each class, its own first."""
        own, known = list(range(len(classes))), tuple(range(len(classes)))  # as networks are built here
        if teacher is not None:
            own, known = classes, teacher.classes
            if (width := teacher.logits(image).shape[1]) <= (last := max(*classes, *known)):
                raise UnseenClassError(
                    f"Expected a teacher with an output for class {last}, got {width} outputs. Pass the "
                    "classes that the model was trained on."
                )
        columns = {c: list(dict.fromkeys((k, *known))) for c, k in zip(classes, own, strict=True)}
        if len(columns[classes[0]]) < 2:
            raise ValueError(
                "Expected at least two classes for `match=gradient`, got one: it is never mistaken for "
                "another, so that there is no gradient. Use `match=feature`."
            )
        return columns

    def _features(
        self, source: TargetSource, generator: torch.Generator, tick: Callable[[int], None]
    ) -> Iterator[Loss]:
        """Losses of iterations that match features."""
        redrawn = self.embedding == "random"
        for target in source.endless(generator, pool=self.pool, redrawn=redrawn, tick=tick):
            yield target.distance

    def _gradients(
        self,
        source: TargetSource,
        columns: list[int],
        generator: torch.Generator,
        tick: Callable[[int], None],
    ) -> Iterator[Loss]:
        """Losses of iterations that match gradients."""
        while True:
            network, inputs, owners, view = source.batch(generator)
            tick(len(inputs))
            yield GradientTarget(network, view, view(inputs, owners), columns).distance

    def _match(
        self,
        start: list[Tensor],
        formation: MultiFormation,
        losses: Iterator[Loss],
        tick: Callable[[int], None],
    ) -> EncodedImages:
        """Exemplars of some classes, class after class.

        Args:
            start: What is optimised of each class, normalised, (n, C, H / factor, W / factor).
            formation: Shows small images to the network, and stores them.
            losses: What is reduced in each iteration.
            tick: Told how many exemplars went through a network.
        """
        small, owners = torch.cat(start).requires_grad_(), owners_of(start)
        # A small pixel has the gradients of the factor² pixels that show it; SGD follows their mean.
        lr = self.lr if self.optimizer == "adam" else self.lr / self.factor**2
        optimizer = pixel_optimizer(self.optimizer, small, lr=lr, momentum=self.momentum)
        for iteration, loss in enumerate(islice(losses, self.iterations)):
            distance = loss(formation.decode(small), owners)
            if iteration == 0:
                require_finite(distance.detach(), method="idc")
            (small.grad,) = torch.autograd.grad(distance, small)
            optimizer.step()
            formation.box.clamp_(small)
            tick(len(small))
        return formation.encode(small)
