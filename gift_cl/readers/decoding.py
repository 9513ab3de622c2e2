"""All images of a folder, each file read, hashed and decoded once, by several processes if that pays."""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gift_cl.codecs import EncodedImages, build_codec
from gift_cl.errors import DamagedFileError, LayoutError, ReadError, UnsafeFileError
from gift_cl.image_files import MAX_FILE_BYTES, ImageHeader, decode_image, read_header
from gift_cl.progress import Progress, silent
from gift_cl.readers.collecting import Shape, make_place
from gift_cl.readers.tree import Limits, TreeFile, read_file, tree_digest

_CHUNK_FILES, _CHUNK_BYTES = 256, 4 << 20  # of files, and of pixels; a few chunks are under way at any time
_FEW_FILES = 4096  # are read before other processes have started
_MOST_WORKERS = 8

T = TypeVar("T")


def check_options(codec: str, workers: int | None) -> None:
    """Raise ``ValueError`` unless `read_images` can use these."""
    if build_codec(codec).spec == "float32":
        raise ValueError("Expected a `codec` of pixels, got float32. Choose `files` or `raw`.")
    if workers is not None and (type(workers) is not int or workers < 0):
        raise ValueError(f"Expected `workers` as a number of at least 0, got {workers!r}.")


def read_images(
    root: str | os.PathLike[str],
    files: Sequence[TreeFile],
    *,
    codec: str = "files",
    workers: int | None = None,
    limits: Limits | None = None,
    progress: Progress = silent,
) -> tuple[EncodedImages, str]:
    """The images of files, in their order, and the `tree_digest` of the files.

    Every file is decoded, whatever the codec, so that none is damaged. All have to be of one shape; a header
    that differs is refused before a pixel of it is decoded.

    Args:
        root: Folder that holds them.
        files: At least one, as `scan` names them.
        codec: How to keep them: ``files`` as they are, ``raw`` or another codec as their pixels.
        workers: Processes that read beside this one; 0 for none. The result is the same. By default one for
            each core if there are many files and processes start by forking.
        limits: What is too much.
        progress: Told of images that are done.

    Raises:
        OSError: If a file may not be read.
        ReadError: If one is damaged, changed or of another shape.
    """
    root, limits, codec = os.fspath(root), limits or Limits(), build_codec(codec).spec
    shape = _checked_header(root, files[0], _read_bytes(root, files[0])).shape
    images = make_place(root, codec, shape, [size for _, size in files], limits)
    workers = _num_workers(workers, len(files))
    is_reached = not workers or _start_method() == "fork"  # the place, by whoever decodes
    place = images.payload if codec == "raw" and is_reached else None
    chunks = _Chunks(root, tuple(_divide(files, shape)), files[0][0], shape, codec, place)
    hashes: list[str] = []
    for part in _results(chunks, workers):
        if isinstance(part, Exception):
            raise part
        if part.images is not None:
            images.append(part.images)
        hashes += part.hashes
        progress(len(hashes), len(files))
    by_name = {name: digest for (name, _), digest in zip(files, hashes, strict=True)}
    return images.joined(), tree_digest(by_name)


@dataclass(frozen=True)
class _Part:
    images: EncodedImages | None  # None if they are in their place already
    hashes: list[str]


_Result = _Part | ReadError | OSError  # an error that crosses processes as a value keeps its type and text


@dataclass(frozen=True)
class _Chunks(Dataset[_Result]):
    """Files in chunks; an item is read when it is asked for, in whichever process.

    Args:
        root: Folder of the files.
        chunks: Files of each chunk.
        first: Name of the file that the others are compared with.
        shape: What it has.
        codec: As in `read_images`.
        place: Where the pixels of all files go, uint8 (bytes,), if every process can write there.
    """

    root: str
    chunks: tuple[Sequence[TreeFile], ...]
    first: str
    shape: Shape
    codec: str
    place: Tensor | None

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, index: int) -> _Result:
        try:
            return self._read(index)
        except (ReadError, OSError) as error:
            return error

    def _read(self, index: int) -> _Part:
        files = self.chunks[index]
        # One step for all files before the next one is faster than all steps for one file.
        contents = [_read_bytes(self.root, file) for file in files]
        hashes = [hashlib.sha256(data).hexdigest() for data in contents]
        headers = [self._header(file, data) for file, data in zip(files, contents, strict=True)]
        images = (self._decode(*args) for args in zip(files, contents, headers, strict=True))
        if self.codec == "files":
            for _ in images:  # whole and sound, that is all
                pass
            return _Part(EncodedImages.from_streams("files", self.shape, contents), hashes)
        decoded = list(images)
        pixels = self._new_pixels(index)
        for row, image in enumerate(decoded):
            pixels[row] = image.numpy()
        if self.place is not None:
            return _Part(None, hashes)
        return _Part(self._encode(torch.from_numpy(pixels)), hashes)

    def _new_pixels(self, index: int) -> npt.NDArray[np.uint8]:
        """Where the pixels of a chunk go, (n, C, H, W)."""
        count = len(self.chunks[index])
        if self.place is None:
            return np.empty((count, *self.shape), np.uint8)
        start = sum(map(len, self.chunks[:index])) * math.prod(self.shape)
        place = self.place[start : start + count * math.prod(self.shape)]
        return place.view(count, *self.shape).numpy()

    def _header(self, file: TreeFile, data: bytes) -> ImageHeader:
        header = _checked_header(self.root, file, data)
        if header.shape != self.shape:
            raise LayoutError(
                f"Expected images of one size in `{self.root}`, got {_words(header.shape)} in `{file[0]}` "
                f"and {_words(self.shape)} in `{self.first}`. Remove those that do not belong there."
            )
        return header

    def _decode(self, file: TreeFile, data: bytes, header: ImageHeader) -> Tensor:
        try:
            return decode_image(data, header)
        except ReadError as error:
            raise _named(error, self.root, file) from error

    def _encode(self, pixels: Tensor) -> EncodedImages:
        try:
            return build_codec(self.codec).encode(pixels)
        except ValueError as error:
            raise LayoutError(
                f"Cannot store the images of `{self.root}` as `{self.codec}`: {error}"
            ) from error


def _read_bytes(root: str, file: TreeFile) -> bytes:
    name, size = file
    if size > MAX_FILE_BYTES:
        raise UnsafeFileError(
            f"`{os.path.join(root, name)}` has {size} bytes, and an image may have {MAX_FILE_BYTES}. "
            "Remove it."
        )
    return read_file(os.path.join(root, name), size)


def _checked_header(root: str, file: TreeFile, data: bytes) -> ImageHeader:
    try:
        return read_header(data)
    except ReadError as error:
        raise _named(error, root, file) from error


def _named(error: ReadError, root: str, file: TreeFile) -> ReadError:
    return type(error)(f"Cannot read `{os.path.join(root, file[0])}`: {error}")


def _words(shape: Shape) -> str:
    channels, height, width = shape
    return f"{height} x {width} pixels {'in colour' if channels == 3 else 'in gray'}"


def _divide(files: Sequence[TreeFile], shape: Shape) -> Iterator[Sequence[TreeFile]]:
    """Chunks of a bounded number of files, of bytes, and of pixels."""
    most = max(1, min(_CHUNK_FILES, _CHUNK_BYTES // math.prod(shape)))
    start = num_bytes = 0
    for index, (_, size) in enumerate(files):
        if index > start and (index - start == most or num_bytes + size > _CHUNK_BYTES):
            yield files[start:index]
            start, num_bytes = index, 0
        num_bytes += size
    yield files[start:]


def _num_workers(workers: int | None, num_files: int) -> int:
    if workers is not None:
        return workers
    # Other methods run the user's main module again; processes of a loader may have none of their own.
    if num_files < _FEW_FILES or _start_method() != "fork" or multiprocessing.current_process().daemon:
        return 0
    return min(_MOST_WORKERS, _num_cores())


def _start_method() -> str:
    """How other processes start."""
    return multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]


def _num_cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux has it
        return os.cpu_count() or 1


def _results(chunks: _Chunks, workers: int) -> Iterator[_Result]:
    """Results of all chunks, in their order."""
    if not workers:
        yield from (chunks[index] for index in range(len(chunks)))
        return
    loader = DataLoader(
        chunks,
        batch_size=None,
        num_workers=workers,
        collate_fn=_same,
        generator=torch.Generator(),  # it would draw from the global one
    )
    try:
        yield from loader
    except RuntimeError as error:  # what a loader says of a process that is gone
        reason = " ".join(str(error).split())
        raise DamagedFileError(
            f"A process that read `{chunks.root}` has ended ({reason}). Read it with `workers=0` and more "
            "memory; if that ends too, a file breaks its decoder."
        ) from error


def _same(item: T) -> T:
    return item
