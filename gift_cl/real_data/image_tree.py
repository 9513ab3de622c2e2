"""Images in a folder or in a zip, by names that do not say which of the two it is."""

from __future__ import annotations

import os
import threading
import zipfile
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from gift_cl.errors import DamagedFileError, UnsafeFileError
from gift_cl.image_files import MAX_FILE_BYTES
from gift_cl.real_data.source import stamp

SPLIT_FOLDERS = ("train", "test", "val")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""Endings of the files that count as images, in lower case."""

StampedFile = tuple[str, str]
"""Name of a file from the tree on, with slashes, and a text that changes when its content does."""


class ImageTree(Protocol):
    """Files below one place."""

    @property
    def path(self) -> Path:
        """Folder or zip."""

    def folders(self, place: str) -> list[str]:
        """Names of the folders in a folder, sorted; none if there is no such folder."""

    def images(self, place: str) -> Iterator[StampedFile]:
        """All images below a folder, in any order; none if there is no such folder."""

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""

    def read(self, name: str) -> bytes:
        """The bytes of a file; several threads may call it at once.

        Raises:
            OSError: If it may not be read.
            ReadError: If it is damaged or too large; the message names it.
        """


def open_tree(path: Path) -> ImageTree:
    """The tree in a folder or zip.

    Raises:
        DamagedFileError: If a file is no zip.
    """
    return FolderTree(path) if path.is_dir() else ZipTree(path)


class FolderTree:
    """A folder; links are followed, since subsets of ImageNet are often made of them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def folders(self, place: str) -> list[str]:
        """See `ImageTree.folders`."""
        return sorted(entry.name for entry in self._entries(place) if entry.is_dir())

    def images(self, place: str) -> Iterator[StampedFile]:
        """See `ImageTree.images`; the text is size and time."""
        for entry in self._entries(place):
            name = f"{place}/{entry.name}"
            if entry.is_dir():
                yield from self.images(name)
            elif name.lower().endswith(IMAGE_SUFFIXES):
                yield name, stamp(entry.stat())

    def has(self, name: str) -> bool:
        """See `ImageTree.has`."""
        return (self.path / name).is_file()

    def read(self, name: str) -> bytes:
        """See `ImageTree.read`."""
        path = self.path / name
        _check_size(path, path.stat().st_size)
        return path.read_bytes()

    def _entries(self, place: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.path / place) as entries:
                return [entry for entry in entries if not _is_ignored(entry.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []


class ZipTree:
    """A zip; a single folder around everything is looked through."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            self._archive = zipfile.ZipFile(path)
        except (PermissionError, MemoryError):
            raise
        except Exception as error:  # zipfile parses damaged tables without checking all of them
            raise DamagedFileError(
                f"`{path}` is no readable zip ({str(error).rstrip('.')}). Get it again, or give a folder or "
                "a zip."
            ) from error
        infos = {i.filename: i for i in self._archive.infolist() if not i.filename.endswith("/")}
        infos = {name: i for name, i in infos.items() if not any(map(_is_ignored, name.split("/")))}
        around = _folder_around(list(infos))
        self._infos = {name.removeprefix(around): infos[name] for name in sorted(infos)}
        self._names = list(self._infos)

    def folders(self, place: str) -> list[str]:
        """See `ImageTree.folders`."""
        rests = (name[len(place) + 1 :].partition("/") for name in self._below(place))
        return sorted({first for first, slash, _ in rests if slash})

    def images(self, place: str) -> Iterator[StampedFile]:
        """See `ImageTree.images`; the text is size and checksum as the zip lists them."""
        for name in self._below(place):
            if name.lower().endswith(IMAGE_SUFFIXES):
                info = self._infos[name]
                yield name, f"{info.file_size}:{info.CRC:08x}"

    def has(self, name: str) -> bool:
        """See `ImageTree.has`."""
        return name in self._infos

    def read(self, name: str) -> bytes:
        """See `ImageTree.read`; the checksum is verified."""
        info = self._infos[name]
        _check_size(self.path / name, info.file_size)
        try:
            with self._lock:
                return self._archive.read(info)
        except MemoryError:
            raise
        # For damaged, encrypted and unknown entries zipfile raises anything from OSError to zlib.error.
        except Exception as error:
            reason = str(error).rstrip(".")
            raise DamagedFileError(
                f"Cannot read `{self.path / name}`: {reason}. Get the zip again."
            ) from error

    def _below(self, place: str) -> list[str]:
        start = bisect_left(self._names, f"{place}/")
        return self._names[start : bisect_left(self._names, f"{place}0")]  # 0 follows the slash in ASCII


def _folder_around(names: list[str]) -> str:
    """The folders, one in another, that hold all other folders and are no splits; with a slash at the end."""
    around = ""
    while True:
        inside = (name.removeprefix(around).partition("/") for name in names if name.startswith(around))
        tops = {top for top, slash, _ in inside if slash}
        if len(tops) != 1 or tops & set(SPLIT_FOLDERS):
            return around
        around += f"{tops.pop()}/"


def _is_ignored(name: str) -> bool:
    """Whether systems and editors leave such files and folders behind."""
    return name.startswith(".") or name == "__MACOSX"


def _check_size(path: Path, num_bytes: int) -> None:
    if num_bytes > MAX_FILE_BYTES:
        raise UnsafeFileError(
            f"`{path}` has {num_bytes} bytes, and an image may have {MAX_FILE_BYTES}. Remove it."
        )
