"""From the images of a split to one array: each decoded once, resized if asked, by several threads."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gift_cl.errors import LayoutError, UnsafeFileError
from gift_cl.progress import Progress, silent
from gift_cl.real_data.source import Split

if TYPE_CHECKING:
    from PIL.Image import Image

_CHUNK = 64  # images that a thread decodes at a time
_MOST_THREADS = 8


def resize_then_crop(image: Image, resize: int, crop: int) -> Image:
    """The centre of an image, seen from a distance.

    Args:
        image: Of any size.
        resize: Pixels of the shorter side once it is resized, bilinearly and antialiased.
        crop: Height and width of the result, at most ``resize``.

    Returns:
        ``crop`` x ``crop`` pixels, as torchvision's ``Resize`` and ``CenterCrop`` of images of pillow give.

    Raises:
        ValueError: If ``crop`` is not in [1, resize].
    """
    from PIL.Image import Resampling

    if not 1 <= crop <= resize:
        raise ValueError(f"Expected `crop` in [1, {resize}], at most `resize`, got {crop}.")
    shorter = min(image.size)
    width, height = (int(resize * side / shorter) for side in image.size)
    left, top = round((width - crop) / 2), round((height - crop) / 2)
    return image.resize((width, height), Resampling.BILINEAR).crop((left, top, left + crop, top + crop))


def decode_split(split: Split, *, sizes: tuple[int, int] | None, progress: Progress = silent) -> Tensor:
    """All images, uint8 (N, C, H, W), in memory.

    Args:
        split: At least one image.
        sizes: ``resize`` and ``crop`` of `resize_then_crop`; an image that has ``crop`` x ``crop`` pixels
            already is left as it is. None leaves all as they are.
        progress: Told of images that are done.

    Raises:
        OSError: If a file may not be read.
        ReadError: If an image is damaged, or is of another size than the first; the message names it. If all
            together take more than the memory of the machine.
    """
    count = len(split.names)
    first = _pixels(split, 0, sizes)
    _require_memory(count * first.nbytes)
    images = np.empty((count, *first.shape), np.uint8)

    def fill(start: int) -> int:
        stop = min(start + _CHUNK, count)
        for index in range(start, stop):
            pixels = _pixels(split, index, sizes)
            if pixels.shape != first.shape:
                raise LayoutError(
                    f"Expected images of one size, got {_words(first)} in `{split.names[0]}` and "
                    f"{_words(pixels)} in `{split.names[index]}`. Pass `image_size`: for ImageNet and its "
                    "parts 224 with ResNets, 64 or 128 with ConvNets."
                )
            images[index] = pixels
        return stop - start

    done = 0
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as threads:
        for filled in threads.map(fill, range(0, count, _CHUNK)):
            progress(done := done + filled, count)
    return torch.from_numpy(images)


def _pixels(split: Split, index: int, sizes: tuple[int, int] | None) -> np.ndarray:
    image = split.load(index)
    if sizes is not None and image.size != (sizes[1], sizes[1]):
        image = resize_then_crop(image, *sizes)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _words(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[2]} pixels"


def _require_memory(num_bytes: int) -> None:
    available = _memory()
    if available is not None and num_bytes > available:
        raise UnsafeFileError(
            f"The decoded images take {num_bytes:,} bytes, and this machine has {available:,} bytes of "
            "memory. Choose a smaller `image_size`, or load the split that you need with `load_split`."
        )


def _memory() -> int | None:
    """Bytes of memory of this machine, where it says so."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
