"""Which classes a folder of images stands for, and in which order their labels number them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from gift_cl.errors import LayoutError
from gift_cl.real_data.published import PublishedData

CLASS_LIST = "classes.txt"

_LISTED = 5  # names that a message spells out


def order_classes(
    found: Sequence[str], *, listed: Sequence[str] | None, card: PublishedData | None, where: str
) -> tuple[str, ...]:
    """The classes in the order of their labels; one that is not in the order is left out.

    Args:
        found: Names of folders, sorted.
        listed: An order that somebody wrote down; it has to name folders.
        card: Has the published order, if there is one; it is followed if there is a folder for each name.
        where: Folder or zip, for messages.

    Raises:
        LayoutError: If a listed class has no folder, or there are not as many classes as were published.
    """
    published = None if card is None else card.classes
    if listed is not None:
        if unknown := [name for name in listed if name not in set(found)]:
            raise LayoutError(
                f"Expected a folder for each listed class in `{where}`, found none for `{unknown[0]}`. List "
                "names of folders only, one a line."
            )
        order = tuple(listed)
    elif published is not None and set(published) <= set(found):
        order = published
    else:
        order = tuple(found)
    if card is not None and len(order) != card.num_classes:
        raise LayoutError(
            f"Expected {card.num_classes} classes of {card.name} in `{where}`, found {len(order)}: "
            f"{some(order)}. Complete it, or give its path if it is another data set."
        )
    if listed is None and published is not None and order != published:
        warnings.warn(
            f"The classes in `{where}` are not named as they were published: {some(order)}. Labels follow "
            f"their sorted names, which a published teacher may not. A file {CLASS_LIST} beside train/ gives "
            "another order.",
            stacklevel=2,
        )
    return order


def parse_class_list(data: bytes) -> list[str]:
    """Names in a file ``classes.txt``, one a line; empty lines are left out.

    Raises:
        LayoutError: If a name occurs twice, or there is none.
    """
    names = [line.strip() for line in data.decode(errors="replace").splitlines() if line.strip()]
    if not names or len(set(names)) < len(names):
        raise LayoutError(
            f"Expected names of classes in `{CLASS_LIST}`, one a line and each once, got "
            f"{some(names) or 'none'}."
        )
    return names


def some(names: Sequence[str]) -> str:
    """The first names, for a message."""
    return ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
