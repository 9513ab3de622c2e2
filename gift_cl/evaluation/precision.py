"""The precision of forward passes."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """A context for forward passes: in bfloat16 what torch holds to be safe, or nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
