from __future__ import annotations

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import RandomResizedCrop as TorchvisionCrop
from torchvision.transforms.v2 import functional

from gift_cl import augmentations
from gift_cl.views import CropFlip, FactorCrop, Flip, RandomResizedCrop, ShufflePatches, build_view


def _images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_flip_mirrors_the_given_share_exactly() -> None:
    images = _images(2000, 1, 2, 3)
    views = Flip(0.3)(images, _generator())
    mirrored = (views == images.flip(3)).flatten(1).all(1)
    assert torch.equal(views[~mirrored], images[~mirrored])
    assert float(mirrored.double().mean()) == pytest.approx(0.3, abs=0.052)  # 5 standard deviations


def test_crop_flip_is_the_augmentation_of_memories() -> None:
    images, augmentation = _images(8, 3, 9, 7), augmentations.CropFlip(pad=2)
    expected = augmentation.apply(images, augmentation.draw(8, _generator(4)))
    assert torch.equal(CropFlip(pad=2)(images, _generator(4)), expected)


def test_crop_without_flip_shows_the_image_in_its_middle_place() -> None:
    images = _images(64, 1, 4, 4)
    views = build_view("crop_flip:pad=1,flip=false")(images, _generator())
    same = (views == images).flatten(1).all(1)
    assert 1 <= int(same.sum()) <= 20  # one of nine places
    assert not (views == images.flip(3)).flatten(1).all(1).any()


@pytest.mark.parametrize("size", [None, 10])
def test_random_resized_crops_equal_torchvisions_of_the_same_boxes(size: int | None) -> None:
    images = _images(24, 3, 16, 20)
    view = RandomResizedCrop(size=size)
    boxes = view.draw(24, 16, 20, _generator(2)).int().tolist()
    views = view(images, _generator(2))
    expected_size = [16, 20] if size is None else [size, size]
    assert list(views.shape[2:]) == expected_size
    for image, result, box in zip(images, views, boxes, strict=True):
        expected = functional.resized_crop(image, *box, size=expected_size, antialias=False)
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 48)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.5, 1.0)])
def test_random_resized_crops_are_distributed_as_torchvisions(
    height: int, width: int, scale: tuple[float, float]
) -> None:
    boxes = RandomResizedCrop(*scale).draw(4000, height, width, _generator())
    image = torch.zeros(1, height, width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = [TorchvisionCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(2000)]
    expected = torch.tensor(drawn, dtype=torch.float64)
    deviation = expected.std(0) * (1 / 2000 + 1 / 4000) ** 0.5
    assert ((boxes.mean(0) - expected.mean(0)).abs() <= 5 * deviation).all()
    torch.testing.assert_close(boxes.std(0), expected.std(0), rtol=0.1, atol=0)
    ratios, expected_ratios = (b[:, 3] / b[:, 2] for b in (boxes, expected))
    torch.testing.assert_close(ratios.log().std(), expected_ratios.log().std(), rtol=0.1, atol=0.01)


@given(st.tuples(st.integers(1, 40), st.integers(1, 40)), st.integers(0, 100))
@settings(deadline=None, max_examples=60)
def test_boxes_lie_inside_the_image(sides: tuple[int, int], seed: int) -> None:
    top, left, height, width = RandomResizedCrop().draw(20, *sides, _generator(seed)).unbind(1)
    assert min(height.min(), width.min()) >= 1
    assert min(top.min(), left.min()) >= 0
    assert (top + height).max() <= sides[0]
    assert (left + width).max() <= sides[1]


@pytest.mark.parametrize(("height", "width"), [(8, 33), (33, 8), (12, 20)])
def test_where_nothing_fits_the_central_part_of_torchvision_is_taken(height: int, width: int) -> None:
    ratio = (1.0, 1.0) if (height, width) == (12, 20) else (3 / 4, 4 / 3)
    boxes = RandomResizedCrop(1, 1, *ratio).draw(3, height, width, _generator())
    image = torch.zeros(1, height, width)
    expected = TorchvisionCrop.get_params(image, [1.0, 1.0], list(ratio))
    assert boxes.int().tolist() == [list(expected)] * 3


def test_a_crop_of_the_whole_square_image_is_the_image() -> None:
    images = _images(6, 3, 11, 11)
    view = build_view("rrc:min_scale=1,min_ratio=1,max_ratio=1")
    assert torch.equal(view(images, _generator()), images)


def test_factor_crop_shows_a_cell_at_full_size_or_the_whole_mosaic() -> None:
    images = _images(40, 3, 8, 12)
    views, seen = FactorCrop(2)(images, _generator()), Counter[int]()
    for image, view in zip(images, views, strict=True):
        cells = [image[:, i : i + 4, j : j + 6] for i in (0, 4) for j in (0, 6)]
        candidates = [image] + [F.interpolate(cell[None], (8, 12), mode="bilinear")[0] for cell in cells]
        (match,) = (n for n, c in enumerate(candidates) if torch.allclose(view, c, atol=1e-5))
        seen[match] += 1
        assert match or torch.equal(view, image)
    assert set(seen) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("factor", [2, 3])
def test_cells_are_shown_in_all_but_one_of_factor_squared_draws(factor: int) -> None:
    boxes = FactorCrop(factor).draw(6000, 12, 18, _generator())
    whole = (boxes == torch.tensor([0, 0, 12, 18])).all(1)
    assert float(whole.double().mean()) == pytest.approx(1 / factor**2, abs=0.03)
    places, counts = boxes[~whole].unique(dim=0, return_counts=True)
    height, width = 12 // factor, 18 // factor
    cells = [(i, j, height, width) for i in range(0, 12, height) for j in range(0, 18, width)]
    assert {tuple(place) for place in places.int().tolist()} == set(cells)
    assert counts.min() > counts.max() * 0.75


def test_factor_one_is_the_image() -> None:
    images = _images(4, 3, 7, 5)
    for spec in ("factor_crop:1", "shuffle_patches:1"):
        assert torch.equal(build_view(spec)(images, _generator()), images)


@pytest.mark.parametrize(("factor", "height", "width"), [(2, 8, 8), (3, 9, 6), (3, 8, 11)])
def test_shuffled_patches_are_columns_and_rows_of_patches_in_another_order(
    factor: int, height: int, width: int
) -> None:
    images = _images(12, 2, height, width)
    view = ShufflePatches(factor)
    rows, columns = view.draw(12, height, width, _generator(3))
    views = view(images, _generator(3))
    for n, image in enumerate(images):
        expected = image
        for axis, order in ((2, columns[n]), (1, rows[n])):
            step = image.shape[axis] // factor
            edges = [step * k for k in range(1, factor)]
            strips = expected.tensor_split(edges, dim=axis)
            starts = dict.fromkeys(min(int(pixel) // step, factor - 1) for pixel in order)
            expected = torch.cat([strips[start] for start in starts], dim=axis)
        assert torch.equal(views[n], expected)


def test_all_orders_of_patches_are_as_likely() -> None:
    rows, columns = ShufflePatches(3).draw(3000, 3, 6, _generator())
    for orders in (rows, columns[:, ::2]):
        seen = Counter(map(tuple, orders.tolist()))
        assert len(seen) == 6
        assert all(abs(count - 500) < 105 for count in seen.values())  # 5 standard deviations
    assert float((rows == columns[:, ::2] // 2).all(1).double().mean()) < 0.25  # one in six, by chance


@pytest.mark.parametrize("spec", ["flip", "crop_flip", "rrc", "factor_crop", "shuffle_patches"])
def test_views_are_seeded_and_keep_dtype_layout_and_inputs(spec: str) -> None:
    images = _images(6, 3, 8, 8).bfloat16().to(memory_format=torch.channels_last)
    before = images.clone()
    view, generator = build_view(spec), _generator()
    first, second = view(images, generator), view(images, generator)
    assert first.dtype == torch.bfloat16
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(view(images, _generator()), first)
    assert not torch.equal(second, first)
    assert torch.equal(images, before)
    assert torch.equal(view(images.float().contiguous(), _generator()).bfloat16(), first)


@pytest.mark.parametrize("spec", ["flip", "crop_flip", "rrc", "factor_crop", "shuffle_patches"])
@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (1, 1, 4, 6)])
def test_small_batches_pass(spec: str, shape: tuple[int, ...]) -> None:
    views = build_view(spec)(_images(*shape), _generator())
    assert views.shape == shape
    assert torch.isfinite(views).all()


@pytest.mark.parametrize("spec", ["flip", "crop_flip:1", "rrc", "factor_crop", "shuffle_patches"])
def test_gradients_pass_to_the_images(spec: str) -> None:
    images = _images(3, 2, 4, 6).double().requires_grad_()
    view = build_view(spec)
    assert torch.autograd.gradcheck(lambda i: view(i, _generator()), (images,))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("flip:1.1", "Expected `probability` in \\[0, 1\\], got 1.1"),
        ("crop_flip:pad=64", "Expected `pad` of 0 to 63 pixels, got 64"),
        ("rrc:min_scale=0", "Expected `min_scale` in \\(0, 1\\], got 0"),
        ("rrc:min_scale=0.5,max_scale=0.4", "Expected `min_scale` in \\(0, 0.4\\], got 0.5"),
        ("rrc:max_scale=2", "Expected `max_scale` in \\(0, 1\\], got 2"),
        ("rrc:max_ratio=inf", "Expected `max_ratio` in \\(0, inf\\), got inf"),
        ("rrc:min_ratio=2", "Expected `min_ratio` in \\(0, 1.33333\\], got 2"),
        ("rrc:size=0", "Expected `size` to be an integer of at least 1, got 0"),
        ("factor_crop:0", "Expected `factor` to be an integer of at least 1, got 0"),
        ("shuffle_patches:1.5", "Expected `factor` to be an integer of at least 1, got 1.5"),
    ],
)
def test_unusable_options_are_refused(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_view(spec)


def test_mosaics_that_cannot_be_divided_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of `factor` 2, got 8 x 9. Use the factor"):
        FactorCrop(2)(_images(1, 3, 8, 9), _generator())


def test_more_patches_than_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="at least `factor` 5 pixels a side, got 8 x 4"):
        ShufflePatches(5)(_images(1, 3, 8, 4), _generator())
