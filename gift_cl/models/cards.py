"""The teachers that RDED and GIFT publish, and what each of them should reach.

A published file says nothing about the order of its classes or the normalisation of its inputs. Both are
told by the accuracy: measure a loaded teacher on the real test set and compare it with its card.
"""

from __future__ import annotations

from dataclasses import dataclass


class TeacherMismatchError(ValueError):
    """A teacher is clearly less accurate than it was published to be."""


@dataclass(frozen=True)
class ObserverCard:
    """A published teacher (RDED calls it an observer).

    Args:
        dataset: Name in the file name, such as ``cifar100``.
        model: Name in the file name, and of our `build_model`.
        accuracy: Published top-1 accuracy on the test images, in [0, 1].
        image_size: Side of its square inputs in pixels.
        num_classes: Outputs ``C``.
        normalizations: Names in `gift_cl.normalization.NORMALIZATIONS`, in the order to try them: what
            RDED's code applies to its inputs, then what GIFT's does where that differs.
        source: Repositories and commits whose tables list it.
    """

    dataset: str
    model: str
    accuracy: float
    image_size: int
    num_classes: int
    normalizations: tuple[str, ...]
    source: str

    @property
    def file_name(self) -> str:
        """Name of the published file."""
        return f"{self.dataset}_{self.model}.pth"


def find_card(dataset: str, model: str) -> ObserverCard | None:
    """The card of a published teacher, or None if there is none.

    Example:
        >>> find_card("cifar100", "conv3").accuracy
        0.6127
    """
    found = (card for card in OBSERVERS if (card.dataset, card.model) == (dataset, model))
    return next(found, None)


def check_against_card(card: ObserverCard, accuracy: float, *, tolerance: float = 2.0) -> None:
    """Refuse a teacher that is clearly less accurate than its card.

    Args:
        card: What was published.
        accuracy: Measured top-1 accuracy on the real test images, as a fraction in [0, 1], not in percent.
        tolerance: Percentage points that may be missing; more accuracy than published is never refused.

    Raises:
        TeacherMismatchError: If more is missing; the message lists the usual causes.
        ValueError: If the accuracy is no fraction, or the tolerance is negative.

    Example:
        >>> check_against_card(find_card("cifar100", "resnet18_modified"), 0.715)

    Source:
        The causes are those of LINs-lab/RDED issues #3, #4, #6, #9 and #10.
    """
    if not 0 <= accuracy <= 1:
        raise ValueError(
            f"Expected `accuracy` as a fraction in [0, 1], got {accuracy}. Divide percentages by 100."
        )
    if not tolerance >= 0:
        raise ValueError(f"Expected `tolerance` of at least 0 percentage points, got {tolerance}.")
    missing = round(100 * (card.accuracy - accuracy), 6)  # 93.86 - 91.86 is not quite 2
    if missing <= tolerance:
        return
    tags = " or ".join(f"`{tag}`" for tag in card.normalizations)
    raise TeacherMismatchError(
        f"Expected a top-1 accuracy of {card.accuracy:.2%} from `{card.file_name}`, at most {tolerance:g} "
        f"points less, got {accuracy:.2%}. The usual causes: its {card.num_classes} classes are in another "
        "order than those of the data (compare its predictions with the labels, class by class); another "
        f"normalisation (try {tags}); another image size (it takes {card.image_size} pixels)."
    )


_BOTH = "LINs-lab/RDED@3f6453d and LINs-lab/GIFT@38db552"
_IMAGENET: tuple[str, ...] = ("imagenet",)
_CIFAR: tuple[str, ...] = ("imagenet", "cifar")

OBSERVERS: tuple[ObserverCard, ...] = (
    ObserverCard("cifar10", "resnet18_modified", 0.9386, 32, 10, _CIFAR, _BOTH),
    ObserverCard("cifar10", "conv3", 0.8224, 32, 10, _CIFAR, _BOTH),
    ObserverCard("cifar100", "resnet18_modified", 0.7227, 32, 100, _CIFAR, _BOTH),
    ObserverCard("cifar100", "conv3", 0.6127, 32, 100, _CIFAR, _BOTH),
    ObserverCard("tinyimagenet", "resnet18_modified", 0.6198, 64, 200, _IMAGENET, _BOTH),
    ObserverCard("tinyimagenet", "conv4", 0.4973, 64, 200, _IMAGENET, _BOTH),
    ObserverCard("imagenet-nette", "resnet18", 0.9000, 224, 10, _IMAGENET, _BOTH),
    ObserverCard("imagenet-nette", "conv5", 0.8960, 128, 10, _IMAGENET, _BOTH),
    ObserverCard("imagenet-woof", "resnet18", 0.7500, 224, 10, _IMAGENET, _BOTH),
    ObserverCard("imagenet-woof", "conv5", 0.6740, 128, 10, _IMAGENET, _BOTH),
    ObserverCard("imagenet-10", "resnet18", 0.8740, 224, 10, _IMAGENET, _BOTH),
    ObserverCard("imagenet-10", "conv5", 0.8540, 128, 10, _IMAGENET, _BOTH),
    ObserverCard("imagenet-100", "resnet18", 0.8340, 224, 100, _IMAGENET, _BOTH),
    ObserverCard("imagenet-100", "conv6", 0.7282, 128, 100, _IMAGENET, _BOTH),
    ObserverCard("imagenet-1k", "conv4", 0.4360, 64, 1000, _IMAGENET, "LINs-lab/GIFT@38db552"),
)
"""All published teachers.

For ``imagenet-1k`` with ``resnet18`` there is no file: the papers use torchvision's weights, which reach
69.76 % as torchvision states for ``IMAGENET1K_V1``, and 69.31 % in the table of LINs-lab/CIM.
"""
