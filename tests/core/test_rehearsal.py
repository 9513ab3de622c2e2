import copy
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gift_cl.losses import gift_loss
from gift_cl.memory import ExemplarMemory
from gift_cl.models import build_model
from gift_cl.normalization import Normalization
from gift_cl.rehearsal import Rehearsal, RehearsalBatch
from gift_cl.soft_labels import Extension
from gift_cl.teacher import Teacher

NORMALIZATION = Normalization((0.4,), (0.3,))
SEEN = (4, 1, 2)  # classes of the memory below, in the order of the stream


def make_images(classes: Sequence[int]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(classes[0])
    labels = torch.tensor([c for c in classes for _ in range(6)])
    return torch.randint(0, 256, (len(labels), 1, 8, 8), dtype=torch.uint8, generator=generator), labels


def make_teacher(classes: Sequence[int]) -> Teacher:
    torch.manual_seed(0)
    model = build_model("mlp:hidden=8", in_channels=1, image_size=8, num_classes=6)
    return Teacher(model, classes=classes, normalization=NORMALIZATION, bits=16)


def make(labels: str = "stored:views=2", **options: Any) -> Rehearsal:
    """Opened for the classes 4, then 1 and 2; the first ones do not know the others."""
    memory = ExemplarMemory(
        per_class=4, exemplars="random", labels=labels, augmentation="crop", num_classes=6
    )
    for classes in ((4,), (1, 2)):
        images, hard = make_images(classes)
        memory.update(images, hard, make_teacher((*memory.classes, *classes)) if labels != "hard" else None)
    rehearsal = Rehearsal(memory, normalization=NORMALIZATION, **options)
    rehearsal.open(SEEN, "cpu")
    return rehearsal


def loss_by_hand(logits: Tensor, batch: RehearsalBatch, classes: Sequence[int] = SEEN) -> Tensor:
    assert batch.soft_labels is not None
    return gift_loss(logits[:, list(classes)], batch.soft_labels, batch.positions)


@pytest.mark.parametrize("labels", ["hard", "stored:views=2", "online"])
def test_only_units_of_seen_classes_enter_the_loss(labels: str) -> None:
    rehearsal = make(labels)
    batch = rehearsal.draw(8)
    logits = torch.randn(8, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = rehearsal.loss(logits, batch)
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad[:, [0, 3, 5]] == 0).all()
    assert (logits.grad[:, [4, 1, 2]] != 0).all()
    with torch.no_grad():
        logits[:, [0, 3, 5]] = -1e30  # as masks do
        torch.testing.assert_close(rehearsal.loss(logits, batch), loss.detach())


def test_the_loss_is_that_of_the_columns_of_the_classes() -> None:
    rehearsal = make()
    batch = rehearsal.draw(8)
    logits = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rehearsal.loss(logits, batch), loss_by_hand(logits, batch))


@pytest.mark.parametrize("order", [(4, 1, 2), (1, 2, 4), (2, 5, 4, 1)])
def test_positions_point_at_the_hard_label_in_any_order(order: tuple[int, ...]) -> None:
    rehearsal = make("hard", loss="ce")
    rehearsal.open(order, "cpu")
    twin = copy.deepcopy(rehearsal.memory)
    twin.open(order, "cpu")
    batch, labels = rehearsal.draw(9), twin.draw(9).labels
    assert [order[p] for p in batch.positions.tolist()] == labels.tolist()
    logits = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
    masked = logits.clone()
    masked[:, [c for c in range(6) if c not in order]] = float("-inf")
    torch.testing.assert_close(rehearsal.loss(logits, batch), F.cross_entropy(masked, labels))


@pytest.mark.parametrize("labels", ["stored", "online"])
def test_the_order_of_the_classes_does_not_change_the_loss(labels: str) -> None:
    losses = []
    for order in ((4, 1, 2), (1, 2, 4)):
        rehearsal = make(labels)
        rehearsal.open(order, "cpu")
        logits = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
        losses.append(rehearsal.loss(logits, rehearsal.draw(8)))
    torch.testing.assert_close(losses[0], losses[1])


@pytest.mark.parametrize("extension", ["row_min", "row_mean", "zero"])
def test_classes_that_a_label_does_not_know_are_filled_in(extension: Extension) -> None:
    rehearsal = make("stored", extension=extension)
    batch = rehearsal.draw(12)
    assert batch.soft_labels is not None
    old = batch.soft_labels[batch.positions == 0]  # labelled when class 4 was the only one
    assert len(old) == 4
    expected = torch.zeros(4) if extension == "zero" else old[:, 0]  # of one class, min and mean are itself
    for column in (1, 2):
        torch.testing.assert_close(old[:, column], expected)
    new = batch.soft_labels[batch.positions != 0]
    assert (new.std(1) > 0).all()


def test_online_labels_are_those_of_the_teacher_for_the_same_view() -> None:
    rehearsal = make("online")
    teacher = rehearsal.memory.teacher
    assert teacher is not None
    for order in ((4, 1, 2), (2, 1, 4)):
        rehearsal.open(order, "cpu")
        batch = rehearsal.draw(8)
        # The student is given normalised views, and so is the teacher.
        torch.testing.assert_close(batch.soft_labels, teacher.model(batch.inputs)[:, list(order)])


@pytest.mark.parametrize(("extension", "reduce"), [("row_min", "amin"), ("row_mean", "mean")])
def test_online_labels_are_extended_to_classes_that_are_being_learnt(extension: Any, reduce: str) -> None:
    rehearsal = make("online", extension=extension)
    teacher = rehearsal.memory.teacher
    assert teacher is not None
    rehearsal.open((*SEEN, 0, 5), "cpu")
    batch = rehearsal.draw(8)
    known = teacher.model(batch.inputs)[:, list(SEEN)]
    fill = getattr(known, reduce)(1, keepdim=True)
    torch.testing.assert_close(batch.soft_labels, torch.cat([known, fill, fill], 1))


def test_online_labels_carry_no_gradient() -> None:
    batch = make("online").draw(4)
    assert batch.soft_labels is not None
    assert not batch.soft_labels.requires_grad
    assert not batch.inputs.requires_grad


def test_inputs_are_normalised_pixels() -> None:
    rehearsal = make()
    twin = copy.deepcopy(rehearsal.memory)
    twin.open(SEEN, "cpu")
    torch.testing.assert_close(rehearsal.draw(5).inputs, NORMALIZATION.apply(twin.draw(5).pixels))


@pytest.mark.parametrize("loss", ["ce", "gift", "cosine"])
def test_losses_that_do_without_soft_labels_work_with_hard_ones(loss: str) -> None:
    rehearsal = make("hard", loss=loss)
    batch = rehearsal.draw(8)
    assert batch.soft_labels is None
    right = torch.zeros(8, 6)
    right[torch.arange(8), torch.tensor(SEEN)[batch.positions]] = 5.0
    wrong = right.roll(1, 1)
    assert float(rehearsal.loss(right, batch)) < float(rehearsal.loss(wrong, batch))


@pytest.mark.parametrize("loss", ["kl", "kl:temperature=4,t2=true", "mse", "softce"])
def test_losses_that_need_soft_labels_are_refused_for_hard_ones(loss: str) -> None:
    with pytest.raises(ValueError, match=f"`{loss}` needs soft labels.*`stored` or `online`"):
        make("hard", loss=loss)


def test_an_unknown_loss_or_extension_is_refused_at_once() -> None:
    memory = ExemplarMemory(per_class=1)
    with pytest.raises(ValueError, match="Unknown loss `x`"):
        Rehearsal(memory, loss="x")
    extension: Any = "max"
    with pytest.raises(ValueError, match="row_min, row_mean or zero"):
        Rehearsal(memory, extension=extension)


def test_a_head_that_is_too_narrow_is_refused() -> None:
    rehearsal = make()
    batch = rehearsal.draw(4)
    rehearsal.loss(torch.zeros(4, 5), batch)
    with pytest.raises(ValueError, match="at least 5 outputs .* got 4.*with_growing_head"):
        rehearsal.loss(torch.zeros(4, 4), batch)


def test_classes_have_to_hold_those_of_the_memory() -> None:
    rehearsal = make()
    with pytest.raises(ValueError, match=r"`classes` with those of the memory, got none of \[1, 4\]"):
        rehearsal.open((2, 3), "cpu")
    assert rehearsal.is_open_for(SEEN, "cpu")  # as before


def test_an_empty_memory_cannot_be_opened() -> None:
    rehearsal = Rehearsal(ExemplarMemory(per_class=1))
    with pytest.raises(ValueError, match="The memory is empty"):
        rehearsal.open((0,), "cpu")
    assert not rehearsal.is_open


def test_it_knows_what_it_is_open_for() -> None:
    rehearsal = make()
    assert rehearsal.is_open
    assert rehearsal.is_open_for(SEEN, "cpu")
    assert not rehearsal.is_open_for((1, 2, 4), "cpu")
    assert not rehearsal.is_open_for(SEEN, "meta")
    images, labels = make_images((0,))
    rehearsal.memory.update(images, labels, make_teacher((*SEEN, 0)))
    assert not rehearsal.is_open


def test_a_copy_has_to_be_opened_again() -> None:
    rehearsal = pickle.loads(pickle.dumps(make()))
    assert not rehearsal.is_open
    rehearsal.open(SEEN, "cpu")
    assert rehearsal.draw(3).inputs.shape == (3, 1, 8, 8)
