import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gift_cl.dataset import DistilledDataset
from gift_cl.distillers import Herding
from gift_cl.distillers.herding import herd
from gift_cl.models import build_model, penultimate
from gift_cl.normalization import Normalization
from gift_cl.teacher import Teacher

Features = npt.NDArray[np.float64]


def distances(features: Features, chosen: list[int]) -> dict[int, float]:
    """How far the mean of the choice would be from the mean of all, with each row not chosen yet."""
    mean, step = features.mean(0), len(chosen) + 1
    return {
        i: float(np.linalg.norm(mean - (features[chosen].sum(0) + features[i]) / step))
        for i in range(len(features))
        if i not in chosen
    }


def reference(features: Features, count: int) -> list[int]:
    """Algorithm 4 of iCaRL as an explicit loop; no row is taken twice."""
    chosen: list[int] = []
    for _ in range(count):
        left = distances(features, chosen)
        chosen.append(min(left, key=left.__getitem__))
    return chosen


def make_features(count: int, width: int, seed: int) -> Features:
    features = np.random.default_rng(seed).normal(size=(count, width))
    normalized: Features = features / np.linalg.norm(features, axis=1, keepdims=True)
    return normalized


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(2, 6), st.integers(0, 1000), st.data())
def test_each_choice_is_the_best_one_left(count: int, width: int, seed: int, data: st.DataObject) -> None:
    features = make_features(count, width, seed)
    chosen = herd(torch.from_numpy(features), data.draw(st.integers(0, count))).tolist()
    for step, choice in enumerate(chosen):
        left = distances(features, chosen[:step])
        # Two rows are equally far from their mean: any of those that tie but for rounding is right.
        assert left[choice] == pytest.approx(min(left.values()), abs=1e-9)


def test_choices_are_those_of_an_explicit_loop() -> None:
    for seed in range(5):
        features = make_features(30, 5, seed)
        assert herd(torch.from_numpy(features), 20).tolist() == reference(features, 20)


def test_single_precision_follows_the_explicit_loop() -> None:
    features = make_features(200, 16, 0)
    single = torch.from_numpy(features).float()
    assert herd(single, 60).tolist() == reference(features, 60)


def test_pinned_choices() -> None:
    features = torch.tensor([[0.0], [4.0], [1.0], [3.0]])  # the mean is 2
    assert herd(features, 4).tolist() == [2, 3, 0, 1]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(0, 1000))
def test_every_prefix_is_a_smaller_choice_without_duplicates(count: int, seed: int) -> None:
    features = torch.from_numpy(make_features(count, 3, seed)).float()
    everything = herd(features, count).tolist()
    assert sorted(everything) == list(range(count))
    for wanted in range(count):
        assert herd(features, wanted).tolist() == everything[:wanted]


def test_equal_features_are_taken_in_turn() -> None:
    assert herd(torch.ones(5, 3), 5).tolist() == [0, 1, 2, 3, 4]


def make_teacher(spec: str = "mlp:hidden=8") -> Teacher:
    torch.manual_seed(0)
    model = build_model(spec, in_channels=1, image_size=8, num_classes=3)
    return Teacher(model, classes=(0, 1, 2), normalization=Normalization((0.4,), (0.3,)))


def make_images(count: int = 30) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return images, torch.arange(count) % 3


def distill(per_class: int, teacher: Teacher | None = None) -> DistilledDataset:
    images, labels = make_images()
    return Herding().distill(
        images,
        labels,
        per_class=per_class,
        num_classes=3,
        teacher=teacher or make_teacher(),
        generator=torch.Generator(),
    )


@pytest.mark.parametrize("spec", ["mlp:hidden=8", "conv3:width=8"])
def test_images_are_herded_by_normalised_features_of_the_teacher(spec: str) -> None:
    teacher = make_teacher(spec)
    images, labels = make_images()
    with torch.no_grad():
        features = penultimate(teacher.model, (images.float() / 255 - 0.4) / 0.3)
    features = nn.functional.normalize(features, dim=1)
    made = distill(4, teacher)
    for c in range(3):
        own = (labels == c).nonzero().flatten()
        chosen = own[reference(features[own].double().numpy(), 4)]
        assert torch.equal(made.images[made.labels == c], images[chosen])


def test_a_smaller_choice_is_a_prefix_of_a_larger_one() -> None:
    small, large = distill(3), distill(8)
    for c in range(3):
        prefix = large.images[large.labels == c][:3]
        assert torch.equal(small.images[small.labels == c], prefix)


def test_a_small_class_is_taken_whole() -> None:
    images, _ = make_images()
    made = distill(50)
    assert made.images_per_class == {0: 10, 1: 10, 2: 10}
    assert sorted(made.images.flatten(1).tolist()) == sorted(images.flatten(1).tolist())


def test_features_are_computed_in_batches() -> None:
    images, labels = make_images(1100)
    teacher, sizes = make_teacher(), []
    teacher.model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    Herding().distill(
        images, labels, per_class=1, num_classes=3, teacher=teacher, generator=torch.Generator()
    )
    assert sizes == [512, 512, 76]  # 8 x 8 pixels
