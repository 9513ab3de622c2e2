from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gift_cl.views import MIXES, CutMix, Mixup

NAMES = ["mixup", "cutmix"]


def _images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_mixup_is_the_weighted_mean_with_the_partner() -> None:
    images = _images(6, 3, 4, 5)
    mixed = Mixup()(images, _generator())
    assert 0 < mixed.share < 1
    for n, view in enumerate(mixed.inputs):
        expected = mixed.share * images[n] + (1 - mixed.share) * images[int(mixed.partner[n])]
        torch.testing.assert_close(view, expected)


def test_cutmix_puts_the_box_of_the_partner_into_each_image_exactly() -> None:
    images = _images(6, 3, 9, 12)
    top, left, bottom, right = CutMix().draw(9, 12, _generator(1))
    mixed = CutMix()(images, _generator(1))
    assert 0 < (bottom - top) * (right - left) < 9 * 12
    for n, view in enumerate(mixed.inputs):
        expected = images[n].clone()
        expected[:, top:bottom, left:right] = images[int(mixed.partner[n]), :, top:bottom, left:right]
        assert torch.equal(view, expected)


@given(st.tuples(st.integers(1, 12), st.integers(1, 12)), st.integers(0, 200))
@settings(deadline=None, max_examples=100)
def test_the_share_of_cutmix_is_the_area_that_is_left(sides: tuple[int, int], seed: int) -> None:
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, *sides)
    mixed = CutMix()(images, _generator(seed))
    if (mixed.partner == torch.arange(4)).all():
        return  # a box of the same image cannot be seen
    own = (mixed.inputs == images).flatten(1).double().mean(1)[mixed.partner != torch.arange(4)]
    torch.testing.assert_close(own, torch.full_like(own, mixed.share))


def test_boxes_of_cutmix_are_clipped_and_centred_anywhere() -> None:
    generator = _generator()
    boxes = torch.tensor([CutMix().draw(16, 16, generator) for _ in range(2000)], dtype=torch.float64)
    top, left, bottom, right = boxes.unbind(1)
    assert boxes.min() == 0
    assert boxes.max() == 16
    inside = (top > 0) & (bottom < 16) & (left > 0) & (right < 16) & (bottom > top)
    assert torch.equal((bottom - top)[inside], (right - left)[inside])
    assert not ((bottom - top)[inside] % 2).any()
    for low, high in ((top, bottom), (left, right)):  # 16 centres: 0 to 15, whose mean is 7.5
        centres = ((low + high) / 2)[inside]
        assert centres.mean() == pytest.approx(8.0, abs=0.6)


@pytest.mark.parametrize("alpha", [0.3, 0.8, 1.0, 4.0])
def test_shares_of_mixup_follow_the_beta_distribution(alpha: float) -> None:
    generator, images = _generator(), torch.zeros(1, 1, 1, 1)
    shares = torch.tensor([Mixup(alpha)(images, generator).share for _ in range(3000)]).double()
    variance = 1 / (4 * (2 * alpha + 1))
    assert float(shares.mean()) == pytest.approx(0.5, abs=5 * (variance / 3000) ** 0.5)
    assert float(shares.var()) == pytest.approx(variance, rel=0.15)


@pytest.mark.parametrize("name", NAMES)
def test_partners_are_a_permutation_of_the_batch(name: str) -> None:
    mixed = MIXES.create(name)(_images(10, 1, 4, 4), _generator())
    assert mixed.partner.dtype == torch.int64
    assert sorted(mixed.partner.tolist()) == list(range(10))
    assert mixed.partner.tolist() != list(range(10))


@pytest.mark.parametrize("name", NAMES)
def test_mixes_are_seeded_and_keep_dtype_layout_and_inputs(name: str) -> None:
    images = _images(6, 3, 8, 8).bfloat16().to(memory_format=torch.channels_last)
    before = images.clone()
    first, second = (MIXES.create(name)(images, _generator(1)) for _ in range(2))
    assert torch.equal(first.inputs, second.inputs)
    assert torch.equal(first.partner, second.partner)
    assert first.share == second.share
    assert first.inputs.dtype == torch.bfloat16
    assert first.inputs.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)
    wide = MIXES.create(name)(images.float(), _generator(1))
    assert torch.equal(first.inputs, wide.inputs.bfloat16())  # rounded once


def test_none_is_the_batch_itself() -> None:
    images = _images(3, 1, 2, 2)
    mixed = MIXES.create("none")(images, _generator())
    assert mixed.inputs is images
    assert mixed.partner.tolist() == [0, 1, 2]
    assert mixed.share == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [0, 1])
def test_small_batches_are_mixed_with_themselves(name: str, count: int) -> None:
    images = _images(count, 1, 5, 3)
    torch.testing.assert_close(MIXES.create(name)(images, _generator()).inputs, images)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_pass_to_both_images(name: str) -> None:
    images = _images(3, 1, 4, 4).double().requires_grad_()
    mix = MIXES.create(name)
    assert torch.autograd.gradcheck(lambda i: mix(i, _generator(1)).inputs, (images,))


def test_specs_are_short_and_build_the_same_mix() -> None:
    assert [MIXES.create(name).spec for name in MIXES.names()] == ["none", "mixup", "cutmix"]
    mix = MIXES.create("cutmix:0.5")
    assert mix.spec == "cutmix:alpha=0.5"
    assert MIXES.create(mix.spec) == mix


@pytest.mark.parametrize("name", NAMES)
def test_an_unusable_alpha_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="Expected `alpha` in \\(0, inf\\), got 0"):
        MIXES.create(f"{name}:alpha=0")


def test_unknown_mixes_are_refused() -> None:
    with pytest.raises(ValueError, match="Unknown mix `blend`. Known: none, mixup, cutmix"):
        MIXES.create("blend")
