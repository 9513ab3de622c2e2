from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from real_layouts import make_pixels, save_image, write_folder

from gift_cl.real_data import load_real_data, resize_then_crop


@given(
    height=st.integers(1, 80),
    width=st.integers(1, 80),
    crop=st.integers(1, 40),
    margin=st.integers(0, 12),
)
def test_an_image_is_resized_and_cropped_as_torchvision_does_it(
    height: int, width: int, crop: int, margin: int
) -> None:
    from torchvision.transforms import CenterCrop, Compose, Resize

    image = Image.fromarray(make_pixels(height, width, 3, seed=height))
    made = resize_then_crop(image, crop + margin, crop)
    oracle = Compose([Resize(crop + margin), CenterCrop(crop)])(image)
    assert made.size == (crop, crop)
    np.testing.assert_array_equal(np.asarray(made), np.asarray(oracle))


def test_the_longer_side_is_rounded_down_and_the_crop_is_from_the_centre() -> None:
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[None], 100, axis=0)
    made = np.asarray(resize_then_crop(Image.fromarray(ramp), 100, 100))
    assert made[0].tolist() == list(range(50, 150))


@pytest.mark.parametrize("crop", [0, 9])
def test_a_crop_has_to_fit(crop: int) -> None:
    with pytest.raises(ValueError, match=rf"`crop` in \[1, 8\], at most `resize`, got {crop}"):
        resize_then_crop(Image.new("L", (8, 8)), 8, crop)


@pytest.mark.parametrize(("image_size", "resize"), [(224, 256), (128, 146), (64, 73)])
def test_photographs_are_resized_by_the_published_sizes(tmp_path: Path, image_size: int, resize: int) -> None:
    from torchvision.transforms import CenterCrop, Compose, Resize

    pixels = make_pixels(90, 130, 3)
    for split in ("train", "val"):
        save_image(tmp_path / "photos" / split / "a" / "0.png", pixels)
    data = load_real_data(tmp_path / "photos", image_size=image_size, cache=tmp_path / "cache")
    oracle = np.asarray(Compose([Resize(resize), CenterCrop(image_size)])(Image.fromarray(pixels)))
    for dataset in (data.train, data.test):
        np.testing.assert_array_equal(dataset.images[0].permute(1, 2, 0).numpy(), oracle)
        assert f"resized to {resize} and cropped to {image_size}" in dataset.provenance.source


def test_data_sets_of_one_published_size_keep_their_margins() -> None:
    small, large = load_real_data("digits"), load_real_data("digits", image_size=16)
    assert large.image_shape == (1, 16, 16)
    oracle = np.asarray(
        Image.fromarray(small.test.images[0, 0].numpy()).resize((16, 16), Image.Resampling.BILINEAR)
    )
    np.testing.assert_array_equal(large.test.images[0, 0].numpy(), oracle)


def test_images_that_have_the_size_already_are_left_as_they_are(tmp_path: Path) -> None:
    write_folder(tmp_path / "pets", ["apple"], {"train": 2, "test": 1}, size=16)
    native = load_real_data(tmp_path / "pets", cache=tmp_path / "cache")
    asked = load_real_data(tmp_path / "pets", image_size=16, cache=tmp_path / "cache")
    assert torch.equal(native.train.images, asked.train.images)


def test_an_image_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="`image_size` of at least 1, got 0"):
        load_real_data("digits", image_size=0)
