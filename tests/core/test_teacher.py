import pytest
import torch
from torch import nn

from gift_cl.normalization import Normalization
from gift_cl.teacher import Teacher, UnseenClassError


def make_model(outputs: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, outputs))


IMAGES = torch.arange(8, dtype=torch.uint8).view(2, 1, 2, 2) * 30


def test_labels_are_the_logits_of_the_normalised_images() -> None:
    model = make_model()
    teacher = Teacher(model, classes=[0, 2], normalization=Normalization((0.5,), (0.25,)))
    labels = teacher.label(IMAGES, torch.tensor([0, 2]), classes=[2, 0])
    expected = model((IMAGES.float() / 255 - 0.5) / 0.25)[:, [2, 0]]
    torch.testing.assert_close(labels, expected.detach())


def test_classes_it_has_not_seen_are_nan() -> None:
    labels = Teacher(make_model(), classes=[0, 2]).label(IMAGES, torch.tensor([0, 0]), classes=[0, 1])
    assert labels.isnan().tolist() == [[False, True], [False, True]]


def test_an_unseen_class_is_refused() -> None:
    with pytest.raises(UnseenClassError, match=r"has seen classes \[0, 2\], not \[3\]"):
        Teacher(make_model(), classes=[0, 2]).label(IMAGES, torch.tensor([0, 3]), classes=[0, 2])


def test_an_oracle_has_to_be_asked_for() -> None:
    oracle = Teacher(make_model(), classes=[0, 1, 2, 3], oracle=True)
    oracle.require_no_future([0, 1])
    honest = Teacher(make_model(), classes=[0, 1, 2, 3])
    with pytest.raises(UnseenClassError, match=r"classes \[2, 3\], which the stream has not reached"):
        honest.require_no_future([0, 1])


def test_training_on_does_not_change_the_teacher() -> None:
    model = make_model()
    teacher = Teacher(model, classes=[0])
    before = teacher.logits(IMAGES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    torch.testing.assert_close(teacher.logits(IMAGES), before)
    assert not any(p.requires_grad for p in teacher.model.parameters())
    assert all(p.requires_grad for p in model.parameters())


def test_half_precision_is_charged_and_used() -> None:
    model = make_model()
    full, half = Teacher(model, classes=[0]), Teacher(model, classes=[0], bits=16)
    assert (full.nbytes, half.nbytes) == (80, 40)
    weight = half.model.get_parameter("1.weight")
    torch.testing.assert_close(weight, weight.half().float(), rtol=0, atol=0)


def test_weights_too_large_for_half_precision_are_refused() -> None:
    model = make_model()
    with torch.no_grad():
        model.get_parameter("1.bias").fill_(1e6)
    with pytest.raises(ValueError, match="not finite in 16 bits"):
        Teacher(model, classes=[0], bits=16)


def test_a_head_too_narrow_for_its_classes_is_refused() -> None:
    with pytest.raises(UnseenClassError, match="an output for each of its classes"):
        Teacher(make_model(2), classes=[0, 5]).label(IMAGES, torch.tensor([0, 0]), classes=[0])


def test_no_images_give_no_labels() -> None:
    labels = Teacher(make_model(), classes=[0, 2]).label(
        IMAGES[:0], torch.zeros(0, dtype=torch.int64), classes=[0, 2]
    )
    assert labels.shape == (0, 2)


def test_a_teacher_without_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one class"):
        Teacher(make_model(), classes=[])
