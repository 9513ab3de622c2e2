"""Images per class: the same number of each, and fewer of them where that is valid."""

from __future__ import annotations

import torch
from torch import Tensor

from gift_cl.errors import LayoutError


def check_ipc(ipc: int | None) -> None:
    """Raise ``ValueError`` unless a wanted number of images per class is at least 1."""
    if ipc is not None and ipc < 1:
        raise ValueError(f"Expected `ipc` of at least 1, got {ipc}.")


def first_of_each(labels: Tensor, ipc: int, *, where: str) -> Tensor:
    """Indices of the first ``ipc`` images of each class, in order, int64 (n,).

    Args:
        labels: Hard labels, int64 (N,).
        ipc: Images wanted of each class, at least 1.
        where: What to call the data in a message.

    Raises:
        LayoutError: If a class has fewer.
    """
    check_ipc(ipc)
    chosen = []
    for label in labels.unique().tolist():
        own = (labels == label).nonzero().flatten()
        if len(own) < ipc:
            raise LayoutError(
                f"Expected at least `ipc` = {ipc} images of each class in `{where}`, got {len(own)} of class "
                f"{label}. Ask for fewer."
            )
        chosen.append(own[:ipc])
    return torch.cat(chosen).sort().values if chosen else torch.zeros(0, dtype=torch.int64)
