from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_data import (
    NORMALIZATION,
    make_dataset,
    make_images,
    make_model,
    make_recipe,
    make_soft_labels,
    make_teacher,
)
from torch import Tensor, nn

from gift_cl.dataset import DistilledDataset
from gift_cl.evaluation import labelling
from gift_cl.evaluation.labelling import (
    Batch,
    ClassCountError,
    ClassOrderError,
    DrawnBatches,
    Stream,
    Target,
    TeacherLabels,
    seeded,
    stored_labels,
)
from gift_cl.evaluation.memory_formats import memory_format_for
from gift_cl.normalization import IDENTITY, Normalization
from gift_cl.soft_labels import SoftLabels
from gift_cl.teacher import Teacher, UnseenClassError
from gift_cl.views import MIXES

CPU = torch.device("cpu")


def draw(
    num_images: int = 12, *, keep_single: bool = True, soft: bool = False, **values: Any
) -> DrawnBatches:
    recipe = make_recipe(labels="stored" if soft else "online", **values)
    return DrawnBatches(make_dataset(num_images, soft=soft), recipe, device=CPU, keep_single=keep_single)


def numbers(batch: Batch) -> list[int]:
    """Which images a batch of unchanged, normalised images holds."""
    images = NORMALIZATION.apply(make_dataset(100).images.float() / 255)
    return [int((images - row).abs().amax((1, 2, 3)).argmin()) for row in batch.inputs]


def label(teacher: Teacher, dataset: Any = None, **values: Any) -> TeacherLabels:
    options: dict[str, Any] = {"normalization": NORMALIZATION, "device": CPU, "precision": "float32"}
    return TeacherLabels(teacher, dataset or make_dataset(30), **(options | values))


@given(num_images=st.integers(1, 30), batch_size=st.integers(1, 12), epoch=st.integers(0, 5))
@settings(deadline=None, max_examples=25)
def test_every_exemplar_comes_once_an_epoch_with_its_label(
    num_images: int, batch_size: int, epoch: int
) -> None:
    drawn = draw(num_images, batch_size=batch_size)
    batches = list(drawn.batches(epoch))
    found = [number for batch in batches for number in numbers(batch)]
    labels = torch.cat([batch.targets[0].labels for batch in batches])
    assert sorted(found) == list(range(num_images))
    assert labels.tolist() == [number % 3 for number in found]
    assert len(drawn) == num_images
    assert {len(batch.inputs) for batch in batches[:-1]} <= {min(batch_size, num_images)}


def test_inputs_are_normalised_as_the_normalisation_says_to_the_last_bit() -> None:
    expected = NORMALIZATION.apply(make_dataset().images.float().div(255))
    for batch in draw().batches(0):
        assert torch.equal(batch.inputs, expected[numbers(batch)])


def test_an_epoch_follows_from_its_number_and_the_seed() -> None:
    first, second, third = ([numbers(b) for b in draw(seed=1).batches(epoch)] for epoch in (0, 0, 1))
    other = [numbers(b) for b in draw(seed=2).batches(0)]
    assert first == second
    assert first != third
    assert first != other


def test_views_are_drawn_anew_each_epoch_and_each_step() -> None:
    drawn = draw(4, view="crop_flip:pad=4", batch_size=4)
    views = [next(iter(drawn.batches(epoch))).inputs for epoch in (0, 0, 1)]
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0].sort(0).values, views[2].sort(0).values)


def test_views_follow_the_seed() -> None:
    first, other = (
        next(iter(draw(4, view="crop_flip:pad=4", seed=seed).batches(0))).inputs.sort(0).values
        for seed in (0, 1)
    )
    shuffled = next(iter(draw(4, view="none", seed=1).batches(0))).inputs.sort(0).values
    plain = next(iter(draw(4, view="none", seed=0).batches(0))).inputs.sort(0).values
    assert torch.equal(plain, shuffled)
    assert not torch.equal(first, other)


def test_the_order_does_not_depend_on_the_view() -> None:
    plain, cropped = (
        [batch.targets[0].labels.tolist() for batch in draw(view=view).batches(0)]
        for view in ("none", "crop_flip")
    )
    assert plain == cropped


@pytest.mark.parametrize("is_compiled", [False, True])
def test_batches_are_in_channels_last_format_but_for_compiled_networks_on_a_cpu(is_compiled: bool) -> None:
    images, labels = make_images(12)
    dataset = DistilledDataset.from_images(images.expand(-1, 3, -1, -1), labels, num_classes=3)
    recipe = make_recipe(compile=is_compiled)
    drawn = DrawnBatches(dataset, recipe, device=CPU, keep_single=True)
    memory_format = memory_format_for(CPU, is_compiled=is_compiled)
    assert memory_format == (torch.contiguous_format if is_compiled else torch.channels_last)
    assert all(b.inputs.is_contiguous(memory_format=memory_format) for b in drawn.batches(0))


def test_convolutions_are_in_channels_last_format_on_cuda_even_if_compiled() -> None:
    assert memory_format_for(torch.device("cuda"), is_compiled=True) == torch.channels_last


@pytest.mark.parametrize(("images_in_half_of_memory", "sent_from"), [(12, "cpu"), (13, "meta")])
def test_images_stay_where_they_are_if_they_take_half_of_the_free_memory(
    monkeypatch: pytest.MonkeyPatch, images_in_half_of_memory: int, sent_from: str
) -> None:
    origins = []

    def spy(tensor: Tensor, device: torch.device) -> Tensor:
        origins.append(tensor.device.type)
        return tensor.to(device)

    monkeypatch.setattr(labelling, "sent", spy)
    monkeypatch.setattr(labelling, "free_memory", lambda device: 2 * 64 * images_in_half_of_memory)
    device = torch.device("meta")  # a device without memory or values
    drawn = DrawnBatches(make_dataset(12), make_recipe(), device=device, keep_single=True)
    batches = list(drawn.batches(0))
    assert {batch.inputs.device.type for batch in batches} == {"meta"}
    assert origins == [sent_from] * 3


def test_batches_do_not_depend_on_where_images_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [batch.inputs for batch in draw(view="dsa", mix="cutmix").batches(1)]
    monkeypatch.setattr(labelling, "free_memory", lambda device: 0)
    found = [batch.inputs for batch in draw(view="dsa", mix="cutmix").batches(1)]
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize(
    ("num_images", "batch_size", "keep_single", "expected"),
    [
        (9, 4, True, 9),
        (9, 4, False, 8),
        (10, 4, False, 10),
        (8, 4, False, 8),
        (1, 4, False, 1),
        (3, 1, False, 3),
    ],
)
def test_a_single_image_at_the_end_is_left_out_where_it_must_not_be_kept(
    num_images: int, batch_size: int, keep_single: bool, expected: int
) -> None:
    drawn = draw(num_images, batch_size=batch_size, keep_single=keep_single)
    sizes = [len(batch.inputs) for batch in drawn.batches(0)]
    assert sum(sizes) == len(drawn) == expected


def test_another_image_is_left_out_each_epoch() -> None:
    drawn = draw(9, keep_single=False)
    missing = {
        next(iter(set(range(9)) - {n for batch in drawn.batches(epoch) for n in numbers(batch)}))
        for epoch in range(20)
    }
    assert len(missing) > 3


def test_stored_labels_come_with_their_images() -> None:
    for batch in draw(soft=True, view="none").batches(0):
        (target,) = batch.targets
        expected = torch.tensor(numbers(batch))[:, None] + torch.tensor([0.0, 0.25, 0.5])
        assert target.soft_labels is not None
        assert torch.equal(target.soft_labels.float(), expected)


def test_a_mixed_image_has_the_labels_of_both_images_by_their_shares() -> None:
    generator = seeded("views 0", 0)
    plain = next(iter(draw(soft=True).batches(0)))
    mixed = next(iter(draw(soft=True, mix="mixup:alpha=1.0").batches(0)))
    expected = MIXES.create("mixup:alpha=1.0")(plain.inputs, generator)
    own, partner = mixed.targets
    assert torch.equal(mixed.inputs, expected.inputs)
    assert (own.weight, partner.weight) == (expected.share, 1 - expected.share)
    for rows, target in ((torch.arange(4), own), (expected.partner, partner)):
        assert torch.equal(target.labels, plain.targets[0].labels[rows])
        assert target.soft_labels is not None
        assert plain.targets[0].soft_labels is not None
        assert torch.equal(target.soft_labels, plain.targets[0].soft_labels[rows])


def test_with_own_labels_a_mixed_image_is_of_the_class_of_its_own_image() -> None:
    plain = next(iter(draw().batches(0)))
    (target,) = next(iter(draw(mix="cutmix", hard_label="own").batches(0))).targets
    assert target.weight == 1
    assert torch.equal(target.labels, plain.targets[0].labels)


def test_with_own_labels_stored_soft_labels_are_still_those_of_both_images() -> None:
    plain = next(iter(draw(soft=True).batches(0)))
    own, partner = next(iter(draw(soft=True, mix="cutmix", hard_label="own").batches(0))).targets
    assert torch.equal(own.labels, plain.targets[0].labels)
    assert torch.equal(partner.labels, plain.targets[0].labels)
    assert own.soft_labels is not None
    assert partner.soft_labels is not None
    assert not torch.equal(own.soft_labels, partner.soft_labels)
    assert own.weight + partner.weight == pytest.approx(1)


def test_pieces_of_a_batch_are_its_rows_in_order() -> None:
    targets = (
        Target(0.75, torch.arange(10.0).view(5, 2), torch.arange(5)),
        Target(0.25, None, torch.arange(5, 10)),
    )
    pieces = list(Batch(torch.arange(5.0).view(5, 1, 1, 1), targets).pieces(2))
    assert [piece.inputs.flatten().tolist() for piece in pieces] == [[0, 1], [2, 3], [4]]
    assert [piece.targets[0].weight for piece in pieces] == [0.75] * 3
    assert pieces[1].targets[1].soft_labels is None
    assert pieces[1].targets[1].labels.tolist() == [7, 8]
    soft = pieces[2].targets[0].soft_labels
    assert soft is not None
    assert soft.tolist() == [[8, 9]]


def test_a_stream_gives_what_it_holds() -> None:
    def epoch(number: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        images = torch.full((2, 3, 4, 4), float(number))
        return [(images, torch.ones(2, 3, dtype=torch.float16), torch.tensor([2, 0]))] * 2

    batches = list(Stream(epoch=epoch, nbytes=1, digest="").batches(7, CPU))
    assert len(batches) == 2
    assert bool((batches[0].inputs == 7).all())
    assert batches[0].inputs.is_contiguous(memory_format=torch.channels_last)
    (target,) = batches[0].targets
    assert target.weight == 1
    assert target.labels.tolist() == [2, 0]
    assert target.soft_labels is not None
    assert bool((target.soft_labels == 1).all())


def test_a_data_set_without_soft_labels_has_none_stored() -> None:
    with pytest.raises(ValueError, match="soft labels for `labels` stored, got none. Choose online"):
        stored_labels(make_dataset())


def test_soft_labels_of_augmented_views_are_refused() -> None:
    dataset = make_dataset()
    views = torch.zeros(12, 1, 3, dtype=torch.int8)
    augmented = replace(dataset, soft_labels=make_soft_labels(dataset.labels, views=views))
    with pytest.raises(
        ValueError, match="soft labels of the images as they are, got some of augmented views"
    ):
        stored_labels(augmented)
    unchanged = make_soft_labels(dataset.labels, views=views[:, :, :0])
    assert stored_labels(replace(dataset, soft_labels=unchanged)).shape == (12, 3)


def test_soft_labels_of_some_classes_are_refused() -> None:
    dataset = make_dataset()
    some = SoftLabels.from_logits(torch.zeros(12, 1, 3), dataset.labels, dict.fromkeys(range(3), (0, 1)))
    with pytest.raises(ClassCountError, match="soft labels of all 3 classes, got some of fewer"):
        stored_labels(replace(dataset, soft_labels=some))


@pytest.mark.parametrize("normalization", [NORMALIZATION, IDENTITY, Normalization((0.25,), (2.0,))])
def test_a_teacher_answers_to_the_pixels_of_the_student_whatever_their_normalisation(
    normalization: Normalization,
) -> None:
    teacher = make_teacher()
    pixels = make_dataset(5, seed=1).images.float() / 255
    answers = label(teacher, normalization=normalization)(normalization.apply(pixels))
    torch.testing.assert_close(answers, teacher.logits(pixels), rtol=1e-5, atol=1e-5)


def test_a_teacher_with_batch_norms_answers_as_it_does_unfolded() -> None:
    model = make_model("conv3:width=8")
    for _ in range(3):
        model(torch.randn(16, 1, 8, 8))
    teacher = Teacher(model, classes=range(3), normalization=NORMALIZATION)
    pixels = make_dataset(6, seed=1).images.float() / 255
    answers = label(teacher, make_dataset(3))(NORMALIZATION.apply(pixels))
    torch.testing.assert_close(answers, teacher.logits(pixels), rtol=1e-4, atol=1e-4)


def test_a_teacher_gives_no_gradient_and_works_in_the_precision_asked_for() -> None:
    inputs = torch.randn(2, 1, 8, 8, requires_grad=True)
    answers = label(make_teacher(), precision="bfloat16")(inputs)
    assert not answers.requires_grad
    assert answers.dtype == torch.bfloat16


def test_a_teacher_that_has_not_seen_a_class_is_refused_unless_it_is_an_oracle() -> None:
    model = make_teacher().model
    with pytest.raises(UnseenClassError, match=r"has seen classes \[0, 1\], not \[2\]"):
        label(Teacher(model, classes=(0, 1)))
    label(Teacher(model, classes=(0, 1), oracle=True))


def test_a_teacher_with_another_number_of_outputs_is_refused() -> None:
    teacher = Teacher(make_model(num_classes=4), classes=range(4))
    with pytest.raises(ClassCountError, match="an output for each of 3 classes, got 4 outputs"):
        label(teacher)


def test_a_teacher_that_numbers_the_classes_otherwise_is_refused() -> None:
    teacher = make_teacher()
    weights = teacher.model.state_dict()["1.weight"]
    swapped = nn.Sequential(nn.Flatten(), nn.Linear(64, 3, bias=False))
    swapped.load_state_dict({"1.weight": weights[[1, 0, 2]]})
    wrong = Teacher(swapped, classes=range(3), normalization=teacher.normalization)
    with pytest.raises(
        ClassOrderError, match="with 2 classes reordered it would agree with 100.0%: 0 -> 1, 1 -> 0"
    ):
        label(wrong, make_dataset(60))


def test_a_teacher_that_knows_nothing_is_not_taken_for_one_with_another_order() -> None:
    label(Teacher(make_model(seed=3), classes=range(3)), make_dataset(30))


def test_a_teacher_with_logits_that_are_not_finite_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    model.load_state_dict({"1.weight": torch.full((3, 64), 3e38), "1.bias": torch.zeros(3)})
    with pytest.raises(ValueError, match="finite soft labels, got NaN or infinite logits"):
        label(Teacher(model, classes=range(3)))


def test_random_states_differ_by_purpose_and_seed_and_by_nothing_else() -> None:
    drawn = [
        int(torch.randint(2**62, (1,), generator=seeded(purpose, seed)))
        for purpose, seed in (("a", 0), ("a", 0), ("a", 1), ("b", 0))
    ]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3
