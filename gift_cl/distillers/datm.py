"""DATM: images, soft labels and a learning rate that lead a network along the way of trained ones."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, fields
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gift_cl.codecs import Float32, Raw
from gift_cl.dataset import DistilledDataset, Provenance
from gift_cl.distillers.embeddings import pixel_box
from gift_cl.distillers.expert_trajectories import answers, choose, expert_network, train_expert
from gift_cl.distillers.pixels import PixelBox
from gift_cl.distillers.protocol import require_input
from gift_cl.distillers.stages import Stages
from gift_cl.distillers.trajectory_matching import Gradients, Step, Student, matching_loss
from gift_cl.progress import Progress, silent
from gift_cl.soft_labels import SoftLabels
from gift_cl.teacher import Teacher
from gift_cl.views import DSA, apply_dsa
from gift_cl.views.view import check_number
from gift_cl.whitening import fit_zca

_LARGEST_MOVE = 0.1  # of images in one update, root mean square; inputs of networks have variance 1
_FROM_ZERO = ("min_start", "expansion", "lr_images", "lr_labels", "lr_lr")
_SLOWEST = 1e-3  # share of its first value below which the learning rate does not fall


@dataclass(frozen=True)
class DATM:
    """Optimises all images together, so that training on them passes where training on real images did.

    Args:
        zca: Optimise in the whitened space of the given images, and return whitened images.
        experts: Networks that are trained on the given images.
        epochs: Of each expert, over the given images.
        expert_batch: Images in a step of an expert.
        expert_lr: Its learning rate.
        width: Channels of a block of the ConvNets.
        iterations: Matches, each with one update.
        steps: Of the student in a match.
        batch: Synthetic images in a step of the student.
        matched_epochs: Of the expert, which the steps of the student have to make up for.
        lr_images: Step size for images.
        lr_labels: For logits.
        lr_lr: For the learning rate.
        lr: What the learning rate is at first.
        min_start: A match starts after so many epochs of the expert, or more.
        early_start: At first it starts after fewer than that.
        max_start: Later, after fewer than that.
        expansion: Iterations during which the one becomes the other; 0 has no early phase.
        threshold: A match whose loss is larger changes nothing.
        strategy: Operations of DSA, one for each step, as for `gift_cl.views.DSA`. Digits want no ``flip``.

    Raises:
        ValueError: If an option is out of range.

    Source:
        Guo et al., DATM, ICLR 2024; NUS-HPC-AI-Lab/DATM@97ae510. For CIFAR-10 and 10 images a class they have
        100 experts of width 128, 100 epochs, batches of 256; 10,000 iterations of 80 steps on 100 images;
        step sizes 100, 2 and 1e-5; starts before 10, and after 1,000 iterations before 20. Deliberate
        differences: smaller numbers, to be affordable in a stream. Pixels rather than whitened values, so
        that any codec can store them; they stay what pixels can be, and are rounded at the end. Experts are
        trained by plain SGD, without GSAM. Images that the first expert gets wrong fill up a class that has
        too few others, and logits are the mean of all experts where none is right. The last iterate is
        returned, not the one that is best on test images. An update that would move the images far, because
        the gradient of an early match exploded, is made smaller as a whole, and the learning rate stays
        positive.
    """

    zca: bool = False
    experts: int = 5
    epochs: int = 20
    expert_batch: int = 64
    expert_lr: float = 0.01
    width: int = 32
    iterations: int = 500
    steps: int = 20
    batch: int = 100
    matched_epochs: int = 2
    lr_images: float = 100.0
    lr_labels: float = 2.0
    lr_lr: float = 1e-5
    lr: float = 0.01
    min_start: int = 0
    early_start: int = 5
    max_start: int = 15
    expansion: int = 100
    threshold: float = 1.0
    strategy: str = "color_crop_cutout_flip_scale_rotate"
    needs_teacher: bool = field(default=False, init=False)
    classes_at_once: None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.zca, bool):
            raise ValueError(f"Expected `zca` to be true or false, got {self.zca!r}.")
        for name, kind in {f.name: f.type for f in fields(self)}.items():
            value, least = getattr(self, name), 0 if name in _FROM_ZERO else 1
            if kind == "int" and not (type(value) is int and value >= least):
                raise ValueError(f"Expected `{name}` to be an integer of at least {least}, got {value!r}.")
            if kind == "float":
                check_number(name, value, low_too=name in _FROM_ZERO)
        last = self.epochs - self.matched_epochs + 1
        if not self.min_start < self.early_start <= self.max_start <= last:
            raise ValueError(
                "Expected `min_start` < `early_start` <= `max_start` <= `epochs` - `matched_epochs` + 1, got "
                f"{self.min_start}, {self.early_start}, {self.max_start} and {last}."
            )
        self._view()

    @property
    def spec(self) -> str:
        """Name and options."""
        chosen = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        chosen |= {f.name: float(chosen[f.name]) for f in fields(self) if f.type == "float"}
        return "datm:" + ",".join(f"{name}={str(value).lower()}" for name, value in chosen.items())

    @property
    def codec(self) -> str | None:
        """See `Distiller.codec`: whitened values are no pixels."""
        return "float32" if self.zca else None

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
        """See `Distiller.distill`; a teacher gives its device alone.

        The data set has soft labels, over the classes given, and a learning rate. Within a class the images
        are in random order.
        """
        require_input(images, labels, per_class=per_class)
        classes, targets = labels.cpu().unique(return_inverse=True)
        if len(classes) < 2:
            raise ValueError(
                f"Expected images of at least two classes for `datm`, got class {int(classes[0])} alone: "
                "there is nothing to learn. Choose another distiller."
            )
        if teacher is not None:
            images = images.to(teacher.device)
        new_network = partial(
            expert_network, images.shape[1:], len(classes), width=self.width, generator=generator
        )
        student = new_network().to(images.device)  # first, because it refuses images that do not suit it
        targets = targets.to(images.device)
        box = None if self.zca else pixel_box(images, None)
        inputs = fit_zca(images).apply(images) if box is None else box.from_uint8(images)
        count = sum(min(per_class, of_class) for of_class in targets.bincount().tolist())
        trained = self.experts * self.epochs * len(images)
        stages = Stages(progress, trained + self.iterations * self._seen(count))

        trajectories, answered = [], []
        for _ in range(self.experts):
            expert = new_network().to(images.device)
            trajectories.append(self._train(expert, inputs, targets, generator, stages.start()))
            answered.append(answers(expert, inputs))
        indices, logits = choose(torch.stack(answered), targets, per_class, generator)
        made = _Synthetic(inputs[indices], logits, torch.tensor(self.lr, device=inputs.device))
        self._match(made, student, trajectories, box, generator, stages.start())
        return self._dataset(made, classes, targets[indices].cpu(), num_classes, box)

    def _train(
        self,
        expert: nn.Module,
        inputs: Tensor,
        targets: Tensor,
        generator: torch.Generator,
        progress: Progress,
    ) -> Tensor:
        return train_expert(
            expert,
            inputs,
            targets,
            epochs=self.epochs,
            batch_size=self.expert_batch,
            lr=self.expert_lr,
            view=self._view(),
            generator=generator,
            progress=progress,
        )

    def _match(
        self,
        made: _Synthetic,
        network: nn.Module,
        trajectories: list[Tensor],
        box: PixelBox | None,
        generator: torch.Generator,
        progress: Progress,
    ) -> None:
        """Changes what is made, one match after the other."""
        device, seen = made.images.device, self._seen(len(made.images))
        optimizer = self._optimizer(made)
        num_updates = 0
        for iteration in range(self.iterations):
            trajectory = trajectories[iteration % self.experts]
            epoch = int(torch.randint(self.min_start, self.end_of_starts(iteration), (), generator=generator))
            start, target = (trajectory[e].to(device) for e in (epoch, epoch + self.matched_epochs))
            student = Student(network, *made, self._draw_steps(made.images, generator))
            points = student.train(start)
            if bool(matching_loss(points[-1], start, target) <= self.threshold):  # it may be NaN
                self._update(made, student.gradients(points, target), optimizer, box)
                num_updates += 1
            progress((iteration + 1) * seen, self.iterations * seen)
        if not num_updates:
            warnings.warn(
                f"No match of `datm` had a loss of at most `threshold` {self.threshold:g}: nothing was "
                "learned, the images are real ones. Lower `lr`, take fewer `steps`, or raise `threshold`.",
                stacklevel=3,
            )

    def _optimizer(self, made: _Synthetic) -> torch.optim.SGD:
        groups = [
            {"params": [made.images], "lr": self.lr_images, "momentum": 0.5},
            {"params": [made.logits], "lr": self.lr_labels, "momentum": 0.9},
            {"params": [made.lr], "lr": self.lr_lr, "momentum": 0.5},
        ]
        return torch.optim.SGD(groups)

    def _update(
        self, made: _Synthetic, gradients: Gradients, optimizer: torch.optim.SGD, box: PixelBox | None
    ) -> None:
        move = self.lr_images * gradients.images.square().mean().sqrt()
        share = (_LARGEST_MOVE / move).clamp(max=1)
        for value, gradient in zip(made, gradients, strict=True):
            value.grad = share * gradient
        optimizer.step()
        made.lr.clamp_(min=_SLOWEST * self.lr)
        if box is not None:
            box.clamp_(made.images)

    def end_of_starts(self, iteration: int) -> int:
        """The first epoch of experts at which no match starts yet."""
        if iteration >= self.expansion:
            return self.max_start
        return self.early_start + (self.max_start - self.early_start) * iteration // self.expansion

    def _draw_steps(self, images: Tensor, generator: torch.Generator) -> list[Step]:
        """Passes over the images in random order, until there are enough steps."""
        steps: list[Step] = []
        _, _, height, width = images.shape
        while len(steps) < self.steps:
            order = torch.randperm(len(images), generator=generator)
            for indices in order.split(self.batch)[: self.steps - len(steps)]:
                parameters = self._view().draw(len(indices), height, width, generator)
                steps.append(Step(indices.to(images.device), partial(apply_dsa, parameters=parameters)))
        return steps

    def _seen(self, count: int) -> int:
        """Images in all steps of a match, when there are ``count``."""
        whole, rest = divmod(self.steps, -(-count // self.batch))
        return whole * count + min(rest * self.batch, count)

    def _view(self) -> DSA:
        return DSA(form="one", strategy=self.strategy)

    def _dataset(
        self, made: _Synthetic, classes: Tensor, targets: Tensor, num_classes: int, box: PixelBox | None
    ) -> DistilledDataset:
        labels, known = classes[targets], tuple(classes.tolist())
        logits = torch.zeros(len(labels), 1, num_classes)
        logits[:, 0, classes] = made.logits.cpu()
        encoded = Float32().encode(made.images) if box is None else Raw().encode(box.to_uint8(made.images))
        return DistilledDataset(
            encoded=encoded,
            labels=labels,
            num_classes=num_classes,
            soft_labels=SoftLabels.from_logits(
                logits, labels, dict.fromkeys(known, known), dtype=torch.float32
            ),
            normalization=None if box is None else box.normalization,
            space="zca" if box is None else "pixels",
            learned_lr=float(made.lr),
            provenance=Provenance(method=self.spec, teacher="expert trajectories", teacher_classes=known),
        )


class _Synthetic(NamedTuple):
    """What is learned: images (n, C, H, W), logits (n, K) and the learning rate (), changed in place."""

    images: Tensor
    logits: Tensor
    lr: Tensor
