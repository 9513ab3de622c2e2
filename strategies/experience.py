"""What our plugins read of an Avalanche experience."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from avalanche.benchmarks.scenarios.online import OnlineCLExperience
from avalanche.models.utils import is_multi_task_module
from torch import Tensor
from torch.utils.data import DataLoader

from gift_cl.normalization import Normalization


def require_supported(experience: Any) -> None:
    """Refuse streams that a class-incremental memory cannot follow.

    Raises:
        ValueError: For task labels other than 0, and for online streams without task boundaries.
    """
    tasks = sorted(set(getattr(whole_task(experience), "task_labels", [0])))
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


def require_one_head(model: Any) -> None:
    """Refuse models that need task labels.

    Raises:
        TypeError: For Avalanche's multi-task modules.
    """
    if is_multi_task_module(model):
        raise TypeError(
            f"Expected a model with one head, got the multi-task module {type(model).__name__}: a teacher "
            "has no task labels. Use a model with a fixed head, or `with_growing_head`."
        )


def require_images(experience: Any, normalization: Normalization, *, count: int = 32) -> None:
    """Refuse inputs that a memory cannot hold, before time goes into training on them.

    Args:
        experience: Any class-incremental experience.
        normalization: What its transform applies.
        count: Inputs that are looked at; `read_images` checks all of them.

    Raises:
        TypeError: If the inputs are not tensors.
        ValueError: If they are not images with pixels in [0, 1].
    """
    dataset = experience.dataset.eval()
    for index in range(min(count, len(dataset))):
        inputs = dataset[index][0]
        if not isinstance(inputs, Tensor):
            raise TypeError(
                f"Expected tensors from the data set, got {type(inputs).__name__}. "
                "Add `torchvision.transforms.ToTensor()` to its transforms."
            )
        normalization.to_images(inputs[None])


def starts_task(experience: Any) -> bool:
    """Whether no experience before this one was of the same task."""
    return not isinstance(experience, OnlineCLExperience) or bool(experience.is_first_subexp)


def ends_task(experience: Any, num_parts: int) -> bool:
    """Whether the data of a task are complete after this experience.

    Args:
        experience: Whole, or a part of an online stream.
        num_parts: Parts of the task so far, with this one.
    """
    if not isinstance(experience, OnlineCLExperience) or experience.is_last_subexp:
        return True
    # Avalanche 0.6 calls no part the last one when all parts have the same size.
    return bool(num_parts == experience.sub_stream_length)


def whole_task(experience: Any) -> Any:
    """The experience that an online sub-experience was cut from; others are whole."""
    origin = getattr(experience, "origin_experience", None)
    return experience if origin is None else origin


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
    # With a generator of its own, the loader leaves the global random state alone.
    loader = DataLoader(experience.dataset.eval(), batch_size=batch_size, generator=torch.Generator())
    images, labels = [], []
    for batch in loader:
        images.append(normalization.to_images(batch[0]))
        labels.append(torch.as_tensor(batch[1]).to(torch.int64))
    if not images:
        warnings.warn("An experience without data was passed over.", stacklevel=2)
        return torch.zeros(0, 1, 1, 1, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64)
    return torch.cat(images), torch.cat(labels)
