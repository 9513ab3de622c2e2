"""CIFAR-10 and CIFAR-100 as published: pickles, which are read only if they are the published ones."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gift_cl.errors import DamagedFileError
from gift_cl.real_data.published import PublishedData
from gift_cl.real_data.source import Split, SplitName, digest, stamp


@dataclass(frozen=True)
class CifarSource:
    """A folder ``cifar-10-batches-py`` or ``cifar-100-python``.

    Torchvision reads it. A pickle can run code when it is read, so it matters that torchvision compares the
    MD5 of every file with the published one first, and reads nothing if one differs.
    """

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
        return digest(
            [split, *(f"{path.name} {stamp(path.stat())}" for path in sorted(self.folder.iterdir()))]
        )

    def open(self, split: SplitName) -> Split:
        """See `Source.open`."""
        from torchvision import datasets

        read = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[self.name]
        try:
            with warnings.catch_warnings():
                # Numpy 2.4.0 warns of a flag that the numpy of their time wrote as a number.
                warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
                data = read(self.folder.parent, train=split == "train", download=False)
        except RuntimeError as error:
            raise DamagedFileError(
                f"The files in `{self.folder}` are not the published ones: one is missing, or its MD5 "
                "differs. They are pickles, which can run code, and were not opened. Get "
                f"{read.filename} again from https://www.cs.toronto.edu/~kriz/cifar.html."
            ) from error
        return Split.of_arrays(data.data, data.targets, tuple(data.classes))
