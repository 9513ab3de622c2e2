"""DATM folders and GIFT's ``data.pt``, exactly as their authors' code writes them, of any size."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor


class Distilled(NamedTuple):
    """Images (N, C, H, W) sorted by class, their hard labels, and logits (N, C) that mostly agree."""

    images: Tensor
    labels: Tensor
    logits: Tensor


def whitened(
    num_classes: int = 4,
    ipc: int = 3,
    *,
    shape: tuple[int, int, int] = (3, 8, 8),
    seed: int = 0,
) -> Distilled:
    """Images around 0 with negative values, as DATM distils them."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_classes * ipc) // ipc
    images = torch.randn(len(labels), *shape, generator=generator)
    images.view(-1)[:2] = torch.tensor([-1.0, 1.0])
    logits = torch.randn(len(labels), num_classes, generator=generator)
    logits[torch.arange(len(labels)), labels] += 4 * (torch.arange(len(labels)) % 5 > 0)
    return Distilled(images, labels, logits)


def pixels(
    num_classes: int = 4,
    ipc: int = 3,
    *,
    shape: tuple[int, int, int] = (3, 8, 8),
    seed: int = 0,
) -> Tensor:
    """Images as they were before `ToTensor`, uint8 (N, C, H, W), of all values."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_classes * ipc, *shape), dtype=torch.uint8, generator=generator)


def write_datm(
    folder: Path, images: object, labels: object, lr: object = None, *, tag: str | int = "best"
) -> Path:
    """The three files of a checkpoint; a learning rate of 0.02 by default."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(images, folder / f"images_{tag}.pt")
    torch.save(labels, folder / f"labels_{tag}.pt")
    torch.save(torch.tensor(0.02) if lr is None else lr, folder / f"lr_{tag}.pt")
    return folder


def write_gift(folder: Path, images: object, labels: object, dataset: object = "cifar10") -> Path:
    """The file that GIFT reads."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"dataset": dataset, "data": images, "label": labels}, folder / "data.pt")
    return folder / "data.pt"
