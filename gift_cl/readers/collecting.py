"""Parts of many images put together; where the size of the whole is known, straight into its place."""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor

from gift_cl.codecs import EncodedImages, concat
from gift_cl.errors import UnsafeFileError
from gift_cl.readers.tree import Limits

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""


class Collected:
    """Images of one shape, part after part.

    Args:
        codec: How they are kept.
        shape: Of each.
        sizes: Bytes of the file of each.

    Attributes:
        payload: Place of the whole, uint8, if its size is known; processes that are forked off share it.

    Raises:
        OSError: If so much memory cannot be had.
    """

    def __init__(self, codec: str, shape: Shape, sizes: Sequence[int]) -> None:
        self.payload: Tensor | None = None
        self._codec, self._shape, self._sizes = codec, shape, sizes
        self._parts: list[EncodedImages] = []
        self._filled = 0
        known = {"files": sum(sizes), "raw": len(sizes) * math.prod(shape)}
        if codec in known:
            self.payload = torch.frombuffer(mmap.mmap(-1, known[codec]), dtype=torch.uint8)

    def append(self, part: EncodedImages) -> None:
        """Put the next images into their place."""
        if self.payload is None:
            self._parts.append(part)
            return
        end = self._filled + len(part.payload)
        self.payload[self._filled : end] = part.payload
        self._filled = end

    def joined(self) -> EncodedImages:
        """All images."""
        if self.payload is None:
            return concat(self._parts)
        return EncodedImages(
            codec=self._codec,
            image_shape=self._shape,
            payload=self.payload,
            lengths=torch.tensor(self._sizes, dtype=torch.int64) if self._codec == "files" else None,
            num_images=len(self._sizes),
            shared=torch.empty(0, dtype=torch.uint8),
        )


def make_place(root: str, codec: str, shape: Shape, sizes: Sequence[int], limits: Limits) -> Collected:
    """Room for the images of a folder.

    Args:
        root: The folder, for errors.
        codec: As in `Collected`.
        shape: As in `Collected`.
        sizes: As in `Collected`.
        limits: What is too much for pixels, where a codec does not keep files.

    Raises:
        UnsafeFileError: If they are over the limits, or do not fit into memory.
    """
    pixels = len(sizes) * math.prod(shape)
    if codec != "files" and pixels > limits.decoded_bytes:
        raise UnsafeFileError(
            f"The pixels of `{root}` take {pixels} bytes, over the limit of {limits.decoded_bytes}. Read it "
            "with the codec `files`, which keeps the files as they are."
        )
    try:
        return Collected(codec, shape, sizes)
    except OSError as error:
        raise UnsafeFileError(
            f"The images of `{root}` do not fit into memory as `{codec}`. Read it with the codec `files`, or "
            "fewer of them."
        ) from error
