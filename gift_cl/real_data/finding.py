"""Where a data set is, given its name or path."""

from __future__ import annotations

import os
from pathlib import Path

from gift_cl.real_data.bundled_digits import DigitsSource
from gift_cl.real_data.cifar import CifarSource
from gift_cl.real_data.class_lists import CLASS_LIST, parse_class_list
from gift_cl.real_data.folder_source import FolderSource
from gift_cl.real_data.idx_files import IdxSource, has_idx_files
from gift_cl.real_data.image_tree import SPLIT_FOLDERS, ImageTree, open_tree
from gift_cl.real_data.published import PUBLISHED, PublishedData
from gift_cl.real_data.source import Source


def find_source(name_or_path: str | os.PathLike[str], root: Path) -> Source:
    """The source that a name or path stands for.

    Raises:
        FileNotFoundError: If it is not there; the message says where it should be.
        ValueError: If it is neither a known name nor a path.
        ReadError: If what is there is laid out in another way.
    """
    text = os.fspath(name_or_path)
    if text in PUBLISHED:
        return _find_published(PUBLISHED[text], root)
    candidates = [Path(text), root / text, root / f"{text}.zip"]
    for path in candidates:
        if path.exists():
            name = path.resolve().name
            return FolderSource(open_tree(path), name=name.removesuffix(".zip"))
    looked = ", ".join(f"`{path}`" for path in dict.fromkeys(candidates))
    if len(Path(text).parts) > 1 or text.endswith(".zip"):
        raise FileNotFoundError(f"No data set `{text}`: nothing at {looked}.")
    raise ValueError(
        f"Unknown data set `{text}`. Known: {', '.join(PUBLISHED)}; or a folder or zip with train/<class>/ "
        f"and test/<class>/, and there is none at {looked}."
    )


def _find_published(card: PublishedData, root: Path) -> Source:
    if card.layout == "bundled":
        return DigitsSource(card)
    places = (root, root / card.name)
    if card.layout == "cifar":
        for folder in (root, *(place / card.folders[0] for place in places)):
            if folder.name == card.folders[0] and folder.is_dir():
                return CifarSource(card, folder)
    if card.layout == "idx":
        for folder in (*(place / card.folders[0] / "raw" for place in places), root / card.name):
            if has_idx_files(folder):
                return IdxSource(card, folder)
    if tree := _find_tree(card, root):
        return FolderSource(tree, name=card.name, card=card)
    if card.parent and (tree := _find_tree(PUBLISHED[card.parent], root)):
        listed = root / card.name / CLASS_LIST
        classes = parse_class_list(listed.read_bytes()) if listed.is_file() else card.classes
        if classes:
            return FolderSource(tree, name=card.name, card=card, classes=classes)
    raise FileNotFoundError(
        f"No data set `{card.name}` in `{root}`. Put there {_describe(card)}. Or say where it is with "
        "`root`, or in the environment variable GIFT_CL_DATA. Nothing is downloaded."
    )


def _find_tree(card: PublishedData, root: Path) -> ImageTree | None:
    """Classes in folders, in one of the folders or zips that a data set may be in, or in the root."""
    names = [name + end for name in (card.name, *card.folders) for end in ("", ".zip")]
    for path in (*(place / name for place in (root, root / card.name) for name in names), root):
        is_zip = path.suffix == ".zip" and path.is_file()
        if is_zip or any((path / split).is_dir() for split in SPLIT_FOLDERS):
            return open_tree(path)
    return None


def _describe(card: PublishedData) -> str:
    """The layouts of a data set, for whoever has to put it in its place."""
    names = [card.name, *(card.folders if card.layout == "folder" else ())]
    named = " or ".join(names)
    layouts = [f"{named}, a folder or zip with train/<class>/ and test/<class>/ (val will do) of images"]
    if card.layout == "cifar":
        layouts.insert(0, f"{card.folders[0]}/ as it was published")
    if card.layout == "idx":
        layouts.insert(
            0, f"{card.folders[0]}/raw/train-images-idx3-ubyte and its three companions (.gz will do)"
        )
    if card.parent:
        lists = "" if card.classes else f" with a list of the classes in {card.name}/{CLASS_LIST}"
        layouts.append(f"{card.parent}, whole{lists}")
    return "; or ".join(layouts)
