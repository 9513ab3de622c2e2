"""What a distiller is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from gift_cl.dataset import DistilledDataset, Provenance
from gift_cl.progress import Progress, silent
from gift_cl.teacher import Teacher

REAL_IMAGES = ("random", "herding", "coverage")
"""Distillers that choose real images: the controls of the others."""


class Distiller(Protocol):
    """Makes few exemplars of many images."""

    @property
    def spec(self) -> str:
        """Name and options, as in the registry."""

    @property
    def needs_teacher(self) -> bool:
        """Whether `distill` has to be given a teacher."""

    @property
    def classes_at_once(self) -> int | None:
        """Classes that are made together, None for all: a multiple of these can be made on its own."""

    @property
    def codec(self) -> str | None:
        """The codec that the exemplars are made for and encoded with, as a spec; None for any."""

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
        """Up to ``per_class`` exemplars of each class, the most valuable first.

        Args:
            images: uint8 (N, C, H, W).
            labels: int64 (N,).
            per_class: Exemplars wanted of each class, at least 1.
            num_classes: Classes in all.
            teacher: A model that has seen the classes of ``labels``.
            generator: On the CPU; all draws come from it.
            progress: Called with the images that went through a network so far, and in all.

        Returns:
            Images, raw or in the distiller's own codec, class after class in ascending order; within a
            class, any prefix is usable, so that a memory can shrink. A class with too few images may give
            fewer exemplars.

        Raises:
            UnseenClassError: If the teacher has not seen a class.
            ValueError: If the images do not suit the method; the message says why.
        """


@runtime_checkable
class MadeInPasses(Protocol):
    """A distiller that makes some exemplars of each class at a time, each time on its own."""

    def passes(self, per_class: int, num_classes: int) -> list[int]:
        """Exemplars of each class in each pass, ``per_class`` in all, of so many classes made together."""


@dataclass(frozen=True)
class Selection:
    """Images chosen or made, before they become a data set.

    Args:
        images: uint8 (n, C, H, W).
        labels: int64 (n,).
    """

    images: Tensor
    labels: Tensor

    @classmethod
    def join(cls, parts: list[Selection]) -> Selection:
        """All parts, one after another."""
        return cls(torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts]))

    def as_dataset(
        self, distiller: Distiller, *, num_classes: int, teacher: Teacher | None, factor: int = 1
    ) -> DistilledDataset:
        """A raw data set that says how it was made."""
        return DistilledDataset.from_images(
            self.images,
            self.labels,
            num_classes=num_classes,
            factor=factor,
            normalization=teacher.normalization if teacher else None,
            provenance=provenance_of(distiller, teacher),
        )


def provenance_of(distiller: Distiller, teacher: Teacher | None) -> Provenance:
    """Who made exemplars, and which teacher took part: what it had seen, and whether it was an oracle."""
    if teacher is None:
        return Provenance(method=distiller.spec)
    return Provenance(
        method=distiller.spec,
        teacher=type(teacher.model).__name__,
        teacher_classes=teacher.classes,
        oracle=teacher.oracle,
    )


def require_input(images: Tensor, labels: Tensor, *, per_class: int) -> None:
    """Check what every distiller is given."""
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(
            f"Expected `images` of uint8 (N, C, H, W), got {images.dtype} {tuple(images.shape)}. "
            "Convert pixels in [0, 1] with `(pixels * 255).round().to(torch.uint8)`."
        )
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"Expected `labels` of int64 ({len(images)},), got {labels.dtype} {tuple(labels.shape)}."
        )
    if not len(images):
        raise ValueError("Expected at least one image to distil, got none.")
    if per_class < 1:
        raise ValueError(f"Expected `per_class` of at least 1, got {per_class}.")


def require_teacher(teacher: Teacher | None, labels: Tensor, *, method: str) -> Teacher:
    """The teacher, if there is one and it has seen the classes of ``labels``."""
    if teacher is None:
        raise ValueError(f"The distiller `{method}` needs a teacher; pass one, or choose `random`.")
    teacher.require_seen(int(c) for c in labels.unique())
    return teacher


def require_finite(values: Tensor, *, method: str) -> None:
    """Check what a teacher says of images: an order by NaN would be no order."""
    if not bool(torch.isfinite(values).all()):
        raise ValueError(
            f"The distiller `{method}` got NaN or infinite values from its teacher. "
            "Check the teacher: its training may have diverged."
        )
