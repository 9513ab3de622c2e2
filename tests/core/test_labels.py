from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gift_cl.augmentations import CropFlip, Identity
from gift_cl.labels import LABELS, LabelRegime, relabel, stored
from gift_cl.normalization import Normalization
from gift_cl.soft_labels import SoftLabels
from gift_cl.teacher import Teacher, UnseenClassError


def make_teacher(classes: tuple[int, ...] = (3, 1), *, scale: float = 1.0) -> Teacher:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    with torch.no_grad():
        model.get_parameter("1.weight").mul_(scale)
    return Teacher(model, classes=classes, normalization=Normalization((0.4,), (0.3,)))


def make_images(count: int = 4) -> Tensor:
    return torch.randint(
        0, 256, (count, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def label(
    images: Tensor,
    labels: Tensor,
    teacher: Teacher,
    *,
    views: int = 1,
    augmentation: CropFlip | Identity | None = None,
    classes: tuple[int, ...] = (1, 4, 3),
) -> SoftLabels:
    return relabel(
        images,
        labels,
        teacher,
        classes=classes,
        num_classes=6,
        regime=stored(views=views),
        augmentation=augmentation or Identity(),
        generator=torch.Generator().manual_seed(2),
    )


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("hard", LabelRegime("hard")),
        ("stored", LabelRegime("stored", views=1, refresh=False)),
        ("stored:views=4,refresh=true", LabelRegime("stored", views=4, refresh=True)),
        ("online", LabelRegime("online", bits=16)),
        ("online:bits=32", LabelRegime("online", bits=32)),
    ],
)
def test_a_regime_is_built_from_its_spec(spec: str, expected: LabelRegime) -> None:
    assert LABELS.create(spec) == expected
    assert expected.needs_teacher == (spec != "hard")


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("stored:views=0", "`views` of at least 1, got 0"),
        ("stored:views=1.5", "`views` of at least 1, got 1.5"),
        ("online:bits=8", "`bits` 16 or 32, got 8"),
        ("hard:views=2", "Options of `hard`: none"),
        ("soft", "Unknown label regime `soft`. Known: hard, stored, online"),
    ],
)
def test_an_unusable_regime_is_refused(spec: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        LABELS.create(spec)


@pytest.mark.parametrize(
    ("spec", "num_classes", "expected"),
    [
        ("hard", 10, 1),
        ("online", 300, 2),
        ("stored", 10, 1 + 2 * 4),
        ("stored:views=3", 300, 2 + 3 * (2 * 4 + 3)),
    ],
)
def test_bytes_of_labels_count_logits_and_view_parameters(spec: str, num_classes: int, expected: int) -> None:
    regime = LABELS.create(spec)
    parameters = 3 if "views" in spec else 0
    assert (
        regime.exemplar_nbytes(num_classes=num_classes, num_covered=4, num_parameters=parameters) == expected
    )


def test_labels_are_the_logits_of_the_classes_that_the_teacher_knows() -> None:
    images, labels, teacher = make_images(), torch.tensor([1, 3, 3, 1]), make_teacher()
    soft = label(images, labels, teacher)
    assert dict(soft.covered) == {1: (1, 3), 3: (1, 3)}
    assert soft.views is None
    logits = teacher.model((images.float() / 255 - 0.4) / 0.3)[:, [1, 3]]
    torch.testing.assert_close(soft.dense(labels, [1, 3])[:, 0], logits.half())


def test_each_view_is_labelled_as_it_looks() -> None:
    images, labels, teacher = make_images(), torch.tensor([1, 3, 3, 1]), make_teacher()
    augmentation = CropFlip(pad=1)
    soft = label(images, labels, teacher, views=3, augmentation=augmentation)
    assert soft.views is not None
    assert soft.views.shape == (4, 3, 3)
    for view in range(3):
        seen = augmentation.apply(images, soft.views[:, view])
        expected = teacher.label(seen, labels, classes=[3, 1]).half()
        torch.testing.assert_close(soft.dense(labels, [3, 1])[:, view], expected)


def test_views_of_one_image_differ() -> None:
    soft = label(
        make_images(), torch.tensor([1, 3, 3, 1]), make_teacher(), views=8, augmentation=CropFlip(pad=1)
    )
    assert soft.views is not None
    assert all(len(views.unique(dim=0)) > 1 for views in soft.views)


def test_classes_that_the_stream_has_not_reached_are_not_stored() -> None:
    soft = label(make_images(1), torch.tensor([1]), make_teacher((0, 1, 2, 3)), classes=(1, 0))
    assert soft.covered[1] == (1, 0)


def test_no_images_give_no_labels() -> None:
    soft = label(make_images(0), torch.zeros(0, dtype=torch.int64), make_teacher(), views=2)
    assert (len(soft.values), soft.num_views, dict(soft.covered)) == (0, 2, {})


def test_an_unseen_class_is_refused() -> None:
    with pytest.raises(UnseenClassError, match=r"has seen classes \[1, 3\], not \[4\]"):
        label(make_images(1), torch.tensor([4]), make_teacher())


@pytest.mark.parametrize("scale", [1e6, 3e38])  # beyond half precision, and beyond single precision
def test_logits_that_are_not_finite_are_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinite logits.*may have diverged"):
        label(make_images(1), torch.tensor([1]), make_teacher(scale=scale))


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_teacher_with_weights_that_are_not_finite_is_refused(bits: int, value: float) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    with torch.no_grad():
        model.get_parameter("1.bias")[2] = value
    make: Callable[..., Teacher] = Teacher
    with pytest.raises(ValueError, match=f"`1.bias` is not finite in {bits} bits.*did not diverge"):
        make(model, classes=[0], bits=bits)
