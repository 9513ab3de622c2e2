"""Pickles of tensors in plain containers, followed before torch is given them.

Python's unpickler runs whatever a pickle names. Torch's restricted one runs nothing, but makes tensors,
bytes and byte arrays of any size that a few bytes ask for, and nested tuples end its process. So a pickle
is first taken apart into its opcodes, and only the ones that `torch.save` writes for tensors, numbers,
strings, lists, tuples and dictionaries are followed, in memory in proportion to the pickle.
"""

from __future__ import annotations

import math
import pickletools
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from torch import Tensor

LARGEST_PICKLE = 1 << 20
"""Bytes of a pickle, at most: some 8,000 tensors, whose values lie outside it."""

_MOST_ITEMS = 256  # that are copied at a time; a pickle can ask for copies without end
_DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}

# Hashes of tuples recurse without limit, and can be made to collide, as those of long numbers can.
_KEYS = (str, bytes, int, float, bool, type(None))


class RefusedError(Exception):
    """Why a pickle was not followed to its end, as the rest of a sentence about its file."""


@dataclass(frozen=True)
class _Name:
    """A class or function that a pickle names; nothing is imported for it."""

    name: str


class TensorPickles:
    """Follows pickles of one file, protocol 2.

    Args:
        calls: What a pickle may name, and what is called for it, besides tensors and containers.
        new_storage: Given a key and a number of bytes, uint8 of that many bytes.
        max_bytes: Bytes of all storages together, at most.

    After `follow`, ``storages`` has each of them and its type by its key.
    """

    def __init__(
        self,
        calls: Mapping[str, Callable[..., Any]],
        new_storage: Callable[[str, int], Tensor],
        max_bytes: int,
    ) -> None:
        self.storages: dict[str, tuple[Tensor, torch.dtype]] = {}
        self._calls = {**_CALLS, **calls}
        self._kinds = {name: call for name, call in calls.items() if isinstance(call, type)}
        self._new_storage = new_storage
        self._bytes_left = max_bytes
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def follow(self, stream: BinaryIO) -> object:
        """What the next pickle of a stream holds; the stream stands behind it then.

        Raises:
            RefusedError: If it asks for anything that could run code, or for a tensor beyond its storage.
            Exception: Of any kind, if it is damaged.
        """
        self._stack, self._marks, self._memo = [], [], {}
        start = stream.tell()
        for opcode, argument, position in pickletools.genops(stream):
            if (position or 0) - start > LARGEST_PICKLE:
                raise ValueError(f"its pickle has more than {LARGEST_PICKLE} bytes")
            if opcode.name == "STOP":
                break
            if not (self._place(opcode.name, argument) or self._combine(opcode.name)):
                raise ValueError(f"its pickle has {opcode.name}, which torch does not write")
        return self._stack.pop()

    def _place(self, opcode: str, argument: Any) -> bool:
        """Follow an opcode that puts a value on the stack, or remembers the last one."""
        stack = self._stack
        match opcode:
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINSTRING":
                stack.append(argument)
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[opcode]())
            case "GLOBAL":
                stack.append(self._name(argument.replace(" ", ".")))
            case "MARK":
                self._marks.append(len(stack))
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case _:
                return opcode == "PROTO"
        return True

    def _combine(self, opcode: str) -> bool:
        """Follow an opcode that makes one value of the last ones on the stack."""
        stack = self._stack
        match opcode:
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._pop(int(opcode[-1]))))
            case "TUPLE":
                stack.append(tuple(self._pop_marked()))
            case "APPEND" | "APPENDS":
                items = self._pop(1) if opcode == "APPEND" else self._pop_marked()
                _of_type(stack[-1], list).extend(items)
            case "SETITEM" | "SETITEMS":
                items = self._pop(2) if opcode == "SETITEM" else self._pop_marked()
                _set_items(_of_type(stack[-1], dict, OrderedDict), items)
            case "BINPERSID":
                stack.append(self._storage(*stack.pop()))
            case "REDUCE":
                function, arguments = self._pop(2)
                stack.append(self._calls[function.name](*arguments))
            case "NEWOBJ":
                function, arguments = self._pop(2)
                kind = self._kinds[function.name]
                stack.append(kind.__new__(kind, *arguments))
            case "BUILD":
                self._build(stack[-2], stack.pop())
            case _:
                return False
        return True

    def _pop(self, count: int) -> list[Any]:
        items = self._stack[-count:]
        if len(items) < count:
            raise ValueError("its pickle is damaged")
        del self._stack[-count:]
        return items

    def _pop_marked(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _name(self, name: str) -> _Name:
        if name in self._calls or name in _DTYPES:
            return _Name(name)
        if re.fullmatch(r"torch\..*(_rebuild_\w+|Storage)", name):
            raise RefusedError(
                f"holds more than dense tensors in plain containers (it asks for `{name}`) and was not "
                "opened. Use a file of tensors only: save its state dict, or `tensor.to_dense()`, again."
            )
        raise RefusedError(
            f"wants to run code (it asks for `{name}`) and was not opened. Use a file of tensors only; if "
            "you trust its author, load it on a machine that may be lost and save its state dict again."
        )

    def _storage(self, kind: str, of: _Name, key: str, device: str, count: int, view: None = None) -> Tensor:
        """The storage of a key, as numbers of its type; it is read when it is first asked for."""
        del device
        dtype = _DTYPES[of.name]
        if kind != "storage" or view is not None or type(key) is not str or type(count) is not int:
            raise ValueError("it has a storage of an unknown kind")
        if key not in self.storages:
            num_bytes = count * dtype.itemsize
            if not 0 <= num_bytes <= self._bytes_left:
                raise ValueError(f"it is too short for a tensor of {num_bytes} bytes")
            self._bytes_left -= num_bytes
            self.storages[key] = self._new_storage(key, num_bytes), dtype
        storage, known = self.storages[key]
        if known != dtype:
            raise ValueError(f"its storage `{key}` has two types")
        return storage.view(dtype)

    def _build(self, instance: object, state: Any) -> None:
        """Give an object its attributes; those of a dictionary are dropped."""
        if type(instance) is OrderedDict:
            return
        if type(instance) not in self._kinds.values():
            raise ValueError("its pickle sets attributes of an unknown object")
        if hasattr(instance, "__setstate__"):
            instance.__setstate__(state)
        else:
            instance.__dict__ = _of_type(state, dict)  # no copy, however often a pickle asks


def _of_type(value: object, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise ValueError("its pickle is damaged")
    return value


def _set_items(target: dict[Any, Any], items: Sequence[Any]) -> None:
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(_of_type(key, *_KEYS)) is int and key.bit_length() > 60:
            raise ValueError("it has a long number as a key")
        target[key] = value


def _ordered_dict() -> OrderedDict[Any, Any]:
    return OrderedDict()


def _counter(counts: object) -> Counter[Any]:
    return Counter(_short(counts, dict))


def _size(lengths: object) -> torch.Size:
    return torch.Size(_short(lengths, tuple))


def _encode(text: object, encoding: object) -> bytes:
    """Bytes, which protocol 2 writes as text; other encodings than this one can blow them up."""
    if encoding != "latin1":
        raise ValueError("it has bytes in an unknown encoding")
    encoded: bytes = _short(text, str).encode("latin1")
    return encoded


def _short(value: object, kind: type) -> Any:
    if len(_of_type(value, kind)) > _MOST_ITEMS:
        raise ValueError(f"it has a long {kind.__name__} in an unusual place")
    return value


def _parameter(tensor: object, requires_grad: object, hooks: object) -> object:
    del requires_grad, hooks
    return _of_type(tensor, Tensor)


def _tensor(
    storage: Tensor,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool,
    hooks: object,
    metadata: object = None,
) -> Tensor:
    """A tensor in a storage: with no element outside it, nor more elements than it has."""
    del requires_grad, hooks
    is_plain = all(type(number) is int and number >= 0 for number in (offset, *size, *stride))
    if metadata or len(size) > _MOST_ITEMS or not is_plain:
        raise ValueError("it holds a tensor of an unknown kind")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count and (last >= len(storage) or count > len(storage)):
        raise RefusedError(
            f"holds a tensor of shape {size} that is larger than its bytes, and was not opened. Save it "
            "again with `tensor.contiguous()`."
        )
    return storage.as_strided(size, stride, offset)


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "collections.Counter": _counter,
    "torch.Size": _size,
    "_codecs.encode": _encode,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_tensor_v2": _tensor,
}
