"""Images kept as the files that their authors wrote: nothing is encoded again, every byte is charged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gift_cl.codecs.codec import check_written_by
from gift_cl.codecs.encoded import EncodedImages
from gift_cl.errors import ReadError
from gift_cl.image_files import ImageHeader, decode_image, read_header


@dataclass(frozen=True)
class WholeFiles:
    """JPEG, PNG and WebP files as they were published; a stream is a whole file, and nothing is shared.

    One set may hold files of several formats, if all have the same channels, height and width.
    """

    @property
    def spec(self) -> str:
        """Canonical spec."""
        return "files"

    @classmethod
    def from_files(cls, files: Sequence[bytes], image_shape: tuple[int, int, int]) -> EncodedImages:
        """The stored form of whole files; their headers are checked, their pixels are not decoded.

        Args:
            files: Bytes of each file.
            image_shape: Channels, height and width that each has to have.

        Raises:
            ValueError: If a file is no such image.
        """
        _read_headers(files, image_shape)
        return EncodedImages.from_streams("files", image_shape, files)

    def encode(self, images: Tensor) -> EncodedImages:
        """Raise ``ValueError``: images that come without a file need another codec."""
        raise ValueError(
            "The codec `files` keeps files that others wrote, and writes none. Choose `png` to lose nothing, "
            "or another codec."
        )

    def decode(self, encoded: EncodedImages) -> Tensor:
        """The images, uint8 (N, C, H, W); see ``Codec``."""
        check_written_by(encoded, self.spec)
        files, shape = encoded.streams(), encoded.image_shape
        headers = _read_headers(files, shape)  # before memory for images of that shape is taken
        images = np.empty((len(files), *shape), np.uint8)
        for index, (file, header) in enumerate(zip(files, headers, strict=True)):
            try:
                images[index] = decode_image(file, header).numpy()
            except ReadError as error:
                raise ValueError(f"Cannot decode file {index} of `files`: {error}") from error
        return torch.from_numpy(images)


def _read_headers(files: Sequence[bytes], image_shape: tuple[int, int, int]) -> list[ImageHeader]:
    headers = []
    for index, file in enumerate(files):
        try:
            header = read_header(file)
        except ReadError as error:
            raise ValueError(f"Cannot use file {index} of `files`: {error}") from error
        if header.shape != tuple(image_shape):
            raise ValueError(
                f"Expected `files` of channels, height and width {tuple(image_shape)}, got {header.shape} "
                f"at {index}. Keep images of one shape together."
            )
        headers.append(header)
    return headers
