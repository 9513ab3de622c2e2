"""Tiny-ImageNet as published: a file gives the classes of the validation images, which lie in one folder."""

from __future__ import annotations

from gift_cl.errors import LayoutError
from gift_cl.real_data.image_tree import ImageTree

_ANNOTATIONS = "val/val_annotations.txt"  # file name, tab, class, tab, the corners of a box
_IMAGES = "val/images"


def read_annotations(tree: ImageTree) -> list[tuple[str, str, str]]:
    """Name, class and stamp of the validation images, sorted by name; none in other layouts.

    Raises:
        LayoutError: If a line is of another form, or lines and images do not fit together.
    """
    images = {name.rpartition("/")[2]: (name, stamp) for name, stamp in tree.images(_IMAGES)}
    if not images or not tree.has(_ANNOTATIONS):
        return []
    rows = [line.split("\t") for line in tree.read(_ANNOTATIONS).decode(errors="replace").splitlines()]
    if any(len(row) < 2 for row in rows):
        raise LayoutError(
            f"Expected a file name, a tab and a class on each line of `{tree.path}/{_ANNOTATIONS}`. Unpack "
            "the archive again."
        )
    classes = {row[0]: row[1] for row in rows}
    if odd := sorted(images.keys() ^ classes.keys()):
        raise LayoutError(
            f"Expected a line in `{tree.path}/{_ANNOTATIONS}` for each image in {_IMAGES}/, and an image for "
            f"each line; `{odd[0]}` is in one of them only. Unpack the archive again."
        )
    return [(images[name][0], classes[name], images[name][1]) for name in sorted(images)]
