"""What our file formats have in common: safetensors, JSON metadata, and a SHA-256 of everything.

``docs/formats.md`` specifies it. Nothing in a file is executed, and what is read is verified.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gift_cl.errors import DamagedFileError
from gift_cl.files import replacing

METADATA = "gift_cl"
"""The one entry of safetensors' own metadata: it writes several in any order."""

Header = dict[str, Any]


def write_sealed(
    path: str | os.PathLike[str], header: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write a file, equal ones as equal bytes; an old file is replaced when the new one is complete.

    Args:
        path: File to write.
        header: All that the file says, with its ``format``; JSON has to hold it.
        tensors: On the CPU, sharing no memory.

    Raises:
        OSError: If the file cannot be written, as on a full disk; the message names it.
    """
    from safetensors.torch import save_file

    ordered = {name: tensor.contiguous() for name, tensor in tensors.items()}
    described = dict(header) | {"tensors": {name: describe(tensor) for name, tensor in ordered.items()}}
    with replacing(path) as temporary:
        save_file(ordered, temporary, metadata={METADATA: seal(described)})


def read_sealed(
    path: str | os.PathLike[str], formats: Collection[str], *, mapped: Collection[str] = ()
) -> tuple[Header, dict[str, Tensor]]:
    """Header and tensors of a file, once all hashes agree.

    Args:
        path: A file that `write_sealed` wrote.
        formats: What its ``format`` may be, the present one last.
        mapped: Tensors that stay in the file until they are used. Their hashes are not verified, and they
            would change, or end the process, with the file; all others are copies.

    Raises:
        Exception: Of many kinds, if it is no such file or was changed; use `reporting_damage`.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header = unseal(metadata, formats)
    tensors = {name: t if name in mapped else t.clone() for name, t in tensors.items()}
    known = header["tensors"]
    if set(known) != set(tensors):
        raise ValueError(f"it should hold {sorted(known)}, and holds {sorted(tensors)}")
    for name, tensor in tensors.items():
        described = describe(tensor, is_read=name not in mapped)
        if described | {"sha256": described.get("sha256", known[name]["sha256"])} != known[name]:
            raise ValueError(f"the hash, shape or type of `{name}` does not agree")
    return header, tensors


def seal(header: Mapping[str, Any]) -> str:
    """The text of a header with its hash."""
    return _canonical(dict(header) | {"sha256": sha256(_canonical(header).encode())})


def unseal(metadata: Mapping[str, str], formats: Collection[str]) -> Header:
    """The header in safetensors' metadata, without its hash.

    Raises:
        ValueError: If it is of another format, or its hash does not agree.
    """
    header = json.loads(metadata.get(METADATA, "null"))
    if not isinstance(header, dict) or header.get("format") not in formats:
        raise ValueError(f"its metadata do not say `{list(formats)[-1]}`")
    if header.pop("sha256", None) != sha256(_canonical(header).encode()):
        raise ValueError("the hash of its metadata does not agree")
    return header


def describe(tensor: Tensor, *, is_read: bool = True) -> Header:
    """Type, shape and, if it may be read, hash of a tensor: all that a file says of it."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    described: Header = {"dtype": dtype, "shape": list(tensor.shape)}
    if is_read:
        described["sha256"] = sha256(tensor_bytes(tensor))
    return described


def tensor_bytes(tensor: Tensor) -> memoryview | bytes:
    """The values of a tensor on the CPU as they lie in a file."""
    flat = tensor.contiguous().view(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else b""


def sha256(data: bytes | memoryview) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


@contextmanager
def reporting_damage(path: str | os.PathLike[str], what: str, cure: str) -> Iterator[None]:
    """Turn whatever a damaged file makes raise within the block into a `DamagedFileError` that names it.

    Args:
        path: The file.
        what: What it should be, with an article: ``"a teacher"``.
        cure: A sentence on what to do.
    """
    from safetensors import SafetensorError

    kinds = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, OverflowError)
    try:
        yield
    except (SafetensorError, *kinds) as error:
        raise DamagedFileError(
            f"Cannot read `{os.fspath(path)}` as {what}: {str(error).rstrip('.')}. {cure}"
        ) from error


def _canonical(header: Mapping[str, Any]) -> str:
    """The text of which a header is hashed."""
    return json.dumps(header, sort_keys=True)
