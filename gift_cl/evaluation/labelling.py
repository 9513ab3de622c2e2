"""The batches a student trains on, and where their soft labels come from.

Soft labels are stored with the data set, come with a stream, are answers of a teacher to the very views that
the student sees, or there are none. The teacher answers later, when a batch may have been cut into pieces.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gift_cl.class_order import find_class_order
from gift_cl.dataset import DistilledDataset
from gift_cl.evaluation.device_normalization import Renormalize, Standardize
from gift_cl.evaluation.folding import folded
from gift_cl.evaluation.memory_formats import memory_format_for
from gift_cl.evaluation.memory_limits import free_memory
from gift_cl.evaluation.precision import Precision, autocast
from gift_cl.evaluation.recipe import Recipe
from gift_cl.normalization import Normalization, build_normalization
from gift_cl.teacher import Teacher, as_float
from gift_cl.transfer import sent
from gift_cl.views import MIXES, Mixed, build_view

_COMPARED = 2000  # exemplars whose labels a teacher is compared with before the training
_AT_ONCE = 32  # of these in a forward pass


class ClassCountError(ValueError):
    """Two parts of an evaluation disagree on the number of classes."""


class ClassOrderError(ValueError):
    """A teacher numbers the classes otherwise than the labels do."""


class Target(NamedTuple):
    """What the answers of a student are compared with.

    Args:
        weight: Of the loss; those of a batch sum to 1.
        soft_labels: (B, C); None if a teacher has still to answer, or if there are none.
        labels: Hard labels, int64 (B,).
    """

    weight: float
    soft_labels: Tensor | None
    labels: Tensor


class Batch(NamedTuple):
    """What a student sees in a step.

    Args:
        inputs: Augmented, mixed and normalised images, float (B, C, H, W).
        targets: At least one; two for mixed images.
    """

    inputs: Tensor
    targets: tuple[Target, ...]

    def pieces(self, size: int) -> Iterator[Batch]:
        """The same rows in batches of ``size``; the last may be smaller."""
        for start in range(0, len(self.inputs), size):
            yield self.rows(slice(start, start + size))

    def rows(self, rows: slice) -> Batch:
        """Some rows as a batch."""
        return Batch(self.inputs[rows], tuple(_rows_of(target, rows) for target in self.targets))


def _rows_of(target: Target, rows: slice) -> Target:
    soft = None if target.soft_labels is None else target.soft_labels[rows]
    return Target(target.weight, soft, target.labels[rows])


@dataclass(frozen=True, kw_only=True, eq=False)
class Stream:
    """Soft labels that were stored for each epoch, with the views that they belong to.

    Args:
        epoch: Gives the batches of an epoch, counted from 0: normalised images (B, C, H, W), logits of the
            same rows (B, C) and hard labels of their own images (B,). It has to wrap around if it
            holds fewer epochs than are trained.
        nbytes: Bytes of the labels as stored.
        digest: What tells it from other streams.
    """

    epoch: Callable[[int], Iterable[tuple[Tensor, Tensor, Tensor]]]
    nbytes: int
    digest: str

    def batches(
        self, epoch: int, device: torch.device, memory_format: torch.memory_format = torch.channels_last
    ) -> Iterator[Batch]:
        """The batches of an epoch on a device."""
        for images, logits, labels in self.epoch(epoch):
            inputs = sent(images, device).contiguous(memory_format=memory_format)
            yield Batch(inputs, (Target(1.0, sent(logits, device), sent(labels, device)),))


class DrawnBatches:
    """Exemplars in a new order each epoch, in views drawn anew each step.

    All images lie on the device as they are stored, if they take less than half of its free memory; else they
    stay where they are, and each batch is sent. An epoch is a function of its number and of the seed, and its
    order does not depend on the view.

    Args:
        dataset: At least one exemplar.
        recipe: With labels that are online, stored or hard.
        device: Where batches come out.
        keep_single: Keep a last batch of a single image, from which a batch norm learns nothing good. It is
            never left out where it is all there is.

    Raises:
        ValueError: If stored labels are asked for and missing, or the normalisation has other channels.
        ClassCountError: If stored labels do not cover all classes.
    """

    def __init__(
        self, dataset: DistilledDataset, recipe: Recipe, *, device: torch.device, keep_single: bool
    ) -> None:
        images, normalization = dataset.images, build_normalization(recipe.normalization)
        normalization.apply(as_float(images[:1]))  # says if the channels do not fit
        self._device = device
        self._memory_format = memory_format_for(device, is_compiled=recipe.compile)
        self._images = images.to(device) if 2 * images.nbytes < free_memory(device) else images
        self._labels = dataset.labels.to(device)
        self._soft_labels = stored_labels(dataset).to(device) if recipe.labels == "stored" else None
        self._normalize = Standardize(normalization, device)
        self._view, self._mix = build_view(recipe.view), MIXES.create(recipe.mix)
        self._is_mixing = recipe.mix != "none"
        self._has_own_labels = recipe.hard_label == "own"
        self._seed = recipe.seed
        self._size = recipe.batch_size_for(len(dataset))
        leaves_one = 1 < self._size < len(dataset) and len(dataset) % self._size == 1
        self._count = len(dataset) - (leaves_one and not keep_single)

    def __len__(self) -> int:
        """Images an epoch."""
        return self._count

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch, counted from 0."""
        order = torch.randperm(len(self._labels), generator=seeded(f"order {epoch}", self._seed))
        draws = seeded(f"views {epoch}", self._seed)
        stored_rows, label_rows = (
            order[: self._count].to(place).split(self._size) for place in (self._images.device, self._device)
        )
        for stored, rows in zip(stored_rows, label_rows, strict=True):
            pixels = self._normalize(as_float(sent(self._images[stored], self._device)))
            mixed = self._mix(self._view(pixels, draws), draws)
            inputs = mixed.inputs.contiguous(memory_format=self._memory_format)
            yield Batch(inputs, self._targets(rows, mixed))

    def _targets(self, rows: Tensor, mixed: Mixed) -> tuple[Target, ...]:
        if not self._is_mixing or (self._has_own_labels and self._soft_labels is None):
            return (self._target(1.0, rows, rows),)
        partners = rows[mixed.partner]
        return (
            self._target(mixed.share, rows, rows),
            self._target(1 - mixed.share, partners, rows if self._has_own_labels else partners),
        )

    def _target(self, weight: float, rows: Tensor, label_rows: Tensor) -> Target:
        soft = None if self._soft_labels is None else self._soft_labels[rows]
        return Target(weight, soft, self._labels[label_rows])


class TeacherLabels:
    """Answers of a frozen teacher to the inputs of a student.

    Inputs are normalised for the student; if the teacher has another normalisation, they are renormalised, so
    it sees the same pixels. Batch norms are folded into convolutions where that changes nothing.

    Args:
        teacher: Has to have seen all classes of the data set, unless it is an oracle.
        dataset: What will be labelled.
        normalization: Of the inputs.
        device: Of the inputs.
        precision: Of the forward passes.
        is_compiled: Whether the teacher is compiled.

    Raises:
        UnseenClassError: If the teacher has not seen a class.
        ClassCountError: If it has another number of outputs than there are classes.
        ClassOrderError: If it clearly numbers the classes in another order.
        ValueError: If a logit is not finite.
    """

    def __init__(
        self,
        teacher: Teacher,
        dataset: DistilledDataset,
        *,
        normalization: Normalization,
        device: torch.device,
        precision: Precision,
        is_compiled: bool = False,
    ) -> None:
        teacher.require_seen(range(dataset.num_classes))
        self._device = device
        self._precision = precision
        self._renormalize = Renormalize(normalization, teacher.normalization, device)

        def inputs(rows: Tensor) -> Tensor:
            return normalization.apply(as_float(dataset.select(rows).images)).to(device)

        compared = torch.arange(0, len(dataset), -(-len(dataset) // _COMPARED))
        model = folded(teacher.model, self._renormalize(inputs(compared[:2]))).to(device)
        memory_format = memory_format_for(device, is_compiled=is_compiled)
        self._answer: Callable[[Tensor], Tensor] = model.to(memory_format=memory_format)
        answers = torch.cat([self(inputs(rows)) for rows in compared.split(_AT_ONCE)])
        _check_answers(answers, dataset.labels[compared], dataset)
        if is_compiled:
            self._answer = torch.compile(model, dynamic=False)

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Tensor:
        """Logits, (B, C), in the precision of the forward pass."""
        with autocast(self._device, self._precision):
            return self._answer(self._renormalize(inputs))


def stored_labels(dataset: DistilledDataset) -> Tensor:
    """The soft labels of the images as they are, (N, C), in the stored precision.

    They go with every view of an image, as DATM trains with them.

    Raises:
        ValueError: If there are none, or they belong to augmented views of which the data set does not say
            how to make them again.
        ClassCountError: If they do not cover all classes.
    """
    soft = dataset.soft_labels
    if soft is None:
        raise ValueError(
            "Expected a data set with soft labels for `labels` stored, got none. Choose online and a "
            "teacher, or hard."
        )
    if soft.views is not None and soft.views.shape[2]:
        raise ValueError(
            "Expected soft labels of the images as they are, got some of augmented views. "
            "Label the data set without augmentation."
        )
    logits = soft.dense(dataset.labels, range(dataset.num_classes))[:, 0]
    if bool(logits.isnan().any()):
        raise ClassCountError(
            f"Expected soft labels of all {dataset.num_classes} classes, got some of fewer. "
            "Label the data set with a teacher that has seen all classes."
        )
    return logits


def seeded(purpose: str, seed: int) -> torch.Generator:
    """A random state on the CPU that depends on both arguments and nothing else."""
    return torch.Generator().manual_seed(random.Random(f"{purpose} {seed}").getrandbits(63))


def _check_answers(logits: Tensor, labels: Tensor, dataset: DistilledDataset) -> None:
    if logits.shape[1] != dataset.num_classes:
        raise ClassCountError(
            f"Expected a teacher with an output for each of {dataset.num_classes} classes, got "
            f"{logits.shape[1]} outputs. Use the teacher of this data set."
        )
    if not bool(torch.isfinite(logits).all()):
        raise ValueError(
            "Expected finite soft labels, got NaN or infinite logits. "
            "Check the teacher: its training may have diverged."
        )
    order = find_class_order(logits.argmax(1), labels, num_classes=dataset.num_classes)
    if not order.is_identity:
        raise ClassOrderError(order.describe(dataset.class_names))
