"""Losses are computed in float32 or better, whatever the precision of the forward pass."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def upcast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The same tensors in one dtype: the widest among them, and at least float32.

    Example:
        >>> [t.dtype for t in upcast(torch.ones(1).half(), torch.ones(1).bfloat16())]
        [torch.float32, torch.float32]
    """
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(tensor.to(dtype) for tensor in tensors)


def autocast_off(device: torch.device) -> AbstractContextManager[object]:
    """A context in which autocast leaves operations on this kind of device alone."""
    kind = device.type
    if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
        return nullcontext()
    return torch.autocast(kind, enabled=False)
