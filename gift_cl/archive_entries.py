"""What is in a zip or tar archive: plain files and folders, under the names that it gives them."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from gift_cl.errors import DamagedFileError, LayoutError, ReadError, UnsafeFileError

_BLOCK = 1 << 20
_LONGEST_HEADER = 1 << 20  # bytes of a tar entry that describes another; it is held in memory
_TORCH_PICKLE = re.compile("[^/]+/data[.]pkl")

Entry = tuple[str, IO[bytes] | None]
"""Name as the archive has it, and the content; None for a folder."""


class Budget:
    """Bytes that may still come out of an archive.

    Args:
        source: Name of the archive, for messages.
        most: How many there may be.
    """

    def __init__(self, source: Path, most: int) -> None:
        self.source, self.most, self.left = source, most, most

    def spend(self, num_bytes: int) -> None:
        """Count some; ``UnsafeFileError`` if there are too many."""
        self.left -= num_bytes
        if self.left < 0:
            raise UnsafeFileError(
                f"`{self.source}` unpacks to more than {self.most} bytes, which is out of proportion; it was "
                "not unpacked. If you trust it, pass `limits` that allow more, or unpack it yourself."
            )


@contextmanager
def reporting(source: Path) -> Iterator[None]:
    """What parsers raise of a damaged archive, which may be anything, becomes an error with its name."""
    try:
        yield
    except ReadError:
        raise
    except NotImplementedError as error:
        raise LayoutError(f"`{source}` is packed in an unknown way ({error}). Pack it again.") from error
    except Exception as error:
        reason = str(error).rstrip(".") or type(error).__name__
        raise DamagedFileError(
            f"`{source}` is no readable archive ({reason}). It may be cut short, or a web page in place of "
            "the download: get it again and compare its size."
        ) from error


def archive_entries(source: Path, file: BinaryIO, most: int) -> Iterator[Entry]:
    """Entries of an archive of any kind, in its order.

    A content has to be read before the next entry is asked for. What the parsers raise is let through; put
    `reporting` around.

    Args:
        source: Name of the archive, for messages.
        file: The archive, at its start.
        most: Bytes that it may decompress to.

    Raises:
        UnsafeFileError: If an entry is no file or folder, or there is more than that.
        DamagedFileError: If a tar archive is cut short between two entries.
        LayoutError: If it is encrypted, or a file of ``torch.save``.
    """
    start = file.read(6)
    file.seek(0)
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        yield from _zip_entries(source, file)
        return
    stream: Any = file
    for signature, opened in _COMPRESSIONS:
        if start.startswith(signature):
            stream = opened(file)
    yield from _tar_entries(source, _Metered(stream, Budget(source, most)))


_COMPRESSIONS: tuple[tuple[bytes, Callable[[Any], Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\0", lzma.open),
)


def _zip_entries(source: Path, file: BinaryIO) -> Iterator[Entry]:
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        if any(_TORCH_PICKLE.fullmatch(info.filename) for info in infos):
            raise LayoutError(
                f"`{source}` is a file of `torch.save`, no archive. Give the folder it lies in."
            )
        for info in infos:
            if info.flag_bits & 1:
                raise LayoutError(f"`{source}` is encrypted. Unpack it yourself, and give the folder.")
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _no_plain_file(source, info.filename)
            # The name as it is in the archive, not as the module mends it.
            yield info.orig_filename, None if info.is_dir() else archive.open(info)


def _tar_entries(source: Path, stream: _Metered) -> Iterator[Entry]:
    with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|", tarinfo=_TarInfo) as archive:
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
            if not (info.isreg() or info.isdir()):
                raise _no_plain_file(source, info.name)
            yield info.name, None if info.isdir() else archive.extractfile(info)
    while stream.read(_BLOCK):  # what follows the last entry: zeros, and the checksum of a compressed file
        pass
    if stream.end.strip(b"\0") or len(stream.end) < tarfile.BLOCKSIZE:
        raise DamagedFileError(f"`{source}` is cut short: a tar archive ends with zeros. Get it again.")


def _no_plain_file(source: Path, name: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"`{source}` holds a link, device or pipe, {name!r}; it was not unpacked. Get one of plain files."
    )


class _TarInfo(tarfile.TarInfo):
    """Header of a tar entry; one that describes another entry is kept short."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _TarInfo:
        info = super().frombuf(buf, encoding, errors)
        if info.size > _LONGEST_HEADER and not (info.isreg() or info.isdir()):
            raise tarfile.ReadError(f"a header of {info.size} bytes")
        return info


class _Metered:
    """What `tarfile` reads from: bytes are counted after they are decompressed, headers and all."""

    def __init__(self, stream: BinaryIO, budget: Budget) -> None:
        self.stream, self.budget, self.end = stream, budget, b""

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.budget.spend(len(data))
        self.end = (self.end + data)[-tarfile.BLOCKSIZE :]
        return data
