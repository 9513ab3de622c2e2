"""Images for experiments: scikit-learn's digits, or any ImageFolder in a folder or a zip."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


@dataclass(frozen=True)
class ImageData:
    """A classification data set in memory.

    Args:
        name: Short name, for rows.
        train_images: uint8 (N, C, H, W).
        train_labels: int64 (N,).
        test_images: uint8 (M, C, H, W).
        test_labels: int64 (M,).
        class_names: Name of each class; its length is the number of classes.
        mean: Channel means of the training images in [0, 1].
        std: Channel standard deviations.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def num_classes(self) -> int:
        """``C``."""
        return len(self.class_names)


def load_data(source: str) -> ImageData:
    """The data set that ``source`` names.

    Args:
        source: ``digits``, or the path of a folder or zip with ``train/<class>/<image>`` and
            ``test/<class>/<image>`` (``val`` will do). Sorted class names give the labels.

    Raises:
        FileNotFoundError: If there is no such folder or file.
        ValueError: If it is not an ImageFolder, or its images differ in size.
    """
    if source == "digits":
        return load_digits()
    path = Path(source)
    if path.is_dir():
        return _image_folder(path.name, dict(_files_of_folder(path)))
    if path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return _image_folder(path.stem, _files_of_zip(archive))
    raise FileNotFoundError(
        f"Expected `data` to be `digits`, or a folder or zip with train/<class>/ and test/<class>/, "
        f"got `{source}`."
    )


def load_digits() -> ImageData:
    """scikit-learn's digits: 1,797 real images of 8x8; a fixed, stratified fifth is the test set."""
    from sklearn.datasets import load_digits as bundled
    from sklearn.model_selection import train_test_split

    raw = bundled()
    images = torch.from_numpy(np.round(raw.images * 255 / 16).astype(np.uint8))[:, None]
    labels = torch.from_numpy(raw.target.astype(np.int64))
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, random_state=0, stratify=raw.target)
    names = tuple(str(n) for n in range(10))
    return _with_statistics("digits", images[train], labels[train], images[test], labels[test], names)


def hold_out(data: ImageData, share: float, *, seed: int) -> ImageData:
    """The same data with a part of the training images, class by class, in the place of the test images.

    Choices are made on this, so that the test images stay unseen.
    """
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(data.train_labels), dtype=torch.bool)
    for label in range(data.num_classes):
        indices = (data.train_labels == label).nonzero().flatten()
        count = max(1, round(share * len(indices)))
        held[indices[torch.randperm(len(indices), generator=generator)[:count]]] = True
    return replace(
        data,
        train_images=data.train_images[~held],
        train_labels=data.train_labels[~held],
        test_images=data.train_images[held],
        test_labels=data.train_labels[held],
    )


def _files_of_folder(root: Path) -> Iterator[tuple[str, bytes]]:
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix.lower() in _SUFFIXES:
                yield path.relative_to(root).as_posix(), path.read_bytes()


def _files_of_zip(archive: zipfile.ZipFile) -> dict[str, bytes]:
    names = sorted(n for n in archive.namelist() if PurePosixPath(n).suffix.lower() in _SUFFIXES)
    return {name: archive.read(name) for name in names}


def _image_folder(name: str, files: dict[str, bytes]) -> ImageData:
    splits: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
    for file in files:
        parts = PurePosixPath(file).parts
        if len(parts) >= 3:
            split = {"val": "test"}.get(parts[-3], parts[-3])
            if split in splits:
                splits[split].append((parts[-2], file))
    missing = [split for split, found in splits.items() if not found]
    if missing:
        raise ValueError(
            f"Expected {name} to hold train/<class>/<image> and test/<class>/<image>, found nothing "
            f"for {missing}."
        )
    classes = tuple(sorted({c for found in splits.values() for c, _ in found}))
    index = {c: i for i, c in enumerate(classes)}
    arrays = []
    for found in splits.values():
        found.sort()
        images = [_decode(file, files[file]) for _, file in found]
        if len({image.shape for image in images}) > 1:
            raise ValueError(f"Expected images of one size in {name}, got several. Resize them.")
        arrays.append(torch.stack(images))
        arrays.append(torch.tensor([index[c] for c, _ in found]))
    train_images, train_labels, test_images, test_labels = arrays
    if absent := sorted(set(range(len(classes))) - set(train_labels.tolist())):
        raise ValueError(f"Expected training images of every class, got none of {classes[absent[0]]}.")
    return _with_statistics(name, train_images, train_labels, test_images, test_labels, classes)


def _decode(name: str, content: bytes) -> Tensor:
    try:
        with Image.open(io.BytesIO(content)) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"Cannot read the image `{name}`: {error}. Remove or replace it.") from error


def _with_statistics(
    name: str,
    train_images: Tensor,
    train_labels: Tensor,
    test_images: Tensor,
    test_labels: Tensor,
    class_names: tuple[str, ...],
) -> ImageData:
    pixels = train_images.float().div(255)
    return ImageData(
        name,
        train_images,
        train_labels,
        test_images,
        test_labels,
        class_names,
        tuple(round(float(v), 4) for v in pixels.mean((0, 2, 3))),
        tuple(round(float(v), 4) for v in pixels.std((0, 2, 3))),
    )
