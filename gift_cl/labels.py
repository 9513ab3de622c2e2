"""Label regimes: what a memory keeps to tell a student about an exemplar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gift_cl.augmentations import Augmentation
from gift_cl.ledger import label_nbytes
from gift_cl.registry import Registry
from gift_cl.soft_labels import SoftLabels
from gift_cl.teacher import Teacher


@dataclass(frozen=True)
class LabelRegime:
    """How exemplars are labelled.

    Args:
        name: ``hard``, ``stored`` or ``online``.
        views: Augmented views of each exemplar whose logits are stored (regime ``stored``).
        refresh: Label old exemplars again with each new teacher, which knows more classes.
        bits: Precision of the kept teacher (regime ``online``).
    """

    name: Literal["hard", "stored", "online"]
    views: int = 1
    refresh: bool = False
    bits: Literal[16, 32] = 16

    def __post_init__(self) -> None:
        if not (isinstance(self.views, int) and self.views >= 1):
            raise ValueError(f"Expected `views` of at least 1, got {self.views!r}.")
        if self.bits not in (16, 32):
            raise ValueError(f"Expected `bits` 16 or 32, got {self.bits!r}.")

    @property
    def needs_teacher(self) -> bool:
        """Whether a teacher has to label the exemplars."""
        return self.name != "hard"

    def exemplar_nbytes(self, *, num_classes: int, num_covered: int, num_parameters: int) -> int:
        """Bytes of one exemplar's labels.

        Args:
            num_classes: Classes in all, for the size of a hard label.
            num_covered: Classes that its teacher knows.
            num_parameters: Integers that describe a view.
        """
        hard = label_nbytes(num_classes)
        if self.name != "stored":
            return hard
        return hard + self.views * (2 * num_covered + num_parameters)


def hard() -> LabelRegime:
    """Hard labels only."""
    return LabelRegime("hard")


def stored(views: int = 1, refresh: bool = False) -> LabelRegime:
    """Logits of some views, in half precision."""
    return LabelRegime("stored", views=views, refresh=refresh)


def online(bits: Literal[16, 32] = 16) -> LabelRegime:
    """The teacher is kept, is charged, and labels each view that is drawn."""
    return LabelRegime("online", bits=bits)


LABELS: Registry[LabelRegime] = Registry("label regime")
LABELS.add("hard", hard, reference="no soft labels; the control")
LABELS.add("stored", stored, reference="as FKD, Shen & Xing, ECCV 2022, with k views")
LABELS.add("online", online, reference="GIFT, ICLR 2025; LINs-lab/GIFT@38db552")


def relabel(
    images: Tensor,
    labels: Tensor,
    teacher: Teacher,
    *,
    classes: Sequence[int],
    num_classes: int,
    regime: LabelRegime,
    augmentation: Augmentation,
    generator: torch.Generator,
) -> SoftLabels:
    """Logits of ``regime.views`` augmented views of each image.

    Args:
        images: uint8 (N, C, H, W), as they come out of the codec.
        labels: Hard labels, int64 (N,).
        teacher: Has to have seen the classes of the labels.
        classes: Classes of the stream so far; those that the teacher knows are stored.
        num_classes: Classes in all.
        regime: A regime that stores labels.
        augmentation: Draws the views. Without parameters, every view is the image itself.
        generator: For the views.

    Raises:
        UnseenClassError: If the teacher has not seen the class of an image.
    """
    known = tuple(c for c in classes if c in set(teacher.classes))
    views, logits = [], []
    for _ in range(regime.views):
        parameters = augmentation.draw(len(images), generator)
        views.append(parameters)
        seen = augmentation.apply(images, parameters)
        logits.append(teacher.label(seen, labels, classes=known).cpu())
    full = torch.zeros(len(images), regime.views, num_classes)
    full[:, :, list(known)] = torch.stack(logits, 1)
    covered: Mapping[int, tuple[int, ...]] = {int(c): known for c in labels.unique()}
    stacked = torch.stack(views, 1) if augmentation.num_parameters else None
    return SoftLabels.from_logits(full, labels, covered, views=stacked)
