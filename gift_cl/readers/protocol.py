"""What a reader of a published layout is."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from gift_cl.dataset import DistilledDataset
from gift_cl.progress import Progress


class Reader(Protocol):
    """Turns one published layout into a `DistilledDataset`; a frozen record of its options."""

    @property
    def spec(self) -> str:
        """Name and options, as in the registry."""

    def recognizes(self, path: Path) -> bool:
        """Whether a folder or file looks like this layout: names are read, contents are not.

        Never raises for what it finds there, and never looks outside the folder.
        """

    def read(self, path: Path, *, ipc: int | None, progress: Progress) -> DistilledDataset:
        """The data set, checked from end to end.

        Args:
            path: A folder, or a file, that exists.
            ipc: Only the first ``ipc`` images of each class, where the method makes them so that fewer are
                a data set of their own; all by default.
            progress: Told of images that are done.

        Raises:
            ReadError: If something is wrong with the files; the message names the file and the cure.
        """
