"""How much a memory may keep: the same number of every class, to the last byte of the budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gift_cl.codecs import EncodedImages, concat
from gift_cl.dataset import DistilledDataset
from gift_cl.labels import relabel
from gift_cl.ledger import BudgetError
from gift_cl.soft_labels import SoftLabels, coverage_nbytes
from gift_cl.teacher import Teacher

if TYPE_CHECKING:
    from gift_cl.memory import ExemplarMemory

_SAMPLE = 64  # images that are encoded for an estimate
_LEAST, _ASKED = 1.1, 1.3  # of an estimate, when files differ in size


class Plan:
    """How the bytes of a memory are divided at one update.

    Args:
        memory: As it was before the update; only read.
        classes: All classes after it.
        num_classes: Classes in all.
        teacher: Of this update, if there is one.
        new: Classes that are added or come back; none when the memory is only made smaller.
    """

    def __init__(
        self,
        memory: ExemplarMemory,
        classes: tuple[int, ...],
        num_classes: int,
        teacher: Teacher | None,
        *,
        new: Sequence[int],
    ) -> None:
        self.memory = memory
        self.classes = classes
        self.new = frozenset(new)
        self.num_classes = num_classes
        self.teacher = teacher
        self.teacher_bytes = 0
        if memory.regime.name == "online" and teacher is not None:
            self.teacher_bytes = teacher.nbytes

    def estimate_per_class(self, images: Tensor, supply: Mapping[int, int]) -> tuple[int, int]:
        """Exemplars of each class that fill the budget: the least to be sure of it, and what to ask for.

        Args:
            images: Exemplars of the new classes, or images that may take as many bytes.
            supply: Exemplars of new classes that cannot have more.
        """
        sample = images[:: max(1, len(images) // _SAMPLE)][:_SAMPLE]
        encoded = self.memory.codec.encode(sample)
        level = self._level(float(encoded.nbytes_each.float().mean()), supply)
        if encoded.lengths is None:
            return int(level) + 1, int(level) + 1
        return int(_LEAST * level) + 1, int(_ASKED * level) + 1  # others may compress better

    def _level(self, pixels: float, supply: Mapping[int, int]) -> float:
        """Exemplars of each class within the budget, when those of a new class take ``pixels`` bytes."""
        old = self.memory.dataset
        groups = []  # bytes of an exemplar and the number of them, for each class
        for c in self.classes:
            size, count = pixels, float(supply.get(c, math.inf))
            if old is not None and c not in self.new:
                own = old.encoded.nbytes_each[old.labels == c]
                size, count = float(own.float().mean()), len(own)
            groups.append((size + self._label_bytes(self._width(c)), count))
        left = float((self.memory.budget_bytes or 0) - self.teacher_bytes - self._coverage_bytes())
        level, cost = 0.0, sum(size for size, _ in groups)
        for size, count in sorted(groups, key=lambda group: group[1]):
            level = left / cost
            if level <= count:
                break
            left, cost = left - size * count, cost - size
        return max(level, 0.0)

    @property
    def known(self) -> int:
        """Classes so far that the teacher knows."""
        return 0 if self.teacher is None else len(set(self.classes) & set(self.teacher.classes))

    def merge(self, old: DistilledDataset | None, made: DistilledDataset) -> DistilledDataset:
        """Old and new exemplars within the budget, labelled; each class by descending value."""
        codec, encoded = self.memory.codec, made.encoded
        if encoded.codec != codec.spec:
            encoded = codec.encode(made.images)
        labels, rank = made.labels, ranks(made.labels)
        if old is not None:
            encoded = concat([old.encoded, encoded])
            labels = torch.cat([old.labels, labels])
            rank = torch.cat([ranks(old.labels), rank])
        # A class that came back has two exemplars of each rank: old and new ones take turns.
        order = torch.from_numpy(np.lexsort((rank.numpy(), labels.numpy())))
        keep = order[self.fit(encoded.select(order), labels[order])]
        is_old = keep < (0 if old is None else len(old))
        dataset = replace(
            made,
            encoded=encoded.select(keep),
            labels=labels[keep],
            num_classes=self.num_classes,
            soft_labels=None,
        )
        if self.memory.regime.name != "stored":
            return dataset
        return replace(dataset, soft_labels=self._label(dataset, old, keep, is_old))

    def fit(self, encoded: EncodedImages, labels: Tensor) -> Tensor:
        """Indices to keep: as many as fit, the same number of each class up to one."""
        groups = [(labels == c).nonzero().flatten() for c in self.classes]
        memory = self.memory
        if memory.per_class is not None:
            return torch.cat([group[: memory.per_class] for group in groups])
        cost = encoded.nbytes_each + torch.tensor(
            [self._label_bytes(self._width(int(c))) for c in labels], dtype=torch.int64
        )
        sums = [torch.cat([cost.new_zeros(1), cost[g].cumsum(0)]) for g in groups]
        fixed = len(encoded.shared) + self.teacher_bytes + self._coverage_bytes()
        available = (memory.budget_bytes or 0) - fixed

        def used(total: int) -> int:
            counts = share(total, [len(g) for g in groups])
            return sum(int(s[n]) for s, n in zip(sums, counts, strict=True))

        low, high = 0, len(labels)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if used(middle) <= available else (low, middle - 1)
        counts = share(low, [len(g) for g in groups])
        if min(counts) < 1:
            least = fixed + used(len(groups))
            raise BudgetError(
                f"Expected `budget_bytes` of at least {least} for one exemplar of each of "
                f"{len(groups)} classes ({fixed} of it shared, {self.teacher_bytes} of that a teacher), "
                f"got {memory.budget_bytes}. Raise the budget, or choose a smaller codec or label regime."
            )
        return torch.cat([g[:n] for g, n in zip(groups, counts, strict=True)])

    def _width(self, label: int) -> int:
        """Classes that the stored logits of a class cover."""
        old = None if self.memory.dataset is None else self.memory.dataset.soft_labels
        if old is None or self._is_labelled_now(label):
            return self.known
        return len(old.covered[label])

    def _is_labelled_now(self, label: int) -> bool:
        """Whether the teacher of this update labels the exemplars of a class."""
        return label in self.new or (self.memory.regime.refresh and bool(self.new))

    def _label_bytes(self, width: int) -> int:
        return self.memory.regime.exemplar_nbytes(
            num_classes=self.num_classes,
            num_covered=width,
            num_parameters=self.memory.augmentation.num_parameters,
        )

    def _coverage_bytes(self) -> int:
        if self.memory.regime.name != "stored":
            return 0
        return coverage_nbytes(dict.fromkeys(self.classes, ()), self.num_classes)

    def _label(
        self,
        dataset: DistilledDataset,
        old: DistilledDataset | None,
        keep: Tensor,
        is_old: Tensor,
    ) -> SoftLabels:
        """Soft labels of what is kept; old ones stay, unless the regime or a returning class says else."""
        memory, teacher = self.memory, self.teacher
        assert teacher is not None
        fresh = torch.tensor([self._is_labelled_now(int(c)) for c in dataset.labels])
        indices = fresh.nonzero().flatten()
        made = relabel(
            dataset.encoded.select(indices).decode(),
            dataset.labels[indices],
            teacher,
            classes=self.classes,
            num_classes=self.num_classes,
            regime=memory.regime,
            augmentation=memory.augmentation,
            generator=memory.generator,
        )
        if old is None or old.soft_labels is None or bool(fresh.all()):
            return made
        kept = old.soft_labels.select(keep[is_old & ~fresh], old.labels)
        parts = [((~fresh).nonzero().flatten(), kept), (indices, made)]
        return SoftLabels.assemble(dataset.labels, parts, num_classes=self.num_classes)


def share(total: int, available: Sequence[int]) -> list[int]:
    """Split ``total`` over classes as evenly as their supply allows; earlier classes get the rest.

    Example:
        >>> share(7, [5, 1, 5])
        [3, 1, 3]
    """
    counts = [0] * len(available)
    left = min(total, sum(available))
    while left:
        open_ = [i for i, n in enumerate(available) if counts[i] < n]
        step = max(1, left // len(open_))
        for i in open_:
            taken = min(step, available[i] - counts[i], left)
            counts[i] += taken
            left -= taken
    return counts


def ranks(labels: Tensor) -> Tensor:
    """Position of each exemplar within its class, int64 (N,)."""
    rank = torch.zeros_like(labels)
    for label in labels.unique():
        indices = (labels == label).nonzero().flatten()
        rank[indices] = torch.arange(len(indices))
    return rank
