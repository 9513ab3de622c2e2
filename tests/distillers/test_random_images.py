import torch
from torch import Tensor

from gift_cl.dataset import DistilledDataset
from gift_cl.distillers import RandomImages


def make_images(count: int = 40) -> tuple[Tensor, Tensor]:
    """Each image holds its own number, so that it can be found again."""
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8).contiguous()
    return images, torch.arange(count) % 2


def draw(per_class: int, *, count: int = 40, seed: int = 0) -> DistilledDataset:
    images, labels = make_images(count)
    generator = torch.Generator().manual_seed(seed)
    return RandomImages().distill(
        images, labels, per_class=per_class, num_classes=2, teacher=None, generator=generator
    )


def numbers(dataset: DistilledDataset) -> list[int]:
    return [int(n) for n in dataset.images[:, 0, 0, 0]]


def test_images_are_real_ones_of_their_class() -> None:
    made = draw(6)
    assert [n % 2 for n in numbers(made)] == made.labels.tolist() == [0] * 6 + [1] * 6


def test_no_image_is_drawn_twice() -> None:
    assert len(set(numbers(draw(20)))) == 40


def test_a_smaller_draw_is_a_prefix_of_a_larger_one() -> None:
    assert numbers(draw(3))[:3] == numbers(draw(15))[:3]


def test_a_small_class_is_taken_whole() -> None:
    assert sorted(numbers(draw(10, count=7))) == list(range(7))


def test_every_image_has_the_same_chance() -> None:
    drawn = torch.bincount(torch.tensor([n for seed in range(400) for n in numbers(draw(5, seed=seed))]))
    # A binomial count of 400 draws at 1/4: mean 100, standard deviation 8.7; five of them are allowed.
    assert drawn.shape == (40,)
    assert 56 <= int(drawn.min()) <= int(drawn.max()) <= 144
