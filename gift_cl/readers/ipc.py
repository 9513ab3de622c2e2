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


def check_separable(method: str, ipc: int, *, factor: int, where: str) -> None:
    """Raise unless the first ``ipc`` images of each class are a data set of their own.

    Args:
        method: Spec of what made the images, such as ``"rded:factor=1"``, or several with slashes if it is
            one of these.
        ipc: Images wanted of each class, fewer than there are.
        factor: Mosaic factor.
        where: What to call the data in a message.

    Raises:
        ValueError: If ``ipc`` is less than 1.
        LayoutError: If they are not, or nobody knows; the message says why.
    """
    check_ipc(ipc)
    name, _, options = method.partition(":")
    if name in _SEPARABLE or (name == "rded" and options and factor == 1):
        return
    reason = _REASONS.get(name, "it is not known whether its method makes each image by itself")
    raise LayoutError(
        f"Expected `ipc` to be all images of each class in `{where}`, got {ipc}: {reason}. Read all of them, "
        "or a data set that was distilled to fewer."
    )


# Their images are made one after the other, or are kept by descending value.
_SEPARABLE = ("random", "herding", "coverage", "sre2l", "cda")
_REASONS = {
    "rded": "which patches share a mosaic depends on the number of images",
    "datm": "DATM optimises all images together",
    "gvbsm": "G-VBSM optimises the images of a class together",
    "sre2l/cda/gvbsm": "it is not known which method made them. If it is SRe2L or CDA, whose images are made "
    "one by one, say so by the layout `sre2l` or `cda`",
}
