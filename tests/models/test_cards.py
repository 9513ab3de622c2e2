from __future__ import annotations

import dataclasses
import math

import pytest

from gift_cl.models import OBSERVERS, TeacherMismatchError, build_model, check_against_card, find_card
from gift_cl.models.cards import ObserverCard
from gift_cl.normalization import NORMALIZATIONS

# File name, top-1 accuracy in percent, image size, classes: as published.
PUBLISHED = [
    ("cifar10_resnet18_modified.pth", 93.86, 32, 10),
    ("cifar10_conv3.pth", 82.24, 32, 10),
    ("cifar100_resnet18_modified.pth", 72.27, 32, 100),
    ("cifar100_conv3.pth", 61.27, 32, 100),
    ("tinyimagenet_resnet18_modified.pth", 61.98, 64, 200),
    ("tinyimagenet_conv4.pth", 49.73, 64, 200),
    ("imagenet-nette_resnet18.pth", 90.00, 224, 10),
    ("imagenet-nette_conv5.pth", 89.60, 128, 10),
    ("imagenet-woof_resnet18.pth", 75.00, 224, 10),
    ("imagenet-woof_conv5.pth", 67.40, 128, 10),
    ("imagenet-10_resnet18.pth", 87.40, 224, 10),
    ("imagenet-10_conv5.pth", 85.40, 128, 10),
    ("imagenet-100_resnet18.pth", 83.40, 224, 100),
    ("imagenet-100_conv6.pth", 72.82, 128, 100),
    ("imagenet-1k_conv4.pth", 43.60, 64, 1000),
]


@pytest.fixture
def card() -> ObserverCard:
    found = find_card("cifar100", "resnet18_modified")
    assert found is not None
    return found


def test_cards_hold_what_was_published() -> None:
    found = [(c.file_name, round(100 * c.accuracy, 6), c.image_size, c.num_classes) for c in OBSERVERS]
    assert found == PUBLISHED


def test_only_cifar_teachers_have_a_second_normalisation_to_try() -> None:
    for card in OBSERVERS:
        expected = ("imagenet", "cifar") if card.dataset.startswith("cifar") else ("imagenet",)
        assert card.normalizations == expected


def test_tags_have_the_published_constants() -> None:
    assert NORMALIZATIONS["imagenet"].mean == (0.485, 0.456, 0.406)
    assert NORMALIZATIONS["imagenet"].std == (0.229, 0.224, 0.225)
    assert NORMALIZATIONS["cifar"].mean == (0.4914, 0.4822, 0.4465)
    assert NORMALIZATIONS["cifar"].std == (0.2023, 0.1994, 0.2010)


def test_sources_pin_a_commit() -> None:
    for card in OBSERVERS:
        both = "LINs-lab/RDED@3f6453d and LINs-lab/GIFT@38db552"
        assert card.source == ("LINs-lab/GIFT@38db552" if card.dataset == "imagenet-1k" else both)


@pytest.mark.parametrize("card", OBSERVERS, ids=lambda card: card.file_name)
def test_every_published_model_can_be_built(card: ObserverCard) -> None:
    model = build_model(card.model, in_channels=3, image_size=card.image_size, num_classes=card.num_classes)
    last = list(model.state_dict().values())[-1]
    assert last.shape == (card.num_classes,)


def test_cards_cannot_be_changed(card: ObserverCard) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        card.accuracy = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("dataset", "model"), [("imagenet-1k", "resnet18"), ("cifar10", "conv4"), ("digits", "mlp")]
)
def test_what_was_not_published_has_no_card(dataset: str, model: str) -> None:
    assert find_card(dataset, model) is None


@pytest.mark.parametrize("accuracy", [0.7027, 0.7227, 0.75, 1.0])
def test_accuracy_within_the_tolerance_or_above_the_card_passes(card: ObserverCard, accuracy: float) -> None:
    check_against_card(card, accuracy)


@pytest.mark.parametrize("published", OBSERVERS, ids=lambda card: card.file_name)
def test_exactly_the_tolerance_may_be_missing(published: ObserverCard) -> None:
    check_against_card(published, published.accuracy - 0.02)
    with pytest.raises(TeacherMismatchError):
        check_against_card(published, published.accuracy - 0.0201)


def test_mismatch_names_the_file_and_the_usual_causes(card: ObserverCard) -> None:
    with pytest.raises(
        TeacherMismatchError,
        match=r"72\.27% from `cifar100_resnet18_modified\.pth`, at most 2 points less, got 58\.60%\. .*"
        r"its 100 classes are in another order.*normalisation \(try `imagenet` or `cifar`\).*"
        r"image size \(it takes 32 pixels\)",
    ):
        check_against_card(card, 0.586)


def test_tolerance_is_in_percentage_points(card: ObserverCard) -> None:
    check_against_card(card, 0.586, tolerance=14)
    with pytest.raises(TeacherMismatchError, match=r"at most 0\.5 points"):
        check_against_card(card, 0.715, tolerance=0.5)


@pytest.mark.parametrize("accuracy", [72.27, -0.1, math.nan])
def test_accuracy_that_is_no_fraction_is_refused(card: ObserverCard, accuracy: float) -> None:
    with pytest.raises(ValueError, match=r"as a fraction in \[0, 1\], got .* Divide percentages by 100"):
        check_against_card(card, accuracy)


def test_negative_tolerance_is_refused(card: ObserverCard) -> None:
    with pytest.raises(ValueError, match="`tolerance` of at least 0 percentage points, got -1"):
        check_against_card(card, 0.72, tolerance=-1)
