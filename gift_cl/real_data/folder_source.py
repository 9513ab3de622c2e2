"""Images whose folder names their class, in a folder or zip."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from gift_cl.errors import DamagedFileError, LayoutError
from gift_cl.real_data.class_lists import CLASS_LIST, order_classes, parse_class_list, some
from gift_cl.real_data.image_tree import ImageTree
from gift_cl.real_data.published import PublishedData
from gift_cl.real_data.source import Split, SplitName, digest
from gift_cl.real_data.tiny_imagenet import read_annotations

if TYPE_CHECKING:
    from PIL.Image import Image

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_TEST_FOLDERS = ("test", "val")

_File = tuple[str, int, str]  # name, label, and a text that changes with the content


class FolderSource:
    """``train/<class>/`` and ``test/<class>/``, or ``val/<class>/``, with images at any depth.

    Labels follow the file ``classes.txt`` beside these folders, a name a line; else the published order; else
    the sorted names of the folders. Tiny-ImageNet's published validation images are test images too.

    Args:
        tree: Where they lie.
        name: Short name, for rows.
        card: What is known of the data set, if it was asked for by name.
        classes: Takes the place of ``classes.txt``.

    Raises:
        LayoutError: If there are no such folders, or not the classes that there should be.
    """

    def __init__(
        self,
        tree: ImageTree,
        *,
        name: str,
        card: PublishedData | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.name, self.card, self.where = name, card, str(tree.path)
        self._tree = tree
        self._files: dict[SplitName, list[_File]] = {}
        self._annotated = read_annotations(tree)
        train = tree.folders("train")
        self._test_folder = None if self._annotated else _find_test_folder(tree, train)
        test = (
            tree.folders(self._test_folder)
            if self._test_folder
            else sorted({c for _, c, _ in self._annotated})
        )
        if not train and not test:
            raise LayoutError(
                f"Expected `{self.where}` to hold train/<class>/<image> and test/<class>/<image> (val will "
                "do), found no such folders."
            )
        if classes is None and tree.has(CLASS_LIST):
            classes = parse_class_list(tree.read(CLASS_LIST))
        self.class_names = order_classes(train or test, listed=classes, card=card, where=self.where)

    def fingerprint(self, split: SplitName) -> str:
        """See `Source.fingerprint`; names, labels, sizes, and times or, in a zip, checksums."""
        return digest([*self.class_names, *(f"{n} {label} {stamp}" for n, label, stamp in self._list(split))])

    def open(self, split: SplitName) -> Split:
        """See `Source.open`."""
        files = self._list(split)
        return Split(
            names=[name for name, _, _ in files],
            labels=torch.tensor([label for _, label, _ in files]),
            class_names=self.class_names,
            load=lambda index: self._load(files[index][0]),
        )

    def _list(self, split: SplitName) -> list[_File]:
        """All files of a split, class after class, and in a class by name."""
        if split not in self._files:
            labels = {name: label for label, name in enumerate(self.class_names)}
            if split == "test" and self._annotated:
                files = [(name, labels[c], stamp) for name, c, stamp in self._annotated if c in labels]
            else:
                files = self._list_folders("train" if split == "train" else self._test_folder)
            self._check(split, files)
            self._files[split] = sorted(files, key=lambda file: (file[1], file[0]))
        return self._files[split]

    def _list_folders(self, place: str | None) -> list[_File]:
        return [
            (file, label, stamp)
            for label, name in enumerate(self.class_names if place else ())
            for file, stamp in self._tree.images(f"{place}/{name}")
        ]

    def _check(self, split: SplitName, files: Sequence[_File]) -> None:
        if split == "test" and not files:
            found = {place: self._tree.folders(place) for place in _TEST_FOLDERS}
            words = "; ".join(f"{place}/ holds {some(names)}" for place, names in found.items() if names)
            raise LayoutError(
                f"Expected test images in test/<class>/ or val/<class>/ of `{self.where}`, and no classes "
                f"that train/ has not, got none ({words or 'there are no such folders'})."
            )
        missing = set(range(len(self.class_names))) - {label for _, label, _ in files}
        if split == "train" and missing:
            raise LayoutError(
                f"Expected training images of every class in train/<class>/ of `{self.where}`, found none of "
                f"`{self.class_names[min(missing)]}`. Complete it, or remove the folder."
            )
        counts = None if self.card is None else self.card.num_images
        if counts is not None and len(files) != (expected := counts[split == "test"]):
            words = f"`{self.where}` holds {len(files):,} {split} images of {self.name}, not {expected:,}"
            if self._annotated:
                raise LayoutError(f"{words}. Unpack the archive again.")
            warnings.warn(f"{words}.", stacklevel=2)

    def _load(self, name: str) -> Image:
        from PIL import Image

        data = self._tree.read(name)
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                return image.convert("RGB" if self.card is None else self.card.mode)
        except MemoryError:
            raise
        # Pillow's readers raise anything from OSError to SyntaxError and struct.error.
        except Exception as error:
            raise DamagedFileError(
                f"Cannot read the image `{self.where}/{name}`: {str(error).rstrip('.')}. Get it again, or "
                "remove it."
            ) from error


def _find_test_folder(tree: ImageTree, train: Sequence[str]) -> str | None:
    """The first whose classes are among those of the training images."""
    for place in _TEST_FOLDERS:
        names = tree.folders(place)
        if names and (not train or set(names) <= set(train)):
            return place
    return None
