import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gift_cl.distillers.pixels import PixelBox
from gift_cl.normalization import NORMALIZATIONS, Normalization

CIFAR = NORMALIZATIONS["cifar"]
every_value = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)


def test_values_are_clamped_to_black_and_white_of_each_channel() -> None:
    box = PixelBox(Normalization((0.5, 0.2), (0.25, 0.5)), "cpu")
    inputs = torch.tensor([-9.0, -0.3, 9.0]).expand(1, 2, 1, 3).clone()
    box.clamp_(inputs)
    torch.testing.assert_close(inputs[0, 0, 0], torch.tensor([-2.0, -0.3, 2.0]))
    torch.testing.assert_close(inputs[0, 1, 0], torch.tensor([-0.4, -0.3, 1.6]))


def test_one_mean_serves_all_channels() -> None:
    box = PixelBox(Normalization((0.5,), (0.25,)), "cpu")
    assert box.clamp_(torch.full((1, 3, 1, 1), 7.0)).flatten().tolist() == [2.0] * 3


def test_clamping_works_in_place_on_a_leaf_that_needs_a_gradient() -> None:
    leaf = torch.full((1, 1, 2, 2), 7.0, requires_grad=True)
    made = PixelBox(Normalization((0.5,), (0.25,)), "cpu").clamp_(leaf)
    assert made is leaf
    assert leaf.is_leaf
    assert leaf.flatten().tolist() == [2.0] * 4


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_stored_images_come_back_exactly(name: str) -> None:
    images = every_value.expand(2, 3, 16, 16)
    box = PixelBox(NORMALIZATIONS[name], "cpu")
    inputs = box.from_uint8(images)
    assert torch.equal(box.clamp_(inputs.clone()), inputs)
    assert torch.equal(box.to_uint8(inputs), images)


def test_inputs_are_what_the_teacher_sees() -> None:
    inputs = PixelBox(CIFAR, "cpu").from_uint8(every_value.expand(1, 3, 16, 16))
    assert inputs.dtype == torch.float32
    assert float(inputs[0, 2, 15, 15]) == pytest.approx((1 - 0.4465) / 0.2010)
    assert float(inputs[0, 1, 3, 3]) == pytest.approx((51 / 255 - 0.4822) / 0.1994)


@settings(deadline=None, max_examples=50)
@given(st.floats(-3, 3), st.sampled_from(sorted(NORMALIZATIONS)))
def test_the_nearest_grey_level_is_stored(value: float, name: str) -> None:
    normalization = NORMALIZATIONS[name]
    box = PixelBox(normalization, "cpu")
    stored = box.to_uint8(box.clamp_(torch.full((1, 3, 1, 1), value))).flatten().tolist()
    for channel, level in enumerate(stored):
        mean, std = (values[channel % len(values)] for values in (normalization.mean, normalization.std))
        exact = 255 * min(max(value * std + mean, 0), 1)
        assert abs(level - exact) <= 0.5 + 1e-4  # single precision


def test_what_is_stored_is_free_of_gradients() -> None:
    leaf = torch.zeros(1, 3, 2, 2, requires_grad=True)
    stored = PixelBox(CIFAR, "cpu").to_uint8(leaf * 1)
    assert stored.dtype == torch.uint8
    assert not stored.requires_grad


@pytest.mark.parametrize("value", [2.5, -2.5, float("nan")])
def test_what_no_pixel_can_be_is_not_stored(value: float) -> None:
    with pytest.raises(ValueError, match=r"Expected pixels in \[0, 1\]"):
        PixelBox(Normalization((0.5,), (0.25,)), "cpu").to_uint8(torch.full((1, 3, 1, 1), value))
