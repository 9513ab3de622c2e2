"""MNIST and Fashion-MNIST as published: arrays of bytes behind a short header (idx), perhaps with gzip."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gift_cl.errors import DamagedFileError, LayoutError
from gift_cl.real_data.published import PublishedData
from gift_cl.real_data.source import Split, SplitName, digest, stamp

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_UNSIGNED_BYTES = 8  # the type of an idx file


@dataclass(frozen=True)
class IdxSource:
    """A folder of idx files, unpacked or not."""

    card: PublishedData
    folder: Path

    @property
    def name(self) -> str:
        """See `Source.name`."""
        return self.card.name

    @property
    def where(self) -> str:
        """See `Source.where`."""
        return str(self.folder)

    def fingerprint(self, split: SplitName) -> str:
        """See `Source.fingerprint`; by size and time."""
        return digest(f"{path.name} {stamp(path.stat())}" for path in self._paths(split))

    def open(self, split: SplitName) -> Split:
        """See `Source.open`."""
        size, (num_train, num_test) = self.card.native_size or 0, self.card.num_images or (0, 0)
        count = num_train if split == "train" else num_test
        images_path, labels_path = self._paths(split)
        images = read_idx(images_path, (count, size, size))
        labels = read_idx(labels_path, (count,))
        if int(labels.max()) >= self.card.num_classes:
            raise DamagedFileError(
                f"Expected labels below {self.card.num_classes} in `{labels_path}`, got {labels.max()}. "
                "Get it again."
            )
        return Split.of_arrays(images, labels.tolist(), self.card.classes or ())

    def _paths(self, split: SplitName) -> list[Path]:
        return [self._path(name) for name in _FILES[split]]

    def _path(self, name: str) -> Path:
        for path in (self.folder / name, self.folder / f"{name}.gz"):
            if path.is_file():
                return path
        raise FileNotFoundError(
            f"Expected `{name}` or `{name}.gz` in `{self.folder}`, found neither. Put the published file "
            "there."
        )


def has_idx_files(folder: Path) -> bool:
    """Whether a folder holds one of the files."""
    return any(
        (folder / f"{name}{end}").is_file()
        for names in _FILES.values()
        for name in names
        for end in ("", ".gz")
    )


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """An array of unsigned bytes.

    Args:
        path: An idx file; packed with gzip if it ends in ``.gz``.
        shape: What it has to hold.

    Raises:
        DamagedFileError: If it is no such file, or is cut short or too long.
        LayoutError: If it holds another shape.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            if file.read(4) != bytes([0, 0, _UNSIGNED_BYTES, len(shape)]):
                raise DamagedFileError(
                    f"`{path}` is no idx file of bytes in {len(shape)} dimensions. Get it again."
                )
            found = tuple(int.from_bytes(file.read(4), "big") for _ in shape)
            if found != shape:
                raise LayoutError(f"Expected {shape} values in `{path}`, got {found}. Get it again.")
            data = file.read(math.prod(shape) + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DamagedFileError(f"`{path}` cannot be unpacked ({error}). Get it again.") from error
    if len(data) != math.prod(shape):
        raise DamagedFileError(f"`{path}` is not as long as its header says. Get it again.")
    return np.frombuffer(data, np.uint8).reshape(shape)
