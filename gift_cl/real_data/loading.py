"""Real data sets by name or path, decoded once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

from gift_cl.codecs import build_codec
from gift_cl.dataset import DistilledDataset, Provenance
from gift_cl.progress import Progress, silent
from gift_cl.real_data.cache import cached
from gift_cl.real_data.decoding import decode_split
from gift_cl.real_data.finding import find_source
from gift_cl.real_data.published import PublishedData
from gift_cl.real_data.real_data import RealData
from gift_cl.real_data.source import Source, SplitName, digest

_ROOT_VARIABLE = "GIFT_CL_DATA"
_CACHE_FOLDER = ".gift-cl-cache"
_VERSION = "1"  # of how files become pixels; another one makes all caches again


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder of all data sets: ``root``, or what GIFT_CL_DATA says in the environment, or ``./data``."""
    return Path(root or os.environ.get(_ROOT_VARIABLE) or "data")


def load_real_data(
    name_or_path: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> RealData:
    """Training and test images of a data set.

    Args:
        name_or_path: A name of `PUBLISHED`; or a folder or zip with ``train/<class>/<image>`` and
            ``test/<class>/<image>`` (``val`` will do), at this path or below the root.
        root: Folder of all data sets, see `data_root`. For a name it may also be the folder or zip of this
            one.
        image_size: Height and width. None leaves images as they are, if they are of one size. Images that
            have this size already are left too. Others are resized and their centre is cropped, training and
            test images alike: the shorter side to 8/7 of the size (256 for 224, 146 for 128, 73 for 64). Data
            sets that were published in one size (CIFAR, Tiny-ImageNet, MNIST, digits) keep their margins: the
            shorter side goes to the size itself.
        cache: Folder of decoded images, by default ``.gift-cl-cache`` in the root. It may be deleted at any
            time.
        progress: Told of images that are decoded, first of training, then of test.

    Returns:
        Raw images, mapped into memory from the cache: a batch reads its own bytes only. While the cache is
        made, all images of a split are in memory.

    Raises:
        FileNotFoundError: If the data set is not there; the message says where it should be.
        ValueError: If the name is unknown, or ``image_size`` less than 1.
        ReadError: If an image is damaged, sizes differ, or classes are missing; the message names what it is.

    Source:
        8/7 are the sizes of LINs-lab/GIFT@38db552 for test images: 256 and 224, 146 and 128, 73 and 64.
    """
    source = find_source(name_or_path, data_root(root))
    folder = _cache_folder(root, cache)
    train, test = (_load(source, split, image_size, folder, progress) for split in ("train", "test"))
    return RealData(name=source.name, train=train, test=test)


def load_split(
    name_or_path: str | os.PathLike[str],
    split: SplitName,
    *,
    root: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> DistilledDataset:
    """One split of a data set; the other one need not be there, and is not decoded.

    Everything else is as in `load_real_data`. Without training images, the classes are those of the test
    images.

    Raises:
        ValueError: If ``split`` is neither train nor test.
    """
    if split not in get_args(SplitName):
        raise ValueError(
            f"Expected `split` train or test, got {split!r}. For validation images call `hold_out`."
        )
    source = find_source(name_or_path, data_root(root))
    return _load(source, split, image_size, _cache_folder(root, cache), progress)


def _cache_folder(root: str | os.PathLike[str] | None, cache: str | os.PathLike[str] | None) -> Path:
    if cache is not None:
        return Path(cache)
    place = data_root(root)
    return (place.parent if place.is_file() else place) / _CACHE_FOLDER


def _load(
    source: Source, split: SplitName, image_size: int | None, folder: Path, progress: Progress
) -> DistilledDataset:
    sizes = _sizes(source.card, image_size)

    def build() -> DistilledDataset:
        opened = source.open(split)
        images = decode_split(opened, sizes=sizes, progress=progress)
        resized = "" if sizes is None else f", resized to {sizes[0]} and cropped to {sizes[1]}"
        return DistilledDataset(
            encoded=build_codec("raw").encode(images),
            labels=opened.labels,
            num_classes=len(opened.class_names),
            class_names=opened.class_names,
            provenance=Provenance(method="real", source=f"{split} images of {source.where}{resized}"),
        )

    fingerprint = source.fingerprint(split)
    if fingerprint is None:
        return build()
    content = digest([_VERSION, source.name, fingerprint, str(sizes)])
    label = source.name
    if source.card is None:  # others may have folders of this name
        label += f"-{digest([os.path.realpath(source.where)])[:8]}"
    return cached(folder / f"{label}-{split}-{image_size or 'native'}.safetensors", content, build)


def _sizes(card: PublishedData | None, image_size: int | None) -> tuple[int, int] | None:
    """Pixels of the shorter side once it is resized, and of the crop."""
    if image_size is None:
        return None
    if image_size < 1:
        raise ValueError(f"Expected `image_size` of at least 1, got {image_size}.")
    is_native = card is not None and card.native_size is not None
    return (image_size if is_native else round(image_size * 8 / 7)), image_size
