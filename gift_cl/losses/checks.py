"""What every loss asks of its inputs: shapes and kinds. Reading values would stall a device."""

from __future__ import annotations

import torch
from torch import Tensor


def check_interval(name: str, value: float, interval: str) -> None:
    """Raise unless an option is a number inside an interval, which is written as in ``"[0, 1)"``.

    Raises:
        TypeError: If the value is no number.
        ValueError: If it lies outside the interval.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"Expected `{name}` to be a number in {interval}, got {value!r}.")
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    is_above = value >= low if interval.startswith("[") else value > low
    is_below = value <= high if interval.endswith("]") else value < high
    if not (is_above and is_below):
        raise ValueError(f"Expected `{name}` in {interval}, got {value}.")


def check_inputs(logits: Tensor, soft_labels: Tensor, labels: Tensor) -> None:
    """Raise unless the three inputs of a loss belong together.

    Raises:
        TypeError: If one is no tensor, or has an unusable dtype.
        ValueError: If the shapes do not fit each other, or there is no row or no class.
    """
    check_matrix("logits", logits)
    _check_floating("soft_labels", soft_labels, cure="Label the images with a teacher first.")
    if soft_labels.shape != logits.shape:
        raise ValueError(
            f"Expected `soft_labels` of shape (N, C) = {tuple(logits.shape)}, "
            f"got {tuple(soft_labels.shape)}. Pass one teacher logit per student logit; a teacher "
            "that knows fewer classes must be extended to all of them first."
        )
    check_labels(labels, num_rows=logits.shape[0])


def check_matrix(name: str, matrix: Tensor) -> None:
    """Raise unless a tensor is floating, of shape ``(N, C)``, and neither size is zero."""
    _check_floating(name, matrix, cure="Pass the raw outputs of a model.")
    shape = tuple(matrix.shape)
    if matrix.ndim != 2:
        raise ValueError(
            f"Expected `{name}` of shape (N, C), got {shape}. "
            "Flatten the other dimensions, or add one for a single image."
        )
    if 0 in shape:
        raise ValueError(
            f"Expected at least one row and one class in `{name}`, got shape (N, C) = {shape}. "
            "Skip empty batches: their mean loss is not defined."
        )


def check_labels(labels: Tensor, *, num_rows: int) -> None:
    """Raise unless hard labels are int64 class numbers, one a row.

    Their values are not read, since that would wait for the device: a number outside ``[0, C)``
    fails where it is used to index.
    """
    if not isinstance(labels, Tensor):
        raise TypeError(f"Expected `labels` to be a tensor, got {type(labels).__name__}.")
    if labels.shape != (num_rows,):
        raise ValueError(
            f"Expected `labels` of shape (N,) = ({num_rows},), got {tuple(labels.shape)}. "
            "Pass one class number a row; soft labels go into `soft_labels`."
        )
    if labels.dtype != torch.int64:
        raise TypeError(f"Expected `labels` of dtype torch.int64, got {labels.dtype}. Call `labels.long()`.")


def _check_floating(name: str, tensor: Tensor, *, cure: str) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"Expected `{name}` to be a tensor, got {type(tensor).__name__}. {cure}")
    if not tensor.is_floating_point():
        raise TypeError(f"Expected `{name}` of a floating dtype, got {tensor.dtype}. {cure}")
