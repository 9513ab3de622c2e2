"""Codecs that compute on the pixels themselves: every image costs the same."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gift_cl.codecs.codec import SameSize, check_images, check_whole_number, check_written_by
from gift_cl.codecs.encoded import EncodedImages


@dataclass(frozen=True)
class Raw:
    """Pixels as they are.

    Contiguous images on the CPU are not copied: the payload is a view of them, and the decoded
    images are a view of the payload. Clone first if one of them will be written to.

    Example:
        >>> Raw().encode(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).nbytes
        6144
    """

    @property
    def spec(self) -> str:
        """Canonical spec."""
        return "raw"

    def encode(self, images: Tensor) -> EncodedImages:
        """Stored form of uint8 (N, C, H, W) images; see ``Codec``."""
        return _equally_long(self.spec, check_images(images), images)

    def decode(self, encoded: EncodedImages) -> Tensor:
        """The images, uint8 (N, C, H, W), exactly; see ``Codec``."""
        rows = _rows(encoded, self.spec, math.prod(encoded.image_shape))
        return rows.view(len(encoded), *encoded.image_shape)


@dataclass(frozen=True)
class Float32:
    """Values as they are, four bytes each: images of a whitened space, or of more than 256 levels.

    Example:
        >>> Float32().encode(torch.zeros(2, 3, 32, 32)).nbytes
        24576
    """

    @property
    def spec(self) -> str:
        """Canonical spec."""
        return "float32"

    def encode(self, images: Tensor) -> EncodedImages:
        """Stored form of float32 (N, C, H, W) images, little-endian; see ``Codec``."""
        image_shape = check_images(images, dtype=torch.float32)
        if not bool(torch.isfinite(images).all()):
            raise ValueError(
                "Expected finite `images`, got NaN or infinite values. Check how they were made."
            )
        values = images.contiguous().cpu().flatten(1)
        return _equally_long(
            self.spec, image_shape, values.view(torch.uint8) if len(values) else values.byte()
        )

    def decode(self, encoded: EncodedImages) -> Tensor:
        """The images, float32 (N, C, H, W), exactly; see ``Codec``."""
        rows = _rows(encoded, self.spec, 4 * math.prod(encoded.image_shape))
        if rows.data_ptr() % 4:  # a file may have mapped them to any address
            rows = rows.clone()
        return rows.view(torch.float32).view(len(encoded), *encoded.image_shape)


@dataclass(frozen=True)
class Quantize(SameSize):
    """Pixels at ``2**bits`` uniform levels over [0, 255], packed without gaps.

    A pixel ``v`` is stored as the level round(v (2^bits - 1) / 255) and comes back as
    round(level 255 / (2^bits - 1)). Each image is padded to whole bytes. Eight bits lose nothing.

    Args:
        bits: Bits of a value, in [1, 8].

    Example:
        >>> Quantize(4).encode(torch.zeros(10, 1, 8, 8, dtype=torch.uint8)).nbytes
        320
    """

    bits: int

    def __post_init__(self) -> None:
        check_whole_number("bits", self.bits, low=1, high=8)

    @property
    def spec(self) -> str:
        """Canonical spec."""
        return f"quantize:{self.bits}"

    def encode(self, images: Tensor) -> EncodedImages:
        """Stored form of uint8 (N, C, H, W) images; see ``Codec``."""
        image_shape = check_images(images)
        return _equally_long(self.spec, image_shape, _pack(images.flatten(1), self.bits))

    def decode(self, encoded: EncodedImages) -> Tensor:
        """The images at the levels kept, uint8 (N, C, H, W); see ``Codec``."""
        num_values = math.prod(encoded.image_shape)
        rows = _rows(encoded, self.spec, _packed_nbytes(num_values, self.bits))
        return _unpack(rows, num_values, self.bits).view(len(encoded), *encoded.image_shape)

    def enlarge(self, images: Tensor) -> Tensor:
        """See `SameSize.enlarge`; nothing leaves their device."""
        check_images(images)
        flat = images.flatten(1)
        return _unpack(_pack(flat, self.bits), flat.shape[1], self.bits).view(images.shape)


@dataclass(frozen=True)
class Downscale:
    """Images at 1/``factor`` of their height and width, optionally quantised.

    Encoding averages ``factor`` x ``factor`` areas, halves rounded up; decoding interpolates
    bilinearly (corners not aligned) and rounds.

    Args:
        factor: At least 2; must divide height and width.
        bits: Bits of a value, in [1, 8], as in ``Quantize``.

    Example:
        >>> Downscale(2, bits=4).encode(torch.zeros(10, 1, 8, 8, dtype=torch.uint8)).nbytes
        80
    """

    factor: int
    bits: int = 8

    def __post_init__(self) -> None:
        check_whole_number("factor", self.factor, low=2)
        check_whole_number("bits", self.bits, low=1, high=8)

    @property
    def spec(self) -> str:
        """Canonical spec; eight bits go without saying."""
        return f"downscale:{self.factor}" + (f",bits={self.bits}" if self.bits != 8 else "")

    def encode(self, images: Tensor) -> EncodedImages:
        """Stored form of uint8 (N, C, H, W) images; see ``Codec``."""
        return self.encode_small(self.shrink(images))

    def decode(self, encoded: EncodedImages) -> Tensor:
        """The images at full size, uint8 (N, C, H, W); see ``Codec``."""
        small_shape = self._small_shape(encoded.image_shape)
        num_values = math.prod(small_shape)
        rows = _rows(encoded, self.spec, _packed_nbytes(num_values, self.bits))
        return self._interpolate(_unpack(rows, num_values, self.bits).view(-1, *small_shape))

    def encode_small(self, small: Tensor) -> EncodedImages:
        """Stored form of images that are small already, uint8 (N, C, H / factor, W / factor).

        Nothing is averaged; ``decode`` returns what ``enlarge`` says.

        Raises:
            TypeError: If the images are of another type.
            ValueError: If they have not four dimensions.
        """
        channels, height, width = check_images(small)
        image_shape = (channels, height * self.factor, width * self.factor)
        return _equally_long(self.spec, image_shape, _pack(small.flatten(1), self.bits))

    def shrink(self, images: Tensor) -> Tensor:
        """What `encode` keeps of images before it quantises: areas averaged, on the same device.

        Args:
            images: uint8 (N, C, H, W).

        Returns:
            uint8 (N, C, H / factor, W / factor).

        Raises:
            TypeError: If the images are of another type.
            ValueError: If the factor does not divide their height and width.
        """
        channels, height, width = self._small_shape(check_images(images))
        areas = images.reshape(len(images), channels, height, self.factor, width, self.factor)
        count = self.factor**2
        sums = areas.sum((3, 5), dtype=torch.int32)
        return sums.mul_(2).add_(count).div_(2 * count, rounding_mode="floor").to(torch.uint8)

    def enlarge(self, small: Tensor) -> Tensor:
        """What a student sees of images stored by `encode_small`, without storing them, on their device.

        Args:
            small: uint8 (N, C, H / factor, W / factor).

        Returns:
            uint8 (N, C, H, W).

        Raises:
            TypeError: If the images are of another type.
            ValueError: If they have not four dimensions.
        """
        check_images(small)
        flat = small.flatten(1)
        kept = _unpack(_pack(flat, self.bits), flat.shape[1], self.bits)
        return self._interpolate(kept.view(small.shape))

    def _interpolate(self, small: Tensor) -> Tensor:
        size = [side * self.factor for side in small.shape[2:]]
        if not len(small):
            return small.new_empty(0, small.shape[1], *size)
        images = F.interpolate(small.float(), size=size, mode="bilinear", align_corners=False)
        return images.round_().clamp_(0, 255).to(torch.uint8)

    def _small_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        channels, height, width = image_shape
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"Expected `images` whose height and width are multiples of {self.factor} for "
                f"`{self.spec}`, got {height} x {width}. Choose a factor that divides both."
            )
        return channels, height // self.factor, width // self.factor


def _equally_long(
    spec: str, image_shape: tuple[int, int, int], values: Tensor, *, num_images: int | None = None
) -> EncodedImages:
    return EncodedImages(
        codec=spec,
        image_shape=image_shape,
        payload=values.cpu().reshape(-1),
        lengths=None,
        num_images=len(values) if num_images is None else num_images,
        shared=torch.empty(0, dtype=torch.uint8),
    )


def _rows(encoded: EncodedImages, spec: str, num_bytes: int) -> Tensor:
    """The streams as uint8 (N, num_bytes), once they are known to fit the codec."""
    check_written_by(encoded, spec)
    if encoded.lengths is not None or encoded.payload.numel() != len(encoded) * num_bytes:
        raise ValueError(
            f"The stored bytes are damaged: expected `payload` of {len(encoded)} x {num_bytes} "
            f"bytes without `lengths` for `{spec}`, got {encoded.payload.numel()} bytes."
        )
    return encoded.payload.view(len(encoded), num_bytes)


def _packed_nbytes(num_values: int, bits: int) -> int:
    return -(-num_values * bits // 8)


def _pack(values: Tensor, bits: int) -> Tensor:
    """Quantise uint8 (N, D) and pack each row, most significant bit first."""
    if bits == 8:
        return values
    top = 2**bits - 1
    # Both roundings of this codec are exact: 255 and top are odd, so there is no tie.
    levels = values.to(torch.int32).mul_(top).add_(127).div_(255, rounding_mode="floor")
    num_images, num_values = values.shape
    groups = -(-num_values // 8)  # eight values fill `bits` bytes
    levels = F.pad(levels, (0, groups * 8 - num_values)).view(num_images, groups, 8)
    words = torch.zeros(num_images, groups, dtype=torch.int64, device=values.device)
    for index in range(8):
        words |= levels[..., index].long() << bits * (7 - index)
    columns = [(words >> 8 * (bits - 1 - k) & 255).to(torch.uint8) for k in range(bits)]
    return torch.stack(columns, -1).flatten(1)[:, : _packed_nbytes(num_values, bits)]


def _unpack(rows: Tensor, num_values: int, bits: int) -> Tensor:
    """Values uint8 (N, D) of packed rows."""
    if bits == 8:
        return rows
    top = 2**bits - 1
    groups = -(-num_values // 8)
    columns = F.pad(rows, (0, groups * bits - rows.shape[1])).view(len(rows), groups, bits)
    words = torch.zeros(len(rows), groups, dtype=torch.int64, device=rows.device)
    for k in range(bits):
        words |= columns[..., k].long() << 8 * (bits - 1 - k)
    # Seven bits at most: level * 255 fits int16.
    levels = [(words >> bits * (7 - index) & top).to(torch.int16) for index in range(8)]
    values = torch.stack(levels, -1).mul_(255).add_(top // 2).div_(top, rounding_mode="floor")
    return values.to(torch.uint8).flatten(1)[:, :num_values].contiguous()
