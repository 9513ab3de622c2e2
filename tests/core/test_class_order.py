import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gift_cl.class_order import (
    ClassOrder,
    find_class_order,
    teacher_predictions,
)
from gift_cl.teacher import Teacher, UnseenClassError


def balanced(num_classes: int, per_class: int) -> Tensor:
    return torch.arange(num_classes).repeat_interleave(per_class)


def answer(labels: Tensor, permutation: Tensor, accuracy: float, *, seed: int) -> Tensor:
    """Predictions of a teacher with another order, right with this probability, else evenly wrong."""
    generator = torch.Generator().manual_seed(seed)
    num_classes = len(permutation)
    is_right = torch.rand(len(labels), generator=generator) < accuracy
    offset = torch.randint(1, num_classes, (len(labels),), generator=generator)
    return torch.where(is_right, permutation[labels], (permutation[labels] + offset) % num_classes)


def from_counts(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Labels (rows) and predictions (columns) that occur together so often."""
    pairs = torch.arange(counts.numel()).repeat_interleave(counts.flatten())
    return pairs // len(counts), pairs % len(counts)


def rotate(num_classes: int, num_moved: int) -> Tensor:
    """The first classes in one cycle, the others in their places."""
    permutation = torch.arange(num_classes)
    permutation[:num_moved] = permutation[:num_moved].roll(-1)
    return permutation


def draw_shares(num_classes: int, generator: torch.Generator) -> Tensor:
    """Shares of classes, from some large ones to many of nearly nothing."""
    return torch.softmax(3 * torch.randn(num_classes, generator=generator), 0)


def make_order(
    permutation: tuple[int, ...] = (0, 1), *, accuracy: float = 0.75, images: int = 100
) -> ClassOrder:
    return ClassOrder(accuracy, permutation, 0.9, images, chance=0.1)


def test_a_permutation_is_found() -> None:
    labels = balanced(4, 25)
    permutation = torch.tensor([2, 1, 3, 0])
    order = find_class_order(permutation[labels], labels, num_classes=4)
    assert order.permutation == (2, 1, 3, 0)
    assert order.moved == {0: 2, 2: 3, 3: 0}
    assert (order.accuracy, order.matched_accuracy, order.num_images) == (0.25, 1.0, 100)
    assert not order.is_identity
    assert not order.is_chance


def test_counts_by_hand() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1])
    order = find_class_order(torch.tensor([0, 1, 1, 1, 2]), labels, num_classes=3)
    assert order.permutation == (0, 1, 2)
    assert order.accuracy == order.matched_accuracy == pytest.approx(2 / 5)
    assert order.chance == pytest.approx((3 * 1 + 2 * 3) / 25)


def test_agreement_is_left_alone() -> None:
    labels = balanced(5, 40)
    order = find_class_order(labels, labels, num_classes=5)
    assert order.is_identity
    assert order.moved == {}
    assert order.accuracy == order.matched_accuracy == 1
    assert not order.is_chance


@settings(max_examples=30, deadline=None)
@given(permutation=st.permutations(range(6)), seed=st.integers(0, 99))
def test_every_order_of_a_good_teacher_is_found_and_applied(permutation: list[int], seed: int) -> None:
    labels = balanced(6, 60)
    predictions = answer(labels, torch.tensor(permutation), 0.8, seed=seed)
    order = find_class_order(predictions, labels, num_classes=6)
    assert order.permutation == tuple(permutation)
    reordered = torch.tensor(order.permutation)[labels]
    assert order.matched_accuracy == pytest.approx(float((reordered == predictions).double().mean()))
    again = find_class_order(predictions, reordered, num_classes=6)
    assert again.is_identity
    assert again.accuracy == pytest.approx(order.matched_accuracy)


def test_the_order_of_the_images_does_not_matter() -> None:
    labels = balanced(10, 50)
    predictions = answer(labels, rotate(10, 4), 0.6, seed=0)
    shuffle = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    first = find_class_order(predictions, labels, num_classes=10)
    assert not first.is_identity
    assert find_class_order(predictions[shuffle], labels[shuffle], num_classes=10) == first


@pytest.mark.parametrize("num_classes", [2, 3, 10, 100])
@pytest.mark.parametrize("per_class", [1, 2, 10, 50])
def test_nothing_is_found_in_noise(num_classes: int, per_class: int) -> None:
    labels = balanced(num_classes, per_class)
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        predictions = torch.randint(num_classes, (len(labels),), generator=generator)
        assert find_class_order(predictions, labels, num_classes=num_classes).is_identity, seed


@pytest.mark.parametrize("num_classes", [2, 10, 50])
def test_a_habit_of_the_teacher_is_no_order(num_classes: int) -> None:
    """Some classes are named often, and others have most of the images; the two are independent."""
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        named, shown = (draw_shares(num_classes, generator) for _ in range(2))
        predictions = torch.multinomial(named, 500, replacement=True, generator=generator)
        labels = torch.multinomial(shown, 500, replacement=True, generator=generator)
        assert find_class_order(predictions, labels, num_classes=num_classes).is_identity, seed


def test_a_constant_answer_is_no_order_even_where_most_images_are_of_one_class() -> None:
    labels = torch.cat([torch.zeros(900, dtype=torch.int64), balanced(4, 10)])
    order = find_class_order(torch.full_like(labels, 3), labels, num_classes=4)
    assert order.is_identity
    assert order.is_chance


@pytest.mark.parametrize(("accuracy", "per_class"), [(0.3, 10), (0.3, 50), (0.7, 10), (0.7, 50)])
def test_a_weak_teacher_in_the_right_order_is_left_alone(accuracy: float, per_class: int) -> None:
    for num_classes, seeds in ((10, 50), (100, 5)):
        labels = balanced(num_classes, per_class)
        for seed in range(seeds):
            predictions = answer(labels, torch.arange(num_classes), accuracy, seed=seed)
            assert find_class_order(predictions, labels, num_classes=num_classes).is_identity


@pytest.mark.parametrize(
    ("accuracy", "num_classes", "num_moved", "per_class"),
    [
        (0.3, 10, 10, 50),
        (0.3, 100, 15, 40),
        (0.3, 10, 2, 120),
        (0.3, 100, 2, 80),
        (0.7, 10, 10, 10),
        (0.7, 100, 15, 20),
        (0.7, 10, 2, 25),
        (0.7, 100, 2, 30),
    ],
)
def test_the_power_is_as_documented(
    accuracy: float, num_classes: int, num_moved: int, per_class: int
) -> None:
    labels, permutation = balanced(num_classes, per_class), rotate(num_classes, num_moved)
    seeds = range(60 if num_classes == 10 else 20)
    found = 0
    for seed in seeds:
        predictions = answer(labels, permutation, accuracy, seed=seed)
        order = find_class_order(predictions, labels, num_classes=num_classes)
        found += order.permutation == tuple(permutation.tolist())
    # Nine of ten, less what the draws of these seeds leave uncertain.
    assert found >= 0.8 * len(seeds)


@pytest.mark.parametrize(("num_classes", "num_moved"), [(10, 10), (10, 2), (100, 15), (100, 100)])
def test_ten_images_a_class_are_never_enough_for_a_weak_teacher(num_classes: int, num_moved: int) -> None:
    labels, permutation = balanced(num_classes, 10), rotate(num_classes, num_moved)
    for seed in range(20):
        predictions = answer(labels, permutation, 0.3, seed=seed)
        assert find_class_order(predictions, labels, num_classes=num_classes).is_identity


def test_two_cycles_are_judged_apart() -> None:
    labels = torch.cat([balanced(2, 100), 2 + balanced(2, 3)])
    permutation = torch.tensor([1, 0, 3, 2])  # three images each do not prove the second swap
    order = find_class_order(permutation[labels], labels, num_classes=4)
    assert order.moved == {0: 1, 1: 0}


def test_a_class_that_is_hardly_known_does_not_join_a_cycle_by_accident() -> None:
    counts = 60 * torch.eye(20, dtype=torch.int64)
    counts[:3] = 0
    counts[0, 1] = 60
    counts[1, 3:], counts[2, 3:] = 3, 3
    counts[1, 0], counts[1, 2], counts[2, 0], counts[2, 2] = 2, 3, 1, 1  # 0 -> 1 -> 2 -> 0 gains one image
    labels, predictions = from_counts(counts)
    assert find_class_order(predictions, labels, num_classes=20).moved == {0: 1, 1: 0}


def test_similar_classes_that_are_mixed_up_are_not_swapped() -> None:
    shares = torch.tensor([[0.40, 0.55, 0.05], [0.55, 0.40, 0.05], [0.05, 0.05, 0.90]])
    labels, predictions = from_counts((shares * 1000).round().long())
    assert find_class_order(predictions, labels, num_classes=3).is_identity  # significant, not dominant
    clear = torch.where(labels == 2, predictions, torch.where(predictions == 2, 2, 1 - labels))
    assert find_class_order(clear, labels, num_classes=3).moved == {0: 1, 1: 0}


def test_significance_by_hand() -> None:
    """Two classes, all predicted as the other: the gain is 2 and the variance 2 / n."""
    needed = math.log(1) + math.log(2) + math.log(100)  # one cycle, two lengths, a level of 1 %
    smallest = math.ceil(needed)  # gain² / 2 variance = n
    for per_class in (smallest - 1, smallest):
        labels = balanced(2, per_class)
        for num_classes in (2, 50):  # classes without images are no choices
            order = find_class_order(1 - labels, labels, num_classes=num_classes)
            assert order.is_identity == (per_class < smallest)


def test_a_label_without_images_stays() -> None:
    labels = torch.tensor([0, 1, 2, 4]).repeat_interleave(50)
    permutation = torch.tensor([1, 0, 3, 2, 4])  # the teacher's 3 is our 2, and there are no images of our 3
    order = find_class_order(permutation[labels], labels, num_classes=5)
    assert order.moved == {0: 1, 1: 0}


def test_labels_may_be_any_of_the_classes() -> None:
    labels = torch.tensor([1, 3, 4]).repeat_interleave(50)
    permutation = torch.tensor([0, 1, 2, 4, 3])
    assert find_class_order(permutation[labels], labels, num_classes=6).moved == {3: 4, 4: 3}


def test_a_class_with_many_images_does_not_outvote_the_others() -> None:
    counts = torch.tensor([[400, 0, 500], [0, 0, 50], [0, 50, 0]])  # in counts, 0 -> 2 -> 1 -> 0 is better
    labels, predictions = from_counts(counts)
    assert find_class_order(predictions, labels, num_classes=3).moved == {1: 2, 2: 1}


def test_a_class_that_is_never_predicted_closes_a_cycle() -> None:
    """The teacher knows nothing of label 2; what is left for it is class 0."""
    labels = balanced(4, 60)
    predictions = torch.tensor([1, 2, 3, 3])[labels]
    order = find_class_order(predictions, labels, num_classes=4)
    assert order.moved == {0: 1, 1: 2, 2: 0}


def test_a_class_that_is_never_predicted_does_not_disturb_the_right_order() -> None:
    labels = balanced(4, 60)
    order = find_class_order(labels.clamp(max=2), labels, num_classes=4)
    assert order.is_identity
    assert order.accuracy == 0.75


def test_one_class_has_one_order() -> None:
    order = find_class_order(
        torch.zeros(5, dtype=torch.int64), torch.zeros(5, dtype=torch.int64), num_classes=1
    )
    assert (order.permutation, order.accuracy, order.chance) == ((0,), 1, 1)
    assert order.is_chance  # nothing can be told


def test_chance_is_one_in_c_for_balanced_labels() -> None:
    labels = balanced(8, 5)
    for seed in range(5):
        shares = draw_shares(8, torch.Generator().manual_seed(seed))
        predictions = torch.multinomial(
            shares, 40, replacement=True, generator=torch.Generator().manual_seed(seed)
        )
        assert find_class_order(predictions, labels, num_classes=8).chance == pytest.approx(1 / 8)


@pytest.mark.parametrize(("correct", "is_chance"), [(0, True), (2, True), (7, True), (8, False), (20, False)])
def test_chance_is_ruled_out_by_the_documented_counts(correct: int, is_chance: bool) -> None:
    order = make_order((0, 1, 2), accuracy=correct / 20, images=20)
    assert order.is_chance == is_chance


def test_less_agreement_than_chance_is_chance() -> None:
    assert make_order(accuracy=0.01, images=10_000).is_chance


def test_chance_is_mistaken_for_agreement_as_seldom_as_it_should() -> None:
    labels = balanced(10, 20)
    predictions = torch.randint(10, (2000, 200), generator=torch.Generator().manual_seed(0))
    orders = [
        ClassOrder(float(share), tuple(range(10)), 0.0, 200, chance=0.1)
        for share in (predictions == labels).double().mean(1)
    ]
    assert sum(not order.is_chance for order in orders) <= 20  # 1 % of 2,000; the bound is stricter


def test_an_order_that_moves_classes_is_not_chance() -> None:
    assert not make_order((1, 0), accuracy=0.0).is_chance


def test_agreement_is_described() -> None:
    assert (
        make_order().describe()
        == "The teacher agrees with 75.0% of 100 labels, and no other order of the classes is clearly better."
    )


def test_chance_is_described_with_what_to_check() -> None:
    text = make_order(accuracy=0.11, images=1234).describe()
    assert text.startswith(
        "The teacher agrees with 11.0% of 1,234 labels, where chance is 10.0%, and no other"
    )
    assert "normalisation" in text
    assert "--reorder" not in text


def test_a_reordering_is_described_by_name() -> None:
    order = make_order((1, 0, 2), accuracy=0.586)
    assert order.describe(["keyboard", "lamp", "lion"]) == (
        "The teacher agrees with 58.6% of 100 labels; with 2 classes reordered it would agree with 90.0%: "
        "keyboard (0) -> 1, lamp (1) -> 0. If it sees images of the right size and normalisation, pass "
        "`--reorder` to apply this."
    )
    assert ": 0 -> 1, 1 -> 0. If" in order.describe()


def test_a_long_list_of_moves_is_cut() -> None:
    text = make_order(tuple(rotate(100, 25).tolist())).describe()
    assert "with 25 classes reordered" in text
    assert "18 -> 19, 19 -> 20 and 5 more. If" in text
    assert "20 -> 21" not in text


def test_names_have_to_be_those_of_all_classes() -> None:
    with pytest.raises(ValueError, match=r"2 `class_names`, one for each class, got 1"):
        make_order().describe(["only"])


@pytest.mark.parametrize("value", [-1, 3])
def test_values_that_are_no_class_are_refused(value: int) -> None:
    sound, wrong = torch.tensor([0, 1]), torch.tensor([0, value])
    low, high = min(0, value), max(0, value)
    message = rf"from 0 to 2, got {low} to {high}"
    with pytest.raises(ValueError, match=rf"`labels` {message}"):
        find_class_order(sound, wrong, num_classes=3)
    with pytest.raises(ValueError, match=rf"`predictions` {message}"):
        find_class_order(wrong, sound, num_classes=3)


def test_other_types_and_shapes_are_refused() -> None:
    sound = torch.tensor([0, 1])
    with pytest.raises(TypeError, match=r"`predictions` in int64, got torch\.float32"):
        find_class_order(sound.float(), sound, num_classes=3)
    with pytest.raises(TypeError, match=r"`labels` in int64, got torch\.uint8"):
        find_class_order(sound, sound.to(torch.uint8), num_classes=3)
    with pytest.raises(ValueError, match=r"`labels` of shape \(N,\), got \(2, 1\)"):
        find_class_order(sound, sound[:, None], num_classes=3)


def test_lengths_have_to_agree() -> None:
    with pytest.raises(ValueError, match=r"one prediction for each label, got 2 and 1"):
        find_class_order(torch.tensor([0, 1]), torch.tensor([0]), num_classes=3)


def test_no_images_have_no_order() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"at least one image, got none"):
        find_class_order(none, none, num_classes=3)


def make_teacher(classes: list[int], bias: list[float], *, oracle: bool = False) -> Teacher:
    """A teacher that answers the same to all images."""
    linear = nn.Linear(4, len(bias))
    nn.init.zeros_(linear.weight)
    linear.bias.data.copy_(torch.tensor(bias))
    return Teacher(nn.Sequential(nn.Flatten(), linear), classes=classes, oracle=oracle)


IMAGES = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)


@pytest.mark.parametrize("oracle", [False, True])
def test_only_classes_that_the_teacher_has_seen_are_predicted(oracle: bool) -> None:
    teacher = make_teacher([3, 1], [9.0, 1.0, 8.0, 2.0, 7.0], oracle=oracle)
    predictions = teacher_predictions(teacher, IMAGES)
    assert predictions.dtype == torch.int64
    assert predictions.tolist() == [3, 3, 3]
    assert teacher_predictions(teacher, IMAGES, classes=[0, 1, 2]).tolist() == [1, 1, 1]


def test_predictions_are_the_largest_logits() -> None:
    linear = nn.Linear(4, 4)
    nn.init.eye_(linear.weight)
    nn.init.zeros_(linear.bias)
    teacher = Teacher(nn.Sequential(nn.Flatten(), linear), classes=[2, 0, 3, 1])
    images = torch.tensor([[9, 1, 2, 3], [0, 1, 2, 9], [5, 6, 5, 5], [0, 0, 1, 0]], dtype=torch.uint8)
    assert teacher_predictions(teacher, images.view(4, 1, 2, 2)).tolist() == [0, 3, 1, 2]


def test_no_images_have_no_predictions() -> None:
    predictions = teacher_predictions(make_teacher([0, 1], [0.0, 0.0]), IMAGES[:0])
    assert predictions.dtype == torch.int64
    assert predictions.shape == (0,)


def test_a_teacher_of_other_classes_predicts_nothing() -> None:
    with pytest.raises(UnseenClassError, match=r"has seen classes \[0, 1\], and none of \[2\]"):
        teacher_predictions(make_teacher([1, 0], [0.0, 0.0, 0.0]), IMAGES, classes=[2])


def test_a_teacher_that_diverged_predicts_nothing() -> None:
    teacher = make_teacher([0, 1], [0.0, 0.0])
    with pytest.raises(ValueError, match=r"finite logits, got NaN"):
        teacher_predictions(teacher, torch.full((1, 1, 2, 2), float("nan")))
