"""What our plugins read of an Avalanche experience."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from avalanche.benchmarks.scenarios.online import OnlineCLExperience
from torch import Tensor
from torch.utils.data import DataLoader

from gift_cl.normalization import Normalization


def require_supported(experience: Any) -> None:
    """Refuse streams that a class-incremental memory cannot follow.

    Raises:
        ValueError: For task labels other than 0, and for online streams without task boundaries.
    """
    tasks = sorted(set(getattr(experience, "task_labels", [0])))
    if tasks != [0]:
        raise ValueError(
            f"Expected a class-incremental stream with the one task label 0, got {tasks}. Soft labels "
            "of several heads do not mix; build the benchmark without task labels "
            "(`class_incremental_benchmark`, or `return_task_id=False`)."
        )
    if isinstance(experience, OnlineCLExperience) and not experience.access_task_boundaries:
        raise ValueError(
            "Expected an online stream with task boundaries, got one without: there is no moment at "
            "which to distil. Use `split_online_stream(..., access_task_boundaries=True)`."
        )


def is_last_of_task(experience: Any) -> bool:
    """Whether the data of a task are complete after this experience."""
    return not isinstance(experience, OnlineCLExperience) or bool(experience.is_last_subexp)


def whole_task(experience: Any) -> Any:
    """The experience that an online sub-experience was cut from; others are whole."""
    if isinstance(experience, OnlineCLExperience):
        return experience.origin_experience
    return experience


def classes_of(experience: Any) -> list[int]:
    """Classes in the data of an experience, ascending."""
    return sorted(int(c) for c in experience.dataset.targets.uniques)


def read_images(
    experience: Any, normalization: Normalization, *, batch_size: int = 256
) -> tuple[Tensor, Tensor]:
    """Images and labels of an experience, as its evaluation transform shows them.

    Args:
        experience: Any class-incremental experience.
        normalization: What its transform applies; it is undone.
        batch_size: Images read at once.

    Returns:
        uint8 images (N, C, H, W) and int64 labels (N,).

    Raises:
        ValueError: If the inputs are not images with pixels in [0, 1].
    """
    loader = DataLoader(experience.dataset.eval(), batch_size=batch_size)
    images, labels = [], []
    for batch in loader:
        images.append(normalization.to_images(batch[0]))
        labels.append(torch.as_tensor(batch[1]).to(torch.int64))
    if not images:
        warnings.warn("An experience without data was passed over.", stacklevel=2)
        return torch.zeros(0, 1, 1, 1, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64)
    return torch.cat(images), torch.cat(labels)
