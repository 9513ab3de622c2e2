"""One batch file of a published stream of soft labels (FKD), read without running what is in it."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gift_cl.errors import DamagedFileError, LayoutError, UnsafeFileError
from gift_cl.label_streams.batch import Cutmix, Mix, Mixup, StreamBatch
from gift_cl.torch_files import Allowed, load_torch

_LARGEST_FILE = 512 << 20  # bytes; one of 1024 rows and 1000 classes has 2 MB


class _Int64:
    """Stands in for ``numpy.dtype``, and takes only what describes an int64 of this machine's order."""

    def __init__(self, name: object, *flags: object) -> None:
        del flags
        if name != "i8":
            raise ValueError(f"it holds a number of numpy's type {name!r}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] != "<":
            raise ValueError(f"it holds a number of byte order {state[1]!r}")


def _int64(dtype: object, data: bytes) -> int:
    """Stands in for numpy's ``scalar``."""
    if not isinstance(dtype, _Int64) or len(data) != 8:
        raise ValueError("it holds a number that is no int64")
    return int.from_bytes(data, "little", signed=True)


# Boxes are lists of `numpy.int64`. What a pickle names for them runs our stand-ins, never numpy.
_ALLOWED: tuple[Allowed, ...] = (
    (_Int64, "numpy.dtype"),
    (_int64, "numpy.core.multiarray.scalar"),  # numpy 1
    (_int64, "numpy._core.multiarray.scalar"),  # numpy 2
)


class FKDFile(NamedTuple):
    """What a batch file holds.

    Args:
        batch: Its labels and views. Where the file does not say the images, they are counted from 0.
        has_indices: Whether it says them.
    """

    batch: StreamBatch
    has_indices: bool


def read_fkd_file(path: str | os.PathLike[str]) -> FKDFile:
    """A file of six elements (SRe2L) or seven (G-VBSM).

    They are the crops, flips, partners, ``lam`` and box of a batch as in `StreamBatch`, its logits and, in
    a file of seven, its indices. Partners, ``lam`` and box are None where views are not mixed, and the box
    is where they are blended.

    Raises:
        OSError: If the file is missing or may not be read.
        UnsafeFileError: If it wants to run code, or is far too large.
        DamagedFileError: If it is damaged, or its values cannot be.
        LayoutError: If it is a sound file of something else.
    """
    if (nbytes := os.path.getsize(path)) > _LARGEST_FILE:
        raise UnsafeFileError(
            f"The file `{os.fspath(path)}` has {nbytes} bytes, far more than a batch of soft labels, and was "
            "not opened. Check where it comes from."
        )
    elements = load_torch(path, allow=_ALLOWED)
    if not isinstance(elements, (list, tuple)) or len(elements) not in (6, 7):
        got = f"{len(elements)} elements" if isinstance(elements, (list, tuple)) else type(elements).__name__
        raise LayoutError(
            f"Expected a list of 6 elements (as SRe2L writes) or 7 (as G-VBSM does) in "
            f"`{os.fspath(path)}`, got {got}. Give the folder of FKD soft labels."
        )
    try:
        return _to_file(*elements)
    except ValueError as error:
        raise damaged(path, error) from error


def damaged(path: str | os.PathLike[str], reason: ValueError) -> DamagedFileError:
    """The error for a file whose values cannot be."""
    return DamagedFileError(
        f"The file `{os.fspath(path)}` holds no usable soft labels. {reason} If it was damaged, get it again."
    )


def _to_file(
    coords: object,
    flips: object,
    partner: object,
    lam: object,
    box: object,
    logits: object,
    *rest: object,
) -> FKDFile:
    logits = _tensor("logits", logits)
    indices = _tensor("indices", rest[0]) if rest else torch.arange(len(logits) if logits.ndim else 0)
    batch = StreamBatch(
        _tensor("coords", coords), _tensor("flips", flips), _mix(partner, lam, box), logits, indices
    )
    return FKDFile(batch, bool(rest))


def _tensor(name: str, value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise ValueError(f"Expected `{name}` as a tensor, got {type(value).__name__}.")
    if value.dtype == torch.bool and value.numel() and int(value.view(torch.uint8).max()) > 1:
        raise ValueError(f"Expected `{name}` of truth values, got bytes that are none.")
    return value.detach()


def _mix(partner: object, lam: object, box: object) -> Mix | None:
    if partner is None and lam is None and box is None:
        return None
    rows = _tensor("mix.partner", partner)
    if not isinstance(lam, (int, float)) or isinstance(lam, bool):
        raise ValueError(f"Expected `lam` as a number, got {type(lam).__name__}.")
    if box is None:
        return Mixup(rows, float(lam))
    if not isinstance(box, (list, tuple)) or len(box) != 4 or any(type(edge) is not int for edge in box):
        raise ValueError("Expected `box` as four whole numbers, got something else.")
    top, left, bottom, right = box
    return Cutmix(rows, float(lam), (top, left, bottom, right))
