from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from gift_cl.dataset import DistilledDataset
from gift_cl.distillers import datm
from gift_cl.distillers.datm import DATM
from gift_cl.distillers.trajectory_matching import Gradients
from gift_cl.models import build_model
from gift_cl.normalization import Normalization
from gift_cl.registry import parse_options
from gift_cl.teacher import Teacher
from gift_cl.whitening import fit_zca

TINY = DATM(
    experts=2,
    epochs=3,
    expert_batch=8,
    expert_lr=0.1,
    width=4,
    iterations=4,
    steps=3,
    batch=4,
    matched_epochs=1,
    lr=0.1,
    early_start=1,
    max_start=2,
    expansion=2,
    threshold=100.0,
)


def make_images(per_class: int = 8, *, channels: int = 1, side: int = 8) -> tuple[Tensor, Tensor]:
    """Three classes, 1, 4 and 6, mixed: each lights another part of the image."""
    labels = torch.tensor([6, 1, 4] * per_class)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(
        0, 128, (len(labels), channels, side, side), dtype=torch.uint8, generator=generator
    )
    for row, label in enumerate(labels.tolist()):
        images[row, :, label - 1 : label + 2] += 100
    return images, labels


def distill(
    distiller: DATM = TINY, per_class: int = 2, *, seed: int = 0, per_class_given: int = 8, **options: Any
) -> DistilledDataset:
    images, labels = make_images(per_class_given)
    arguments: dict[str, Any] = {"teacher": None, "num_classes": 8} | options
    return distiller.distill(
        images, labels, per_class=per_class, generator=torch.Generator().manual_seed(seed), **arguments
    )


@pytest.fixture(scope="module")
def made() -> DistilledDataset:
    return distill()


# What comes back


def test_pixels_come_back_class_after_class_as_bytes(made: DistilledDataset) -> None:
    assert made.labels.tolist() == [1, 1, 4, 4, 6, 6]
    assert made.images.shape == (6, 1, 8, 8)
    assert (made.images.dtype, made.encoded.codec, made.space) == (torch.uint8, "raw", "pixels")
    assert (made.num_classes, made.factor) == (8, 1)


def test_soft_labels_cover_the_classes_given_in_single_precision(made: DistilledDataset) -> None:
    assert made.soft_labels is not None
    assert made.soft_labels.covered == {1: (1, 4, 6), 4: (1, 4, 6), 6: (1, 4, 6)}
    assert (made.soft_labels.values.dtype, made.soft_labels.num_views) == (torch.float32, 1)
    assert made.soft_labels.values.numel() == 6 * 3


def test_a_dataset_tells_how_it_was_made(made: DistilledDataset) -> None:
    pixels = make_images()[0].double() / 255
    assert made.normalization is not None
    assert made.normalization.mean == pytest.approx((float(pixels.mean()),))
    assert made.normalization.std == pytest.approx((float(pixels.std(correction=0)),))
    assert made.provenance.method == TINY.spec
    assert made.provenance.teacher == "expert trajectories"
    assert made.provenance.teacher_classes == (1, 4, 6)
    assert made.learned_lr == pytest.approx(0.1, rel=0.1)
    assert made.learned_lr != pytest.approx(0.1, rel=1e-7)


def test_whitened_images_come_back_as_published_ones_are_read() -> None:
    distiller = replace(TINY, zca=True)
    assert (distiller.codec, TINY.codec) == ("float32", None)
    made = distill(distiller)
    assert (made.images.dtype, made.encoded.codec, made.space) == (torch.float32, "float32", "zca")
    assert made.normalization is None
    assert made.soft_labels is not None
    assert made.learned_lr is not None
    assert made.ledger().pixels == 6 * 64 * 4


def test_whitened_images_begin_as_whitened_real_ones() -> None:
    made = distill(replace(TINY, zca=True, lr_images=0.0))
    images, _ = make_images()
    whitened = fit_zca(images).apply(images)
    for image in made.images:
        assert float((whitened - image).abs().flatten(1).amax(1).min()) < 1e-5


def test_a_small_class_gives_what_it_has() -> None:
    assert distill(per_class=5, per_class_given=3).images_per_class == {1: 3, 4: 3, 6: 3}


# What is learned


def test_images_labels_and_rate_are_learned_at_their_own_speed() -> None:
    still = replace(TINY, lr_images=0.0, lr_labels=0.0, lr_lr=0.0)
    real = distill(still)
    assert real.learned_lr == pytest.approx(0.1)
    originals = {bytes(image.flatten().tolist()) for image in make_images()[0]}
    assert all(bytes(image.flatten().tolist()) in originals for image in real.images)
    for name, rate in (("lr_images", 500.0), ("lr_labels", 2.0), ("lr_lr", 1e-4)):
        options: dict[str, Any] = {name: rate}
        made = distill(replace(still, **options))
        assert made.soft_labels is not None
        assert real.soft_labels is not None
        assert torch.equal(made.images, real.images) == (name != "lr_images")
        assert torch.equal(made.soft_labels.values, real.soft_labels.values) == (name != "lr_labels")
        assert (made.learned_lr == real.learned_lr) == (name != "lr_lr")


def test_matching_gets_better(monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[float] = []

    def spy(end: Tensor, start: Tensor, target: Tensor) -> Tensor:
        loss = ((end - target) ** 2).sum() / ((start - target) ** 2).sum()
        losses.append(float(loss))
        return loss

    monkeypatch.setattr(datm, "matching_loss", spy)
    # One match, again and again: one expert, one start, all images in one step without views.
    distill(
        replace(
            TINY,
            experts=1,
            max_start=1,
            batch=6,
            steps=2,
            iterations=30,
            lr_images=100.0,
            lr_lr=1e-3,
            strategy="flip",
        )
    )
    assert losses[-1] < 0.9 * losses[0]


def test_no_match_above_the_threshold_changes_anything() -> None:
    still = distill(replace(TINY, lr_images=0.0, lr_labels=0.0, lr_lr=0.0))
    with pytest.warns(
        UserWarning, match="No match of `datm` had a loss of at most `threshold` 1e-06.*Lower `lr`"
    ):
        made = distill(replace(TINY, threshold=1e-6))
    assert torch.equal(made.images, still.images)
    assert made.learned_lr == pytest.approx(0.1)


def test_images_stay_pixels_and_the_rate_positive_whatever_the_step_sizes() -> None:
    made = distill(replace(TINY, lr_images=1e9, lr_lr=1e6, iterations=8))
    assert made.images.dtype == torch.uint8
    assert made.learned_lr is not None
    assert made.learned_lr >= 0.1 * 1e-3 * 0.99


def test_one_update_moves_images_by_a_tenth_at_most() -> None:
    distiller = replace(TINY, lr_images=1e9, iterations=1, zca=True)
    before, after = distill(replace(distiller, lr_images=0.0)), distill(distiller)
    move = (after.images - before.images).square().mean().sqrt()
    assert float(move) == pytest.approx(0.1, rel=1e-4)


def test_starts_move_to_later_epochs_while_the_window_expands() -> None:
    distiller = DATM(epochs=20, early_start=5, max_start=15, expansion=100)
    assert [distiller.end_of_starts(i) for i in (0, 9, 10, 55, 99, 100, 10_000)] == [5, 5, 6, 10, 14, 15, 15]
    assert replace(distiller, expansion=0).end_of_starts(0) == 15


def test_matches_start_within_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    trajectory = torch.arange(7.0)[:, None] * torch.ones(1, 3)
    asked: list[tuple[int, int]] = []

    class Student:
        def __init__(self, *args: Any) -> None:
            pass

        def train(self, start: Tensor) -> list[Tensor]:
            return [start]

    def loss(end: Tensor, start: Tensor, target: Tensor) -> Tensor:
        asked.append((int(start[0]), int(target[0])))
        return torch.tensor(torch.inf)

    monkeypatch.setattr(datm, "Student", Student)
    monkeypatch.setattr(datm, "matching_loss", loss)
    monkeypatch.setattr(datm, "train_expert", lambda *args, **options: trajectory)
    distiller = replace(
        TINY,
        epochs=6,
        matched_epochs=2,
        min_start=1,
        early_start=2,
        max_start=5,
        expansion=30,
        iterations=90,
    )
    with pytest.warns(UserWarning, match="nothing was learned"):
        distill(distiller)
    assert all(target == start + 2 for start, target in asked)
    assert {start for start, _ in asked[:10]} == {1}
    assert {start for start, _ in asked[30:]} == {1, 2, 3, 4}
    for iteration, (start, _) in enumerate(asked):
        assert start < distiller.end_of_starts(iteration)


def test_batches_of_a_match_are_shuffled_passes() -> None:
    steps = replace(TINY, steps=5, batch=4)._draw_steps(torch.zeros(6, 1, 8, 8), torch.Generator())
    assert [len(step.indices) for step in steps] == [4, 2, 4, 2, 4]
    for first, second in ((0, 1), (2, 3)):
        seen = torch.cat([steps[first].indices, steps[second].indices])
        assert sorted(seen.tolist()) == [0, 1, 2, 3, 4, 5]
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(steps[0].view(images), steps[0].view(images))


# What decides


def test_the_generator_alone_decides(made: DistilledDataset) -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    again = distill()
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(made.images, again.images)
    assert made.learned_lr == again.learned_lr
    assert not torch.equal(made.images, distill(seed=1).images)


def test_a_teacher_is_not_asked(made: DistilledDataset) -> None:
    teacher = Teacher(
        build_model("mlp:hidden=4", in_channels=1, image_size=8, num_classes=2),
        classes=(0,),
        normalization=Normalization((0.9,), (0.1,)),
    )

    def refuse(*args: object) -> None:
        raise AssertionError("the teacher was asked")

    teacher.model.register_forward_pre_hook(refuse)
    assert torch.equal(distill(teacher=teacher).images, made.images)


def test_the_input_is_left_as_it_is() -> None:
    images, labels = make_images()
    before = images.clone(), labels.clone()
    TINY.distill(images, labels, per_class=2, num_classes=8, teacher=None, generator=torch.Generator())
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])


def test_progress_counts_images_through_networks() -> None:
    told: list[tuple[int, int]] = []
    distill(progress=lambda done, total: told.append((done, total)))
    # Two experts, three epochs, 24 images; four matches of batches of 4, 2 and 4 out of six images.
    assert told == [(d, 184) for d in (24, 48, 72, 96, 120, 144, 154, 164, 174, 184)]


# Options


def test_a_distiller_is_rebuilt_from_its_spec() -> None:
    distiller = replace(TINY, zca=True, threshold=2, min_start=0, strategy="color_crop")
    name, _, _ = distiller.spec.partition(":")
    positional, options = parse_options(distiller.spec)
    assert (name, positional) == ("datm", [])
    assert DATM(**options) == distiller  # type: ignore[arg-type]
    assert DATM(**options).spec == distiller.spec  # type: ignore[arg-type]


def test_the_spec_names_every_option() -> None:
    assert DATM().spec == (
        "datm:zca=false,experts=5,epochs=20,expert_batch=64,expert_lr=0.01,width=32,iterations=500,steps=20,"
        "batch=100,matched_epochs=2,lr_images=100.0,lr_labels=2.0,lr_lr=1e-05,lr=0.01,min_start=0,"
        "early_start=5,max_start=15,expansion=100,threshold=1.0,"
        "strategy=color_crop_cutout_flip_scale_rotate"
    )


def test_all_classes_are_made_together_without_a_teacher() -> None:
    assert DATM().classes_at_once is None
    assert not DATM().needs_teacher


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"zca": 1}, "`zca` to be true or false, got 1"),
        ({"experts": 0}, "`experts` to be an integer of at least 1, got 0"),
        ({"steps": 1.5}, "`steps` to be an integer of at least 1, got 1.5"),
        ({"min_start": -1}, "`min_start` to be an integer of at least 0, got -1"),
        ({"expert_lr": 0}, r"`expert_lr` in \(0, inf\), got 0"),
        ({"lr_images": -1.0}, r"`lr_images` in \[0, inf\), got -1.0"),
        ({"threshold": 0.0}, r"`threshold` in \(0, inf\), got 0.0"),
        ({"strategy": "blur"}, "`strategy` to be different names out of color"),
        ({"min_start": 5}, "`min_start` < `early_start` <= .*got 5, 5, 15 and 19"),
        ({"epochs": 10}, "`max_start` <= `epochs` - `matched_epochs` \\+ 1, got 0, 5, 15 and 9"),
    ],
)
def test_unusable_options_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        DATM(**options)


def test_a_single_class_is_refused() -> None:
    images, labels = make_images()
    with pytest.raises(ValueError, match="at least two classes for `datm`, got class 4 alone"):
        TINY.distill(
            images[labels == 4],
            labels[labels == 4],
            per_class=1,
            num_classes=8,
            teacher=None,
            generator=torch.Generator(),
        )


def test_images_that_suit_no_expert_are_refused_before_anything_is_computed() -> None:
    images, labels = make_images()
    with pytest.raises(ValueError, match="square images.*got 7 x 8"):
        TINY.distill(
            images[:, :, 1:],
            labels,
            per_class=1,
            num_classes=8,
            teacher=None,
            generator=torch.Generator(),
            progress=lambda done, total: pytest.fail("a network was trained"),
        )


def test_updates_are_those_of_sgd_with_the_published_momenta() -> None:
    """Two of them, by hand: half of the last step goes on for images and rate, nine tenths for logits."""
    distiller = replace(TINY, lr_images=0.5, lr_labels=2.0, lr_lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    start = [torch.rand(shape, generator=generator) + 0.1 for shape in ((2, 1, 4, 4), (2, 3), ())]
    made = datm._Synthetic(*(value.clone() for value in start))
    optimizer = distiller._optimizer(made)
    expected, velocity = start, [torch.zeros_like(value) for value in start]
    for _ in range(2):
        gradients = [0.01 * torch.rand(value.shape, generator=generator) for value in start]
        distiller._update(made, Gradients(*gradients), optimizer, None)
        velocity = [m * v + g for m, v, g in zip((0.5, 0.9, 0.5), velocity, gradients, strict=True)]
        expected = [x - r * v for x, r, v in zip(expected, (0.5, 2.0, 1e-2), velocity, strict=True)]
    for value, right in zip(made, expected, strict=True):
        torch.testing.assert_close(value, right)
