"""IDC: several exemplars in the bytes of one, each made for the codec that stores it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from gift_cl.codecs import Downscale, EncodedImages, Quantize, Webp, concat
from gift_cl.dataset import DistilledDataset
from gift_cl.distillers.gradient_matching import GradientTarget
from gift_cl.distillers.matching import Matching, Start
from gift_cl.distillers.matching_targets import TargetSource, pixel_optimizer
from gift_cl.distillers.multi_formation import MultiFormation
from gift_cl.distillers.protocol import provenance_of, require_finite, require_input
from gift_cl.distillers.ridge_matching import RidgeSource
from gift_cl.distillers.siamese import owners_of
from gift_cl.progress import Progress, silent
from gift_cl.teacher import Teacher, UnseenClassError
from gift_cl.views.dsa import Form
from gift_cl.views.view import check_number, check_whole

Match = Literal["feature", "gradient", "ridge"]

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of inputs (N, C, H, W) that show the exemplars, and the class of each, int64 (N,), counted from 0."""

_SMALLEST_SIDE = 4


@dataclass(frozen=True)
class IDC(Matching):
    """Optimises images of 1/``factor`` of the height and width, as the codec ``downscale`` stores them.

    The bytes of one raw image hold ``factor``² exemplars, and more if values have few bits; each counts as
    one. The networks see them as a student will, enlarged by the codec, and what is matched is what is
    stored, bit for bit.

    Args:
        factor: How much smaller exemplars are stored; 1 keeps their size and stores them by ``quantize``.
        bits: Bits of a stored value, in [1, 8].
        webp: Quality of the codec ``webp``, which then stores them, in [1, 100]; 0 for other codecs.
        match: ``feature``: mean features of each class, as in `DM`. ``gradient``: directions of the gradients
            that each class gives to the weights of the network; takes more time. ``ridge``: exemplars teach a
            linear classifier on the features to tell the real images of all classes apart; wants ``adam``.
        ridge: Penalty of that classifier, as a share of the mean squared length of the features.
        lr: As if each pixel that is shown had a gradient of its own. For gradients, 1 is about what was
            published for ten images of CIFAR; see `gradient_loss`.
        pool: Not for gradients. For ``ridge`` each entry keeps the features of its real images.

    Other options are those of `Matching`.

    Raises:
        ValueError: If an option is unknown or out of range.

    Source:
        Kim et al., IDC, ICML 2022; snu-mllab/Efficient-Dataset-Condensation@086273c: multi-formation, its
        start from real images, its augmentation, and a learning rate in proportion to the pixels. They match
        gradients in 200,000 steps, by squared or absolute differences of kernels, on networks in training.
        ``ridge``: see `gift_cl.distillers.ridge_matching`.
        Zhao et al., DC, ICLR 2021: gradients by cosines, the last layer too; 0.1 on the sum over outputs,
        which is 1.3 here. Deliberate differences: features by default, with the numbers of `DM`, and few
        steps, which cost less; networks of `Embedding`; each image starts from averaged areas of another real
        one, so that a class gives no more than it has; the codec's roundings are part of what is matched.
    """

    name: ClassVar[str] = "idc"
    form: ClassVar[Form] = "all"

    strategy: str = "color_crop_cutout"
    factor: int = 2
    bits: int = 8
    webp: int = 0
    match: Match = "feature"
    ridge: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.match not in get_args(Match):
            raise ValueError(
                f"Expected `match` to be one of {', '.join(get_args(Match))}, got {self.match!r}."
            )
        if self.pool and self.match == "gradient":
            raise ValueError("Expected `pool` 0 for `match=gradient`, which keeps no targets, got more.")
        check_whole("factor", self.factor)
        check_whole("bits", self.bits)
        check_whole("webp", self.webp, low=0)
        check_number("ridge", self.ridge, low_too=False)
        _ = self._codec  # it checks its options
        if (self.factor > 1 or self.bits != 8) == bool(self.webp):
            raise ValueError(
                "Expected a `factor` of at least 2 or fewer `bits` than 8; or `factor` 1, 8 `bits` and a "
                f"`webp` quality; got {self.factor}, {self.bits} and {self.webp}. For images as they are, "
                "use `dm`."
            )

    @property
    def classes_at_once(self) -> int | None:
        """One, unless networks tell the classes given apart."""
        if self.match == "ridge" or (self.match == "gradient" and not self.source.needs_teacher):
            return None
        return super().classes_at_once

    @property
    def codec(self) -> str:
        """The codec that stores the small images."""
        return self._codec.spec

    @property
    def _codec(self) -> Downscale | Quantize | Webp:
        if self.webp:
            return Webp(self.webp)
        return Quantize(self.bits) if self.factor == 1 else Downscale(self.factor, self.bits)

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
        """See `Distiller.distill`; a teacher that is not needed gives its device alone.

        Exemplars of a class are in the order of what they start from.
        """
        require_input(images, labels, per_class=per_class)
        device = images.device if teacher is None else teacher.device
        teacher = self.own_teacher(teacher, labels)
        self._check_size(*images.shape[2:])
        classes = labels.unique()
        self._check_classes(classes)
        columns: dict[int, list[int]] = {}
        if self.match == "gradient":
            columns = self._columns(
                classes.tolist(), teacher if self.source.needs_teacher else None, images[:1]
            )
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
        formation, first = MultiFormation(self._codec, start.box, images.shape[1]), start.exemplars
        small = formation.start(first.images)
        parts = []
        at_once = {"feature": start.classes_at_once, "gradient": 1, "ridge": len(classes)}[self.match]
        for group in classes.split(at_once):
            real = [images[labels == label].to(start.box.device) for label in group]
            own = [small[first.labels == label] for label in group]
            source = self._source(real, start)
            if self.match == "gradient":
                losses = self._gradients(source, columns[int(group)], generator, start)
            else:
                losses = self._targets(source, generator, start)
            parts.append(self._match(own, formation, losses, start))
        return DistilledDataset(
            encoded=concat(parts),
            labels=first.labels,
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

    def _check_classes(self, classes: Tensor) -> None:
        if self.match == "ridge" and len(classes) < 2:
            raise ValueError(
                "Expected at least two classes for `match=ridge`, got one: there is nothing to tell it from. "
                "Use `match=feature`."
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

    def _source(self, real: list[Tensor], start: Start) -> TargetSource:
        """Draws from the real images of each class."""
        settings = (real, start.box, start.networks, self.augmentation, self.real, 1, self.name)
        return RidgeSource(*settings, self.ridge) if self.match == "ridge" else TargetSource(*settings)

    def _targets(self, source: TargetSource, generator: torch.Generator, start: Start) -> Iterator[Loss]:
        """Losses of iterations that go by features, of which a pool can be kept."""
        redrawn = self.embedding == "random"
        for target in source.endless(generator, pool=self.pool, redrawn=redrawn, tick=start.tick):
            yield target.distance

    def _gradients(
        self,
        source: TargetSource,
        columns: list[int],
        generator: torch.Generator,
        start: Start,
    ) -> Iterator[Loss]:
        """Losses of iterations that match gradients."""
        while True:
            network, inputs, owners = source.batch(generator)
            view = source.view(inputs, generator)
            start.tick(len(inputs))
            yield GradientTarget(network, view, view(inputs, owners), columns).distance

    def _match(
        self, own: list[Tensor], formation: MultiFormation, losses: Iterator[Loss], start: Start
    ) -> EncodedImages:
        """Exemplars of some classes, class after class.

        Args:
            own: What is optimised of each class, normalised, (n, C, H / factor, W / factor).
            formation: Shows small images to the network, and stores them.
            losses: What is reduced in each iteration.
            start: Told how many exemplars went through a network.
        """
        small, owners = torch.cat(own).requires_grad_(), owners_of(own)
        # A small pixel has the gradients of the factor² pixels that show it; SGD follows their mean.
        lr = self.lr if self.optimizer == "adam" else self.lr / self.factor**2
        optimizer = pixel_optimizer(self.optimizer, small, lr=lr, momentum=self.momentum)
        for iteration, loss in enumerate(islice(losses, self.iterations)):
            distance = loss(formation.decode(small), owners)
            if iteration == 0:
                require_finite(distance.detach(), method=self.name)
            (small.grad,) = torch.autograd.grad(distance, small)
            optimizer.step()
            start.box.clamp_(small)
            start.tick(len(small))
        return formation.encode(small)
