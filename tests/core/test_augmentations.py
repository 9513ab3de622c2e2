import pytest
import torch
from torchvision.transforms import functional

from gift_cl.augmentations import AUGMENTATIONS, CropFlip


def test_views_equal_padding_cropping_and_flipping_one_by_one() -> None:
    images = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8)
    augmentation = CropFlip(pad=2)
    parameters = augmentation.draw(16, torch.Generator().manual_seed(1))
    views = augmentation.apply(images, parameters)
    for image, (top, left, flip), view in zip(images, parameters.tolist(), views, strict=True):
        expected = functional.crop(functional.pad(image, [2]), top, left, 8, 8)
        torch.testing.assert_close(view, functional.hflip(expected) if flip else expected)
    assert set(parameters[:, 2].tolist()) == {0, 1}


def test_the_same_generator_gives_the_same_views() -> None:
    draws = [CropFlip().draw(8, torch.Generator().manual_seed(3)) for _ in range(2)]
    torch.testing.assert_close(draws[0], draws[1])


def test_crop_does_not_mirror() -> None:
    draw = AUGMENTATIONS.create("crop:pad=1").draw(64, torch.Generator().manual_seed(0))
    assert draw[:, 2].sum() == 0
    assert set(draw[:, 0].tolist()) == {0, 1, 2}


def test_none_is_the_image_itself() -> None:
    augmentation = AUGMENTATIONS.create("none")
    images = torch.rand(2, 1, 4, 4)
    assert augmentation.apply(images, augmentation.draw(2, torch.Generator())) is images


def test_unusable_padding_is_refused() -> None:
    with pytest.raises(ValueError, match="`pad`"):
        AUGMENTATIONS.create("crop_flip:pad=-1")
