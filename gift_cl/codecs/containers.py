"""What is constant in an image file, what follows from the rest, and what has to be stored.

A file is split into *constant* bytes, the same for every image of one size and quality, and a
*stream* that belongs to one image. Lengths and checksums that can be computed are in neither.
Nothing here decodes pixels.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Container:
    """A file format as two parts.

    Args:
        format: Pillow's name of it.
        max_side: Largest height and width that its library writes, in pixels.
        split: Constant bytes and stream of a file. ``RuntimeError`` if the file is laid out in a
            way that this module does not know.
        join: The file of constant bytes and a stream; never fails.
        size: Height and width that the constant bytes announce. ``ValueError`` if they are damaged.
    """

    format: str
    max_side: int
    split: Callable[[bytes], tuple[bytes, bytes]]
    join: Callable[[bytes, bytes], bytes]
    size: Callable[[bytes], tuple[int, int]]


# JPEG (ITU-T T.81, annex B): tables and headers up to the scan, the scan, two bytes at the end.
_EOI = b"\xff\xd9"
_JPEG_HEAD = {0xDB, 0xC0, 0xC4, 0xDA, 0xE0}  # DQT, SOF0 (baseline), DHT, SOS, JFIF


def _split_jpeg(file: bytes) -> tuple[bytes, bytes]:
    try:
        end, _ = _walk_jpeg(file)
    except ValueError as error:
        raise RuntimeError(f"The JPEG library wrote an unknown layout: {error}.") from error
    if not file.endswith(_EOI):
        raise RuntimeError("The JPEG library wrote an unknown layout: no end marker.")
    return file[:end] + _EOI, file[end:-2]


def _join_jpeg(constant: bytes, stream: bytes) -> bytes:
    return constant[:-2] + stream + constant[-2:]


def _size_jpeg(constant: bytes) -> tuple[int, int]:
    end, size = _walk_jpeg(constant)
    if constant[end:] != _EOI:
        raise ValueError("bytes after the header")
    return size


def _walk_jpeg(data: bytes) -> tuple[int, tuple[int, int]]:
    """Where the scan begins, and height and width."""
    if data[:2] != b"\xff\xd8":
        raise ValueError("no JPEG signature")
    position, size = 2, None
    while position + 4 <= len(data):
        mark, kind = data[position : position + 2]
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if mark != 0xFF or kind not in _JPEG_HEAD:
            raise ValueError(f"unknown segment {mark:02x}{kind:02x}")
        segment = data[position + 4 : position + 2 + length]
        position += 2 + length
        if kind == 0xC0 and size is None:
            size = int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big")
        elif kind == 0xC0:
            raise ValueError("two sizes")
        if kind == 0xDA and size is not None and position <= len(data):
            return position, size
    raise ValueError("header cut short")


# PNG (ISO/IEC 15948): signature and IHDR, compressed pixels in IDAT chunks, IEND.
_PNG_HEAD, _PNG_TAIL = 33, 12


def _split_png(file: bytes) -> tuple[bytes, bytes]:
    stream = b""
    for name, data in _png_chunks(file[_PNG_HEAD:-_PNG_TAIL]):
        if name != b"IDAT":
            raise RuntimeError(f"The PNG library wrote an unknown layout: chunk {name!r}.")
        stream += data
    return file[:_PNG_HEAD] + file[-_PNG_TAIL:], stream


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        yield data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        position += 12 + length


def _join_png(constant: bytes, stream: bytes) -> bytes:
    return constant[:_PNG_HEAD] + _png_chunk(b"IDAT", stream) + constant[_PNG_HEAD:]


def _size_png(constant: bytes) -> tuple[int, int]:
    header = constant[16 : _PNG_HEAD - 4]
    head = b"\x89PNG\r\n\x1a\n" + _png_chunk(b"IHDR", header)
    if constant != head + _png_chunk(b"IEND", b""):
        raise ValueError("not a PNG header")
    return int.from_bytes(header[4:8], "big"), int.from_bytes(header[:4], "big")


def _png_chunk(name: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(name + data)
    return len(data).to_bytes(4, "big") + name + data + checksum.to_bytes(4, "big")


# WebP (RFC 9649): a RIFF file with one chunk, lossy VP8 (RFC 6386) or lossless VP8L. The constant
# bytes are b"RIFF", b"WEBP", the chunk's name, and these bytes of its frame:
_WEBP_FRAME = {
    b"VP8 ": (3, 10),  # start code, width and height
    b"VP8L": (0, 5),  # signature, width, height, no alpha, version
}
_WEBP_MAGIC = b"RIFFWEBP"


def _split_webp(file: bytes) -> tuple[bytes, bytes]:
    name, size = file[12:16], int.from_bytes(file[16:20], "little")
    if name not in _WEBP_FRAME:
        raise RuntimeError(f"The WebP library wrote an unknown layout: chunk {name!r}.")
    frame = file[20 : 20 + size]
    start, stop = _WEBP_FRAME[name]
    constant = _WEBP_MAGIC + name + frame[start:stop]
    stream = frame[:start] + frame[stop:]
    if name == b"VP8 " and not size % 2:
        stream = stream.removesuffix(b"\0")  # padding: an odd length implies it
    if _join_webp(constant, stream) != file:
        raise RuntimeError("The WebP library wrote an unknown layout: unexpected padding.")
    return constant, stream


def _join_webp(constant: bytes, stream: bytes) -> bytes:
    name, fixed = constant[8:12], constant[12:]
    start, _ = _WEBP_FRAME.get(name, (0, 0))
    frame = stream[:start] + fixed + stream[start:]
    padding = bytes(len(frame) % 2)
    # libwebp counts the padding in the size of a lossy chunk, and not in that of a lossless one.
    size = len(frame) + (len(padding) if name == b"VP8 " else 0)
    chunk = name + size.to_bytes(4, "little") + frame + padding
    return constant[:4] + (4 + len(chunk)).to_bytes(4, "little") + constant[4:8] + chunk


def _size_webp(constant: bytes) -> tuple[int, int]:
    name, fixed = constant[8:12], constant[12:]
    if constant[:8] != _WEBP_MAGIC:
        raise ValueError("not a WebP header")
    if name == b"VP8 " and len(fixed) == 7 and fixed[:3] == b"\x9d\x01\x2a":
        width, height = fixed[3:5], fixed[5:7]
        return int.from_bytes(height, "little"), int.from_bytes(width, "little")
    bits = int.from_bytes(fixed[1:], "little")
    if name == b"VP8L" and len(fixed) == 5 and fixed[0] == 0x2F and not bits >> 28:
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    raise ValueError("not a WebP frame")


JPEG = Container("JPEG", 65_500, split=_split_jpeg, join=_join_jpeg, size=_size_jpeg)
PNG = Container("PNG", 2**31 - 1, split=_split_png, join=_join_png, size=_size_png)
WEBP = Container("WEBP", 16_383, split=_split_webp, join=_join_webp, size=_size_webp)
