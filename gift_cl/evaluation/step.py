"""One step of an optimiser: the gradient of a whole batch, in pieces and by several processes if need be."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gift_cl.evaluation.batch_norms import SharedBatchNorms
from gift_cl.evaluation.labelling import Batch, TeacherLabels
from gift_cl.evaluation.memory_limits import TooLargeError, is_out_of_memory, release_memory
from gift_cl.evaluation.optimizers import build_optimizer
from gift_cl.evaluation.precision import autocast
from gift_cl.evaluation.processes import current
from gift_cl.evaluation.recipe import Recipe
from gift_cl.losses import build_loss

if TYPE_CHECKING:
    from gift_cl.evaluation.training import History


class Step:
    """Trains a student on a batch.

    Each process does its share of the rows. Where a piece has fewer rows than there are processes, all of
    them do all of it, and their gradients are averaged.

    Args:
        student: On the device, in training mode.
        recipe: Of the optimiser, the loss and the precision.
        answers: Where soft labels come from that a batch does not have.
        history: Knows into how many pieces a batch is cut, and is told.
        norms: Batch norms of the student.
        device: Where everything is computed.
    """

    def __init__(
        self,
        student: nn.Module,
        recipe: Recipe,
        answers: TeacherLabels | None,
        history: History,
        norms: SharedBatchNorms,
        device: torch.device,
    ) -> None:
        self._student = student
        # A batch of another size, as the last one may be, is compiled for itself; the others stay as fast.
        self._forward = torch.compile(student, dynamic=False) if recipe.compile else student
        self._loss = build_loss(recipe.loss)
        self._answers = answers if self._loss.needs_soft_labels else None
        self._precision = recipe.precision
        self._history = history
        self._norms = norms
        self._device = device
        self._processes = current()
        self._optimizer = build_optimizer(
            recipe.optimizer,
            student,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
            decay_all=recipe.decay_all,
        )

    def set_rate(self, lr: float) -> None:
        """Set the learning rate."""
        for group in self._optimizer.param_groups:
            group["lr"] = lr

    def __call__(self, batch: Batch) -> Tensor:
        """Train on a batch, and give this process's part of its mean loss without waiting for it.

        Raises:
            TooLargeError: If not even a single image fits the memory.

        Warns:
            UserWarning: Each time batches are cut into more pieces.
        """
        while (loss := self._differentiate(batch)) is None:
            self._cut(len(batch.inputs))
        self._optimizer.step()
        return loss

    def _differentiate(self, batch: Batch) -> Tensor | None:
        """Leave the gradient of the loss in the student; None if the memory did not suffice."""
        num_images = len(batch.inputs)
        losses = []
        self._optimizer.zero_grad(set_to_none=True)
        try:
            with self._processes.together():
                for piece in batch.pieces(-(-num_images // self._history.microbatches)):
                    part, share = self._part(piece)
                    loss = self._part_loss(part) * (share / num_images)
                    loss.backward()
                    losses.append(loss.detach())
                self._processes.sum_gradients(self._student.parameters())
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        return torch.stack(losses).sum()

    def _part(self, piece: Batch) -> tuple[Batch, float]:
        """What this process does of a piece, and for how many images that counts."""
        size, count = len(piece.inputs), self._processes.count
        self._norms.are_shared = size >= count
        if size < count:
            return piece, size / count
        part = piece.rows(self._processes.share(size))
        return part, len(part.inputs)

    def _part_loss(self, part: Batch) -> Tensor:
        soft = None if self._answers is None else self._answers(part.inputs)
        with autocast(self._device, self._precision):
            logits = self._forward(part.inputs)
        losses = [
            target.weight * self._loss(logits, target.soft_labels if soft is None else soft, target.labels)
            for target in part.targets
        ]
        return sum(losses[1:], losses[0])

    def _cut(self, num_images: int) -> None:
        """Cut batches into twice as many pieces from now on."""
        if self._history.microbatches >= num_images:
            raise TooLargeError(
                "A single image does not fit the memory. Choose a smaller student, or another device."
            )
        self._optimizer.zero_grad(set_to_none=True)
        release_memory(self._device)
        self._history.microbatches *= 2
        size = -(-num_images // self._history.microbatches)
        if self._processes.is_first:
            warnings.warn(
                f"A batch of {num_images} images does not fit the memory: from now on its gradient is summed "
                f"over pieces of {size}, and batch norms see pieces.",
                stacklevel=4,
            )
