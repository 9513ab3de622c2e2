"""Where the files of an FKD folder are: names are read, contents are not."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from gift_cl.errors import LayoutError, UnsafeFileError

_EPOCH = re.compile(r"epoch_(0|[1-9]\d{0,8})")
_BATCH = re.compile(r"batch_(0|[1-9]\d{0,8})\.tar")
_DEEPEST = 8  # folders around the epochs


@dataclass(frozen=True)
class FKDFolder:
    """A complete set of files ``epoch_{e}/batch_{b}.tar``, counted from 0.

    Args:
        root: Folder that holds the epochs.
        num_epochs: Folders of epochs.
        num_batches: Files in each of them.
        nbytes: Of all files together.
    """

    root: Path
    num_epochs: int
    num_batches: int
    nbytes: int

    @classmethod
    def find(cls, folder: str | os.PathLike[str]) -> FKDFolder:
        """The files in ``folder``, or in folders inside it that hold nothing else.

        Raises:
            OSError: If the folder is missing or may not be read.
            LayoutError: If it holds no epochs, or an epoch or a batch is missing.
            UnsafeFileError: If an epoch or a batch is a symbolic link, which may lead anywhere.
        """
        root, epochs = _find_epochs(Path(folder))
        _check_complete(epochs, "epoch_{}", root)
        counts, nbytes = [], 0
        for epoch in range(len(epochs)):
            batches = _numbered(root / f"epoch_{epoch}", _BATCH)
            _check_complete(batches, "batch_{}.tar", root / f"epoch_{epoch}")
            counts.append(len(batches))
            nbytes += sum(entry.stat(follow_symlinks=False).st_size for entry in batches.values())
        if other := [epoch for epoch, count in enumerate(counts) if count != counts[0]]:
            raise LayoutError(
                f"Expected {counts[0]} batch files in every epoch of `{root}`, as in `epoch_0`, got "
                f"{counts[other[0]]} in `epoch_{other[0]}`. Get the missing ones again."
            )
        return cls(root, len(epochs), counts[0], nbytes)

    def path(self, epoch: int, number: int) -> Path:
        """File of one batch."""
        return self.root / f"epoch_{epoch}" / f"batch_{number}.tar"


def _find_epochs(folder: Path) -> tuple[Path, dict[int, os.DirEntry[str]]]:
    """The folder that holds the epochs, and what is there by number."""
    inner = folder
    for _ in range(_DEEPEST):
        if epochs := _numbered(inner, _EPOCH):
            return inner, epochs
        with os.scandir(inner) as entries:
            folders = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        if len(folders) > 1:
            raise LayoutError(
                f"Expected folders `epoch_0`, `epoch_1`, ... in `{inner}`, got {len(folders)} others: "
                f"`{folders[0]}`, `{folders[1]}`, ... Choose the one that holds the epochs."
            )
        if not folders:
            break
        inner /= folders[0]
    raise LayoutError(
        f"Expected folders `epoch_0`, `epoch_1`, ... with files `batch_0.tar`, ... in `{folder}`, got none. "
        "Unpack the archive of soft labels, and give the folder that it makes."
    )


def _numbered(folder: Path, pattern: re.Pattern[str]) -> dict[int, os.DirEntry[str]]:
    """Folders or files of a folder whose names have the pattern, by their number."""
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if not (match := pattern.fullmatch(entry.name)):
                continue
            if entry.is_symlink():
                raise UnsafeFileError(
                    f"The name `{entry.path}` is a symbolic link and was not followed. Put what it leads to "
                    "in its place."
                )
            if entry.is_dir() if pattern is _EPOCH else entry.is_file():
                found[int(match[1])] = entry
    return found


def _check_complete(found: dict[int, os.DirEntry[str]], name: str, folder: Path) -> None:
    count = max(len(found), 1)
    if missing := [number for number in range(count) if number not in found]:
        raise LayoutError(
            f"Expected `{name.format(missing[0])}` in `{folder}`, got none, though there are {len(found)} "
            "like it. Get it again."
        )
