import torch

from gift_cl.distillers.siamese import SiameseView, owners_of
from gift_cl.views import DSA

IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
OWNERS = torch.tensor([0, 1, 1, 0, 2, 1])


def draw(augmentation: DSA | None, num_classes: int = 3, seed: int = 0) -> SiameseView:
    return SiameseView(augmentation, num_classes, IMAGES, torch.Generator().manual_seed(seed))


def test_equal_images_of_a_class_look_alike_and_those_of_another_class_do_not() -> None:
    views = draw(DSA("all"))(IMAGES[:1].expand(6, -1, -1, -1), OWNERS)
    for label in range(3):
        own = views[label == OWNERS]
        assert torch.equal(own, own[:1].expand_as(own))
    assert not torch.equal(views[0], views[1])
    assert not torch.equal(views[1], views[4])


def test_a_view_does_the_same_to_each_batch() -> None:
    view = draw(DSA("all"))
    together = view(IMAGES, OWNERS)
    torch.testing.assert_close(view(IMAGES[3:], OWNERS[3:]), together[3:])


def test_strengths_are_drawn_by_the_augmentation() -> None:
    augmentation = DSA("all", "color", brightness=0, saturation=0, contrast=1)
    drawn = augmentation.draw(3, 8, 8, torch.Generator().manual_seed(0)).color[OWNERS]
    gray = IMAGES.mean(1, keepdim=True)  # without saturation
    mean = gray.mean((2, 3), keepdim=True)
    expected = (mean + drawn[:, 2].float().view(-1, 1, 1, 1) * (gray - mean)).expand_as(IMAGES)
    torch.testing.assert_close(draw(augmentation)(IMAGES, OWNERS), expected)


def test_nothing_is_drawn_without_an_augmentation() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert SiameseView(None, 3, IMAGES, generator)(IMAGES, OWNERS) is IMAGES
    assert torch.equal(generator.get_state(), before)


def test_owners_count_the_rows_of_each_part() -> None:
    parts = [torch.zeros(2, 3), torch.zeros(0, 3), torch.zeros(1, 3)]
    assert owners_of(parts).tolist() == [0, 0, 2]
