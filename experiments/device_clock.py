"""A clock that waits for the device."""

from __future__ import annotations

import time

import torch


def now(device: str) -> float:
    """Seconds of a clock, once the device has done all that it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
