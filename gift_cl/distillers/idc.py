"""IDC: several small exemplars in the place of a large one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from gift_cl.codecs import Downscale, EncodedImages, concat
from gift_cl.dataset import DistilledDataset, count_labels
from gift_cl.distillers.embeddings import Embedding, Kind, Networks, pixel_box
from gift_cl.distillers.gradient_matching import gradient_distance, matched_weights, weight_gradients
from gift_cl.distillers.mean_matching import class_moments
from gift_cl.distillers.multi_formation import MultiFormation
from gift_cl.distillers.protocol import provenance_of, require_finite, require_input, require_teacher
from gift_cl.distillers.random_images import RandomImages
from gift_cl.distillers.siamese import SiameseView, owners_of
from gift_cl.models import penultimate
from gift_cl.progress import Progress, silent
from gift_cl.teacher import Teacher, UnseenClassError
from gift_cl.views import DSA
from gift_cl.views.view import check_number, check_whole

Match = Literal["feature", "gradient"]

Seen = tuple[Tensor, Tensor]
"""Inputs of a network, (N, C, H, W), and the class of each, int64 (N,), counted from 0."""

Loss = Callable[[nn.Module, Seen, Seen], Tensor]
"""Of a network, what it sees of the images made, and what it sees of real ones."""

_SMALLEST_SIDE = 4
_AT_ONCE = 1024  # images in one pass, if those of a single class are not more


@dataclass(frozen=True)
class IDC:
    """Optimises images of 1/``factor`` of the height and width, as the codec ``downscale`` stores them.

    The bytes of one raw image hold ``factor``² exemplars; each counts as one. The networks see them as a
    student will, enlarged by the codec, and what is matched is what is stored, bit for bit.

    Args:
        factor: How much smaller exemplars are stored, at least 2.
        bits: Bits of a stored value, in [1, 8].
        match: ``feature``: mean features of each class, as in `DM`. ``gradient``: directions of the gradients
            that each class gives to the weights of the network; takes more time.
        iterations: Steps for each class.
        lr: Learning rate of SGD on normalised pixels, as if each pixel that is shown had a gradient of its
            own. For gradients, 1 is about what was published for ten images of CIFAR; see `gradient_loss`.
        momentum: Of SGD, in [0, 1].
        real: Real images of each class in an iteration, at most.
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
        _ = self._codec, self._source, self._augmentation  # they check their options

    @property
    def spec(self) -> str:
        """Name and options."""
        return "idc:" + ",".join(f"{option.name}={getattr(self, option.name)}" for option in fields(self))

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher is the network."""
        return self._source.needs_teacher

    @property
    def classes_at_once(self) -> int | None:
        """One, unless networks tell the classes given apart."""
        if self.match == "gradient" and not self.needs_teacher:
            return None
        return self._source.classes_at_once

    @property
    def codec(self) -> str:
        """The codec that stores the small images."""
        return self._codec.spec

    @property
    def _codec(self) -> Downscale:
        return Downscale(self.factor, self.bits)

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
        """See `Distiller.distill`. Exemplars of a class are in random order."""
        require_input(images, labels, per_class=per_class)
        teacher = require_teacher(teacher, labels, method="idc") if self.needs_teacher else None
        self._check_size(*images.shape[2:])
        columns: dict[int, list[int]] = {}
        if self.match == "gradient":
            columns = self._columns(labels.unique().tolist(), teacher, images[:1])
        sizes = [min(count, self.real) + min(count, per_class) for count in count_labels(labels).values()]
        done = self._source.training_images(len(images))
        total = done + self.iterations * sum(sizes)
        box = pixel_box(images, teacher)
        formation = MultiFormation(self._codec, box, images.shape[1])
        start = RandomImages().distill(
            images, labels, per_class=per_class, num_classes=num_classes, teacher=None, generator=generator
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
            loss = feature_loss
            if self.match == "gradient":
                loss = partial(gradient_loss, columns=columns[int(group)])
            parts.append(self._match(real, own, formation, networks, loss, generator, tick))
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

    def _match(
        self,
        real: list[Tensor],
        start: list[Tensor],
        formation: MultiFormation,
        networks: Networks,
        loss: Loss,
        generator: torch.Generator,
        tick: Callable[[int], None],
    ) -> EncodedImages:
        """Exemplars of some classes, class after class.

        Args:
            real: Images of each class, uint8 (n, C, H, W), on the device of the formation.
            start: What is optimised of each class, normalised, (n, C, H / factor, W / factor).
            formation: Shows small images to the network, and stores them.
            networks: Give the network of an iteration.
            loss: What is reduced.
            generator: Gives the batches and the views.
            tick: Told how many images went through a network.
        """
        small, owners = torch.cat(start).requires_grad_(), owners_of(start)
        # A small pixel has the gradients of the factor² pixels that show it; it follows their mean.
        optimizer = torch.optim.SGD([small], lr=self.lr / self.factor**2, momentum=self.momentum)
        for iteration in range(self.iterations):
            network = networks(generator)
            batch = [own[torch.randperm(len(own), generator=generator)[: self.real]] for own in real]
            inputs, real_owners = formation.box.from_uint8(torch.cat(batch)), owners_of(batch)
            view = SiameseView(self._augmentation, len(real), inputs, generator)
            made = view(formation.decode(small), owners)
            distance = loss(network, (made, owners), (view(inputs, real_owners), real_owners))
            if iteration == 0:
                require_finite(distance.detach(), method="idc")
            (small.grad,) = torch.autograd.grad(distance, small)
            optimizer.step()
            formation.box.clamp_(small)
            tick(len(inputs) + len(made))
        return formation.encode(small)


def feature_loss(network: nn.Module, made: Seen, real: Seen) -> Tensor:
    """Squared distance between the mean features of small and of real images, summed over classes."""
    with torch.no_grad():
        targets = class_moments(penultimate(network, real[0]), real[1])
    return (class_moments(penultimate(network, made[0]), made[1]) - targets).square().sum()


def gradient_loss(network: nn.Module, made: Seen, real: Seen, *, columns: list[int]) -> Tensor:
    """`gradient_distance` of a class: its mean over outputs, times the thousands of values of the images.

    So one learning rate suits networks and images of any size and number: a pixel does not move less because
    there are more of them.

    Args:
        network: Its weights are not changed.
        made: Small images of the class, enlarged.
        real: Real images of it.
        columns: Logits that take part, that of the class first.
    """
    weights = matched_weights(network)
    target = weight_gradients(network, weights, real[0], columns=columns)
    distance = gradient_distance(weight_gradients(network, weights, made[0], columns=columns), target)
    return distance * (made[0].numel() / 1000 / sum(len(gradient) for gradient in target))
