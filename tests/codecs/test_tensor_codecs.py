"""Raw, quantised and downscaled images."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gift_cl.codecs import Downscale, EncodedImages, Quantize, Raw, build_codec

Array = npt.NDArray[np.uint8]
every_number_of_bits = pytest.mark.parametrize("bits", range(1, 9))
shapes = st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def ramp(size: int) -> Tensor:
    """Every value once, in an image (1, 1, size, 256 / size)."""
    return torch.arange(256, dtype=torch.uint8).view(1, 1, size, -1)


@pytest.mark.parametrize(
    ("spec", "shape", "num_bytes"),
    [
        ("raw", (3, 32, 32), 3072),
        ("raw", (1, 8, 8), 64),
        ("quantize:8", (1, 8, 8), 64),
        ("quantize:4", (1, 8, 8), 32),
        ("quantize:3", (1, 8, 8), 24),
        ("quantize:1", (1, 3, 3), 2),
        ("quantize:7", (1, 1, 1), 1),
        ("downscale:2", (1, 8, 8), 16),
        ("downscale:2,bits=4", (1, 8, 8), 8),
        ("downscale:8", (3, 32, 32), 48),
    ],
)
def test_pinned_bytes_of_an_image(spec: str, shape: tuple[int, ...], num_bytes: int) -> None:
    encoded = build_codec(spec).encode(noise(5, *shape))
    assert encoded.nbytes == 5 * num_bytes
    assert encoded.nbytes_each.tolist() == [num_bytes] * 5
    assert len(encoded.shared) == 0


@pytest.mark.parametrize("codec", [Raw(), Quantize(8)])
@given(shape=shapes, seed=st.integers(0, 999))
def test_lossless_codec_returns_the_images(codec: Raw | Quantize, shape: tuple[int, ...], seed: int) -> None:
    images = noise(*shape, seed=seed)
    assert torch.equal(codec.encode(images).decode(), images)


def test_raw_images_are_not_copied() -> None:
    images = noise(2, 3, 8, 8)
    encoded = Raw().encode(images)
    assert encoded.payload.data_ptr() == images.data_ptr()
    assert encoded.decode().data_ptr() == images.data_ptr()


def quantized_by_numpy(images: Array, bits: int) -> tuple[Array, Array]:
    """Packed rows and reconstruction, by floats and ``packbits``."""
    top = 2**bits - 1
    levels = np.rint(images.astype(float) * top / 255).astype(np.uint8)
    single_bits = np.unpackbits(levels.reshape(len(images), -1, 1), axis=2)[:, :, 8 - bits :]
    packed = np.packbits(single_bits.reshape(len(images), -1), axis=1)
    return packed, np.rint(levels * (255 / top)).astype(np.uint8)


@every_number_of_bits
@given(shape=shapes.filter(lambda shape: shape[0] > 0), seed=st.integers(0, 999))
def test_quantised_images_equal_numpy(bits: int, shape: tuple[int, ...], seed: int) -> None:
    images = noise(*shape, seed=seed)
    encoded = Quantize(bits).encode(images)
    packed, decoded = quantized_by_numpy(images.numpy(), bits)
    assert encoded.payload.tolist() == packed.ravel().tolist()
    assert encoded.decode().tolist() == decoded.tolist()


@every_number_of_bits
def test_every_value_is_quantised_as_numpy_does(bits: int) -> None:
    packed, decoded = quantized_by_numpy(ramp(16).numpy(), bits)
    encoded = Quantize(bits).encode(ramp(16))
    assert encoded.payload.tolist() == packed.ravel().tolist()
    assert encoded.decode().tolist() == decoded.tolist()


@every_number_of_bits
def test_quantisation_keeps_black_and_white_and_errs_by_half_a_step(bits: int) -> None:
    decoded = Quantize(bits).encode(ramp(16)).decode()
    assert len(set(decoded.flatten().tolist())) == 2**bits
    assert decoded.min() == 0
    assert decoded.max() == 255
    errors = (decoded.int() - ramp(16).int()).abs()
    assert int(errors.max()) <= math.ceil(255 / (2**bits - 1) / 2)


@every_number_of_bits
def test_quantising_again_changes_nothing(bits: int) -> None:
    codec = Quantize(bits)
    once = codec.encode(noise(3, 1, 5, 7)).decode()
    assert torch.equal(codec.encode(once).decode(), once)


def test_pinned_bits_of_a_quantised_image() -> None:
    images = torch.tensor([0, 255, 85, 170, 255], dtype=torch.uint8).view(1, 1, 1, 5)
    assert Quantize(2).encode(images).streams() == [bytes([0b00_11_01_10, 0b11_000000])]


@pytest.mark.parametrize("factor", [2, 3])
def test_downscaled_images_are_area_averages(factor: int) -> None:
    images = noise(4, 3, 6, 12)
    encoded = Downscale(factor).encode(images)
    averages = np.zeros((4, 3, 6 // factor, 12 // factor))
    for row in range(averages.shape[2]):
        for column in range(averages.shape[3]):
            area = images.numpy()[
                :,
                :,
                row * factor : (row + 1) * factor,
                column * factor : (column + 1) * factor,
            ]
            averages[:, :, row, column] = area.mean((2, 3))
    assert encoded.payload.tolist() == np.floor(averages + 0.5).ravel().tolist()


def test_upscaled_images_are_interpolated_bilinearly() -> None:
    small = torch.tensor([10, 50], dtype=torch.uint8)
    images = small.repeat_interleave(2).repeat(2, 1).view(1, 1, 2, 4)
    # Centres of the pixels lie at -1/4, 1/4, 3/4 and 5/4 of the small image.
    assert Downscale(2).encode(images).decode().tolist() == [[[[10, 20, 40, 50]] * 2]]


@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_downscaling_keeps_an_even_image(value: int) -> None:
    images = torch.full((2, 3, 8, 8), value, dtype=torch.uint8)
    assert torch.equal(Downscale(4).encode(images).decode(), images)


def test_downscaling_and_quantising_combine() -> None:
    images = noise(3, 1, 8, 8)
    small = Downscale(2).encode(images).payload.view(3, 1, 4, 4)
    encoded = Downscale(2, bits=3).encode(images)
    assert torch.equal(encoded.payload, Quantize(3).encode(small).payload)
    levels = Quantize(3).encode(small).decode()
    as_raw = EncodedImages("downscale:2", (1, 8, 8), levels.flatten(), None, 3, encoded.shared)
    assert torch.equal(encoded.decode(), as_raw.decode())


small_images = given(
    shape=st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)),
    factor=st.integers(2, 5),
    bits=st.integers(1, 8),
)


@small_images
def test_small_images_are_stored_as_they_are(
    shape: tuple[int, int, int, int], factor: int, bits: int
) -> None:
    small = noise(*shape)
    encoded = Downscale(factor, bits).encode_small(small)
    assert encoded.codec == Downscale(factor, bits).spec
    assert encoded.image_shape == (shape[1], shape[2] * factor, shape[3] * factor)
    assert torch.equal(encoded.payload, Quantize(bits).encode(small).payload)


@small_images
def test_small_images_are_enlarged_as_they_are_decoded(
    shape: tuple[int, int, int, int], factor: int, bits: int
) -> None:
    small = noise(*shape)
    codec = Downscale(factor, bits)
    assert torch.equal(codec.enlarge(small), codec.encode_small(small).decode())
    assert torch.equal(small, noise(*shape))


def test_images_are_encoded_after_they_were_shrunk() -> None:
    images = noise(4, 3, 6, 12)
    codec = Downscale(3, bits=5)
    small = codec.shrink(images)
    assert small.shape == (4, 3, 2, 4)
    assert torch.equal(codec.encode_small(small).payload, codec.encode(images).payload)


def test_small_floats_are_refused() -> None:
    for method in (Downscale(2).encode_small, Downscale(2).enlarge, Downscale(2).shrink):
        with pytest.raises(TypeError, match=r"`images` of torch.uint8, got torch.float32"):
            method(torch.zeros(1, 1, 4, 4))


def test_a_small_image_without_its_batch_is_refused() -> None:
    for method in (Downscale(2).encode_small, Downscale(2).enlarge):
        with pytest.raises(ValueError, match=r"of shape \(N, C, H, W\), got \(3, 4, 4\)"):
            method(noise(3, 4, 4))


def test_smooth_images_survive_downscaling() -> None:
    image = torch.linspace(0, 255, 32).expand(1, 3, 32, 32).round().to(torch.uint8)
    errors = Downscale(2).encode(image).decode().float() - image.float()
    assert float(errors.square().mean()) < 255**2 / 10**3.5  # over 35 dB


def test_factor_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"multiples of 3 for `downscale:3`, got 8 x 8"):
        Downscale(3).encode(noise(1, 1, 8, 8))


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("quantize:0", r"`bits` as a whole number in \[1, 8\], got 0"),
        ("quantize:9", r"`bits` as a whole number in \[1, 8\], got 9"),
        ("quantize:2.5", r"`bits` as a whole number in \[1, 8\], got 2.5"),
        ("quantize:true", r"`bits` as a whole number in \[1, 8\], got True"),
        ("quantize", "missing a required argument: 'bits'"),
        ("downscale:1", "`factor` as a whole number of at least 2, got 1"),
        ("downscale:half", "`factor` as a whole number of at least 2, got 'half'"),
        ("downscale:2,bits=0", r"`bits` as a whole number in \[1, 8\], got 0"),
        ("raw:1", "Bad options in codec `raw:1`"),
    ],
)
def test_unusable_options_are_refused(spec: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build_codec(spec)


@pytest.mark.parametrize("spec", ["raw", "quantize:4", "downscale:2"])
def test_payload_of_another_size_is_refused(spec: str) -> None:
    stored = torch.zeros(2 * 7, dtype=torch.uint8)
    encoded = EncodedImages(spec, (1, 8, 8), stored, None, 2, torch.empty(0).byte())
    with pytest.raises(ValueError, match=r"bytes are damaged: expected `payload` of 2 x \d+ bytes"):
        encoded.decode()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("spec", ["raw", "quantize:3", "downscale:2,bits=5"])
def test_device_of_the_images_does_not_matter(spec: str) -> None:
    images = noise(4, 3, 8, 8)
    encoded = build_codec(spec).encode(images.to("cuda"))
    assert torch.equal(encoded.payload, build_codec(spec).encode(images).payload)


@given(shape=shapes, seed=st.integers(0, 99))
def test_floats_come_back_bit_for_bit(shape: tuple[int, ...], seed: int) -> None:
    images = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    encoded = build_codec("float32").encode(images)
    assert encoded.nbytes == 4 * images.numel()
    assert torch.equal(encoded.decode(), images)
    chosen = torch.arange(shape[0]).flip(0)
    assert torch.equal(encoded.select(chosen).decode(), images[chosen])


def test_floats_are_read_from_any_address() -> None:
    images = torch.randn(2, 1, 3, 3)
    encoded = build_codec("float32").encode(images)
    shifted = torch.cat([torch.zeros(1, dtype=torch.uint8), encoded.payload])[1:]
    assert torch.equal(replace(encoded, payload=shifted).decode(), images)


def test_floats_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="Expected finite `images`"):
        build_codec("float32").encode(torch.full((1, 1, 2, 2), float("nan")))


def test_pixels_are_refused_by_the_codec_of_floats_with_the_cure() -> None:
    with pytest.raises(TypeError, match=r"Expected `images` of torch\.float32, .*images\.to"):
        build_codec("float32").encode(noise(1, 1, 2, 2))
