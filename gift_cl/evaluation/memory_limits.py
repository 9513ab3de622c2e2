"""Running out of memory: how it is recognised, and what is raised when nothing can be done about it."""

from __future__ import annotations

import math

import torch


class TooLargeError(MemoryError):
    """A single image does not fit the memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on an accelerator or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The CPU's allocator has no exception of its own.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def free_memory(device: torch.device) -> float:
    """Bytes that tensors may still take on a CUDA device; no limit elsewhere."""
    if device.type != "cuda":
        return math.inf
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def release_memory(device: torch.device) -> None:
    """Give back what an accelerator's allocator holds in vain, so that smaller pieces fit."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
