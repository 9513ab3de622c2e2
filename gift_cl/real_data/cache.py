"""Decoded images in files, each verified before it is used, and made again if it cannot be."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gift_cl.dataset import DistilledDataset
from gift_cl.dataset_file import open_dataset, save_dataset
from gift_cl.errors import DamagedFileError, ReadError

_VERIFIED: set[tuple[str, int, int]] = set()
"""Path, size and time of the files whose images this process has hashed."""


def cached(path: Path, content: str, build: Callable[[], DistilledDataset]) -> DistilledDataset:
    """The data set in a file if it is the right one and undamaged; else it is built, and the file written.

    A file that is of other data or damaged is warned about, and replaced. If it cannot be written, that is
    warned about, and the data set stays in memory.

    Args:
        path: An ordinary file of `save_dataset`; its images stay there until they are used.
        content: A text that determines the data set.
        build: Makes it.
    """
    try:
        return _open_verified(path, content)
    except FileNotFoundError:
        pass
    except (OSError, ReadError) as error:
        warnings.warn(f"The cached images cannot be used and are made again. {error}", stacklevel=2)
    dataset = _with_hashes(build(), content)
    try:
        save_dataset(dataset, path)
        return _open_verified(path, content)
    except (OSError, ReadError) as error:
        warnings.warn(f"The images are not cached and stay in memory. {error}", stacklevel=2)
        return dataset


def _open_verified(path: Path, content: str) -> DistilledDataset:
    """A file of this content, opened so that nothing of it is read twice in one process.

    `open_dataset` verifies everything but the images. They are hashed here when a process first opens the
    file, and again if its size or time has changed.
    """
    dataset = open_dataset(path)
    hashes = dataset.provenance.hashes
    if hashes.get("content") != content:
        raise DamagedFileError(f"`{path}` was made of other files, or of these before they changed.")
    info = path.stat()
    stamp = (os.path.realpath(path), info.st_size, info.st_mtime_ns)
    if stamp not in _VERIFIED:
        if hashes.get("pixels") != _hash_pixels(dataset):
            raise DamagedFileError(f"The images in `{path}` are damaged: their hash does not agree.")
        _VERIFIED.add(stamp)
    return dataset


def _with_hashes(dataset: DistilledDataset, content: str) -> DistilledDataset:
    hashes = {"content": content, "pixels": _hash_pixels(dataset)}
    return replace(dataset, provenance=replace(dataset.provenance, hashes=hashes))


def _hash_pixels(dataset: DistilledDataset) -> str:
    return hashlib.sha256(dataset.encoded.payload.numpy().data).hexdigest()
