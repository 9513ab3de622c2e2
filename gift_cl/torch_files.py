"""Files of `torch.save`, read without running what is in them and within the memory of their size."""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

import torch
from torch import Tensor

from gift_cl.errors import DamagedFileError, UnsafeFileError
from gift_cl.tensor_pickles import LARGEST_PICKLE, RefusedError, TensorPickles

Allowed = Callable[..., Any] | tuple[Callable[..., Any], str]
"""A class or function that a pickle may name, or one with the name that it has in the pickle."""

_LARGEST_DIRECTORY = 1 << 20  # bytes: some 15,000 records
_LEGACY_MAGIC, _LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001
_CHUNK = 1 << 20  # bytes

_Calls = Mapping[str, Callable[..., Any]]


def load_torch(
    path: str | os.PathLike[str], *, allow: Sequence[Allowed] = (), legacy: bool = False
) -> object:
    """What a file of ``torch.save`` holds, on the CPU.

    The file is loaded by ``torch.load`` with ``weights_only=True`` and nothing else, once its pickle has been
    followed to its end by `TensorPickles`. Torch runs no code of a file, but would crash on some or take
    memory out of proportion. What comes back are numbers, strings, lists, tuples, dictionaries and dense
    tensors, and takes about as much memory as the file.

    Args:
        path: A file written by ``torch.save``, whatever its ending.
        allow: What else a pickle may name. It is called with what the pickle says, twice.
        legacy: Whether files from before torch 1.6, which are no zip archives, are read too.

    Raises:
        OSError: If the file is missing or may not be read.
        UnsafeFileError: If the file asks for anything that could run code, or for tensors that are larger
            than their bytes.
        DamagedFileError: If it is damaged or of another format.
    """
    name = os.fspath(path)
    # Opened outside the `try`: an OSError from inside means a damaged archive.
    with open(path, "rb") as stream:
        try:
            _check(stream, _by_name(allow), legacy=legacy)
            stream.seek(0)
            with warnings.catch_warnings(), torch.serialization.safe_globals(list(allow)):
                warnings.simplefilter("ignore")  # of torch about its own classes
                contents: object = torch.load(stream, map_location="cpu", weights_only=True)
                return contents
        except RefusedError as error:
            raise UnsafeFileError(f"The file `{name}` {error}") from None
        # Damaged bytes can raise anything. Torch's own text is cut: it advises to load unsafely.
        except Exception as error:
            reason = str(error).split(". ")[0].rstrip(".") or type(error).__name__
            raise DamagedFileError(
                f"The file `{name}` is no readable torch checkpoint ({reason}). It may be cut "
                "short, or a web page in place of the download: get it again and compare its "
                "size. A TorchScript file, or one of torch's oldest (tar) format, must be saved "
                "again as a state dict."
            ) from None


def _by_name(allow: Sequence[Allowed]) -> dict[str, Callable[..., Any]]:
    pairs = (item if isinstance(item, tuple) else (item, _full_name(item)) for item in allow)
    return {name: call for call, name in pairs}


def _full_name(call: Callable[..., Any]) -> str:
    return f"{call.__module__}.{call.__qualname__}"


def _check(stream: BinaryIO, calls: _Calls, *, legacy: bool) -> None:
    """Raise unless torch can be given the file."""
    num_bytes = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    if stream.read(4) == b"PK\3\4":  # as torch tells its two formats apart
        _check_end(stream, num_bytes)
        with zipfile.ZipFile(stream) as archive:
            _check_archive(archive, calls, num_bytes)
    elif legacy:
        stream.seek(0)
        _check_legacy(stream, calls, num_bytes)
    else:
        raise ValueError("it is no zip archive, as torch has written since 1.6")


def _check_end(stream: BinaryIO, num_bytes: int) -> None:
    """Raise unless a zip archive ends the file, without a comment and without very many records."""
    stream.seek(max(0, num_bytes - 98))
    tail = stream.read().rjust(98, b"\0")
    zip64, locator, end = tail[:56], tail[56:76], tail[76:]
    if not (end.startswith(b"PK\5\6") and end.endswith(b"\0\0")):
        raise ValueError("its zip archive does not end where the file ends")
    sizes = [int.from_bytes(end[12:16], "little")]
    if locator.startswith(b"PK\6\7"):
        sizes.append(int.from_bytes(zip64[40:48], "little"))
    if max(sizes) > _LARGEST_DIRECTORY:
        raise ValueError(f"its directory of records has {max(sizes)} bytes")


def _check_archive(archive: zipfile.ZipFile, calls: _Calls, num_bytes: int) -> None:
    names = archive.namelist()
    if len(set(names)) < len(names):
        raise ValueError("it holds two records of one name")
    roots = [name.removesuffix("data.pkl") for name in names if name.partition("/")[2] == "data.pkl"]
    if len(roots) != 1:
        raise ValueError(f"it holds {len(roots)} records `data.pkl`")
    (root,) = roots
    if f"{root}constants.pkl" in names:
        raise ValueError("it is a TorchScript file")
    if f"{root}byteorder" in names and _read_record(archive, f"{root}byteorder", 16) != b"little":
        raise ValueError("its numbers are not little-endian")

    def check_storage(key: str, size: int) -> Tensor:
        record = _find_record(archive, f"{root}data/{key}")
        if record.file_size != size:
            raise ValueError(f"its record `{key}` has {record.file_size} bytes in place of {size}")
        with archive.open(record) as source:
            while source.read(_CHUNK):  # to its end, where its checksum is verified; torch does not
                pass
        return _pretended(key, size)

    pickles = TensorPickles(calls, check_storage, num_bytes)
    pickles.follow(io.BytesIO(_read_record(archive, f"{root}data.pkl", LARGEST_PICKLE)))


def _pretended(key: str, size: int) -> Tensor:
    """A storage that has a size and takes no memory."""
    del key
    return torch.empty(size, dtype=torch.uint8, device="meta")


def _read_record(archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    record = _find_record(archive, name)
    if record.file_size > max_bytes:
        raise ValueError(f"its record `{name}` has {record.file_size} bytes")
    return archive.read(record)


def _find_record(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    record = archive.getinfo(name)
    if record.compress_type != zipfile.ZIP_STORED:
        raise RefusedError(
            f"was not opened: its record `{name}` is compressed, which torch never does, and could be of any "
            "size. Get the file again from its authors, or load and save it again."
        )
    return record


def _check_legacy(stream: BinaryIO, calls: _Calls, num_bytes: int) -> None:
    """Five pickles (magic number, version, system, contents, keys), then a storage for each key."""
    pickles = TensorPickles(calls, _pretended, num_bytes)
    if pickles.follow(stream) != _LEGACY_MAGIC or pickles.follow(stream) != _LEGACY_VERSION:
        raise ValueError("it does not begin as torch's files do")
    system = pickles.follow(stream)
    if not (isinstance(system, dict) and system.get("little_endian") is True):
        raise ValueError("its numbers are not little-endian")
    pickles.follow(stream)
    keys = pickles.follow(stream)
    if not isinstance(keys, list) or sorted(keys) != sorted(pickles.storages):
        raise ValueError("other tensors follow than it holds")
    for key in keys:
        storage, dtype = pickles.storages[key]
        if int.from_bytes(stream.read(8), "little") * dtype.itemsize != len(storage):
            raise ValueError("a tensor has another size than it says")
        if stream.seek(len(storage), io.SEEK_CUR) > num_bytes:
            raise EOFError("it ends within a tensor")
