"""Folders as distillers number them: one for each class, and in it one file for each image of the class."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from gift_cl.errors import LayoutError
from gift_cl.image_files import is_image_name
from gift_cl.readers.ipc import check_ipc, first_of_each
from gift_cl.readers.tensors import listed
from gift_cl.readers.tree import TreeFile, find_roots, scan, subfolders

_Images = dict[int, TreeFile]  # of one class, by number


@dataclass(frozen=True)
class Numbering:
    """How classes and images are spelt: ``{prefix}{class}/class{class}_id{image}.jpg``.

    Args:
        prefix: What stands before the number of a class in its folder's name.
        class_digits: What numbers of classes may be padded to, ascending.
        id_digits: What numbers of images are padded to.
    """

    prefix: str
    class_digits: tuple[int, ...]
    id_digits: int

    @property
    def example(self) -> str:
        """Name of the first file."""
        label = "0" * self.class_digits[0]
        return f"{self.prefix}{label}/class{label}_id{'0' * self.id_digits}.jpg"

    def is_class_folder(self, name: str) -> bool:
        """Whether a folder of this name holds a class."""
        return re.fullmatch(self.prefix + self._label, name) is not None

    def match(self, name: str) -> re.Match[str] | None:
        """Groups ``folder``, ``label`` and ``id`` of an image's name, each as spelt."""
        match = self._image.fullmatch(name)
        return match if match and self._is_padded(match["id"], self.id_digits) else None

    def are_spelt_alike(self, labels: set[str]) -> bool:
        """Whether all numbers of classes are padded to the same, allowed, width."""
        return any(all(self._is_padded(label, digits) for label in labels) for digits in self.class_digits)

    @property
    def _label(self) -> str:
        return f"[0-9]{{{self.class_digits[0]},5}}"

    @cached_property
    def _image(self) -> re.Pattern[str]:
        label, number = self._label, "[0-9]{3,9}"
        return re.compile(
            rf"{self.prefix}(?P<folder>{label})/class(?P<label>{label})_id(?P<id>{number})\.(?i:jpe?g|png)"
        )

    @staticmethod
    def _is_padded(number: str, digits: int) -> bool:
        return number == f"{int(number):0{digits}d}"


def find_root(path: Path, numbering: Numbering) -> Path:
    """The one folder at or below ``path`` that holds folders of classes.

    Raises:
        OSError: If ``path`` may not be listed.
        LayoutError: If there is none, or several.
    """
    roots = find_roots(path, numbering.is_class_folder)
    if len(roots) == 1:
        return roots[0]
    if roots:
        raise LayoutError(
            f"Expected one data set below `{path}`, got {len(roots)}. Give one of them: "
            f"{listed([str(root) for root in roots])}."
        )
    names = subfolders(path) if path.is_dir() else []
    raise LayoutError(
        f"Expected images named like {numbering.example} below `{path}`, got "
        f"{f'folders {listed(names)}' if names else 'no folders'}. Give the folder that holds them."
    )


def find_images(root: Path, numbering: Numbering) -> tuple[list[TreeFile], Tensor]:
    """All images, class after class and by number, and their labels, int64 (N,); nothing is opened.

    Raises:
        OSError: If a folder may not be listed.
        ReadError: If `scan` refuses the folder; if an image is named in another way, or its name contradicts
            its folder; if a class or an image is missing, or classes have unequal numbers of images.
    """
    classes: dict[int, _Images] = {}
    spellings: set[str] = set()
    strays = []
    for name, size in scan(root):
        match = numbering.match(name)
        if match is None:
            strays += [name] if is_image_name(name) else []
            continue
        if match["folder"] != match["label"]:
            raise LayoutError(
                f"The image `{root / name}` is of class {match['label']} by its name, and of class "
                f"{match['folder']} by its folder. Put it where it belongs."
            )
        spellings.add(match["label"])
        images = classes.setdefault(int(match["label"]), {})
        first = images.setdefault(int(match["id"]), (name, size))
        if first[0] != name:
            raise LayoutError(
                f"Expected one image of each number in `{root}`, got `{first[0]}` and `{name}`. Remove one."
            )
    if strays:
        raise LayoutError(
            f"Expected images named like {numbering.example} in `{root}`, got {listed(strays)}. Remove them."
        )
    _check_classes(root, numbering, classes, spellings)
    _check_numbers(root, classes)
    files = [classes[label][number] for label in sorted(classes) for number in sorted(classes[label])]
    ipc = len(classes[0])
    return files, torch.arange(len(classes)).repeat_interleave(ipc)


def first_images(
    files: list[TreeFile], labels: Tensor, ipc: int | None, *, where: Path
) -> tuple[list[TreeFile], Tensor]:
    """The first ``ipc`` of each class, or all.

    Raises:
        LayoutError: If a class has fewer.
    """
    check_ipc(ipc)
    if ipc is None:
        return files, labels
    chosen = first_of_each(labels, ipc, where=str(where))
    return [files[index] for index in chosen.tolist()], labels[chosen]


def _check_classes(
    root: Path, numbering: Numbering, classes: dict[int, _Images], spellings: set[str]
) -> None:
    folders = filter(numbering.is_class_folder, subfolders(root))
    empty = [name for name in folders if int(name.removeprefix(numbering.prefix)) not in classes]
    if empty or not classes:
        raise LayoutError(f"There are no images in {listed(empty)} of `{root}`. Get the files again.")
    if not numbering.are_spelt_alike(spellings):
        raise LayoutError(
            f"Expected numbers of classes in `{root}` with {' or '.join(map(str, numbering.class_digits))} "
            f"digits each, got {listed(sorted(spellings, key=int))}. Give the folder of one data set."
        )
    missing = [str(label) for label in range(max(classes)) if label not in classes]
    if missing:
        raise LayoutError(
            f"Expected classes 0 to {max(classes)} in `{root}`, and there are no images of class "
            f"{listed(missing)}. Get the files again, or number the classes from 0."
        )


def _check_numbers(root: Path, classes: dict[int, _Images]) -> None:
    for label, images in classes.items():
        missing = [number for number in range(len(images)) if number not in images]
        if missing:
            raise LayoutError(
                f"Expected images 0 to {max(images)} of class {label} in `{root}`, and number {missing[0]} "
                "is missing. Get the files again, or number them from 0."
            )
    ((usual, _),) = Counter(map(len, classes.values())).most_common(1)
    others = [f"{len(images)} of class {label}" for label, images in classes.items() if len(images) != usual]
    if others:
        raise LayoutError(
            f"Expected {usual} images of each class in `{root}`, as most have, got {listed(others)}. Get the "
            "files again, or remove what is too much."
        )
