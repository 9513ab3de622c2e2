import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import InterpolationMode, functional

from gift_cl.distillers.batch_view import BatchView


def make_images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def draw(seed: int, *, min_scale: float | None = None, flip: bool = False, jitter: int = 0) -> BatchView:
    generator = torch.Generator().manual_seed(seed)
    return BatchView.draw((12, 16), generator, min_scale=min_scale, flip=flip, jitter=jitter)


@pytest.mark.parametrize("part", [(0, 0, 5, 5), (3, 2, 9, 6), (11, 15, 1, 1), (0, 0, 12, 16)])
def test_a_part_is_shown_as_torchvision_resizes_a_crop(part: tuple[int, int, int, int]) -> None:
    images = make_images(4, 3, 12, 16)
    expected = functional.resized_crop(images, *part, [12, 16], InterpolationMode.BILINEAR, antialias=False)
    torch.testing.assert_close(BatchView(part, False, (0, 0)).apply(images), expected)


def test_a_view_mirrors_and_then_rolls_down_and_to_the_right() -> None:
    images = make_images(2, 3, 12, 16)
    expected = np.roll(images.numpy()[..., ::-1], (2, 3), axis=(2, 3))
    assert (BatchView((0, 0, 12, 16), True, (2, 3)).apply(images).numpy() == expected).all()
    pinned = BatchView((0, 0, 2, 3), True, (1, 1)).apply(torch.arange(6.0).view(1, 1, 2, 3))
    assert pinned.tolist() == [[[[3, 5, 4], [0, 2, 1]]]]


def test_all_images_of_a_batch_are_seen_alike() -> None:
    images = make_images(1, 3, 12, 16).expand(5, -1, -1, -1)
    seen = draw(3, min_scale=0.1, flip=True, jitter=5).apply(images)
    assert torch.equal(seen, seen[:1].expand(5, -1, -1, -1))
    assert not torch.equal(seen, images)


def test_an_unused_view_shows_the_images() -> None:
    images = make_images(2, 3, 12, 16)
    assert torch.equal(draw(0).apply(images), images)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.floats(0.02, 1), st.integers(0, 11))
def test_draws_stay_within_their_limits(seed: int, min_scale: float, jitter: int) -> None:
    view = draw(seed, min_scale=min_scale, jitter=jitter)
    top, left, height, width = view.part
    assert min(top, left) >= 0
    assert 1 <= height <= 12 - top
    assert 1 <= width <= 16 - left
    # Whole pixels: each side is off by half a pixel at most, and so is the ratio.
    assert (height + 0.5) * (width + 0.5) >= min_scale * 12 * 16
    assert (width - 0.5) / (height + 0.5) <= 4 / 3
    assert (width + 0.5) / (height - 0.5) >= 3 / 4
    assert all(0 <= roll <= jitter for roll in view.roll)
    assert not view.flip


def test_every_roll_and_both_sides_are_drawn_alike() -> None:
    views = [draw(seed, flip=True, jitter=2) for seed in range(900)]
    # Standard deviations of counts: sqrt(900 / 9 * 8 / 9) = 9.4 and sqrt(900 / 4) = 15; four are allowed.
    for roll in ((down, right) for down in range(3) for right in range(3)):
        assert abs(sum(view.roll == roll for view in views) - 100) < 38
    assert abs(sum(view.flip for view in views) - 450) < 60
