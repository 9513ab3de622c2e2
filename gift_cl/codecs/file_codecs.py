"""Codecs of image files, by pillow. What all files of a size share is stored once.

The files are those pillow writes by default, without the bytes that are shared or can be computed;
``containers`` says which. Damage is reported where it breaks the format; damage that leaves a
readable stream changes pixels and goes unnoticed here, so files that hold a memory carry hashes.
"""

from __future__ import annotations

import io
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gift_cl.codecs.codec import SameSize, check_images, check_whole_number, check_written_by
from gift_cl.codecs.containers import JPEG, PNG, WEBP, Container
from gift_cl.codecs.encoded import EncodedImages

Pixels = npt.NDArray[np.uint8]
_MODES = {1: "L", 3: "RGB"}


class _FileCodec(SameSize):
    """What the file codecs have in common; a subclass says how pillow writes the file."""

    container: ClassVar[Container]
    has_gray: ClassVar[bool] = True

    @property
    @abstractmethod
    def spec(self) -> str:
        """Canonical spec."""

    @abstractmethod
    def _options(self) -> dict[str, Any]:
        """Options of pillow's ``save``."""

    def encode(self, images: Tensor) -> EncodedImages:
        """Stored form of uint8 (N, 1 or 3, H, W) images; see ``Codec``."""
        image_shape = check_images(images)
        self._check_channels(image_shape[0])
        if max(image_shape) > self.container.max_side:
            raise ValueError(
                f"Expected `images` of at most {self.container.max_side} pixels a side for "
                f"`{self.spec}`, got {image_shape[1]} x {image_shape[2]}. Use `png` or `raw`."
            )
        shared, streams = b"", []
        for pixels in images.permute(0, 2, 3, 1).contiguous().cpu().numpy():
            constant, stream = self.container.split(self._write(pixels))
            shared = shared or constant
            if constant != shared:
                raise RuntimeError(
                    f"Files of `{self.spec}` differ in bytes that one size and quality should fix; "
                    "the installed pillow writes a layout that this version does not know."
                )
            streams.append(stream)
        return EncodedImages.from_streams(self.spec, image_shape, streams, shared=shared)

    def decode(self, encoded: EncodedImages) -> Tensor:
        """The images, uint8 (N, C, H, W); see ``Codec``."""
        check_written_by(encoded, self.spec)
        channels, height, width = encoded.image_shape
        self._check_channels(channels)
        shared = encoded.shared.numpy().tobytes()
        if len(encoded):
            self._check_shared(shared, height, width)
        decoded = np.empty((len(encoded), height, width, channels), np.uint8)
        for index, stream in enumerate(encoded.streams()):
            try:
                decoded[index] = self._read(self.container.join(shared, stream), decoded.shape[1:])
            # Pillow's readers raise anything from OSError to SyntaxError and struct.error.
            except Exception as error:
                raise ValueError(
                    f"The stored bytes are damaged: `{self.spec}` cannot decode image {index} "
                    f"({error}). Encode the images again."
                ) from error
        return torch.from_numpy(decoded).permute(0, 3, 1, 2).contiguous()

    def _write(self, pixels: Pixels) -> bytes:
        from PIL import Image  # slow to import, and only these codecs need it

        image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
        file = io.BytesIO()
        image = image if self.has_gray else image.convert("RGB")
        image.save(file, format=self.container.format, **self._options())
        return file.getvalue()

    def _read(self, file: bytes, shape: tuple[int, ...]) -> Pixels:
        """Pixels (H, W, C); the file must announce that size before any are decoded."""
        from PIL import Image

        height, width, channels = shape
        mode = _MODES[channels]
        with Image.open(io.BytesIO(file), formats=(self.container.format,)) as image:
            if image.size != (width, height) or image.mode != (mode if self.has_gray else "RGB"):
                raise ValueError(f"got {image.mode} of {image.size}")
            return np.asarray(image.convert(mode)).reshape(shape)

    def _check_channels(self, channels: int) -> None:
        if channels not in _MODES:
            raise ValueError(
                f"Expected `images` with 1 or 3 channels for `{self.spec}`, got {channels}. "
                "Use `raw` or `quantize:B`."
            )

    def _check_shared(self, shared: bytes, height: int, width: int) -> None:
        """Headers are read here first, so that damaged ones never reach pillow's many parsers."""
        try:
            size = self.container.size(shared)
            if size != (height, width):
                raise ValueError(f"they announce {size[0]} x {size[1]} pixels")
        except ValueError as error:
            raise ValueError(
                f"The stored bytes are damaged: `{self.spec}` cannot decode image 0 of "
                f"{height} x {width} with these `shared` bytes ({error}). Encode the images again."
            ) from error


@dataclass(frozen=True)
class Png(_FileCodec):
    """PNG: nothing is lost.

    The signature, the header and the end are shared (45 bytes).
    """

    container: ClassVar[Container] = PNG

    @property
    def spec(self) -> str:
        """Canonical spec."""
        return "png"

    def _options(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Jpeg(_FileCodec):
    """Baseline JPEG with the standard tables; colour at half resolution (4:2:0).

    The tables and headers are shared: 625 bytes for colour, 330 for gray.

    Args:
        quality: Quality in [1, 100], on libjpeg's scale.
    """

    container: ClassVar[Container] = JPEG
    quality: int

    def __post_init__(self) -> None:
        check_whole_number("quality", self.quality, low=1, high=100)

    @property
    def spec(self) -> str:
        """Canonical spec."""
        return f"jpeg:{self.quality}"

    def _options(self) -> dict[str, Any]:
        return {"quality": self.quality}


@dataclass(frozen=True)
class Webp(_FileCodec):
    """WebP: lossy, or lossless.

    The signatures and the size in pixels are shared (19 bytes lossy, 17 lossless). WebP knows no
    gray images: they are stored as colour without hue, and come back gray.

    Args:
        quality: Quality in [1, 100], or ``"lossless"``.
    """

    container: ClassVar[Container] = WEBP
    has_gray: ClassVar[bool] = False
    quality: int | Literal["lossless"]

    def __post_init__(self) -> None:
        if self.quality != "lossless":
            try:
                check_whole_number("quality", self.quality, low=1, high=100)
            except ValueError as error:
                raise ValueError(f"{str(error).rstrip('.')}; `lossless` is the other choice.") from None

    @property
    def spec(self) -> str:
        """Canonical spec."""
        return f"webp:{self.quality}"

    def _options(self) -> dict[str, Any]:
        return {"lossless": True} if self.quality == "lossless" else {"quality": self.quality}
