from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms.v2 import functional

from gift_cl.views.operations import color, erase, pick, resize, warp

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 13), st.integers(1, 13))


def _images(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def test_color_equals_its_three_steps_one_by_one() -> None:
    images = _images(3, 3, 5, 7, dtype=torch.float64)
    parameters = torch.tensor([[0.3, 1.7, 0.6], [-0.5, 0.0, 1.4], [0.0, 0.4, 1.0]], dtype=torch.float64)
    views = color(images, parameters)
    for image, view, (brightness, saturation, contrast) in zip(
        images.numpy(), views.numpy(), parameters.tolist(), strict=True
    ):
        brighter = image + brightness
        gray = brighter.mean(axis=0)
        saturated = (brighter - gray) * saturation + gray
        expected = (saturated - saturated.mean()) * contrast + saturated.mean()
        np.testing.assert_allclose(view, expected, rtol=1e-12, atol=1e-12)


def test_color_of_two_gray_pixels_by_hand() -> None:
    image = torch.tensor([[[[0.0, 2.0]]]])
    view = color(image, torch.tensor([[1.0, 5.0, 0.5]]))  # brighter: 1, 3; their mean is 2
    assert view.flatten().tolist() == [1.5, 2.5]


def test_neutral_color_changes_nothing() -> None:
    images = _images(2, 3, 4, 4)
    torch.testing.assert_close(color(images, torch.tensor([[0.0, 1.0, 1.0]]).expand(2, 3)), images)


def test_erase_zeroes_the_box_and_keeps_every_other_pixel_exactly() -> None:
    images = _images(4, 2, 6, 9)
    boxes = [(1, 2, 4, 5), (0, 0, 6, 9), (3, 3, 3, 3), (5, 0, 6, 2)]
    views = erase(images, torch.tensor(boxes, dtype=torch.float32))
    for image, view, (top, left, bottom, right) in zip(images, views, boxes, strict=True):
        expected = image.clone()
        expected[:, top:bottom, left:right] = 0
        assert torch.equal(view, expected)


@given(shape=SHAPES, seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=50)
def test_pick_copies_whole_pixels_exactly_and_is_zero_outside(shape: tuple[int, ...], seed: int) -> None:
    images = _images(*shape, seed=seed)
    count, channels, height, width = shape
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(-2, height + 2, (count, 5)), rng.integers(-2, width + 2, (count, 4))
    views = pick(images, torch.tensor(rows).float(), torch.tensor(columns).float())
    expected = torch.zeros(count, channels, 5, 4)
    for n in range(count):
        for i, row in enumerate(rows[n]):
            for j, column in enumerate(columns[n]):
                if 0 <= row < height and 0 <= column < width:
                    expected[n, :, i, j] = images[n, :, row, column]
    assert torch.equal(views, expected)


def _bilinear(image: npt.NDArray[np.float64], row: float, column: float) -> npt.NDArray[np.float64]:
    """Value of (C, H, W) at a point, zero outside, by the definition."""
    value = np.zeros(len(image))
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            if 0 <= i < image.shape[1] and 0 <= j < image.shape[2]:
                value += (1 - abs(row - i)) * (1 - abs(column - j)) * image[:, i, j]
    return value


@given(shape=SHAPES, seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_warp_samples_the_image_where_the_matrix_says(shape: tuple[int, ...], seed: int) -> None:
    images = _images(*shape, dtype=torch.float64, seed=seed)
    matrices = torch.eye(2, 3, dtype=torch.float64) + _images(shape[0], 2, 3, dtype=torch.float64, seed=seed)
    views = warp(images, matrices).numpy()
    middle = np.array([(shape[3] - 1) / 2, (shape[2] - 1) / 2])
    for image, view, matrix in zip(images.numpy(), views, matrices.numpy(), strict=True):
        for row in range(shape[2]):
            for column in range(shape[3]):
                x, y = matrix @ [column - middle[0], row - middle[1], 1] + middle
                np.testing.assert_allclose(view[:, row, column], _bilinear(image, y, x), atol=1e-9)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [8, 9])
def test_warp_of_square_images_is_the_published_one_with_corners_aligned_or_not(
    size: int, align_corners: bool
) -> None:
    images = _images(6, 3, size, size)
    angles = torch.linspace(-0.26, 0.26, 6)
    factors = torch.linspace(0.83, 1.2, 6)
    matrices = torch.zeros(6, 2, 3)
    matrices[:3, 0, 0], matrices[:3, 0, 1] = angles[:3].cos(), -angles[:3].sin()
    matrices[:3, 1, 0], matrices[:3, 1, 1] = angles[:3].sin(), angles[:3].cos()
    matrices[3:, 0, 0], matrices[3:, 1, 1] = factors[3:], factors[3:].flip(0)
    grid = F.affine_grid(matrices, [6, 3, size, size], align_corners=align_corners)
    expected = F.grid_sample(images, grid, align_corners=align_corners)
    torch.testing.assert_close(warp(images, matrices), expected, rtol=1e-5, atol=1e-5)


@given(shape=SHAPES, down=st.integers(-3, 3), right=st.integers(-3, 3), mirror=st.booleans())
@settings(deadline=None, max_examples=50)
def test_warp_mirrors_and_shifts_by_whole_pixels_exactly(
    shape: tuple[int, ...], down: int, right: int, mirror: bool
) -> None:
    images = _images(*shape)
    sign = -1 if mirror else 1
    matrix = torch.tensor([[sign, 0, sign * right], [0, 1, down]], dtype=torch.float32)
    padded = F.pad(images.flip(3) if mirror else images, [3] * 4)
    expected = padded[:, :, 3 + down : 3 + down + shape[2], 3 + right : 3 + right + shape[3]]
    assert torch.equal(warp(images, matrix.expand(shape[0], 2, 3)), expected)


def test_warp_to_half_the_size_averages_four_pixels() -> None:
    images = _images(1, 2, 8, 8)
    view = warp(images, torch.tensor([[[2.0, 0, 0], [0, 2, 0]]]))
    torch.testing.assert_close(view[:, :, 2:6, 2:6], F.avg_pool2d(images, 2))
    assert view[:, :, :2].abs().max() == 0


@pytest.mark.parametrize("size", [(16, 12), (12, 12), (31, 7)])
def test_resize_equals_cutting_out_and_interpolating(size: tuple[int, int]) -> None:
    images = _images(5, 3, 12, 12)
    boxes = [(0, 0, 12, 12), (3, 1, 5, 9), (11, 11, 1, 1), (0, 6, 12, 6), (2, 0, 7, 4)]
    views = resize(images, torch.tensor(boxes, dtype=torch.float32), size)
    for image, view, (top, left, height, width) in zip(images, views, boxes, strict=True):
        part = image[None, :, top : top + height, left : left + width]
        expected = F.interpolate(part, size, mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(view, expected, rtol=1e-5, atol=1e-5)


def test_antialiasing_would_change_nothing_where_a_part_is_enlarged() -> None:
    images = _images(3, 3, 16, 16)
    boxes = [(0, 0, 16, 16), (3, 1, 5, 9), (7, 2, 9, 13)]
    views = resize(images, torch.tensor(boxes, dtype=torch.float32), (16, 16))
    for image, view, box in zip(images, views, boxes, strict=True):
        expected = functional.resized_crop(image, *box, size=[16, 16], antialias=True)
        torch.testing.assert_close(view, expected, rtol=1e-5, atol=1e-5)


def test_resize_copies_a_part_that_has_the_size_already_exactly() -> None:
    images = _images(2, 3, 11, 13)
    views = resize(images, torch.tensor([[1.0, 2, 7, 6], [4, 7, 7, 6]]), (7, 6))
    assert torch.equal(views[0], images[0, :, 1:8, 2:8])
    assert torch.equal(views[1], images[1, :, 4:11, 7:13])


def test_gradients_pass_through_every_operation() -> None:
    images = _images(2, 2, 4, 5, dtype=torch.float64).requires_grad_()
    numbers = _images(2, 2, 3, dtype=torch.float64, seed=1) * 0.2 + torch.eye(2, 3, dtype=torch.float64)
    boxes = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 5]], dtype=torch.float64)
    steps = torch.tensor([[0, 2, 1], [3, -1, 0]], dtype=torch.float64)
    for function in (
        lambda i: color(i, numbers[:, 0]),
        lambda i: erase(i, boxes),
        lambda i: pick(i, steps, steps),
        lambda i: warp(i, numbers),
        lambda i: resize(i, boxes, (4, 5)),
    ):
        assert torch.autograd.gradcheck(function, (images,))
