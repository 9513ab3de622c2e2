"""PNG, JPEG and WebP: against pillow's own files, and against damage."""

from __future__ import annotations

import io
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from gift_cl.codecs import EncodedImages, build_codec
from gift_cl.codecs.containers import JPEG, PNG, WEBP

OPTIONS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG"},
    "jpeg:1": {"format": "JPEG", "quality": 1},
    "jpeg:75": {"format": "JPEG", "quality": 75},
    "jpeg:100": {"format": "JPEG", "quality": 100},
    "webp:1": {"format": "WEBP", "quality": 1},
    "webp:75": {"format": "WEBP", "quality": 75},
    "webp:100": {"format": "WEBP", "quality": 100},
    "webp:lossless": {"format": "WEBP", "lossless": True},
}
CONTAINERS = {"PNG": PNG, "JPEG": JPEG, "WEBP": WEBP}
one_of_each = pytest.mark.parametrize("spec", ["png", "jpeg:75", "webp:75", "webp:lossless"])


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def smooth(num_images: int, channels: int, size: int = 32) -> Tensor:
    waves = torch.arange(1, num_images * channels + 1).view(num_images, channels, 1, 1)
    grid = torch.linspace(0, 1, size)
    values = (grid * waves * 0.8).cos() * 60 + grid[:, None] * 100 + 70
    return values.round().clamp(0, 255).to(torch.uint8)


def pillow_file(image: Tensor, spec: str) -> bytes:
    pixels = image.permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    file = io.BytesIO()
    picture.convert("RGB" if "webp" in spec else picture.mode).save(file, **OPTIONS[spec])
    return file.getvalue()


def mutated(stream: bytes, chance: random.Random) -> bytes:
    """The stream with a few bytes changed, cut off, or added."""
    data = bytearray(stream)
    for _ in range(chance.randint(1, 4)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    cut = chance.choice([0, 0, 0, 1, chance.randint(0, len(data))])
    return bytes(data[: len(data) - cut]) + chance.randbytes(chance.choice([0, 0, 1, 9]))


@pytest.mark.parametrize("spec", ["png", "webp:lossless"])
@settings(deadline=None)  # the first call imports pillow
@given(
    shape=st.tuples(st.integers(0, 3), st.sampled_from([1, 3]), st.integers(1, 20), st.integers(1, 20)),
    seed=st.integers(0, 999),
)
def test_lossless_codec_returns_the_images(spec: str, shape: tuple[int, int, int, int], seed: int) -> None:
    images = noise(*shape, seed=seed)
    assert torch.equal(build_codec(spec).encode(images).decode(), images)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("spec", "decibels"), [("jpeg:90", 33), ("webp:90", 33), ("jpeg:50", 28)])
def test_lossy_codec_stays_close_to_the_images(spec: str, decibels: int, channels: int) -> None:
    images = smooth(4, channels)
    errors = build_codec(spec).encode(images).decode().float() - images.float()
    assert float(errors.square().mean()) < 255**2 / 10 ** (decibels / 10)


@pytest.mark.parametrize("spec", OPTIONS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (3, 1, 1), (3, 7, 5), (1, 32, 32)])
@pytest.mark.parametrize("make", [noise, torch.zeros])
def test_stored_bytes_rebuild_the_file_that_pillow_writes(
    spec: str, shape: tuple[int, ...], make: Any
) -> None:
    images = make(4, *shape).to(torch.uint8)
    encoded = build_codec(spec).encode(images)
    join = CONTAINERS[OPTIONS[spec]["format"]].join
    shared = encoded.shared.numpy().tobytes()
    files = [pillow_file(image, spec) for image in images]
    assert [join(shared, stream) for stream in encoded.streams()] == files


@one_of_each
@pytest.mark.parametrize("channels", [1, 3])
def test_decoded_images_are_those_that_pillow_decodes(spec: str, channels: int) -> None:
    images = smooth(3, channels)
    decoded = build_codec(spec).encode(images).decode()
    for image, result in zip(images, decoded, strict=True):
        picture = Image.open(io.BytesIO(pillow_file(image, spec)))
        pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
        assert result.permute(1, 2, 0).reshape(pixels.shape).tolist() == pixels.tolist()


@one_of_each
def test_channels_of_gray_images_come_back_once(spec: str) -> None:
    assert build_codec(spec).encode(smooth(2, 1)).decode().shape == (2, 1, 32, 32)


@pytest.mark.parametrize(
    ("spec", "channels", "num_bytes"),
    [
        ("png", 1, 45),
        ("png", 3, 45),
        ("jpeg:75", 1, 330),
        ("jpeg:75", 3, 625),
        ("webp:75", 1, 19),
        ("webp:lossless", 3, 17),
    ],
)
def test_pinned_bytes_that_are_shared(spec: str, channels: int, num_bytes: int) -> None:
    encoded = build_codec(spec).encode(noise(3, channels, 32, 32))
    assert len(encoded.shared) == num_bytes


@one_of_each
def test_shared_bytes_are_charged_once(spec: str) -> None:
    images = noise(100, 3, 32, 32)
    encoded = build_codec(spec).encode(images)
    files = [len(pillow_file(image, spec)) for image in images]
    # A file has at least the shared bytes, and each image an entry in the table of lengths.
    assert encoded.nbytes <= sum(files) - 99 * len(encoded.shared) + 2 * 100
    assert encoded.nbytes < sum(files)


@pytest.mark.parametrize("spec", ["jpeg:75", "webp:75", "webp:lossless"])
def test_shared_bytes_do_not_depend_on_the_images(spec: str) -> None:
    codec = build_codec(spec)
    shared = [codec.encode(images).shared for images in (noise(1, 3, 8, 8), noise(1, 3, 8, 8) * 0)]
    assert torch.equal(*shared)


def test_png_of_several_chunks_is_restored() -> None:
    images = noise(1, 3, 200, 200)
    assert pillow_file(images[0], "png").count(b"IDAT") > 1
    encoded = build_codec("png").encode(images)
    assert torch.equal(encoded.decode(), images)
    assert encoded.nbytes < len(pillow_file(images[0], "png"))
    assert encoded.nbytes == len(encoded.payload) + 45 + 4


@one_of_each
@pytest.mark.parametrize("channels", [1, 3])
def test_damaged_streams_give_an_error_or_images_of_the_right_shape(spec: str, channels: int) -> None:
    encoded = build_codec(spec).encode(noise(1, channels, 16, 16))
    chance = random.Random(0)
    shared = encoded.shared.numpy().tobytes()
    for _ in range(200):
        streams = [mutated(encoded.streams()[0], chance)]
        damaged = EncodedImages.from_streams(spec, (channels, 16, 16), streams, shared=shared)
        try:
            assert damaged.decode().shape == (1, channels, 16, 16)
        except ValueError as error:
            assert "stored bytes are damaged" in str(error)  # noqa: PT017 - either is right


@one_of_each
def test_damaged_shared_bytes_give_an_error_or_images_of_the_right_shape(spec: str) -> None:
    encoded = build_codec(spec).encode(noise(1, 3, 16, 16))
    chance = random.Random(0)
    shared = encoded.shared.numpy().tobytes()
    for _ in range(200):
        data = torch.tensor(list(mutated(shared, chance)), dtype=torch.uint8)
        try:
            assert replace(encoded, shared=data).decode().shape == (1, 3, 16, 16)
        except ValueError as error:
            assert "stored bytes are damaged" in str(error)  # noqa: PT017 - either is right


@one_of_each
def test_damage_is_reported_with_the_image(spec: str) -> None:
    encoded = build_codec(spec).encode(noise(3, 3, 8, 8))
    first, _, last = encoded.streams()
    shared = encoded.shared.numpy().tobytes()
    damaged = EncodedImages.from_streams(spec, (3, 8, 8), [first, b"\xff\xd8", last], shared=shared)
    with pytest.raises(ValueError, match=rf"bytes are damaged: `{spec}` cannot decode image 1"):
        damaged.decode()


@one_of_each
def test_header_of_another_size_is_refused_before_pixels_are_decoded(
    spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = build_codec(spec)
    encoded, larger = codec.encode(noise(1, 3, 8, 8)), codec.encode(noise(1, 3, 16, 8))
    monkeypatch.setattr(Image, "open", None)
    with pytest.raises(ValueError, match=r"damaged.*of 8 x 8 .*they announce 16 x 8 pixels"):
        replace(encoded, shared=larger.shared).decode()


@one_of_each
def test_missing_shared_bytes_are_refused(spec: str) -> None:
    encoded = build_codec(spec).encode(noise(1, 3, 8, 8))
    with pytest.raises(ValueError, match=f"damaged: `{spec}` cannot decode image 0 "):
        replace(encoded, shared=encoded.shared[:0]).decode()


@pytest.mark.parametrize("spec", ["png", "jpeg:75"])
def test_header_of_another_kind_of_image_is_refused(spec: str) -> None:
    codec = build_codec(spec)
    encoded, gray = codec.encode(noise(1, 3, 8, 8)), codec.encode(noise(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"cannot decode image 0 .*got L of"):
        replace(encoded, shared=gray.shared).decode()


@one_of_each
@pytest.mark.parametrize("channels", [2, 4])
def test_other_numbers_of_channels_are_refused(spec: str, channels: int) -> None:
    with pytest.raises(ValueError, match=f"1 or 3 channels for `{spec}`, got {channels}"):
        build_codec(spec).encode(noise(1, channels, 8, 8))


@pytest.mark.parametrize(("spec", "limit"), [("jpeg:75", 65_500), ("webp:75", 16_383)])
def test_images_too_large_for_the_format_are_refused(spec: str, limit: int) -> None:
    with pytest.raises(ValueError, match=f"at most {limit} pixels a side for `{spec}`, got 1 x"):
        build_codec(spec).encode(torch.zeros(1, 1, 1, limit + 1, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("jpeg", "missing a required argument: 'quality'"),
        ("jpeg:0", r"`quality` as a whole number in \[1, 100\], got 0"),
        ("jpeg:101", r"`quality` as a whole number in \[1, 100\], got 101"),
        ("jpeg:lossless", r"`quality` as a whole number in \[1, 100\], got 'lossless'"),
        ("webp:0", r"\[1, 100\], got 0; `lossless` is the other choice"),
        ("webp:best", "got 'best'; `lossless` is the other choice"),
        ("png:9", "Bad options in codec `png:9`"),
    ],
)
def test_unusable_options_are_refused(spec: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build_codec(spec)


def test_unknown_layout_of_a_file_is_an_internal_error() -> None:
    file = pillow_file(noise(3, 8, 8), "jpeg:75")
    with pytest.raises(RuntimeError, match="JPEG library wrote an unknown layout"):
        JPEG.split(file[:2] + b"\xff\xe1\x00\x02" + file[2:])
    with pytest.raises(RuntimeError, match="no end marker"):
        JPEG.split(file[:-1])
    with pytest.raises(RuntimeError, match="WebP library wrote an unknown layout"):
        WEBP.split(b"RIFF\0\0\0\0WEBPVP8X")
    with pytest.raises(RuntimeError, match="unexpected padding"):
        WEBP.split(pillow_file(noise(3, 8, 8), "webp:75") + b"\0")
    tail = PNG.split(pillow_file(noise(3, 8, 8), "png"))[0]
    with pytest.raises(RuntimeError, match="PNG library wrote an unknown layout: chunk b'tEXt'"):
        PNG.split(tail[:33] + b"\0\0\0\1tEXta\0\0\0\0" + tail[33:])
