"""Folders of strangers: which files they hold, without leaving them, and each file read once and whole."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gift_cl.errors import DamagedFileError, LayoutError, UnsafeFileError

_OPEN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_IGNORED = ("Thumbs.db", "__MACOSX", "desktop.ini")
_UNPRINTED = re.compile(r"[\n\r\\\ud800-\udfff]")  # what `sha256sum` does not print as it is
_MOST_PLACES = 64  # folders that are looked into for the one that holds the classes

TreeFile = tuple[str, int]
"""Name of a file from its folder on, with slashes, and its size in bytes."""
_Identity = tuple[int, int]
_Pending = tuple[str, tuple[_Identity, ...]]  # a folder, ending with a slash, and those that it lies in


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much a folder may hold before it is refused.

    Args:
        num_files: Files and folders.
        depth: Folders in one another.
        total_bytes: Sum of the sizes of all files.
        decoded_bytes: Pixels that are held at once.
    """

    num_files: int = 5_000_000
    depth: int = 32
    total_bytes: int = 64 << 30
    decoded_bytes: int = 64 << 30


def scan(folder: str | os.PathLike[str], limits: Limits | None = None) -> list[TreeFile]:
    """All files below a folder, sorted by name; none is opened.

    Hidden files and what systems leave behind (``Thumbs.db``, ``__MACOSX``) are left out. A link to a
    folder that it lies in ends there.

    Raises:
        OSError: If a folder may not be listed.
        UnsafeFileError: If a link leads out of the folder, a file is a pipe, socket or device, or there is
            more than ``limits`` allow.
        LayoutError: If ``folder`` is none, or a name cannot be written in a list of hashes.
        DamagedFileError: If a link leads nowhere, or something vanishes meanwhile.
    """
    limits = limits or Limits()
    if not os.path.isdir(folder):
        raise LayoutError(f"Expected a folder at `{folder}`. Give the folder that holds the images.")
    base = os.path.realpath(folder)
    walk = _Walk(os.fspath(folder), base, limits)
    pending: list[_Pending] = [("", (_identity(os.stat(base)),))]
    while pending:
        prefix, chain = pending.pop()
        try:
            pending += walk.list_folder(prefix, chain)
        except FileNotFoundError as error:
            raise _vanished(error.filename) from error
    return sorted(walk.files)


class _Walk:
    """What one scan has found so far."""

    def __init__(self, folder: str, base: str, limits: Limits) -> None:
        self.folder, self.base, self.limits = folder, base, limits
        self.files: list[TreeFile] = []
        self.num_seen = self.total_bytes = 0

    def list_folder(self, prefix: str, chain: tuple[_Identity, ...]) -> list[_Pending]:
        """Note the files of one folder; its folders come back, each with those that it lies in."""
        if len(chain) > self.limits.depth:
            raise self._too_much(f"folders {self.limits.depth} deep", self._path(prefix))
        folders: list[_Pending] = []
        with os.scandir(os.path.join(self.base, prefix)) as entries:
            for entry in entries:
                if is_ignored(entry.name):
                    continue
                self._count(entry.name)
                name = prefix + entry.name
                if entry.is_symlink():
                    self._check_link(name)
                if entry.is_file():
                    self._note(name, entry.stat().st_size)
                elif entry.is_dir():
                    identity = _identity(os.stat(entry.path))
                    if identity not in chain:
                        folders.append((name + "/", (*chain, identity)))
                else:
                    raise UnsafeFileError(
                        f"`{self._path(name)}` is no file, but a pipe, socket or device. Remove it."
                    )
        return folders

    def _count(self, name: str) -> None:
        self.num_seen += 1
        if self.num_seen > self.limits.num_files:
            raise self._too_much(f"more than {self.limits.num_files} files and folders", self.folder)
        if _UNPRINTED.search(name):
            raise LayoutError(
                f"The name {name!r} in `{self.folder}` holds a line break or backslash, or is no text. "
                "Rename it."
            )

    def _note(self, name: str, size: int) -> None:
        self.files.append((name, size))
        self.total_bytes += size
        if self.total_bytes > self.limits.total_bytes:
            raise self._too_much(f"more than {self.limits.total_bytes} bytes of files", self.folder)

    def _check_link(self, name: str) -> None:
        path = self._path(name)
        try:
            target = os.path.realpath(os.path.join(self.base, name), strict=True)
        except OSError as error:
            raise DamagedFileError(f"The link `{path}` leads nowhere. Remove it.") from error
        if os.path.commonpath([self.base, target]) != self.base:
            raise UnsafeFileError(
                f"The link `{path}` leads out of `{self.folder}`, to `{target}`, and was not followed. Put a "
                "copy in its place, or give the folder that it leads to."
            )

    def _too_much(self, what: str, path: str) -> UnsafeFileError:
        return UnsafeFileError(
            f"`{path}` holds {what}, over the limit of a data set. Give the folder of just the images."
        )

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)


def read_file(path: str, size: int) -> bytes:
    """All bytes of a file that had this size when its folder was scanned.

    Raises:
        OSError: If it may not be read.
        DamagedFileError: If it has vanished or changed since.
    """
    try:
        descriptor = os.open(path, _OPEN)
        try:
            info = os.fstat(descriptor)
            is_same = stat.S_ISREG(info.st_mode) and info.st_size == size
            data = _read(descriptor, size) if is_same else b""
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        raise _vanished(path) from error
    except OSError as error:
        raise type(error)(error.errno, error.strerror, path) from error
    if len(data) != size or not is_same:
        raise DamagedFileError(f"`{path}` changed while it was read. Read it when nothing writes to it.")
    return data


def _read(descriptor: int, size: int) -> bytes:
    """Up to ``size`` bytes; one call is enough but for very large files."""
    data = os.read(descriptor, size)
    while len(data) < size and (more := os.read(descriptor, size - len(data))):
        data += more
    return data


def tree_digest(hashes: Mapping[str, str]) -> str:
    r"""One SHA-256 for many files, that a shell can check.

    In a folder of these files it is what this prints::

        find . -type f -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum

    Args:
        hashes: SHA-256 in hexadecimal by name, as `scan` names files.
    """
    text = "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes))
    return hashlib.sha256(text.encode()).hexdigest()


def subfolders(folder: str | os.PathLike[str]) -> list[str]:
    """Names of the folders in a folder, sorted; what `scan` leaves out, and links, are left out here too.

    Raises:
        OSError: If the folder may not be listed.
    """
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if not is_ignored(e.name) and e.is_dir(follow_symlinks=False))


def find_roots(folder: Path, is_class_folder: Callable[[str], bool]) -> list[Path]:
    """Folders that hold a folder of such a name: ``folder`` itself, or some below it, nearest first.

    Links are not followed, what may not be listed is passed over, and after 64 folders the search ends.
    """
    roots: list[Path] = []
    level = [folder]
    num_looked = 0
    while level:
        below: list[Path] = []
        for place in level[: _MOST_PLACES - num_looked]:
            try:
                names = subfolders(place)
            except OSError:
                continue
            if any(map(is_class_folder, names)):
                roots.append(place)
            else:
                below += [place / name for name in names]
        num_looked += len(level)
        level = below if num_looked < _MOST_PLACES else []
    return roots


def names_above(folder: Path, count: int) -> list[str]:
    """Names of a folder and of those that it lies in, nearest first."""
    path = Path(os.path.abspath(folder))
    return [place.name for place in (path, *path.parents)][:count]


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name is no part of a data set."""
    return name.startswith(".") or name in _IGNORED


def _identity(info: os.stat_result) -> _Identity:
    return info.st_dev, info.st_ino


def _vanished(path: str) -> DamagedFileError:
    return DamagedFileError(f"`{path}` vanished while it was read. Read it when nothing writes to it.")
