"""Plain image folders: one folder for each class, whatever the files are called."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from gift_cl.dataset import DistilledDataset, Provenance
from gift_cl.errors import LayoutError
from gift_cl.image_files import is_image_name
from gift_cl.progress import Progress
from gift_cl.readers.decoding import check_options, read_images
from gift_cl.readers.numbered import first_images
from gift_cl.readers.tensors import listed
from gift_cl.readers.tree import TreeFile, scan, subfolders

_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}


@dataclass(frozen=True)
class ImageFolderReader:
    """Reads ``{class}/{image}`` as torchvision's ``ImageFolder`` does: labels are ranks of folder names.

    Classes may have unequal numbers of images. Deliberate differences: all images have to be of one size, a
    class without images is refused, and so are images beside or below the folders of the classes.

    Args:
        codec: How to keep the images: ``files`` as they are, or their pixels by a codec.
        workers: As in `read_images`.

    Raises:
        ValueError: If an option is none of these.
    """

    codec: str = "files"
    workers: int | None = None

    def __post_init__(self) -> None:
        check_options(self.codec, self.workers)

    @property
    def spec(self) -> str:
        """Name and options."""
        return "folder" + ("" if self.codec == "files" else f":codec={self.codec}")

    def recognizes(self, path: Path) -> bool:
        """See `Reader.recognizes`; a folder of splits is recognized too, and `read` says what to give."""
        try:
            folders = subfolders(path)
            if _splits(path, folders):
                return True
            return bool(folders) and any(is_image_name(file.name) for file in (path / folders[0]).iterdir())
        except OSError:
            return False

    def read(self, path: Path, *, ipc: int | None, progress: Progress) -> DistilledDataset:
        """See `Reader.read`; any ``ipc`` images of a class are a set of real images."""
        files = _sorted_images(path)
        names = _class_names(path, files)
        index = {name: label for label, name in enumerate(names)}
        labels = torch.tensor([index[_class_of(name)] for name, _ in files])
        files, labels = first_images(files, labels, ipc, where=path)
        encoded, digest = read_images(path, files, codec=self.codec, workers=self.workers, progress=progress)
        return DistilledDataset(
            encoded=encoded,
            labels=labels,
            num_classes=len(names),
            class_names=names,
            provenance=Provenance(source=str(path), hashes={"tree": digest}),
        )


def _sorted_images(path: Path) -> list[TreeFile]:
    """Images of all classes, sorted by class and name.

    Raises:
        LayoutError: If there are none, or one is not just in the folder of its class.
    """
    images = [file for file in scan(path) if is_image_name(file[0])]
    splits = _splits(path, subfolders(path))
    if splits:
        raise LayoutError(
            f"Expected folders of classes in `{path}`, got {listed(splits)}. Give one of them: "
            f"`{path / splits[0]}`."
        )
    deep = [name for name, _ in images if name.count("/") > 1]
    if deep:
        raise LayoutError(
            f"Expected <class>/<image> in `{path}`, got `{deep[0]}`. Give the folder that holds those of the "
            f"classes: `{path / deep[0].rsplit('/', 2)[0]}`?"
        )
    beside = [name for name, _ in images if "/" not in name]
    if beside or not images:
        raise LayoutError(
            f"Expected <class>/<image> in `{path}`, got {listed(beside) or 'no images'}. Put each image into "
            "the folder of its class, or give another folder."
        )
    return sorted(images, key=lambda file: file[0].split("/"))


def _splits(path: Path, folders: list[str]) -> list[str]:
    """Those of the folders that hold the classes of a part of a data set."""
    return [name for name in folders if name.lower() in _SPLITS and subfolders(path / name)]


def _class_names(path: Path, files: list[TreeFile]) -> tuple[str, ...]:
    counts = Counter(_class_of(name) for name, _ in files)
    empty = [name for name in subfolders(path) if name not in counts]
    if empty:
        raise LayoutError(
            f"There are no images in {listed(empty)} of `{path}`. Remove the empty folders, or get the files."
        )
    names = sorted(counts)
    if all(name.isascii() and name.isdigit() for name in names) and names != sorted(names, key=int):
        warnings.warn(
            f"Classes of `{path}` are sorted as words, {listed(names)}, so that labels are not the numbers. "
            "If they should be, pad the names of the folders with zeros.",
            stacklevel=2,
        )
    return tuple(names)


def _class_of(name: str) -> str:
    return name.partition("/")[0]
