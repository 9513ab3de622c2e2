"""Small sets of images, written as their authors publish them, and what is in them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from gift_cl.dataset import DistilledDataset
from gift_cl.progress import silent
from gift_cl.readers.protocol import Reader

OPTIONS: dict[str, dict[str, Any]] = {
    "jpg": {"format": "JPEG", "quality": 75},
    "jpeg": {"format": "JPEG", "quality": 75},
    "png": {"format": "PNG"},
    "webp": {"format": "WEBP", "lossless": True},
}


def picture(seed: int, *shape: int) -> npt.NDArray[np.uint8]:
    """Noise, uint8 (H, W, 3), or (H, W) for gray."""
    return np.random.default_rng(seed).integers(0, 256, shape or (8, 8, 3), np.uint8)


def image_bytes(seed: int, *shape: int, suffix: str = "jpg") -> bytes:
    """The file of a picture."""
    file = io.BytesIO()
    Image.fromarray(picture(seed, *shape)).save(file, **OPTIONS[suffix])
    return file.getvalue()


def write_image(path: Path, seed: int = 0, *shape: int) -> None:
    """A picture as a file of the kind that its name says; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image_bytes(seed, *shape, suffix=path.suffix[1:].lower()))


def write_sre2l(
    root: Path, *, classes: int = 3, ipc: int = 2, digits: int = 3, suffix: str = "jpg", side: int = 8
) -> Path:
    """``new{class}/class{class}_id{image}``: SRe2L, CDA (five digits as well) and G-VBSM (PNG as well)."""
    for label in range(classes):
        for number in range(ipc):
            name = f"new{label:0{digits}d}/class{label:0{digits}d}_id{number:03d}.{suffix}"
            write_image(root / name, 1000 * label + number, side, side, 3)
    return root


def write_rded(root: Path, *, classes: int = 3, ipc: int = 2, side: int = 8) -> Path:
    """``{class}/class{class}_id{image}.jpg``, five digits each, as RDED does below ``syn_data``."""
    for label in range(classes):
        for number in range(ipc):
            name = f"{label:05d}/class{label:05d}_id{number:05d}.jpg"
            write_image(root / name, 1000 * label + number, side, side, 3)
    return root


def write_image_folder(root: Path, counts: Mapping[str, int], *, suffix: str = "jpg", side: int = 8) -> Path:
    """``{class}/{image}``, with the given number of images of each class."""
    for label, (name, count) in enumerate(counts.items()):
        for number in range(count):
            write_image(root / name / f"img{number}.{suffix}", 1000 * label + number, side, side, 3)
    return root


def read(reader: Reader, path: Path, *, ipc: int | None = None) -> DistilledDataset:
    """The data set, without anybody listening."""
    return reader.read(path, ipc=ipc, progress=silent)


def by_pillow(files: list[Path]) -> Tensor:
    """Pixels of files, uint8 (N, C, H, W)."""
    pixels = [np.array(Image.open(file)) for file in files]
    return torch.stack(
        [torch.from_numpy(image.reshape(*image.shape[:2], -1)).permute(2, 0, 1) for image in pixels]
    )
