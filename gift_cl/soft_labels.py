"""Teacher logits stored with the exemplars: which classes they cover, for which view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

Extension = Literal["row_min", "row_mean", "zero"]
"""How logits are extended to classes that their teacher did not know."""

_PRECISIONS = (torch.float16, torch.float32)


@dataclass(frozen=True, eq=False)
class SoftLabels:
    """Logits of ``V`` views of ``N`` exemplars, without a byte for unknown classes.

    A teacher labels with the classes it had seen, so exemplars of early classes have short rows.

    Args:
        values: One-dimensional: exemplar after exemplar, view after view, class after class. float16, or
            float32 for labels that others published in that precision.
        covered: For each hard label, the classes that its exemplars' logits stand for, in their order.
        num_views: ``V``, at least 1.
        views: int8 (N, V, P), the augmentation parameters of each view; none when every view is the
            stored image itself.

    Raises:
        ValueError: If the parts do not fit together, or a logit is not finite.
    """

    values: Tensor
    covered: Mapping[int, tuple[int, ...]]
    num_views: int
    views: Tensor | None = None

    def __post_init__(self) -> None:
        if self.num_views < 1:
            raise ValueError(f"Expected `num_views` of at least 1, got {self.num_views}.")
        if self.values.dtype not in _PRECISIONS or self.values.ndim != 1:
            raise ValueError(
                f"Expected float16 or float32 `values` in one dimension, got {self.values.dtype} "
                f"{tuple(self.values.shape)}."
            )
        if not bool(torch.isfinite(self.values).all()):
            raise ValueError(
                "Expected finite soft labels, got NaN or infinite logits. "
                "Check the teacher: its training may have diverged."
            )
        if self.views is not None and (self.views.dtype != torch.int8 or self.views.ndim != 3):
            raise ValueError(f"Expected `views` of int8 (N, V, P), got {self.views.dtype}.")

    @classmethod
    def from_logits(
        cls,
        logits: Tensor,
        labels: Tensor,
        covered: Mapping[int, tuple[int, ...]],
        *,
        views: Tensor | None = None,
        dtype: torch.dtype = torch.float16,
    ) -> SoftLabels:
        """Keep, of dense ``logits`` (N, V, C) over all classes, the covered ones.

        Args:
            logits: Column ``c`` stands for class ``c``.
            labels: Hard labels, int64 (N,).
            covered: As in the class.
            views: As in the class.
            dtype: Precision of the stored logits, float16 or float32.
        """
        parts = [
            row[:, list(covered[int(label)])].reshape(-1) for row, label in zip(logits, labels, strict=True)
        ]
        values = torch.cat(parts) if parts else logits.new_zeros(0)
        present = {int(label) for label in labels.unique()}
        kept = {label: columns for label, columns in covered.items() if label in present}
        return cls(values.to(dtype).cpu(), kept, logits.shape[1], views)

    def nbytes(self, num_classes: int) -> int:
        """Bytes as stored: logits, view parameters, one bit for each pair of label and class."""
        views = 0 if self.views is None else self.views.numel()
        values = self.values.numel() * self.values.element_size()
        return values + views + coverage_nbytes(self.covered, num_classes)

    def dense(self, labels: Tensor, classes: Sequence[int], indices: Tensor | None = None) -> Tensor:
        """Logits in the column order of ``classes``, (n, V, len(classes)), in the stored precision.

        Classes that a row does not cover are NaN; covered classes that are not asked for are left out.

        Args:
            labels: Hard labels of all exemplars, int64 (N,).
            classes: Which columns are wanted.
            indices: Which rows are wanted, int64 (n,); all by default. No others are read.
        """
        column = {int(c): position for position, c in enumerate(classes)}
        present, which = labels.unique(return_inverse=True)
        widths = torch.tensor([len(self.covered[label]) for label in present.tolist()], dtype=torch.int64)
        ends = torch.cumsum(widths[which] * self.num_views, 0)
        if int(ends[-1] if len(ends) else 0) != self.values.numel():
            raise ValueError(
                f"Expected {int(ends[-1]) if len(ends) else 0} logits for these labels, got "
                f"{self.values.numel()}. The soft labels belong to other exemplars."
            )
        if indices is not None:
            labels, ends = labels[indices], ends[indices]
        dense = torch.full((len(labels), self.num_views, len(column)), float("nan"), dtype=self.values.dtype)
        for label, covered in self.covered.items():
            rows = (labels == label).nonzero().flatten()
            if not len(rows):
                continue
            length = len(covered) * self.num_views
            taken = self.values[(ends[rows] - length)[:, None] + torch.arange(length)]
            taken = taken.view(len(rows), self.num_views, len(covered))
            known = [i for i, c in enumerate(covered) if c in column]
            target = torch.tensor([column[covered[i]] for i in known], dtype=torch.int64)
            dense[rows[:, None, None], torch.arange(self.num_views)[None, :, None], target] = taken[
                :, :, known
            ]
        return dense

    def select(self, indices: Tensor, labels: Tensor) -> SoftLabels:
        """Soft labels of some exemplars; ``labels`` are the hard labels of all of them."""
        width = 1 + max((c for columns in self.covered.values() for c in columns), default=-1)
        dense = self.dense(labels, range(width), indices)
        views = None if self.views is None else self.views[indices]
        dtype = self.values.dtype
        return SoftLabels.from_logits(dense, labels[indices], self.covered, views=views, dtype=dtype)

    def reordered(self, permutation: Sequence[int]) -> SoftLabels:
        """The same logits when class ``c`` is called ``permutation[c]``; no value moves."""
        covered = {
            permutation[label]: tuple(permutation[c] for c in columns)
            for label, columns in self.covered.items()
        }
        return replace(self, covered=covered)

    @classmethod
    def assemble(
        cls, labels: Tensor, parts: Sequence[tuple[Tensor, SoftLabels]], *, num_classes: int
    ) -> SoftLabels:
        """Soft labels of exemplars with ``labels``, out of parts that each know some of the rows.

        Args:
            labels: Hard labels of all exemplars, int64 (N,).
            parts: Row indices and the soft labels of these rows; together all rows. Where two parts hold
                a label, they have to cover the same classes.
            num_classes: Classes in all.
        """
        first = parts[0][1]
        dtype = first.values.dtype
        logits = torch.zeros(len(labels), first.num_views, num_classes, dtype=dtype)
        views = None
        if first.views is not None:
            views = first.views.new_zeros(len(labels), *first.views.shape[1:])
        covered: dict[int, tuple[int, ...]] = {}
        for rows, part in parts:
            logits[rows] = part.dense(labels[rows], range(num_classes))
            covered |= part.covered
            if views is not None and part.views is not None:
                views[rows] = part.views
        return cls.from_logits(logits, labels, covered, views=views, dtype=dtype)


def coverage_nbytes(covered: Mapping[int, tuple[int, ...]], num_classes: int) -> int:
    """Bytes of the table that says which classes each label's logits cover, one bit a pair."""
    return len(covered) * -(-num_classes // 8)


def extend(logits: Tensor, mode: Extension = "row_min") -> Tensor:
    """Give classes that the teacher did not know a logit, so that a row can be compared as a whole.

    Args:
        logits: (..., C) with NaN at unknown classes.
        mode: ``row_min`` puts an unknown class level with the least likely known one, ``row_mean`` with
            their mean, ``zero`` at 0.

    Returns:
        A new tensor without NaN. A row that knows no class becomes zeros.

    Raises:
        ValueError: If the mode is unknown.
    """
    unknown = logits.isnan()
    match mode:
        case "zero":
            return logits.nan_to_num(0.0)
        case "row_mean":
            fill = logits.float().nanmean(-1, keepdim=True).to(logits.dtype)
        case "row_min":
            fill = logits.masked_fill(unknown, torch.inf).amin(-1, keepdim=True)
            fill = fill.masked_fill(fill == torch.inf, 0.0)
        case _:
            raise ValueError(f"Expected `mode` row_min, row_mean or zero, got {mode!r}.")
    return torch.where(unknown, fill.nan_to_num(0.0), logits)
