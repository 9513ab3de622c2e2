"""Running out of memory: how it is recognised, and what is raised when nothing can be done about it."""

from __future__ import annotations

import torch


class TooLargeError(MemoryError):
    """A single image does not fit the memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on an accelerator or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The CPU's allocator has no exception of its own.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def release_memory(device: torch.device) -> None:
    """Give back what an accelerator's allocator holds in vain, so that smaller pieces fit."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
