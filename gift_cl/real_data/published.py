"""What is known of published data sets: their sizes, the order of their classes, and their layouts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Layout = Literal["folder", "cifar", "idx", "bundled"]
"""Classes in folders; torchvision's CIFAR batches; MNIST's idx files; images that come with scikit-learn."""


@dataclass(frozen=True, kw_only=True)
class PublishedData:
    """A data set that is known by name.

    Args:
        name: What users type.
        layout: How it was published. Classes in folders are read whatever the layout.
        num_classes: ``C``.
        num_images: Training and test images; None where copies differ.
        folders: Names of its folder, as it unpacks or is often called, besides ``name``.
        classes: Names of the classes in the order of their labels; None if that is the order of the names.
        native_size: Height and width of every image in pixels; None if images differ.
        mode: Pillow's name for colour or gray.
        parent: A data set that this one is a part of.
    """

    name: str
    layout: Layout = "folder"
    num_classes: int
    num_images: tuple[int, int] | None = None
    folders: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    native_size: int | None = None
    mode: Literal["RGB", "L"] = "RGB"
    parent: str | None = None


_DIGITS = tuple("0123456789")
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR100 = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly "
    "camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile "
    "cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp "
    "lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree "
    "orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum "
    "rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider "
    "squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train "
    "trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)
_FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_NETTE = (
    *("n01440764", "n02102040", "n02979186", "n03000684", "n03028079"),
    *("n03394916", "n03417042", "n03425413", "n03445777", "n03888257"),
)
_WOOF = (  # not sorted: the order of MTT and DATM, in which the published teachers number the classes
    *("n02096294", "n02093754", "n02111889", "n02088364", "n02086240"),
    *("n02089973", "n02087394", "n02115641", "n02099601", "n02105641"),
)

PUBLISHED: dict[str, PublishedData] = {
    card.name: card
    for card in (
        PublishedData(
            name="cifar10",
            layout="cifar",
            num_classes=10,
            num_images=(50_000, 10_000),
            folders=("cifar-10-batches-py",),
            classes=_CIFAR10,
            native_size=32,
        ),
        PublishedData(
            name="cifar100",
            layout="cifar",
            num_classes=100,
            num_images=(50_000, 10_000),
            folders=("cifar-100-python",),
            classes=tuple(_CIFAR100.split()),
            native_size=32,
        ),
        PublishedData(
            name="tinyimagenet",
            num_classes=200,
            num_images=(100_000, 10_000),
            folders=("tiny-imagenet-200",),
            native_size=64,
        ),
        PublishedData(
            name="imagenet-1k", num_classes=1000, num_images=(1_281_167, 50_000), folders=("imagenet",)
        ),
        PublishedData(
            name="imagenet-nette",
            num_classes=10,
            folders=("imagenette2", "imagenette2-320", "imagenette2-160"),
            classes=_NETTE,
            parent="imagenet-1k",
        ),
        PublishedData(
            name="imagenet-woof",
            num_classes=10,
            folders=("imagewoof2", "imagewoof2-320", "imagewoof2-160"),
            classes=_WOOF,
            parent="imagenet-1k",
        ),
        PublishedData(name="imagenet-10", num_classes=10, parent="imagenet-1k"),
        PublishedData(name="imagenet-100", num_classes=100, parent="imagenet-1k"),
        PublishedData(
            name="mnist",
            layout="idx",
            num_classes=10,
            num_images=(60_000, 10_000),
            folders=("MNIST",),
            classes=_DIGITS,
            native_size=28,
            mode="L",
        ),
        PublishedData(
            name="fashion-mnist",
            layout="idx",
            num_classes=10,
            num_images=(60_000, 10_000),
            folders=("FashionMNIST",),
            classes=_FASHION,
            native_size=28,
            mode="L",
        ),
        PublishedData(
            name="digits",
            layout="bundled",
            num_classes=10,
            num_images=(1437, 360),
            classes=_DIGITS,
            native_size=8,
            mode="L",
        ),
    )
}
"""Data sets by name.

Source: ImageNet-Woof is in the order of the class lists of NUS-HPC-AI-Lab/DATM@97ae510, ImageNet-Nette in
fastai's. The classes of ImageNet-10 and ImageNet-100 were not published with their teachers: a file
``classes.txt`` beside the data names them, or the folders that are there do. ImageNet-Nette and ImageNet-Woof
as fastai packs them divide their images otherwise than ImageNet does: accuracies on the two do not compare.
"""
