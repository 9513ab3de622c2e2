"""`DistilledMemory`: an exemplar store with Avalanche's conventions over an `ExemplarMemory`."""

from __future__ import annotations

import time
from typing import Any

import torch
from avalanche.benchmarks.utils import AvalancheDataset, as_classification_dataset
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor
from torch.utils.data import TensorDataset

from gift_cl.ledger import Ledger
from gift_cl.memory import ExemplarMemory
from gift_cl.normalization import IDENTITY, Normalization
from gift_cl.teacher import Teacher, as_float
from strategies.experience import (
    ends_task,
    read_images,
    require_supported,
    starts_task,
    whole_task,
)

_NUM_CHECKED = 1000  # images on which a teacher's accuracy is measured


class DistilledMemory(ExemplarsBuffer):
    """A storage policy that condenses each experience to a few labelled exemplars.

    It owns its exemplars: it keeps no reference to the original data, and neither does a checkpoint.

    Args:
        budget_bytes: Bytes for everything kept: images as stored, labels, teacher.
        per_class: Exemplars of each class, instead of bytes.
        exemplars: ``random``, ``herding``, ``rded``, …, with options.
        codec: ``raw``, ``png``, ``jpeg:Q``, ``webp:Q``, ``quantize:B``, ``downscale:F``.
        labels: ``hard``, ``stored:views=K,refresh=B`` or ``online:bits=B``.
        augmentation: ``none``, ``crop:pad=P`` or ``crop_flip:pad=P``, for the views that are rehearsed.
        normalization: What the transform of the benchmark applies to pixels in [0, 1].
        teacher: Labels with this teacher instead of the model of the stream. One that has seen classes
            of the future is refused, unless it says it is an oracle.
        num_classes: Classes in all, if known.
        seed: For all draws.

    Raises:
        ValueError: If not exactly one budget is given, or a name is unknown.
    """

    def __init__(
        self,
        *,
        budget_bytes: int | None = None,
        per_class: int | None = None,
        exemplars: str = "herding",
        codec: str = "raw",
        labels: str = "stored",
        augmentation: str = "none",
        normalization: Normalization = IDENTITY,
        teacher: Teacher | None = None,
        num_classes: int | None = None,
        seed: int = 0,
    ) -> None:
        self.exemplars = ExemplarMemory(
            budget_bytes=budget_bytes,
            per_class=per_class,
            exemplars=exemplars,
            codec=codec,
            labels=labels,
            augmentation=augmentation,
            num_classes=num_classes,
            seed=seed,
        )
        super().__init__(max_size=budget_bytes or per_class or 0)
        self.normalization = normalization
        self.teacher = teacher
        self.num_updates = 0
        self.distillation_seconds = 0.0
        self.teacher_accuracy: float | None = None
        self._num_parts = 0

    def __len__(self) -> int:
        return len(self.exemplars)

    @property
    def ledger(self) -> Ledger:
        """Bytes of everything kept now, by part."""
        return self.exemplars.ledger

    @property
    def buffer(self) -> AvalancheDataset:
        """A view of the exemplars with their hard labels, as network inputs."""
        dataset = self.exemplars.dataset
        if dataset is None:
            return self._buffer
        inputs = self.normalization.apply(as_float(dataset.images))
        return as_classification_dataset(_Exemplars(inputs, dataset.labels))

    def post_adapt(self, agent_state: Any, exp: Any) -> None:
        """Condense an experience. ``agent_state`` is a strategy, or anything with a ``model``.

        Raises:
            BudgetError: If one exemplar of each class does not fit.
            ValueError: If the stream is not supported, or the data are not images.
        """
        require_supported(exp)
        self._num_parts = 1 if starts_task(exp) else self._num_parts + 1
        if not ends_task(exp, self._num_parts):
            return
        start = time.perf_counter()
        images, labels = read_images(whole_task(exp), self.normalization)
        if not len(labels):
            return
        teacher = self._teacher(agent_state.model, labels) if self.exemplars.needs_teacher else None
        if teacher is None:  # whatever is trained to distil is trained where the model is
            images = images.to(next((p.device for p in agent_state.model.parameters()), images.device))
        self.exemplars.update(images, labels, teacher)
        self.num_updates += 1
        self.distillation_seconds = time.perf_counter() - start
        self.teacher_accuracy = None if teacher is None else _accuracy(teacher, images, labels)

    def resize(self, strategy: Any, new_size: int) -> None:
        """Change the budget, in its own unit, and shrink to it."""
        del strategy
        self.exemplars.resize(new_size)
        self.max_size = new_size

    def _teacher(self, model: torch.nn.Module, labels: Tensor) -> Teacher:
        if self.teacher is not None:
            return self.teacher
        classes = (*self.exemplars.classes, *(int(c) for c in labels.unique()))
        bits = self.exemplars.regime.bits if self.exemplars.regime.name == "online" else 32
        return Teacher(model, classes=classes, normalization=self.normalization, bits=bits)


class _Exemplars(TensorDataset):
    """Tensors with the ``targets`` that Avalanche looks for."""

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        super().__init__(inputs, labels)
        self.targets = labels.tolist()


def _accuracy(teacher: Teacher, images: Tensor, labels: Tensor) -> float:
    """Share of (at most 1,000, evenly spaced) images that a teacher classifies right, 0 to 1."""
    step = max(1, len(labels) // _NUM_CHECKED)
    logits = teacher.logits(images[::step])
    known = torch.tensor(teacher.classes, device=logits.device)
    guesses = known[logits[:, known].argmax(1)]
    return float((guesses.cpu() == labels[::step]).float().mean())
