"""Whether a teacher numbers the classes as the labels do.

A checkpoint does not say which class an output stands for. Where its makers' folders were sorted
otherwise, everything that it labels is wrong, and nothing says so but its own predictions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gift_cl.teacher import Teacher, UnseenClassError

SIGNIFICANCE = 0.01
"""Accepted probability of calling chance a finding."""

_DOMINANCE = 1.5  # new class : any other class, in predictions of labels that move
_LISTED = 20  # moves that a description spells out


@dataclass(frozen=True)
class ClassOrder:
    """How the classes of labels and of a teacher correspond.

    Args:
        accuracy: Share of the images whose label the teacher predicts, in [0, 1].
        permutation: At each label, the class that the teacher means by it: the label itself, unless
            another is clearly better.
        matched_accuracy: The share once labels are replaced by ``permutation``.
        num_images: Images compared.
        chance: The share to expect of these predictions if they had nothing to do with the images: the sum
            over classes of (share of the labels) x (share of the predictions). It is 1/C where each of C
            classes has equally many images. It is 1 where all images are of one class and are
            predicted as it: then there is nothing to tell.
    """

    accuracy: float
    permutation: tuple[int, ...]
    matched_accuracy: float
    num_images: int
    chance: float

    @property
    def moved(self) -> dict[int, int]:
        """The labels that move, and the classes that the teacher means by them."""
        return {label: other for label, other in enumerate(self.permutation) if other != label}

    @property
    def is_identity(self) -> bool:
        """Whether nothing moves."""
        return not self.moved

    @property
    def is_chance(self) -> bool:
        """Whether neither order is clearly above chance.

        Another order is proposed only where it is. The order of the labels is, if ``accuracy`` is above
        ``chance`` at `SIGNIFICANCE` by Chernoff's bound on the upper tail of the binomial distribution,
        ``exp(-N KL(accuracy, chance))``. With 10 balanced classes, 7 of 20 images are not enough
        and 8 are.
        """
        if not self.is_identity:
            return False
        if self.accuracy <= self.chance:
            return True
        return self.num_images * _divergence(self.accuracy, self.chance) < -math.log(SIGNIFICANCE)

    def describe(self, class_names: Sequence[str] | None = None) -> str:
        """What was found, in a few sentences for a user.

        Args:
            class_names: Names of the labels' classes, in the order of the labels.

        Raises:
            ValueError: If there is not one name for each class.
        """
        names = [str(label) for label in range(len(self.permutation))]
        if class_names is not None:
            if len(class_names) != len(names):
                raise ValueError(
                    f"Expected {len(names)} `class_names`, one for each class, got {len(class_names)}."
                )
            names = [f"{name} ({label})" for name, label in zip(class_names, names, strict=True)]
        agrees = f"The teacher agrees with {self.accuracy:.1%} of {self.num_images:,} labels"
        if self.is_chance:
            return (
                f"{agrees}, where chance is {self.chance:.1%}, and no other order of the classes is clearly "
                "better. Compare more images of more classes, and check that the teacher was trained on them "
                "and sees images of the right size and normalisation."
            )
        if self.is_identity:
            return f"{agrees}, and no other order of the classes is clearly better."
        moves = [f"{names[label]} -> {other}" for label, other in self.moved.items()]
        more = f" and {len(moves) - _LISTED} more" if len(moves) > _LISTED else ""
        return (
            f"{agrees}; with {len(moves)} classes reordered it would agree with {self.matched_accuracy:.1%}: "
            f"{', '.join(moves[:_LISTED])}{more}. If it sees images of the right size and normalisation, "
            "pass `--reorder` to apply this."
        )


def find_class_order(predictions: Tensor, labels: Tensor, *, num_classes: int) -> ClassOrder:
    """The order of the classes in which a teacher agrees with labels best, if it is clearly another.

    The best assignment gains a little on noise, too. So labels that change places among themselves, a
    cycle of the assignment, move together or not at all, and only if two things hold:

    * The gain is significant. Let ``gain`` be the sum over the cycle's labels of (share of a label's
      images predicted as the new class) - (share predicted as the label), and ``variance`` that of the
      same sum if each of these images had fallen to either side by a fair coin. By Hoeffding's
      inequality, the coin gets as far with probability ``exp(-gain² / 2 variance)`` at most. This has to
      be below `SIGNIFICANCE` divided by the number of cycles of that length and by the number of
      lengths: each label that moves has to bring evidence of about ``ln C``.
    * The new classes dominate. Over the cycle, they are predicted 1.5 times as often as each label's
      strongest other class: a teacher that mixes up similar classes should not have them swapped.

    Within the assignment, a label that moves has to gain ``ln C`` images, or a class with few correct
    predictions would join others' cycles by accident. Shares in place of counts keep a teacher that often
    names one class from passing for one with another order, where most images are of another class.

    Power: a teacher with 30 % of its predictions right, and the others spread evenly, is found out in
    nine of ten runs with 50 images a class if 10 of 10 classes form a cycle, 40 if 15 of 100 do, and
    120 and 80 if two are swapped; 10 are never enough. With 70 % right: 10, 20, 25 and 30.

    Limits: a teacher that sees images wrongly (inverted, turned) may prefer another order by these
    standards, so check the images first. A label of which the teacher knows little gets what is left
    in its cycle. A label without images stays, and its number is given to no other.

    Args:
        predictions: The teacher's classes, int64 (N,).
        labels: int64 (N,); both on any device.
        num_classes: Of labels and predictions.

    Raises:
        TypeError: If a tensor is not int64.
        ValueError: If the tensors are empty, differ in length, or hold what is no class.

    Example:
        >>> labels = torch.arange(3).repeat(30)
        >>> order = find_class_order(torch.tensor([0, 2, 1])[labels], labels, num_classes=3)
        >>> order.moved, round(order.accuracy, 2), order.matched_accuracy
        ({1: 2, 2: 1}, 0.33, 1.0)
    """
    _require_classes("predictions", predictions, num_classes)
    _require_classes("labels", labels, num_classes)
    if len(predictions) != len(labels):
        raise ValueError(f"Expected one prediction for each label, got {len(predictions)} and {len(labels)}.")
    if not len(labels):
        raise ValueError("Expected at least one image, got none.")
    pairs = labels.cpu() * num_classes + predictions.cpu()
    counts = torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes).double()
    present = counts.sum(1).nonzero().flatten()
    permutation = torch.arange(num_classes)
    for cycle in _cycles(_assign(counts[present][:, present], counts.sum(1)[present])):
        old = present[cycle]
        new = old.roll(-1)
        if _is_clear(counts[old], old, new, num_choices=len(present)):
            permutation[old] = new
    shares = counts / len(labels)
    return ClassOrder(
        accuracy=float(shares.diagonal().sum()),
        permutation=tuple(permutation.tolist()),
        matched_accuracy=float(shares[torch.arange(num_classes), permutation].sum()),
        num_images=len(labels),
        chance=float(shares.sum(1) @ shares.sum(0)),
    )


def teacher_predictions(teacher: Teacher, images: Tensor, *, classes: Sequence[int] | None = None) -> Tensor:
    """The class that a teacher gives each image, among those that it has seen.

    Args:
        teacher: Output columns of classes that it has not seen are left out.
        images: (N, C, H, W): float in [0, 1], or uint8.
        classes: Leave out all others.

    Returns:
        int64 (N,) on the teacher's device.

    Raises:
        UnseenClassError: If no class is left.
        ValueError: If a logit is not finite.
    """
    chosen = [c for c in teacher.classes if classes is None or c in classes]
    if not chosen:
        raise UnseenClassError(
            f"This teacher has seen classes {sorted(teacher.classes)}, and none of {classes}. "
            "Pass classes that it was trained on."
        )
    logits = teacher.columns(teacher.logits(images), chosen)
    if not bool(torch.isfinite(logits).all()):
        raise ValueError(
            "Expected finite logits, got NaN or infinite ones. "
            "Check the teacher: its training may have diverged."
        )
    return torch.tensor(chosen, device=logits.device)[logits.argmax(1)]


def _assign(counts: Tensor, totals: Tensor) -> list[int]:
    """The best assignment of columns to rows by shares of ``totals``; staying is worth ``ln C`` images."""
    from scipy.optimize import linear_sum_assignment

    shares = (counts + math.log(len(counts)) * torch.eye(len(counts))) / totals[:, None]
    columns: list[int] = linear_sum_assignment(shares.numpy(), maximize=True)[1].tolist()
    return columns


def _cycles(permutation: list[int]) -> list[list[int]]:
    """The cycles of two and more, each element followed by what it is mapped to."""
    cycles, seen = [], set()
    for start in range(len(permutation)):
        cycle, element = [], start
        while element not in seen:
            seen.add(element)
            cycle.append(element)
            element = permutation[element]
        if len(cycle) > 1:
            cycles.append(cycle)
    return cycles


def _is_clear(rows: Tensor, old: Tensor, new: Tensor, *, num_choices: int) -> bool:
    """Whether the predictions of a cycle's labels, a row each, are clearly for the new classes."""
    each, length = torch.arange(len(rows)), len(rows)
    totals = rows.sum(1)
    for_old, for_new = rows[each, old], rows[each, new]
    others = rows.clone()
    others[each, new] = 0
    if (for_new / totals).sum() < _DOMINANCE * (others.amax(1) / totals).sum():
        return False
    gain = float(((for_new - for_old) / totals).sum())
    variance = float(((for_new + for_old) / totals**2).sum())
    # num_choices! / (num_choices - length)! / length cycles, and num_choices lengths.
    log_cycles = math.lgamma(num_choices + 1) - math.lgamma(num_choices - length + 1) - math.log(length)
    return gain**2 / (2 * variance) >= log_cycles + math.log(num_choices) - math.log(SIGNIFICANCE)


def _divergence(share: float, other: float) -> float:
    """Kullback-Leibler divergence of two coins in nats."""
    pairs = ((share, other), (1 - share, 1 - other))
    return sum(p * math.log(p / q) for p, q in pairs if p > 0)


def _require_classes(name: str, values: Tensor, num_classes: int) -> None:
    if values.dtype != torch.int64:
        raise TypeError(f"Expected `{name}` in int64, got {values.dtype}.")
    if values.ndim != 1:
        raise ValueError(f"Expected `{name}` of shape (N,), got {tuple(values.shape)}.")
    if not len(values):
        return
    low, high = (int(v) for v in values.aminmax())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"Expected `{name}` from 0 to {num_classes - 1}, got {low} to {high}. "
            "The order has to be one of all classes."
        )
