from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_data import make_dataset, make_teacher
from torch import nn

from gift_cl.dataset import DistilledDataset
from gift_cl.evaluation.accuracy import Accuracy
from gift_cl.evaluation.labelling import ClassCountError
from gift_cl.evaluation.recipe import Recipe
from gift_cl.evaluation.teacher_recipe import measure_teacher, teacher_recipe, train_teacher
from gift_cl.evaluation.training import History
from gift_cl.models import ObserverCard, TeacherMismatchError
from gift_cl.normalization import build_normalization
from gift_cl.real_data import RealData, load_real_data
from gift_cl.teacher import Teacher, UnseenClassError
from gift_cl.teacher_file import LoadedTeacher, load_teacher, save_teacher

NORMALIZATION = "0.3/0.38"
TINY_VIEW = "rrc:min_scale=0.08 | flip"
WARM = "warmup:epochs=5,start=0.01 | cosine"


def recipe_of(dataset: str, model: str = "resnet18", **values: Any) -> tuple[Any, ...]:
    recipe = teacher_recipe(dataset, model, normalization="imagenet", **values)
    assert (recipe.optimizer, recipe.momentum, recipe.decay_all) == ("SGD", 0.9, True)
    assert (recipe.loss, recipe.labels, recipe.mix, recipe.evaluations) == ("ce", "hard", "none", 1)
    assert recipe.normalization == "imagenet"
    numbers = recipe.epochs, recipe.batch_size, recipe.lr, recipe.weight_decay
    return *numbers, recipe.schedule, recipe.view


@pytest.mark.parametrize(
    ("dataset", "size", "expected"),
    [
        ("cifar100", None, (200, 128, 0.1, 5e-4, "cosine", "crop_flip:pad=4,flip=true")),
        ("cifar10", 32, (200, 128, 0.1, 5e-4, "cosine", "crop_flip:pad=4,flip=true")),
        ("tinyimagenet", None, (200, 256, 0.2, 1e-4, WARM, TINY_VIEW)),
        ("imagenet-1k", 224, (90, 256, 0.1, 1e-4, "cosine", TINY_VIEW)),
        ("imagenet-1k", 64, (90, 256, 0.1, 1e-4, "cosine", TINY_VIEW)),
        ("imagenet-1k", None, (90, 256, 0.1, 1e-4, "cosine", TINY_VIEW)),
        ("imagenet-nette", 128, (200, 256, 0.1, 1e-4, "cosine", TINY_VIEW)),
        ("fashion-mnist", None, (200, 128, 0.1, 5e-4, "cosine", "crop_flip:pad=3,flip=true")),
        ("mnist", None, (200, 128, 0.1, 5e-4, "cosine", "crop_flip:pad=3,flip=false")),
        ("digits", None, (200, 128, 0.1, 5e-4, "cosine", "crop_flip:pad=1,flip=false")),
        ("my/folder", 64, (200, 128, 0.1, 5e-4, "cosine", "crop_flip:pad=8,flip=true")),
        ("my/folder", 65, (200, 256, 0.1, 1e-4, "cosine", TINY_VIEW)),
    ],
)
def test_recipes_are_those_of_the_sources(dataset: str, size: int | None, expected: tuple[Any, ...]) -> None:
    assert recipe_of(dataset, image_size=size) == expected


@pytest.mark.parametrize(("model", "lr"), [("vgg11", 0.01), ("alexnet", 0.01), ("vgg11_bn", 0.1)])
def test_networks_without_batch_norm_start_lower(model: str, lr: float) -> None:
    assert recipe_of("imagenet-1k", model)[2] == lr


def test_transformers_are_trained_with_adamw() -> None:
    recipe = teacher_recipe("cifar100", "vit_b_16", normalization="cifar")
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay, recipe.decay_all) == (
        *("AdamW", 2.5e-4, 0.05, False),
    )
    assert recipe.schedule == WARM


def test_every_setting_can_be_given() -> None:
    recipe = teacher_recipe(
        "cifar100", "conv3:width=64", normalization="cifar", epochs=3, lr=0.05, view="none"
    )
    assert (recipe.epochs, recipe.lr, recipe.view, recipe.weight_decay) == (3, 0.05, "none", 5e-4)
    with pytest.raises(ValueError, match="Unknown setting `epoch` of a recipe"):
        teacher_recipe("cifar100", "conv3", normalization="cifar", epoch=3)


def test_other_data_need_their_image_size() -> None:
    with pytest.raises(ValueError, match="Expected `image_size` for `my/folder`"):
        teacher_recipe("my/folder", "conv3", normalization="none")


@cache
def digits() -> RealData:
    return load_real_data("digits")


def digits_recipe(**values: Any) -> Recipe:
    return teacher_recipe("digits", "mlp", normalization=NORMALIZATION, **({"epochs": 20} | values))


@cache
def trained() -> tuple[nn.Module, History]:
    return train_teacher(digits(), "mlp", digits_recipe())


def test_a_teacher_of_digits_learns_them_in_twenty_epochs() -> None:
    history = trained()[1]
    assert [epoch for epoch, _ in history.curve] == [20]
    accuracy = history.curve[-1][1]
    assert (accuracy.n, history.num_images) == (360, 20 * 1437)
    assert accuracy.top1 > 0.9  # 0.953 measured


def test_the_same_seed_gives_the_same_weights_to_the_last_bit() -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    runs = [train_teacher(digits(), "mlp", digits_recipe(epochs=1, seed=seed))[0] for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    states = [run.state_dict() for run in runs]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_training_images_are_not_changed() -> None:
    before = digits().train.images.clone()
    train_teacher(digits(), "mlp:hidden=4", digits_recipe(epochs=1))
    assert torch.equal(digits().train.images, before)


def test_images_that_are_not_square_are_refused() -> None:
    images = torch.zeros(4, 1, 8, 9, dtype=torch.uint8)
    part = DistilledDataset.from_images(images, torch.arange(4) % 2, num_classes=2)
    with pytest.raises(ValueError, match="Expected square images, got 8 x 9 pixels"):
        train_teacher(RealData("toys", part, part), "mlp", digits_recipe())


def test_a_saved_and_loaded_teacher_answers_identically(tmp_path: Path) -> None:
    network, history = trained()
    normalization = build_normalization(NORMALIZATION)
    save_teacher(
        tmp_path / "digits.safetensors",
        "mlp",
        network,
        classes=digits().train.classes,
        num_classes=10,
        normalization=normalization,
        image_shape=(1, 8, 8),
        dataset="digits",
        accuracy=history.curve[-1][1],
        class_names=digits().class_names,
        provenance={"settings": digits_recipe().as_dict()},
    )
    loaded = load_teacher(tmp_path / "digits.safetensors")
    teacher = Teacher(network, classes=range(10), normalization=normalization)
    images = digits().test.images
    assert torch.equal(loaded.teacher.logits(images), teacher.logits(images))
    assert measure_teacher(loaded, digits().test, tolerance=0) == history.curve[-1][1]
    assert Recipe(**loaded.provenance["settings"]) == digits_recipe()


def loaded_teacher(
    order: tuple[int, ...] = (0, 1, 2), *, claimed: float | None = None, **values: Any
) -> LoadedTeacher:
    """Always right, but that it calls class ``c`` ``order[c]``."""
    perfect = make_teacher()
    head = nn.Linear(3, 3, bias=False)
    head.weight = nn.Parameter(torch.eye(3)[list(order)].T)
    settings: dict[str, Any] = {
        "teacher": Teacher(
            nn.Sequential(perfect.model, head), classes=range(3), normalization=perfect.normalization
        ),
        "model": "linear",
        "image_shape": (1, 8, 8),
        "num_classes": 3,
        "dataset": "toys",
        "accuracy": None if claimed is None else Accuracy(claimed, 1.0, 90),
    }
    return LoadedTeacher(**(settings | values))


def make_card(accuracy: float) -> ObserverCard:
    return ObserverCard("toys", "linear", accuracy, 8, 3, ("none",), "nobody")


TEST = make_dataset(90)
SWAPPED = (1, 0, 2)


@pytest.mark.parametrize("card", [None, make_card(1.0)])
def test_a_teacher_that_is_what_it_should_be_is_measured(card: ObserverCard | None) -> None:
    assert measure_teacher(loaded_teacher(), TEST, card=card) == Accuracy(1.0, 1.0, 90)


def test_more_than_expected_is_never_refused() -> None:
    assert measure_teacher(loaded_teacher(claimed=0.5), TEST, tolerance=0).top1 == 1.0


def test_what_is_missing_is_compared_with_the_tolerance() -> None:
    """Two of 90 labels are wrong: 97.78 %."""
    labels = TEST.labels.clone()
    labels[:2] = (labels[:2] + 1) % 3
    test = replace(TEST, labels=labels)
    loaded = loaded_teacher(claimed=0.9978)
    assert measure_teacher(loaded, test, tolerance=2.1).top1 == pytest.approx(88 / 90)
    with pytest.raises(TeacherMismatchError, match="of 99.78%, which its file says it had on `toys`.*97.78%"):
        measure_teacher(loaded, test, tolerance=1.9)


def test_another_order_of_the_classes_is_found_out() -> None:
    test = replace(TEST, class_names=("cat", "dog", "ship"))
    with pytest.raises(TeacherMismatchError) as caught:
        measure_teacher(loaded_teacher(SWAPPED), test, card=make_card(0.97))
    message = str(caught.value)
    assert "Expected a top-1 accuracy of 97.00% from `toys_linear.pth`" in message
    assert "with 2 of them moved it would reach 100.00%" in message
    assert "cat (label 0) is its output 1, dog (label 1) is its output 0" in message


def test_the_direction_of_another_order_is_the_right_one() -> None:
    with pytest.raises(
        TeacherMismatchError, match=r"class 0 \(label 0\) is its output 1, class 1 \(.*output 2"
    ):
        measure_teacher(loaded_teacher((1, 2, 0)), TEST, card=make_card(0.97))


def test_a_file_of_its_own_counts_for_more_than_a_card() -> None:
    assert measure_teacher(loaded_teacher(SWAPPED, claimed=1 / 3), TEST, card=make_card(0.97)).top1 == 1 / 3
    with pytest.raises(TeacherMismatchError, match="its file says.*in another order"):
        measure_teacher(loaded_teacher(SWAPPED, claimed=0.9), TEST, card=make_card(0.1))


def test_without_expectations_only_another_order_is_refused() -> None:
    with pytest.raises(TeacherMismatchError, match="^It numbers the classes in another order"):
        measure_teacher(loaded_teacher(SWAPPED), TEST)
    constant = loaded_teacher()
    with torch.no_grad():
        constant.teacher.model[1].weight.zero_()  # type: ignore[index]
    assert measure_teacher(constant, TEST).top1 == pytest.approx(1 / 3)


def test_a_teacher_that_knows_nothing_is_not_said_to_have_another_order() -> None:
    constant = loaded_teacher()
    with torch.no_grad():
        constant.teacher.model[1].weight.zero_()  # type: ignore[index]
    with pytest.raises(TeacherMismatchError) as caught:
        measure_teacher(constant, TEST, card=make_card(0.9))
    assert "moved it would reach" not in str(caught.value)


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ClassCountError, match="Expected images of 3 classes.*got 10"):
        measure_teacher(loaded_teacher(), digits().test)
    with pytest.raises(ValueError, match=r"that the teacher takes, \(3, 8, 8\), got \(1, 8, 8\)"):
        measure_teacher(loaded_teacher(image_shape=(3, 8, 8)), TEST)
    half = Teacher(make_teacher().model, classes=[0, 1])
    with pytest.raises(UnseenClassError, match=r"not \[2\]"):
        measure_teacher(loaded_teacher(teacher=half), TEST)


@pytest.mark.parametrize("values", [{"claimed": 1.0}, {}])
def test_a_negative_tolerance_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Expected `tolerance` of at least 0"):
        measure_teacher(loaded_teacher(**values), TEST, card=make_card(1.0), tolerance=-1)
