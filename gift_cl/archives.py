"""Archives of strangers, unpacked inside one folder, up to a size, and whole or not at all.

The names, kinds and sizes in an archive are claims. `zipfile` and `tarfile` do no more than parse it: every
entry is checked, and every byte is counted as it is written.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from gift_cl.archive_entries import Budget, archive_entries, reporting
from gift_cl.errors import LayoutError, UnsafeFileError
from gift_cl.progress import Progress, silent

_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_ALLOWANCE = 16 << 20  # bytes that any archive may unpack to, however small it is
_BLOCK = 1 << 20
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")  # in names: control characters, backslash, no text
_DRIVE = re.compile("[A-Za-z]:")


@dataclass(frozen=True, kw_only=True)
class UnpackLimits:
    """How much an archive may unpack to before it is refused.

    Args:
        num_files: Files and folders.
        depth: Folders in one another.
        total_bytes: Sum of the sizes of all files.
        ratio: That sum over the size of the archive, once it exceeds 16 MiB.
    """

    num_files: int = 2_000_000
    depth: int = 32
    total_bytes: int = 256 << 30
    ratio: float = 100.0


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a file that ends as a zip or tar archive does."""
    return os.fspath(path).lower().endswith(_SUFFIXES) and os.path.isfile(path)


def unpack(
    archive: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    limits: UnpackLimits | None = None,
    progress: Progress = silent,
) -> None:
    """Unpack a zip or tar archive, also one of gzip, bzip2 or xz, into a new folder.

    Files and folders are made with the permissions of new ones. A failure leaves nothing.

    Args:
        archive: The file; what it is, is seen by its content.
        folder: One that is not there yet, or is empty, in a folder that exists.
        limits: What is too much.
        progress: Told of the bytes of the archive that are done.

    Raises:
        OSError: If the archive cannot be opened, or the folder not be written.
        UnsafeFileError: If an entry leads out of the folder, is a link or device, or takes the place of
            another, or all together are too much.
        DamagedFileError: If the archive is cut short or damaged.
        LayoutError: If ``folder`` holds something, or the archive is encrypted or of an unknown kind.
    """
    source, target = Path(archive), Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise LayoutError(
            f"Expected `{target}` to be new or an empty folder, and it holds something. Choose another."
        )
    with open(source, "rb") as file, _temporary_folder_beside(target) as temporary:
        _unpack_into(temporary, source, file, limits or UnpackLimits(), progress)
        if target.exists():
            target.rmdir()
        temporary.rename(target)


@contextmanager
def _temporary_folder_beside(target: Path) -> Iterator[Path]:
    try:
        temporary = Path(tempfile.mkdtemp(dir=target.absolute().parent, prefix=f".{target.name}."))
    except OSError as error:
        raise OSError(
            f"Cannot write into `{target.absolute().parent}`: {error.strerror}. Choose a folder that you may "
            "write to."
        ) from error
    try:
        inside = temporary / "all"  # made as new folders are, while the temporary one is private
        inside.mkdir()
        yield inside
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unpack_into(
    folder: Path, source: Path, file: BinaryIO, limits: UnpackLimits, progress: Progress
) -> None:
    size = os.fstat(file.fileno()).st_size
    most = min(limits.total_bytes, max(_ALLOWANCE, int(limits.ratio * size)))
    budget, names = Budget(source, most), _Names(source, limits)
    entries = archive_entries(source, file, most)
    while True:
        with reporting(source):
            entry = next(entries, None)
        if entry is None:
            break
        name, content = entry
        path = folder.joinpath(*names.accept(name, is_folder=content is None))
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            _write(path, content, source, budget)
        progress(min(file.tell(), size), size)
    progress(size, size)


def _write(path: Path, content: IO[bytes], source: Path, budget: Budget) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with content, open(path, "xb") as file:
        while True:
            with reporting(source):
                block = content.read(_BLOCK)
            if not block:
                break
            budget.spend(len(block))
            file.write(block)


class _Names:
    """Names of the entries so far: inside the folder, and each used once, on any file system."""

    def __init__(self, source: Path, limits: UnpackLimits) -> None:
        self.source, self.limits = source, limits
        self.num_seen = 0
        self.taken: dict[str, str] = {}  # names as they are by folded name; folders end with a slash

    def accept(self, name: str, *, is_folder: bool) -> tuple[str, ...]:
        """Parts of a name that is safe to use."""
        self.num_seen += 1
        if self.num_seen > self.limits.num_files:
            raise self._refused(f"holds more than {self.limits.num_files} entries, over the limit")
        parts = tuple(name.removesuffix("/").split("/"))
        if parts[0] == ".":
            parts = parts[1:]  # "./a" is how tar writes "a"
        is_unusable = any(part in ("", ".", "..") or _UNUSABLE.search(part) for part in parts)
        if is_unusable or _DRIVE.match(name) or not (parts or is_folder):
            raise self._refused(f"has an entry that leads out of its folder, or has no usable name: {name!r}")
        if len(parts) > self.limits.depth:
            raise self._refused(f"nests folders more than {self.limits.depth} deep")
        for depth in range(1, len(parts) + 1):
            self._take("/".join(parts[:depth]), is_folder=is_folder or depth < len(parts))
        return parts

    def _take(self, name: str, *, is_folder: bool) -> None:
        key = unicodedata.normalize("NFC", name).casefold()
        name += "/" if is_folder else ""
        other = self.taken.get(key)
        if other is not None and not (is_folder and other == name):
            raise self._refused(f"has two entries of one name: {other!r} and {name!r}")
        self.taken[key] = name

    def _refused(self, what: str) -> UnsafeFileError:
        return UnsafeFileError(
            f"`{self.source}` {what}; it was not unpacked. Get it again from its authors, or pack it again."
        )
