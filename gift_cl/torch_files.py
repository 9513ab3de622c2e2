"""Files of `torch.save`, read without running what is in them and within the memory of their size."""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

import torch
from torch import Tensor

from gift_cl.errors import DamagedFileError, UnsafeFileError

_LARGEST_PICKLE = 64 << 20  # bytes; tensors lie outside it

Allowed = Callable[..., Any] | tuple[Callable[..., Any], str]
"""A class or function that a pickle may name, or one with the name that it has in the pickle."""


def load_torch(
    path: str | os.PathLike[str], *, allow: Sequence[Allowed] = (), legacy: bool = False
) -> object:
    """What a file of ``torch.save`` holds, on the CPU.

    The file is only ever opened with ``weights_only=True``. Its tensors are checked to be ordinary ones that
    lie in the file, so that what comes back takes about as much memory as the file.

    Args:
        path: A file written by ``torch.save``, whatever its ending.
        allow: What the pickle may ask for besides torch's own list.
        legacy: Whether files from before torch 1.6, which are no zip archives, are read too.

    Raises:
        OSError: If the file is missing or may not be read.
        UnsafeFileError: If the file asks for anything that could run code, or for more memory than it has
            bytes.
        DamagedFileError: If it is damaged or of another format.
    """
    name = os.fspath(path)
    # Opened outside the `try`: an OSError from inside torch means a damaged archive.
    with open(path, "rb") as stream:
        try:
            _check_archive(stream, legacy=legacy)
            stream.seek(0)
            # Damaged byte orders and the like are warned about; what is wrong is found below.
            with warnings.catch_warnings(), torch.serialization.safe_globals(list(allow)):
                warnings.simplefilter("ignore")
                contents: object = torch.load(stream, map_location="cpu", weights_only=True)
        # A damaged pickle can raise anything. Torch's own text is cut, since it advises to
        # load with `weights_only=False`.
        except Exception as error:
            asked = re.search(r"GLOBAL (\S+)", str(error))
            if isinstance(error, pickle.UnpicklingError) and asked:
                raise UnsafeFileError(
                    f"The file `{name}` wants to run code (it asks for `{asked[1]}`) and was not "
                    "opened. Use a file of tensors only; if you trust its author, load it on a "
                    "machine that may be lost and save its state dict again."
                ) from None
            reason = str(error).split(". ")[0].strip() or type(error).__name__
            raise DamagedFileError(
                f"The file `{name}` is no readable torch checkpoint ({reason}). It may be cut "
                "short, or a web page in place of the download: get it again and compare its "
                "size. A TorchScript file, or one of torch's oldest (tar) format, must be saved "
                "again as a state dict."
            ) from None
    for tensor in _tensors_in(contents):
        if not _is_plain(tensor):
            raise UnsafeFileError(
                f"The file `{name}` holds a tensor of shape {tuple(tensor.shape)} that is larger than its "
                "bytes, or no ordinary one on the CPU. Save it again with `tensor.contiguous()`."
            )
    return contents


def _check_archive(stream: BinaryIO, *, legacy: bool) -> None:
    """Torch stores its records as they are; one that is compressed could be of any size."""
    if not zipfile.is_zipfile(stream):
        if legacy:
            return
        raise ValueError("it is no zip archive, as torch has written since 1.6")
    with zipfile.ZipFile(stream) as archive:
        for record in archive.infolist():
            if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
                raise ValueError("its records are compressed, which torch never does")
            if record.filename.endswith("data.pkl") and record.file_size > _LARGEST_PICKLE:
                raise ValueError(f"its pickle has {record.file_size} bytes")


def _tensors_in(contents: object) -> list[Tensor]:
    """All tensors in nested containers, which may hold themselves."""
    found, open_, seen = [], [contents], set()
    while open_:
        item = open_.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            found.append(item)
        elif isinstance(item, Mapping):
            open_.extend(item.values())
        elif isinstance(item, (list, tuple, set)):
            open_.extend(item)
    return found


def _is_plain(tensor: Tensor) -> bool:
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
