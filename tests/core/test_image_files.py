"""Headers and pixels of image files: against pillow, and against damage and traps."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gift_cl import image_files
from gift_cl.errors import DamagedFileError, LayoutError, UnsafeFileError
from gift_cl.image_files import ImageHeader, decode_image, is_image_name, read_header

Pixels = npt.NDArray[np.uint8]

FORMATS: dict[str, dict[str, Any]] = {
    "jpeg": {"format": "JPEG", "quality": 75},
    "jpeg, progressive": {"format": "JPEG", "progressive": True},
    "jpeg, full colour resolution": {"format": "JPEG", "subsampling": 0},
    "jpeg, restart markers": {"format": "JPEG", "restart_marker_blocks": 1},
    "jpeg, RGB inside": {"format": "JPEG", "keep_rgb": True},
    "png": {"format": "PNG"},
    "webp, lossy": {"format": "WEBP"},
    "webp, lossless": {"format": "WEBP", "lossless": True},
}
# The seven passes of PNG's interlacing: rows and columns of an 8 x 8 block.
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
each_format = pytest.mark.parametrize("name", FORMATS)
one_of_each = pytest.mark.parametrize("name", ["jpeg", "jpeg, progressive", "png", "webp, lossy"])


def noise(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def written(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def file_of(pixels: Pixels, name: str) -> bytes:
    return written(Image.fromarray(pixels), **FORMATS[name])


def by_pillow(data: bytes) -> Pixels:
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)


def decoded(data: bytes) -> Pixels:
    pixels: Pixels = decode_image(data, read_header(data)).numpy()
    return pixels


def png_of(
    width: int,
    height: int,
    *,
    bits: int = 8,
    color: int = 2,
    lace: int = 0,
    rows: bytes = b"",
    idat: bytes | None = None,
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, lace)
    pixels = zlib.compress(rows) if idat is None else idat
    chunks = [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def jpeg_header(
    *, marker: int = 0xC0, bits: int = 8, height: int = 5, width: int = 7, channels: int = 3
) -> bytes:
    frame = struct.pack(">BHHB", bits, height, width, channels) + bytes(3 * channels)
    return b"\xff\xd8\xff\xe0\x00\x04ab\xff" + bytes([marker]) + struct.pack(">H", len(frame) + 2) + frame


@each_format
@settings(deadline=None, max_examples=30)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    is_gray=st.booleans(),
    seed=st.integers(0, 99),
)
def test_pixels_are_those_that_pillow_decodes(
    name: str, height: int, width: int, is_gray: bool, seed: int
) -> None:
    is_gray &= not name.startswith("webp") and name != "jpeg, RGB inside"
    data = file_of(noise(height, width, seed=seed) if is_gray else noise(height, width, 3, seed=seed), name)
    header = read_header(data)
    assert header.shape == (1 if is_gray else 3, height, width)
    assert header.format == FORMATS[name]["format"]
    assert np.array_equal(decoded(data), by_pillow(data))


@pytest.mark.parametrize("name", ["png", "webp, lossless"])
def test_lossless_files_give_back_what_was_written(name: str) -> None:
    pixels = noise(9, 5, 3)
    assert np.array_equal(decoded(file_of(pixels, name)), pixels.transpose(2, 0, 1))


def test_pixels_without_torchvision_s_operator_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data = file_of(noise(30, 20, 3), "jpeg")
    fast = decoded(data)
    monkeypatch.setattr(image_files, "_fast_jpeg_decoder", lambda: None)
    assert np.array_equal(decoded(data), fast)


def test_header_of_a_jpeg_is_read_from_its_bytes() -> None:
    assert read_header(jpeg_header()) == ImageHeader("JPEG", 3, 5, 7)
    assert read_header(jpeg_header(marker=0xC2, channels=1)) == ImageHeader("JPEG", 1, 5, 7)


def test_padded_jpeg_markers_are_read() -> None:
    data = file_of(noise(8, 8, 3), "jpeg")
    padded = data[:2] + b"\xff\xff" + data[2:]
    assert np.array_equal(decoded(padded), by_pillow(data))


def test_chunks_of_a_png_that_hold_no_pixels_change_nothing() -> None:
    image = Image.fromarray(noise(6, 6, 3))
    plain, adorned = (
        written(image, format="PNG"),
        written(image, format="PNG", icc_profile=b"x" * 99, dpi=(9, 9)),
    )
    assert len(adorned) > len(plain)
    assert np.array_equal(decoded(adorned), decoded(plain))


@one_of_each
def test_every_file_that_is_cut_short_is_refused(name: str) -> None:
    data = file_of(noise(8, 8, 3), name)
    for length in range(len(data)):
        with pytest.raises(DamagedFileError, match="Get the file again|get it again"):
            decoded(data[:length])


@pytest.mark.parametrize("name", ["jpeg", "jpeg, progressive", "png"])  # WebP has nothing to tell it by
def test_a_file_whose_end_is_zeros_is_refused(name: str) -> None:
    data = file_of(noise(32, 32, 3), name)
    half = len(data) // 2
    with pytest.raises(DamagedFileError):
        decoded(data[:half] + bytes(len(data) - half))


@one_of_each
def test_zeros_after_the_end_are_padding(name: str) -> None:
    data = file_of(noise(8, 8, 3), name)
    assert np.array_equal(decoded(data + bytes(100)), decoded(data))


def test_a_changed_byte_in_a_png_is_noticed() -> None:
    data = bytearray(file_of(noise(8, 8, 3), "png"))
    data[60] ^= 1
    with pytest.raises(DamagedFileError, match="checksum"):
        decoded(bytes(data))


@pytest.mark.parametrize("num_rows", [3, 7, 9, 100_000])
def test_a_png_with_more_or_fewer_rows_is_refused_and_the_process_lives(num_rows: int) -> None:
    with pytest.raises(DamagedFileError, match="more or fewer pixels than its header says"):
        decoded(png_of(8, 8, rows=bytes(25 * num_rows)))


def test_a_png_without_pixels_is_refused() -> None:
    data = png_of(8, 8)
    start, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    with pytest.raises(DamagedFileError, match="more or fewer pixels"):
        decoded(data[:start] + data[end:])


def test_a_png_that_is_not_compressed_is_refused() -> None:
    with pytest.raises(DamagedFileError, match="cannot be decompressed"):
        decoded(png_of(8, 8, idat=b"no zlib stream"))


@settings(deadline=None, max_examples=30)
@given(height=st.integers(1, 20), width=st.integers(1, 20), is_gray=st.booleans())
def test_interlaced_pngs_are_those_that_pillow_decodes(height: int, width: int, is_gray: bool) -> None:
    pixels = noise(height, width, 1 if is_gray else 3)
    rows = b"".join(
        b"\0" + row.tobytes()
        for top, left, down, right in ADAM7
        for row in pixels[top::down, left::right]
        if row.size
    )
    data = png_of(width, height, color=0 if is_gray else 2, lace=1, rows=rows)
    assert np.array_equal(by_pillow(data), pixels.transpose(2, 0, 1))
    assert np.array_equal(decoded(data), pixels.transpose(2, 0, 1))


def test_pixels_that_contradict_the_header_are_refused() -> None:
    data = file_of(noise(8, 8, 3), "jpeg")
    with pytest.raises(DamagedFileError, match=r"header says \(3, 8, 16\)"):
        decode_image(data, ImageHeader("JPEG", 3, 8, 16))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (written(Image.fromarray(noise(4, 4, 4), "RGBA"), format="PNG"), "transparency"),
        (written(Image.fromarray(noise(4, 4, 2), "LA"), format="PNG"), "gray image with transparency"),
        (written(Image.fromarray(noise(4, 4, 3)).quantize(8), format="PNG"), "a palette"),
        (png_of(4, 4, bits=16), "16 bits"),
        (png_of(4, 4, bits=1, color=0), "1 bits"),
        (written(Image.fromarray(noise(4, 4, 4), "CMYK"), format="JPEG"), "4 channels, as CMYK has"),
        (jpeg_header(bits=12), "12 bits"),
        (jpeg_header(marker=0xC9), "SOF9"),
        (written(Image.fromarray(noise(4, 4, 4), "RGBA"), format="WEBP", lossless=True), "transparency"),
        (written(Image.fromarray(noise(4, 4, 4), "RGBA"), format="WEBP"), "transparency"),
        (
            written(
                Image.fromarray(noise(4, 4, 3)),
                format="WEBP",
                save_all=True,
                append_images=[Image.fromarray(noise(4, 4, 3, seed=1))],
            ),
            "animation",
        ),
    ],
)
def test_images_of_other_kinds_are_refused_with_the_cure(data: bytes, message: str) -> None:
    with pytest.raises(LayoutError, match=message) as error:
        read_header(data)
    assert "Save it again as 8-bit RGB" in str(error.value)


@pytest.mark.parametrize(
    "bomb",
    [
        png_of(50_000, 50_000),
        png_of(4097, 1),
        jpeg_header(height=50_000, width=50_000),
        written(Image.new("RGB", (1, 4097)), format="WEBP"),
    ],
)
def test_images_that_claim_too_many_pixels_are_refused(bomb: bytes) -> None:
    with pytest.raises(UnsafeFileError, match="an image may have 4096 a side"):
        read_header(bomb)


def test_the_largest_side_is_allowed() -> None:
    assert read_header(png_of(4096, 1)).shape == (3, 1, 4096)


@pytest.mark.parametrize("data", [png_of(0, 4), jpeg_header(height=0), png_of(4, 4, color=1)])
def test_headers_that_no_image_has_are_damage(data: bytes) -> None:
    with pytest.raises(DamagedFileError):
        read_header(data)


def test_a_file_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "MAX_FILE_BYTES", 100)
    with pytest.raises(UnsafeFileError, match="an image may have 100"):
        read_header(file_of(noise(8, 8, 3), "png"))


def test_an_empty_file_is_named_as_such() -> None:
    with pytest.raises(DamagedFileError, match="holds no bytes"):
        read_header(b"")


def test_a_web_page_is_no_image() -> None:
    with pytest.raises(DamagedFileError, match="no JPEG, PNG or WebP image"):
        read_header(b"<!DOCTYPE html>")


def test_names_of_images_are_known_by_their_endings() -> None:
    assert all(map(is_image_name, ["a.jpg", "b/c.JPEG", "d.png", "e.webp", "f.gif", "g.tiff"]))
    assert not any(map(is_image_name, ["jpg", "a.jpg.part", "labels.txt", "x.npz"]))
