from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gift_cl import DistilledDataset
from gift_cl.real_data import RealData, load_real_data, subset

NAMES = ("ant", "bee", "cat", "dog")


def make(labels: list[int]) -> DistilledDataset:
    """Image i is gray i."""
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    dataset = DistilledDataset.from_images(images, torch.tensor(labels), num_classes=len(NAMES))
    return replace(dataset, class_names=NAMES)


def make_data() -> RealData:
    return RealData("pets", make([3, 0, 1, 2, 0, 3, 1, 0, 2, 3]), make([0, 1, 2, 3, 3, 0]))


def grays(dataset: DistilledDataset) -> list[int]:
    return dataset.images[:, 0, 0, 0].tolist()


def test_classes_are_numbered_anew_in_the_order_given() -> None:
    part = subset(make_data(), classes=[3, 1])
    assert (part.num_classes, part.class_names) == (2, ("dog", "bee"))
    assert (grays(part.train), part.train.labels.tolist()) == ([0, 2, 5, 6, 9], [0, 1, 0, 1, 0])
    assert (grays(part.test), part.test.labels.tolist()) == ([1, 3, 4], [1, 0, 0])


def test_the_first_training_images_of_each_class_are_kept_and_all_test_images() -> None:
    part = subset(make_data(), per_class=2)
    assert (grays(part.train), part.train.labels.tolist()) == (
        [0, 1, 2, 3, 4, 5, 6, 8],
        [3, 0, 1, 2, 0, 3, 1, 2],
    )
    assert grays(part.test) == [0, 1, 2, 3, 4, 5]
    assert (part.num_classes, part.class_names) == (4, NAMES)


def test_both_choices_may_be_made_at_once() -> None:
    part = subset(make_data(), classes=[0, 3], per_class=1)
    assert (grays(part.train), part.train.labels.tolist()) == ([0, 1], [1, 0])
    assert grays(part.test) == [0, 3, 4, 5]


def test_without_a_choice_nothing_changes() -> None:
    data = make_data()
    assert subset(data) is data


@given(
    classes=st.lists(st.sampled_from(range(4)), min_size=1, unique=True),
    per_class=st.sampled_from([1, 2, None]),
)
def test_every_image_keeps_the_name_of_its_class(classes: list[int], per_class: int | None) -> None:
    data = make_data()
    part = subset(data, classes=classes, per_class=per_class)
    for before, after in ((data.train, part.train), (data.test, part.test)):
        names = {
            gray: NAMES[label] for gray, label in zip(grays(before), before.labels.tolist(), strict=True)
        }
        for gray, label in zip(grays(after), after.labels.tolist(), strict=True):
            assert part.class_names[label] == names[gray]


def test_the_name_and_the_provenance_say_what_was_left_out() -> None:
    digits = load_real_data("digits")
    first = subset(digits, classes=range(2), per_class=5)
    assert first.name == "digits-2classes-5each"
    assert first.train.provenance.source == (
        "train images of scikit-learn, classes 0, 1 of 10 only, the first 5 of each class only"
    )
    assert first.test.provenance.source == "test images of scikit-learn, classes 0, 1 of 10 only"
    assert subset(digits, classes=[7, 0]).name == "digits-classes7+0"
    assert subset(digits, per_class=5).name == "digits-5each"


def test_the_data_set_itself_is_left_as_it_is() -> None:
    data = make_data()
    part = subset(data, classes=[2], per_class=1)
    part.train.images.zero_()
    part.test.images.zero_()
    assert grays(data.train) == list(range(10))
    assert (data.name, data.train.labels.tolist()[:4], data.num_classes) == ("pets", [3, 0, 1, 2], 4)


@pytest.mark.parametrize("classes", [[], [4], [-1], [1, 1]])
def test_classes_that_there_are_not_are_refused(classes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"different `classes` of the 4 of pets.*in \[0, 4\), got \["):
        subset(make_data(), classes=classes)


@pytest.mark.parametrize("per_class", [0, 3])
def test_more_images_than_there_are_are_refused(per_class: int) -> None:
    with pytest.raises(
        ValueError, match=rf"`per_class` in \[1, 2\], the training images of `bee`, got {per_class}"
    ):
        subset(make_data(), per_class=per_class)
