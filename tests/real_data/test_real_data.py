import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gift_cl import DistilledDataset, LayoutError, Normalization
from gift_cl.real_data import RealData, hold_out, load_real_data


def make(images: torch.Tensor, labels: list[int], names: tuple[str, ...] = ("a", "b")) -> DistilledDataset:
    from dataclasses import replace

    dataset = DistilledDataset.from_images(images, torch.tensor(labels), num_classes=len(names))
    return replace(dataset, class_names=names)


def random_images(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def test_channel_statistics_are_those_of_all_training_pixels() -> None:
    images = random_images(7, 3, 4, 5)
    data = RealData("toy", make(images, [0, 1, 0, 1, 0, 1, 0]), make(images[:2], [0, 1]))
    pixels = images.numpy() / 255
    np.testing.assert_allclose(data.channel_statistics.mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(data.channel_statistics.std, pixels.std((0, 2, 3)), rtol=1e-12)


def test_channel_statistics_of_half_black_and_half_white_images_are_a_half() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 1, 2, 2)
    data = RealData("toy", make(images, [0, 1]), make(images, [0, 1]))
    assert data.channel_statistics == Normalization((0.5,), (0.5,))


def test_channel_statistics_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    from gift_cl.real_data import real_data

    images = random_images(7, 3, 4, 5)
    whole = RealData("toy", make(images, [0, 1, 0, 1, 0, 1, 0]), make(images[:2], [0, 1]))
    monkeypatch.setattr(real_data, "_CHUNK_BYTES", 2 * 3 * 4 * 5)
    chunked = RealData("toy", whole.train, whole.test)
    assert chunked.channel_statistics == whole.channel_statistics


def test_channels_without_contrast_have_no_statistics() -> None:
    dataset = make(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), [0, 1])
    with pytest.raises(ValueError, match="positive `std`"):
        _ = RealData("toy", dataset, dataset).channel_statistics


def test_splits_have_to_fit_together() -> None:
    train = make(random_images(2, 3, 4, 4), [0, 1])
    with pytest.raises(LayoutError, match=r"same classes, got \('a', 'b'\) and \('b', 'a'\)"):
        RealData("toy", train, make(random_images(2, 3, 4, 4), [0, 1], ("b", "a")))
    with pytest.raises(
        LayoutError, match=r"height and width, got \(3, 4, 4\) and \(3, 4, 5\). Pass `image_size`"
    ):
        RealData("toy", train, make(random_images(2, 3, 4, 5), [0, 1]))


def test_a_held_out_part_takes_the_place_of_the_test_images() -> None:
    data = load_real_data("digits")
    held = hold_out(data, 0.2, seed=0)
    rows = sorted(row.tobytes() for part in (held.train, held.test) for row in part.images.numpy())
    assert rows == sorted(row.tobytes() for row in data.train.images.numpy())
    for label, count in data.train.images_per_class.items():
        assert held.test.images_per_class[label] == round(0.2 * count)
    assert held.class_names == data.class_names
    assert held.test.provenance.source.endswith("0.2 of each class held out with seed 0")
    assert held.train.provenance.source.endswith("without 0.2 of each class held out with seed 0")


def test_the_same_images_are_held_out_in_all_versions() -> None:
    held = hold_out(load_real_data("digits"), 0.1, seed=3)
    hashes = [
        hashlib.sha256(part.images.numpy().tobytes() + part.labels.numpy().tobytes()).hexdigest()[:16]
        for part in (held.train, held.test)
    ]
    assert hashes == ["77ecdea8b9afeaf0", "b986f8ab5bfaa742"]


def test_a_held_out_part_depends_on_the_seed_alone() -> None:
    data = load_real_data("digits")
    torch.manual_seed(1)
    first = hold_out(data, 0.1, seed=0)
    torch.manual_seed(2)
    assert torch.equal(first.test.images, hold_out(data, 0.1, seed=0).test.images)
    assert not torch.equal(first.test.images, hold_out(data, 0.1, seed=1).test.images)


@given(share=st.floats(0.01, 0.6), counts=st.lists(st.integers(3, 9), min_size=1, max_size=4))
def test_every_class_keeps_images_on_both_sides(share: float, counts: list[int]) -> None:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    names = tuple(map(str, range(len(counts))))
    dataset = make(random_images(len(labels), 1, 1, 1), labels, names)
    held = hold_out(RealData("toy", dataset, dataset), share, seed=0)
    for label, count in enumerate(counts):
        here, there = held.train.images_per_class[label], held.test.images_per_class[label]
        assert (here + there, there) == (count, max(1, round(share * count)))


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_a_share_that_is_no_part_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"`share` in \(0, 1\), got"):
        hold_out(load_real_data("digits"), share, seed=0)


def test_a_class_is_not_held_out_whole() -> None:
    dataset = make(random_images(3, 1, 2, 2), [0, 0, 1])
    with pytest.raises(ValueError, match=r"leaves training images of every class, got 0.1 of 1 of `b`"):
        hold_out(RealData("toy", dataset, dataset), 0.1, seed=0)
