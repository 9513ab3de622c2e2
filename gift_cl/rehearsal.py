"""One step of rehearsal: exemplars for the student, and the loss on what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gift_cl.losses import build_loss
from gift_cl.memory import ExemplarMemory
from gift_cl.normalization import IDENTITY, Normalization
from gift_cl.soft_labels import Extension, extend


@dataclass(frozen=True)
class RehearsalBatch:
    """What a student is asked, and what it should answer.

    Args:
        inputs: Network inputs, float (n, C, H, W).
        positions: Hard labels as positions in the classes so far, int64 (n,).
        soft_labels: float (n, K) over the classes so far, without NaN; None for hard labels.
    """

    inputs: Tensor
    positions: Tensor
    soft_labels: Tensor | None


class Rehearsal:
    """Draws from a memory, and compares a student on the classes seen so far.

    Units of a head that stand for classes which have not been seen (masked, or not trained yet) never
    enter the loss. Classes that the student has seen and a label's teacher has not are filled in by
    ``extension``.

    Args:
        memory: Drawn from; not changed, but for its generator.
        loss: Loss, as a spec.
        normalization: What the student expects of its inputs.
        extension: How soft labels are extended to classes unknown to their teacher.

    Raises:
        ValueError: If the loss needs soft labels that the memory does not have.
    """

    def __init__(
        self,
        memory: ExemplarMemory,
        *,
        loss: str = "gift",
        normalization: Normalization = IDENTITY,
        extension: Extension = "row_min",
    ) -> None:
        self.memory = memory
        self.loss_function = build_loss(loss)
        if memory.regime.name == "hard" and not self.loss_function.accepts_hard:
            raise ValueError(
                f"The loss `{loss}` needs soft labels, and the memory keeps hard ones. "
                "Choose the labels `stored` or `online`, or the loss ce, gift or cosine."
            )
        extend(torch.zeros(1, 1), extension)  # an unknown name is an error now, not in training
        self.normalization = normalization
        self.extension: Extension = extension
        self._columns: Tensor | None = None
        self._device = torch.device("cpu")
        self._positions = torch.zeros(0, dtype=torch.int64)
        self._classes: tuple[int, ...] = ()

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_columns": None}

    def open(self, classes: Sequence[int], device: torch.device | str) -> None:
        """Make the memory ready for drawing.

        Args:
            classes: All classes that the student has seen or is learning now; the memory's among them.
            device: The student's.

        Raises:
            ValueError: If the memory is empty, or holds a class that is not among ``classes``.
        """
        if missing := sorted(set(self.memory.classes) - set(classes)):
            raise ValueError(f"Expected `classes` with those of the memory, got none of {missing}.")
        self.memory.open(classes, device, extension=self.extension)
        self._classes = tuple(classes)
        self._device = torch.device(device)
        self._columns = torch.tensor(self._classes, device=device)
        positions = torch.zeros(max(self._classes) + 1, dtype=torch.int64)
        positions[list(self._classes)] = torch.arange(len(self._classes))
        self._positions = positions.to(device)
        if self.memory.teacher is not None:
            self.memory.teacher.model.to(device)

    @property
    def is_open(self) -> bool:
        """Whether `draw` can be called."""
        return self._columns is not None and self.memory.is_open

    def is_open_for(self, classes: Sequence[int], device: torch.device | str) -> bool:
        """Whether it is open for just these classes and this device."""
        return (
            self.is_open
            and self._classes == tuple(classes)
            and self._device == torch.device(device)  # as asked for: a tensor on "cuda" says "cuda:0"
        )

    def draw(self, count: int) -> RehearsalBatch:
        """Exactly ``count`` exemplars; teacher and student see the same view."""
        batch = self.memory.draw(count)
        soft = batch.soft_labels
        if self.memory.teacher is not None:
            teacher = self.memory.teacher
            known = teacher.columns(teacher.logits(batch.pixels), self._classes)
            soft = extend(known, self.extension)
        return RehearsalBatch(self.normalization.apply(batch.pixels), self._positions[batch.labels], soft)

    def loss(self, logits: Tensor, batch: RehearsalBatch) -> Tensor:
        """The loss of the student's answers to a batch.

        Args:
            logits: Raw outputs of the whole head, (n, width), for ``batch.inputs``.
            batch: From `draw`.

        Raises:
            ValueError: If the head is narrower than the classes so far.
        """
        assert self._columns is not None
        if logits.shape[1] < len(self._positions):
            raise ValueError(
                f"Expected a head with at least {len(self._positions)} outputs for the classes so far, "
                f"got {logits.shape[1]}. Give the model an output for every class, or a head that "
                "grows (`with_growing_head`)."
            )
        return self.loss_function(logits[:, self._columns], batch.soft_labels, batch.positions)
