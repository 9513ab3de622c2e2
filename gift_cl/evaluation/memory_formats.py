"""The order of pixels in memory in which networks are fastest."""

from __future__ import annotations

import torch


def memory_format_for(device: torch.device, *, is_compiled: bool) -> torch.memory_format:
    """The format of inputs and weights of convolutions: channels last, but for compiled ones on a CPU.

    On two cores, images/s of training conv3 on 32x32 pixels with its teacher: 194 in channels-last and 178 in
    contiguous format; compiled, 339 and 391.
    """
    return torch.contiguous_format if is_compiled and device.type == "cpu" else torch.channels_last
