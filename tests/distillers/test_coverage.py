import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gift_cl.distillers import DISTILLERS, Coverage
from gift_cl.distillers.coverage import cover
from gift_cl.models import build_model, penultimate
from gift_cl.normalization import Normalization
from gift_cl.teacher import Teacher

Features = npt.NDArray[np.float64]


def covered(features: Features, chosen: list[int]) -> float:
    """Sum over all rows of the cosine with the most similar chosen row, one pair at a time."""
    return sum(max(float(row @ features[i]) for i in chosen) for row in features)


def make_features(count: int, width: int, seed: int) -> Features:
    features = np.random.default_rng(seed).normal(size=(count, width))
    normalized: Features = features / np.linalg.norm(features, axis=1, keepdims=True)
    return normalized


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 25), st.integers(2, 6), st.integers(0, 1000), st.data())
def test_each_choice_covers_most(count: int, width: int, seed: int, data: st.DataObject) -> None:
    features = make_features(count, width, seed)
    chosen = cover(torch.from_numpy(features), data.draw(st.integers(1, count))).tolist()
    assert len(set(chosen)) == len(chosen)
    for step, choice in enumerate(chosen):
        left = [i for i in range(count) if i not in chosen[:step]]
        best = max(covered(features, [*chosen[:step], i]) for i in left)
        assert covered(features, [*chosen[:step], choice]) == pytest.approx(best, abs=1e-9)


def test_groups_get_an_exemplar_each_before_one_gets_a_second() -> None:
    """The largest first; herding would stay close to the mean, where no group is."""
    directions = torch.eye(3).repeat_interleave(torch.tensor([4, 6, 2]), 0)
    assert directions[cover(directions, 3)].argmax(1).tolist() == [1, 0, 2]


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 30), st.integers(0, 1000))
def test_every_prefix_is_a_smaller_choice_and_in_the_end_all_are_taken(count: int, seed: int) -> None:
    features = torch.from_numpy(make_features(count, 3, seed)).float()
    everything = cover(features, count).tolist()
    assert sorted(everything) == list(range(count))
    for wanted in range(count):
        assert cover(features, wanted).tolist() == everything[:wanted]


def test_equal_features_are_taken_in_turn() -> None:
    assert cover(nn.functional.normalize(torch.ones(5, 3), dim=1), 5).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("spec", ["mlp:hidden=8", "conv3:width=8"])
def test_images_are_chosen_class_by_class_in_the_normalised_features_of_the_teacher(spec: str) -> None:
    torch.manual_seed(0)
    model = build_model(spec, in_channels=1, image_size=8, num_classes=3)
    teacher = Teacher(model, classes=(0, 1, 2), normalization=Normalization((0.4,), (0.3,)))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (30, 1, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.arange(30) % 3
    made = DISTILLERS.create("coverage").distill(
        images, labels, per_class=4, num_classes=3, teacher=teacher, generator=torch.Generator()
    )
    with torch.no_grad():
        features = nn.functional.normalize(penultimate(teacher.model, (images / 255 - 0.4) / 0.3), dim=1)
    for c in range(3):
        own = (labels == c).nonzero().flatten()
        assert torch.equal(made.images[made.labels == c], images[own[cover(features[own], 4)]])


def test_it_says_what_it_is_and_needs_a_teacher() -> None:
    assert (Coverage().spec, Coverage().codec) == ("coverage", None)
    with pytest.raises(ValueError, match="The distiller `coverage` needs a teacher"):
        Coverage().distill(
            torch.zeros(2, 1, 8, 8, dtype=torch.uint8),
            torch.tensor([0, 1]),
            per_class=1,
            num_classes=2,
            teacher=None,
            generator=torch.Generator(),
        )
