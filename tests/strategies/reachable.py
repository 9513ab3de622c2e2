"""The bytes of all tensors, arrays and buffers that can be reached from an object."""

from __future__ import annotations

import gc
import weakref
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor


def reachable_buffers(root: object) -> list[bytes]:
    """The content of every storage that code with a reference to ``root`` can reach.

    A view counts as all of the storage that it is a view of. Weak references, bases of arrays, gradients and
    the graphs behind them are followed; modules, classes and the globals of functions are not: everything
    could be reached through them.
    """
    seen: dict[int, object] = {}
    queue = [root]
    while queue:
        thing = queue.pop()
        if id(thing) not in seen and not _is_code(thing):
            seen[id(thing)] = thing  # kept alive, so that no id is used twice
            queue += gc.get_referents(thing)
            queue += _hidden_referents(thing)
    return [content for thing in seen.values() if (content := _content(thing)) is not None]


def _is_code(thing: object) -> bool:
    is_namespace = isinstance(thing, dict) and "__spec__" in thing  # the globals of a module
    return is_namespace or isinstance(thing, type | ModuleType)


def _hidden_referents(thing: Any) -> list[object]:
    """What the garbage collector does not tell."""
    if isinstance(thing, weakref.ref):
        return [thing()]
    if isinstance(thing, Tensor):
        return [thing._base, thing.grad if thing.is_leaf else None, thing.grad_fn]
    if isinstance(thing, np.ndarray):
        return [thing.base]
    if isinstance(thing, memoryview):
        return [thing.obj]
    if isinstance(thing, torch.autograd.graph.Node):
        saved = [getattr(thing, name) for name in dir(thing) if name.startswith("_saved_")]
        return [*saved, *(node for node, _ in thing.next_functions)]
    return []


def _content(thing: Any) -> bytes | None:
    if isinstance(thing, Tensor):
        thing = thing.untyped_storage()
    if isinstance(thing, torch.UntypedStorage):
        return torch.empty(0, dtype=torch.uint8).set_(thing).numpy().tobytes()
    if isinstance(thing, np.ndarray):
        return thing.tobytes()
    return bytes(thing) if isinstance(thing, bytes | bytearray | memoryview) else None
