"""In which order of their values images go through a network the fastest."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def fastest_format(model: nn.Module, example: Tensor) -> torch.memory_format:
    """Channels last, unless the model reshapes features as only contiguous ones can be, with ``view``.

    Args:
        model: In evaluation mode.
        example: Network inputs (N, C, H, W), run once.
    """
    try:
        model(example.contiguous(memory_format=torch.channels_last))
    except RuntimeError:
        return torch.contiguous_format
    return torch.channels_last
