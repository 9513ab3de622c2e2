"""What a codec is, and the checks that all codecs make at their border."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from gift_cl.codecs.encoded import EncodedImages


class Codec(Protocol):
    """Turns images into bytes that are stored, and back."""

    @property
    def spec(self) -> str:
        """What builds this codec again, in one canonical spelling: ``"webp:75"``."""
        ...

    def encode(self, images: Tensor) -> EncodedImages:
        """Stored form of (N, C, H, W) images, on the CPU; the images may be on any device.

        They are uint8, but for the codec ``float32``.

        Raises:
            TypeError: If the images are of another type.
            ValueError: If their shape does not suit the codec.
        """
        ...

    def decode(self, encoded: EncodedImages) -> Tensor:
        """The images, (N, C, H, W) of the type that was encoded, on the CPU.

        Raises:
            ValueError: If another codec wrote them, or stored bytes are damaged.
        """
        ...


class SameSize(ABC):
    """What codecs of whole images have in common with `Downscale`, which stores smaller ones."""

    factor: ClassVar[int] = 1

    @abstractmethod
    def encode(self, images: Tensor) -> EncodedImages:
        """See `Codec`."""

    @abstractmethod
    def decode(self, encoded: EncodedImages) -> Tensor:
        """See `Codec`."""

    def shrink(self, images: Tensor) -> Tensor:
        """The images, uint8 (N, C, H, W): none is made smaller."""
        check_images(images)
        return images

    def encode_small(self, images: Tensor) -> EncodedImages:
        """`encode`."""
        return self.encode(images)

    def enlarge(self, images: Tensor) -> Tensor:
        """What comes back of images, uint8 (N, C, H, W) on their device.

        Raises:
            TypeError: If the images are of another type.
            ValueError: If their shape does not suit the codec.
        """
        return self.decode(self.encode(images)).to(images.device)


def check_images(images: Tensor, *, dtype: torch.dtype = torch.uint8) -> tuple[int, int, int]:
    """Channels, height and width of (N, C, H, W) images.

    Raises:
        TypeError: If ``images`` is not a tensor of ``dtype``.
        ValueError: If it has not four dimensions, or images without pixels.
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"Expected `images` to be a {_name(dtype)} tensor, got {type(images).__name__}.")
    if images.dtype != dtype:
        cure = "Convert pixels in [0, 1] with `(images * 255).round().to(torch.uint8)`."
        if dtype != torch.uint8:
            cure = f"Convert them with `images.to({dtype})`."
        raise TypeError(f"Expected `images` of {dtype}, got {images.dtype}. {cure}")
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise ValueError(
            f"Expected `images` of shape (N, C, H, W), got {tuple(images.shape)}. "
            "Give a single image as `images[None]`."
        )
    _, channels, height, width = images.shape
    return channels, height, width


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def check_written_by(encoded: EncodedImages, spec: str) -> None:
    """Check that the codec ``spec`` wrote ``encoded``.

    Raises:
        ValueError: If another one did.
    """
    if encoded.codec != spec:
        raise ValueError(
            f"Expected images encoded by `{spec}`, got `{encoded.codec}`. Call `encoded.decode()`."
        )


def check_whole_number(name: str, number: object, *, low: int, high: int | None = None) -> None:
    """Check an option of a codec.

    Raises:
        ValueError: If it is not a whole number from ``low`` to ``high``.
    """
    if isinstance(number, int) and not isinstance(number, bool):
        is_usable = low <= number and (high is None or number <= high)
    else:
        is_usable = False
    if not is_usable:
        limits = f"of at least {low}" if high is None else f"in [{low}, {high}]"
        raise ValueError(f"Expected `{name}` as a whole number {limits}, got {number!r}.")
