"""`DistilledDataset`: the one thing that travels between distillers, memories and evaluators."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from gift_cl.codecs import EncodedImages, build_codec
from gift_cl.ledger import Ledger, label_nbytes
from gift_cl.normalization import Normalization
from gift_cl.soft_labels import SoftLabels

_MOST_CLASSES = 1 << 31  # so that a label fits four bytes

Space = Literal["pixels", "zca"]
"""What the values of images are: pixels (uint8, or float in [0, 1]), or ZCA-whitened and unbounded."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where exemplars come from.

    Args:
        method: Distiller, as a spec: ``"rded:factor=2"``.
        source: The data they were made from, in words.
        teacher: The model that scored or labelled them, in words.
        teacher_classes: Classes that this teacher had seen.
        oracle: Whether it labelled classes it should not know.
        hashes: SHA-256 of the source files by name.
    """

    method: str = "unknown"
    source: str = "unknown"
    teacher: str = "none"
    teacher_classes: tuple[int, ...] = ()
    oracle: bool = False
    hashes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class DistilledDataset:
    """Exemplars with their labels, as stored.

    Args:
        encoded: ``N`` images after the codec.
        labels: Hard labels, int64 (N,) on the CPU, in [0, num_classes).
        num_classes: ``C``, at least 1.
        soft_labels: Stored teacher logits, if any.
        factor: Mosaic factor; an image holds ``factor``² patches.
        normalization: What a network trained on these images should apply, if known.
        space: ``pixels``, or ``zca`` for images that were distilled in a whitened space (DATM).
        learned_lr: Learning rate of SGD that was learned with the images, if any (DATM).
        class_names: Name of each class, if known.
        provenance: Where they come from.

    Raises:
        ValueError: If the parts do not fit together.
    """

    encoded: EncodedImages
    labels: Tensor
    num_classes: int
    soft_labels: SoftLabels | None = None
    factor: int = 1
    normalization: Normalization | None = None
    space: Space = "pixels"
    learned_lr: float | None = None
    class_names: tuple[str, ...] | None = None
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        labels, shape = self.labels, (len(self.encoded),)
        if labels.dtype != torch.int64 or labels.shape != shape or labels.device.type != "cpu":
            raise ValueError(
                f"Expected `labels` of int64 {shape} on the CPU, one for each image, got "
                f"{labels.dtype} {tuple(labels.shape)} on {labels.device}."
            )
        if not 1 <= self.num_classes <= _MOST_CLASSES:
            raise ValueError(f"Expected `num_classes` in [1, {_MOST_CLASSES}], got {self.num_classes}.")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise ValueError(
                f"Expected `labels` in [0, {self.num_classes}), got "
                f"[{int(labels.min())}, {int(labels.max())}]. Check `num_classes`."
            )
        if self.factor < 1:
            raise ValueError(f"Expected `factor` of at least 1, got {self.factor}.")
        if self.space not in get_args(Space):
            raise ValueError(f"Expected `space` pixels or zca, got {self.space!r}.")
        if self.space == "zca" and self.encoded.codec != "float32":
            raise ValueError(
                f"Expected the codec float32 for whitened images, got `{self.encoded.codec}`: their values "
                "are no pixels."
            )
        if self.learned_lr is not None and not 0 < self.learned_lr < math.inf:
            raise ValueError(f"Expected a positive `learned_lr`, got {self.learned_lr}.")
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ValueError(
                f"Expected {self.num_classes} `class_names`, one for each class, got {len(self.class_names)}."
            )
        if self.soft_labels is not None:
            self._check_soft_labels(self.soft_labels)

    def _check_soft_labels(self, soft: SoftLabels) -> None:
        counts = self.images_per_class
        if missing := [label for label in counts if label not in soft.covered]:
            raise ValueError(f"Expected soft labels for class {missing[0]}, got none. Relabel it.")
        widths = sum(len(soft.covered[label]) * count for label, count in counts.items())
        if widths * soft.num_views != soft.values.numel():
            raise ValueError(
                f"Expected {widths * soft.num_views} soft-label values for these exemplars, got "
                f"{soft.values.numel()}."
            )
        if any(not 0 <= c < self.num_classes for row in soft.covered.values() for c in row):
            raise ValueError(f"Expected soft labels of classes in [0, {self.num_classes}).")
        if soft.views is not None and soft.views.shape[:2] != (len(self), soft.num_views):
            raise ValueError(
                f"Expected `views` for {len(self)} images and {soft.num_views} views, got "
                f"{tuple(soft.views.shape)}."
            )

    @classmethod
    def from_images(
        cls,
        images: Tensor,
        labels: Tensor,
        *,
        num_classes: int,
        codec: str = "raw",
        factor: int = 1,
        normalization: Normalization | None = None,
        provenance: Provenance | None = None,
    ) -> DistilledDataset:
        """Encode ``images``, uint8 (N, C, H, W), with the named codec."""
        return cls(
            encoded=build_codec(codec).encode(images),
            labels=labels.cpu(),
            num_classes=num_classes,
            factor=factor,
            normalization=normalization,
            provenance=provenance or Provenance(),
        )

    def __len__(self) -> int:
        return len(self.encoded)

    @property
    def images(self) -> Tensor:
        """The images as a student sees them: decoded, (N, C, H, W), uint8 or, from ``float32``, float."""
        return self.encoded.decode()

    @property
    def classes(self) -> list[int]:
        """Classes that have an exemplar, ascending."""
        return [int(c) for c in self.labels.unique()]

    @property
    def images_per_class(self) -> dict[int, int]:
        """Number of exemplars of each class."""
        return count_labels(self.labels)

    def ledger(self, *, teacher_bytes: int = 0) -> Ledger:
        """Bytes by part; a teacher that has to be kept is charged by whoever keeps it."""
        soft = 0 if self.soft_labels is None else self.soft_labels.nbytes(self.num_classes)
        return Ledger(
            pixels=self.encoded.nbytes,
            labels=len(self) * label_nbytes(self.num_classes),
            soft_labels=soft,
            teacher=teacher_bytes,
        )

    def select(self, indices: Tensor) -> DistilledDataset:
        """The exemplars at ``indices``, int64 (n,), in that order; one may appear several times.

        Raises:
            TypeError: If the indices are not whole numbers.
            ValueError: If one is out of range.
        """
        encoded = self.encoded.select(indices)  # first, because it checks the indices
        soft = None
        if self.soft_labels is not None:
            soft = self.soft_labels.select(indices, self.labels)
        return replace(self, encoded=encoded, labels=self.labels[indices], soft_labels=soft)

    def reordered(self, permutation: Sequence[int]) -> DistilledDataset:
        """The same exemplars when class ``c`` is called ``permutation[c]``.

        Raises:
            ValueError: If it is no permutation of the classes.
        """
        if sorted(permutation) != list(range(self.num_classes)):
            raise ValueError(
                f"Expected `permutation` to hold each of {self.num_classes} classes once, got {permutation}."
            )
        names = None
        if self.class_names is not None:
            names = tuple(name for _, name in sorted(zip(permutation, self.class_names, strict=True)))
        return replace(
            self,
            labels=torch.tensor(permutation, dtype=torch.int64)[self.labels],
            soft_labels=None if self.soft_labels is None else self.soft_labels.reordered(permutation),
            class_names=names,
        )


def count_labels(labels: Tensor) -> dict[int, int]:
    """How often each class occurs in ``labels``, int64 (N,); classes ascending."""
    classes, counts = labels.unique(return_counts=True)
    return dict(zip(classes.tolist(), counts.tolist(), strict=True))
