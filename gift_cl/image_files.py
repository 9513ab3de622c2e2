"""JPEG, PNG and WebP files of strangers: what their headers say, and their pixels once that is accepted.

Errors say what is wrong with a file and what to do; whoever knows the file's name puts it in front.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gift_cl.errors import DamagedFileError, LayoutError, UnsafeFileError

MAX_SIDE = 4096
"""Largest height and width, in pixels."""
MAX_FILE_BYTES = 64 << 20
"""Largest file."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
"""Endings of the files that are read, in lower case."""
_OTHER_SUFFIXES = (".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff")

_MODES = {1: "L", 3: "RGB"}  # pillow's names, by number of channels
_AGAIN = "Get the file again."
_AS_RGB = "Save it again as 8-bit RGB, or gray, without transparency."


@dataclass(frozen=True)
class ImageHeader:
    """What a file says of its image before a pixel is decoded.

    Args:
        format: Pillow's name of the format.
        channels: 1 for gray, 3 for colour.
        height: In pixels, from 1 to `MAX_SIDE`.
        width: Likewise.
    """

    format: Literal["JPEG", "PNG", "WEBP"]
    channels: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.channels, self.height, self.width


def is_image_name(name: str) -> bool:
    """Whether a file of this name is an image, be it of a kind that is read or not."""
    return name.lower().endswith(IMAGE_SUFFIXES + _OTHER_SUFFIXES)


def read_header(data: bytes) -> ImageHeader:
    """The header of a whole file, by its content; nothing is decoded.

    Raises:
        DamagedFileError: If it is no image, or its header is cut short.
        LayoutError: If it is an image of another kind: transparent, of a palette, CMYK, of 16 bits, animated.
        UnsafeFileError: If it has more than `MAX_FILE_BYTES` bytes, or `MAX_SIDE` pixels a side.
    """
    if not data:
        raise DamagedFileError(f"it holds no bytes. {_AGAIN}")
    if len(data) > MAX_FILE_BYTES:
        raise UnsafeFileError(
            f"it has {len(data)} bytes, and an image may have {MAX_FILE_BYTES}. Remove or shrink it."
        )
    if data.startswith(_JPEG_SIGNATURE):
        header = _read_jpeg_header(data)
    elif data.startswith(_PNG_SIGNATURE):
        header = _read_png_header(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        header = _read_webp_header(data)
    else:
        raise DamagedFileError(
            "it is no JPEG, PNG or WebP image. Convert it if it is one of another kind, or get it again: it "
            "may be a web page in place of a download."
        )
    if min(header.shape) < 1:
        raise DamagedFileError(f"it says that it has {header.height} x {header.width} pixels. {_AGAIN}")
    if max(header.shape) > MAX_SIDE:
        raise UnsafeFileError(
            f"it says that it has {header.height} x {header.width} pixels, and an image may have {MAX_SIDE} "
            "a side. Remove or shrink it."
        )
    return header


def decode_image(data: bytes, header: ImageHeader) -> Tensor:
    """Pixels of a file with this header, uint8 (C, H, W) in any memory order.

    The file has to be whole: JPEG libraries fill what is missing with gray.

    Raises:
        DamagedFileError: If the file is cut short or damaged.
    """
    match header.format:
        case "JPEG":
            if not data.rstrip(b"\0").endswith(_JPEG_END):
                raise DamagedFileError(f"it is cut short: a JPEG ends with the bytes ff d9. {_AGAIN}")
            image = _decode_jpeg(data, header)
        case "PNG":
            image = _decode_with_pillow(_repacked_png(data, header), header)
        case "WEBP":
            if len(data) < 8 + int.from_bytes(data[4:8], "little"):
                raise DamagedFileError(f"it is cut short: it says that it is longer. {_AGAIN}")
            image = _decode_with_pillow(data, header)
    if tuple(image.shape) != header.shape:
        raise DamagedFileError(
            f"its header says {header.shape} for channels, height and width, and its pixels are "
            f"{tuple(image.shape)}. {_AGAIN}"
        )
    return image


def _decode_jpeg(data: bytes, header: ImageHeader) -> Tensor:
    decode = _fast_jpeg_decoder()
    if decode is None:
        return _decode_with_pillow(data, header)
    try:
        return decode(torch.frombuffer(bytearray(data), dtype=torch.uint8), 0, False)
    except RuntimeError as error:
        raise DamagedFileError(f"the JPEG library cannot decode it. {_AGAIN}") from error


@cache
def _fast_jpeg_decoder() -> Callable[[Tensor, int, bool], Tensor] | None:
    """Torchvision's operator: the pixels that pillow decodes in less than half the time; None if it is gone.

    Its sibling for PNG ends the process on some damaged files, so it is not used.
    """
    import torchvision  # registers the operator

    assert torchvision
    try:
        decode: Callable[[Tensor, int, bool], Tensor] = torch.ops.image.decode_jpeg.default
    except AttributeError:
        return None
    return decode


def _decode_with_pillow(data: bytes, header: ImageHeader) -> Tensor:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=(header.format,)) as image:
            if image.size != (header.width, header.height) or image.mode != _MODES[header.channels]:
                raise ValueError(f"{image.mode} of {image.size}")
            pixels = np.array(image)
    # Pillow's readers raise anything from OSError to SyntaxError and struct.error.
    except Exception as error:
        raise DamagedFileError(f"it cannot be decoded ({str(error).rstrip('.')}). {_AGAIN}") from error
    return torch.from_numpy(pixels.reshape(header.height, header.width, header.channels)).permute(2, 0, 1)


# JPEG (ITU-T T.81, annex B): segments of a marker and a length, up to the frame header.
_JPEG_SIGNATURE, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_JPEG_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended sequential, progressive; all Huffman-coded
_JPEG_OTHER_FRAMES = {*range(0xC3, 0xD0)} - {0xC4, 0xC8, 0xCC}  # lossless, arithmetic, hierarchical


def _read_jpeg_header(data: bytes) -> ImageHeader:
    position = 2
    while data[position : position + 1] == b"\xff" and position + 10 <= len(data):
        kind, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if kind == 0xFF:  # a marker may be padded
            position += 1
        elif kind in _JPEG_FRAMES:
            return _read_jpeg_frame(data[position + 4 : position + 10])
        elif kind in _JPEG_OTHER_FRAMES:
            raise LayoutError(f"it is a JPEG of a rare kind (SOF{kind - 0xC0}). {_AS_RGB}")
        elif kind in (0x00, 0x01) or 0xD0 <= kind <= 0xDA or length < 2:
            break
        else:
            position += 2 + length
    raise DamagedFileError(f"its JPEG header is damaged or cut short. {_AGAIN}")


def _read_jpeg_frame(frame: bytes) -> ImageHeader:
    bits, channels = frame[0], frame[5]
    if bits != 8:
        raise LayoutError(f"it is a JPEG of {bits} bits a value, not 8. {_AS_RGB}")
    if channels not in _MODES:
        raise LayoutError(f"it has {channels} channels, as CMYK has, and not 1 or 3. {_AS_RGB}")
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    return ImageHeader("JPEG", channels, height, width)


# PNG (ISO/IEC 15948): a signature, then chunks of length, name, data and checksum.
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_COLORS = {3: "a palette", 4: "a gray image with transparency", 6: "a colour image with transparency"}


def _read_png_header(data: bytes) -> ImageHeader:
    if data[8:16] != b"\0\0\0\x0dIHDR" or len(data) < 33:
        raise DamagedFileError(f"its PNG header is damaged or cut short. {_AGAIN}")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    bits, color = data[24], data[25]
    if color in _PNG_COLORS:
        raise LayoutError(f"it is a PNG of {_PNG_COLORS[color]}. {_AS_RGB}")
    if bits != 8:
        raise LayoutError(f"it is a PNG of {bits} bits a value, not 8. {_AS_RGB}")
    if color not in (0, 2):
        raise DamagedFileError(f"its PNG header is damaged. {_AGAIN}")
    return ImageHeader("PNG", 1 if color == 0 else 3, height, width)


def _repacked_png(data: bytes, header: ImageHeader) -> bytes:
    """The same image without other chunks, and not compressed.

    All checksums and the amount of pixels are verified; pillow would leave missing rows black.
    """
    chunks = _png_chunks(data)
    try:
        inflater, expected = zlib.decompressobj(), _num_png_bytes(header, is_interlaced=data[28] != 0)
        rows = inflater.decompress(chunks.get(b"IDAT", b""), expected + 1)
    except zlib.error as error:
        raise DamagedFileError(f"it cannot be decompressed ({error}). {_AGAIN}") from error
    if len(rows) != expected or not inflater.eof:
        raise DamagedFileError(f"it holds more or fewer pixels than its header says. {_AGAIN}")
    chunks[b"IDAT"] = zlib.compress(rows, 0)
    return _PNG_SIGNATURE + b"".join(_png_chunk(name, chunks[name]) for name in (b"IHDR", b"IDAT", b"IEND"))


def _png_chunks(data: bytes) -> dict[bytes, bytes]:
    """Data of the chunks by name, those of one name joined."""
    parts: dict[bytes, list[bytes]] = {}
    position, name = len(_PNG_SIGNATURE), b""
    while name != b"IEND":
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        if end > len(data):
            raise DamagedFileError(f"it is cut short: a PNG ends with an IEND chunk. {_AGAIN}")
        name, content = data[position + 4 : position + 8], data[position + 8 : end - 4]
        if _png_chunk(name, content) != data[position:end]:
            raise DamagedFileError(f"the checksum of a part of it is wrong. {_AGAIN}")
        parts.setdefault(name, []).append(content)
        position = end
    return {name: b"".join(contents) for name, contents in parts.items()}


def _png_chunk(name: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(data, zlib.crc32(name))
    return len(data).to_bytes(4, "big") + name + data + checksum.to_bytes(4, "big")


def _num_png_bytes(header: ImageHeader, *, is_interlaced: bool) -> int:
    """Bytes of all rows, each with one that says how it is filtered."""
    total = 0
    for top, left, down, right in _ADAM7 if is_interlaced else ((0, 0, 1, 1),):
        rows, columns = -(-(header.height - top) // down), -(-(header.width - left) // right)
        if columns > 0:
            total += max(rows, 0) * (1 + columns * header.channels)
    return total


# Where the first pixel of each pass of an interlaced PNG is, and how far it is to the next ones.
_ADAM7 = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)


# WebP (RFC 9649): a RIFF file whose first chunk is a lossy or lossless image, or says what follows.
_WEBP_ANIMATED, _WEBP_ALPHA = 0x02, 0x10


def _read_webp_header(data: bytes) -> ImageHeader:
    name, body = data[12:16], data[20:30]
    if len(body) < 10:
        raise DamagedFileError(f"its WebP header is cut short. {_AGAIN}")
    width, height, is_transparent, is_animated = 0, 0, False, False
    if name == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = (int.from_bytes(body[i : i + 2], "little") & 0x3FFF for i in (6, 8))
    elif name == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        is_transparent = bool(bits >> 28 & 1)
    elif name == b"VP8X":
        width, height = (int.from_bytes(body[i : i + 3], "little") + 1 for i in (4, 7))
        is_transparent, is_animated = bool(body[0] & _WEBP_ALPHA), bool(body[0] & _WEBP_ANIMATED)
    else:
        raise DamagedFileError(f"its WebP header is damaged. {_AGAIN}")
    if is_transparent or is_animated:
        raise LayoutError(f"it is a WebP with {'animation' if is_animated else 'transparency'}. {_AS_RGB}")
    return ImageHeader("WEBP", 3, height, width)
