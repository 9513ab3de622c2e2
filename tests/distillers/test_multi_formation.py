import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gift_cl.codecs import Downscale, Quantize, Webp
from gift_cl.distillers.multi_formation import MultiFormation
from gift_cl.distillers.pixels import PixelBox
from gift_cl.normalization import NORMALIZATIONS, Normalization

CIFAR = NORMALIZATIONS["cifar"]


def make(factor: int = 2, bits: int = 8, normalization: Normalization = CIFAR) -> MultiFormation:
    return MultiFormation(Downscale(factor, bits), PixelBox(normalization, "cpu"), 3)


def make_small(formation: MultiFormation, *, height: int = 4, width: int = 5, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return formation.box.clamp_(2 * torch.randn(7, 3, height, width, generator=generator))


def bilinear(size: int, factor: int) -> Tensor:
    """How pixels along a side are made of ``size`` small ones, (size · factor, size)."""
    weights = torch.zeros(size * factor, size)
    for pixel in range(size * factor):
        place = min(max((pixel + 0.5) / factor - 0.5, 0), size - 1)
        left = min(int(place), size - 2)
        weights[pixel, left] = 1 - (place - left)
        weights[pixel, left + 1] = place - left
    return weights


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 999),
    factor=st.integers(2, 5),
    bits=st.integers(1, 8),
    name=st.sampled_from(sorted(NORMALIZATIONS)),
)
def test_the_stored_images_are_what_the_network_saw_bit_for_bit(
    seed: int, factor: int, bits: int, name: str
) -> None:
    formation = make(factor, bits, NORMALIZATIONS[name])
    small = make_small(formation, seed=seed)
    seen = formation.decode(small.clone().requires_grad_()).detach()
    stored = formation.encode(small).decode()
    assert torch.equal(formation.box.from_uint8(stored), seen)


@pytest.mark.parametrize("factor", [2, 3])
def test_what_is_seen_is_interpolated_from_rounded_levels(factor: int) -> None:
    formation = make(factor)
    small = make_small(formation)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CIFAR.mean, CIFAR.std))
    levels = ((small * std + mean) * 255).round()
    exact = bilinear(4, factor) @ levels @ bilinear(5, factor).T
    pixels = (formation.decode(small) * std + mean) * 255
    torch.testing.assert_close(pixels, pixels.round(), rtol=0, atol=1e-3)  # single precision
    assert float((pixels - exact).abs().max()) <= 0.5 + 1e-3


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("bits", [8, 3])
def test_the_gradient_is_that_of_enlarging_alone(factor: int, bits: int) -> None:
    formation = make(factor, bits)
    small = make_small(formation).requires_grad_()
    seen = formation.decode(small)
    slopes = torch.randn(seen.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((seen * slopes).sum(), small)
    expected = bilinear(4, factor).T @ slopes @ bilinear(5, factor)
    torch.testing.assert_close(gradient, expected)


def test_it_starts_from_averaged_areas() -> None:
    formation = make(2)
    images = torch.randint(
        0, 256, (5, 3, 8, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    small = formation.start(images)
    assert small.shape == (5, 3, 4, 3)
    assert torch.equal(formation.encode(small).payload, Downscale(2).encode(images).payload)


def test_a_single_mean_serves_all_channels() -> None:
    formation = make(normalization=Normalization((0.5,), (0.25,)))
    small = make_small(formation)
    assert torch.equal(formation.levels(small).float(), ((small * 0.25 + 0.5) * 255).round())


@pytest.mark.parametrize("codec", [Quantize(1), Quantize(2), Quantize(5), Webp(1), Webp(60)])
def test_whole_images_are_seen_as_they_are_stored(codec: Quantize | Webp) -> None:
    formation = MultiFormation(codec, PixelBox(CIFAR, "cpu"), 3)
    pixels = make_small(formation).requires_grad_()
    seen = formation.decode(pixels)
    stored = formation.encode(pixels.detach())
    assert stored.codec == codec.spec
    assert torch.equal(formation.box.from_uint8(stored.decode()), seen.detach())
    slopes = torch.randn(seen.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((seen * slopes).sum(), pixels)
    torch.testing.assert_close(gradient, slopes)
