"""What a source of real images is: where they lie, whether they changed, and each when it is asked for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from gift_cl.real_data.published import PublishedData

if TYPE_CHECKING:
    from PIL.Image import Image

SplitName = Literal["train", "test"]


@dataclass(frozen=True)
class Split:
    """The images of one split, before they are decoded.

    Args:
        names: Of each image, for messages.
        labels: int64 (N,).
        class_names: In the order of the labels.
        load: The image at an index, decoded, in the mode of the data set; several threads call it at once.
    """

    names: Sequence[str]
    labels: Tensor
    class_names: tuple[str, ...]
    load: Callable[[int], Image]

    @classmethod
    def of_arrays(cls, images: np.ndarray, labels: Sequence[int], class_names: tuple[str, ...]) -> Split:
        """Of uint8 (N, H, W), or (N, H, W, 3)."""
        from PIL import Image

        return cls(
            names=[f"image {index}" for index in range(len(images))],
            labels=torch.tensor(labels, dtype=torch.int64),
            class_names=class_names,
            load=lambda index: Image.fromarray(images[index]),
        )


class Source(Protocol):
    """One data set at one place."""

    @property
    def name(self) -> str:
        """Short name, for rows."""

    @property
    def where(self) -> str:
        """Path, or what else says where the images come from."""

    @property
    def card(self) -> PublishedData | None:
        """What is known of it, if it was asked for by name."""

    def fingerprint(self, split: SplitName) -> str | None:
        """A text that changes with the files of a split; no image is read. None if a cache is no use."""

    def open(self, split: SplitName) -> Split:
        """Labels, and images that can be loaded.

        Raises:
            ReadError: If something is wrong with the files; the message names the file and the cure.
        """


def digest(lines: Iterable[str]) -> str:
    """SHA-256 of lines, in hexadecimal."""
    state = hashlib.sha256()
    for line in lines:
        state.update(line.encode(errors="surrogateescape") + b"\n")
    return state.hexdigest()


def stamp(info: os.stat_result) -> str:
    """Size of a file, and when it was last written."""
    return f"{info.st_size}:{info.st_mtime_ns}"
