"""How teachers are trained, and what they have to reach before they are used."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from gift_cl.class_order import ClassOrder, find_class_order, teacher_predictions
from gift_cl.dataset import DistilledDataset
from gift_cl.evaluation.accuracy import Accuracy, measure
from gift_cl.evaluation.labelling import ClassCountError, seeded
from gift_cl.evaluation.precision import Precision
from gift_cl.evaluation.recipe import Recipe
from gift_cl.evaluation.training import History, train
from gift_cl.models import ObserverCard, TeacherMismatchError, build_model, check_against_card
from gift_cl.normalization import build_normalization
from gift_cl.progress import Progress, silent
from gift_cl.real_data import PUBLISHED, RealData
from gift_cl.teacher_file import LoadedTeacher

_LARGE = 64  # images with more pixels a side are cropped as ImageNet's are
_DIGITS = ("digits", "mnist")  # digits may not be mirrored
_WITHOUT_BATCH_NORM = ("alexnet", "vgg11", "vgg13", "vgg16", "vgg19")
_TRANSFORMERS = ("vit_", "swin_", "maxvit_")
_LISTED = 5  # classes that a message spells out


def teacher_recipe(
    dataset: str, model: str, *, normalization: str, image_size: int | None = None, **overrides: Any
) -> Recipe:
    """The recipe of published observers, for any data set and network.

    RDED and GIFT say of theirs that torchvision's reference script trained them, as it did SRe2L's: SGD with
    momentum 0.9, a cosine, hard labels, cross-entropy, weight decay on all parameters. The rest depends on
    the data set:

    - CIFAR, and other small images: learning rate 0.1, weight decay 5e-4, 200 epochs in batches of 128,
      crops after a padding of 4 of 32 pixels, flips. As SRe2L's teacher of CIFAR-100.
    - Tiny-ImageNet: 0.2 after a warm-up of 5 epochs, 1e-4, batches of 256, random resized crops, flips. As
      the published ones of zeyuanyin/tiny-imagenet.
    - ImageNet, its subsets, and other images of more than 64 pixels a side: 0.1, 1e-4, 90 epochs in batches
      of 256 (8 processes of 32), random resized crops, flips. As torchvision's ResNets, but for the cosine:
      theirs is a tenth every 30 epochs.
    - AlexNet, and VGG without batch norm: 0.01, as torchvision's.

    Not published, and chosen: the epochs of Tiny-ImageNet's observers, 200 of the 50, 100 and 200 that
    SRe2L's have; 200 epochs for the subsets of ImageNet; for other data sets what is said of them above, with
    a padding of an eighth of the side; no flips of digits. For transformers, AdamW with weight decay 0.05 on
    weights alone as torchvision's Swin has it, its 1e-3 for 1,024 images scaled to 2.5e-4 for 256, and a
    warm-up of 5 epochs (20 of 300 there), without its augmentations.

    Args:
        dataset: Name of the data set; see `gift_cl.real_data.PUBLISHED`.
        model: Spec of the network.
        normalization: As for `Recipe`.
        image_size: Pixels a side. Needed where ``dataset`` does not tell.
        overrides: Other settings of a `Recipe`.

    Raises:
        ValueError: If a setting is unknown or a value cannot be used, or the image size is missing.

    Source:
        VILA-Lab/SRe2L@8d00cba, relabel_cifar; zeyuanyin/tiny-imagenet@275c667, script/train_rn18.sh;
        pytorch/vision, references/classification; LINs-lab/RDED@3f6453d.

    Example:
        >>> recipe = teacher_recipe("cifar100", "conv3", normalization="imagenet", seed=1)
        >>> recipe.lr, recipe.weight_decay, recipe.epochs, recipe.batch_size, recipe.view
        (0.1, 0.0005, 200, 128, 'crop_flip:pad=4,flip=true')
    """
    settings = _of_data(dataset, image_size) | _of_network(model.partition(":")[0])
    shared: dict[str, Any] = {
        "optimizer": "SGD",
        "momentum": 0.9,
        "loss": "ce",
        "labels": "hard",
        "evaluations": 1,
    }
    return Recipe(**(shared | settings), normalization=normalization).override(**overrides)


def _of_data(dataset: str, image_size: int | None) -> dict[str, Any]:
    card = PUBLISHED.get(dataset)
    if dataset == "tinyimagenet":
        return {
            "epochs": 200,
            "batch_size": 256,
            "lr": 0.2,
            "weight_decay": 1e-4,
            "schedule": "warmup:epochs=5,start=0.01 | cosine",
            "view": "rrc:min_scale=0.08 | flip",
        }
    is_imagenet = card is not None and "imagenet-1k" in (card.name, card.parent)
    size = card.native_size if image_size is None and card is not None else image_size
    if size is None and not is_imagenet:
        raise ValueError(f"Expected `image_size` for `{dataset}`, which is no published data set.")
    if size is None or is_imagenet or size > _LARGE:
        return {
            "epochs": 90 if dataset == "imagenet-1k" else 200,
            "batch_size": 256,
            "lr": 0.1,
            "weight_decay": 1e-4,
            "schedule": "cosine",
            "view": "rrc:min_scale=0.08 | flip",
        }
    flip = "false" if dataset in _DIGITS else "true"
    return {
        "epochs": 200,
        "batch_size": 128,
        "lr": 0.1,
        "weight_decay": 5e-4,
        "schedule": "cosine",
        "view": f"crop_flip:pad={size // 8},flip={flip}",
    }


def _of_network(name: str) -> dict[str, Any]:
    """What a network needs in place of the settings of its data."""
    if name in _WITHOUT_BATCH_NORM:
        return {"lr": 0.01}
    if name.startswith(_TRANSFORMERS):
        return {
            "optimizer": "AdamW",
            "lr": 2.5e-4,
            "weight_decay": 0.05,
            "decay_all": False,
            "schedule": "warmup:epochs=5,start=0.01 | cosine",
        }
    return {}


def train_teacher(
    data: RealData,
    model: str,
    recipe: Recipe,
    *,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> tuple[nn.Module, History]:
    """Train a network on all training images, and measure it on the test images.

    On a CPU the images stay where they are mapped from; elsewhere they lie on the device as uint8. A batch is
    normalised when it is drawn.

    Args:
        data: Square images.
        model: Spec of the network; its initial weights follow from the seed of the recipe.
        recipe: All numbers, with hard labels.
        device: Where everything is computed.
        progress: Told of images trained on, so far and in all.

    Returns:
        The network, on the device, and the history; the last point of its curve is what the network reaches.

    Raises:
        ValueError: If the images are not square, or the network cannot be built for them.
        DivergedError: At the end of an epoch in which the loss was not finite.
        TooLargeError: If not even a single image fits the memory.
    """
    channels, height, width = data.image_shape
    if height != width:
        raise ValueError(f"Expected square images, got {height} x {width} pixels. Pass `image_size`.")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeded("weights", recipe.seed).initial_seed())
        network = build_model(model, in_channels=channels, image_size=height, num_classes=data.num_classes)

    def measure_on_test(student: nn.Module) -> Accuracy:
        return measure(
            student,
            data.test.images,
            data.test.labels,
            normalization=build_normalization(recipe.normalization),
            device=device,
            precision=recipe.precision,
        )

    history = train(network, data.train, recipe, device=device, measure=measure_on_test, progress=progress)
    return network, history


def measure_teacher(
    loaded: LoadedTeacher,
    test: DistilledDataset,
    *,
    card: ObserverCard | None = None,
    tolerance: float = 2.0,
    precision: Precision = "float32",
) -> Accuracy:
    """The accuracy of a teacher on real test images, if it is the one that is expected of it.

    Expected is what its file says; a published file says nothing, and there the card counts. Without either
    a teacher is refused only if it clearly numbers the classes in another order than the labels.

    Args:
        loaded: On any device.
        test: Real images as they are.
        card: Of a published teacher, from `gift_cl.models.find_card`.
        tolerance: Percentage points that may be missing; more accuracy than expected is never refused.
        precision: Of the forward passes.

    Raises:
        TeacherMismatchError: If more is missing; the message says so if another order of the classes would
            explain it.
        ClassCountError: If teacher and images differ in their number of classes.
        UnseenClassError: If there are images of a class that the teacher has not seen.
        ValueError: If the images are of another shape than the teacher takes, or a logit is not finite.
    """
    teacher = loaded.teacher
    _check_images(loaded, test)
    accuracy = measure(
        teacher.model,
        test.images,
        test.labels,
        normalization=teacher.normalization,
        device=teacher.device,
        precision=precision,
    )
    mismatch = _mismatch(loaded, accuracy.top1, card, tolerance)
    if mismatch or (loaded.accuracy is None and card is None):
        order = find_class_order(
            teacher_predictions(teacher, test.images), test.labels, num_classes=test.num_classes
        )
        if mismatch or not order.is_identity:
            raise TeacherMismatchError(" ".join(filter(None, (mismatch, _explain(order, test)))))
    return accuracy


def _check_images(loaded: LoadedTeacher, test: DistilledDataset) -> None:
    if loaded.num_classes != test.num_classes:
        raise ClassCountError(
            f"Expected images of {loaded.num_classes} classes, as many as the teacher has, got "
            f"{test.num_classes}. Use the test images of its data set."
        )
    if loaded.image_shape != test.encoded.image_shape:
        raise ValueError(
            f"Expected images of the shape that the teacher takes, {loaded.image_shape}, got "
            f"{test.encoded.image_shape}. Load them with its `image_size`."
        )
    loaded.teacher.require_seen(test.classes)


def _mismatch(loaded: LoadedTeacher, top1: float, card: ObserverCard | None, tolerance: float) -> str:
    """What is wrong with an accuracy; empty if nothing is."""
    if loaded.accuracy is None:
        try:
            if card is not None:
                check_against_card(card, top1, tolerance=tolerance)
        except TeacherMismatchError as error:
            return str(error)
        return ""
    if not tolerance >= 0:
        raise ValueError(f"Expected `tolerance` of at least 0 percentage points, got {tolerance}.")
    if round(100 * (loaded.accuracy.top1 - top1), 6) <= tolerance:
        return ""
    return (
        f"Expected a top-1 accuracy of {loaded.accuracy.top1:.2%}, which its file says it had on "
        f"`{loaded.dataset}`, at most {tolerance:g} points less, got {top1:.2%}. Measure it on the test "
        "images of that data set."
    )


def _explain(order: ClassOrder, test: DistilledDataset) -> str:
    """How another order of the classes explains the accuracy; empty if none does."""
    if order.is_identity:
        return ""
    names = test.class_names or tuple(f"class {label}" for label in range(test.num_classes))
    moves = [f"{names[label]} (label {label}) is its output {other}" for label, other in order.moved.items()]
    more = f" and {len(moves) - _LISTED} more" if len(moves) > _LISTED else ""
    return (
        f"It numbers the classes in another order: with {len(moves)} of them moved it would reach "
        f"{order.matched_accuracy:.2%}; {', '.join(moves[:_LISTED])}{more}. Name them in its order in a file "
        "classes.txt beside train/."
    )
