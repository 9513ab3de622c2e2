"""GIFT's input: images and labels of any method in one ``data.pt``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from gift_cl.codecs import EncodedImages, Float32, Raw
from gift_cl.dataset import DistilledDataset, Provenance, Space, count_labels
from gift_cl.errors import LayoutError
from gift_cl.files import sha256_of_file
from gift_cl.progress import Progress
from gift_cl.readers.tensors import (
    as_float32,
    class_major_labels,
    files_below,
    is_there,
    listed,
    one_view,
    require_finite,
    require_images,
    require_logits,
    shorten,
)
from gift_cl.soft_labels import SoftLabels
from gift_cl.torch_files import load_torch

_DATA = re.compile(r"data\.pt")
_FOLDER = re.compile(r"(?P<dataset>[^_]+)_(?P<model>.+)")
_METHODS = ("rded", "sre2l", "gvbsm", "datm", "cda")
_KEYS = ("dataset", "data", "label")

_TOLERANCE = 1e-4  # of a pixel in [0, 1]: more than undoing a normalisation rounds, less than a grey level
_CHUNK = 64  # images
_LONGEST_NAME = 100

_SPELLINGS = {
    "tiny": "tinyimagenet",
    "tinyimagenet200": "tinyimagenet",
    "imagenet": "imagenet1k",
    "imagenette": "imagenetnette",
    "nette": "imagenetnette",
    "imagewoof": "imagenetwoof",
    "woof": "imagenetwoof",
}
# Mosaic factors of all that RDED published. Images of factor 1 are sorted by loss; patches of a mosaic are
# dealt out by the number of images, so that fewer mosaics would be others.
_RDED_FACTORS = {
    "cifar10": 1,
    "cifar100": 1,
    "tinyimagenet": 1,
    "imagenetnette": 2,
    "imagenetwoof": 2,
    "imagenet10": 2,
    "imagenet100": 2,
    "imagenet1k": 2,
}


@dataclass(frozen=True)
class GIFTReader:
    """Reads ``syn_data/{method}/{dataset}_{model}/ipc{ipc}/data.pt``.

    Pixels at grey levels come back as the uint8 that they were; other values are kept as float32. Images
    with soft labels have to be sorted by class, as DATM writes them.

    Args:
        space: ``pixels`` in [0, 1], or ``zca``. By default, values outside [0, 1] are taken for whitened
            where labels are soft or the path says DATM, and are refused elsewhere.

    Raises:
        ValueError: If ``space`` is another.

    Source:
        Shang et al., GIFT, ICLR 2025; what LINs-lab/GIFT@38db552 reads: a dictionary of ``dataset``,
        ``data`` (N, 3, H, W) before normalisation, and ``label``, int64 (N,) or (N, 1), or float (N, C) of
        DATM. Deliberate difference: they pass soft labels as hard ones; here these are row // ipc.
    """

    space: Literal["auto", "pixels", "zca"] = "auto"

    def __post_init__(self) -> None:
        if self.space not in ("auto", "pixels", "zca"):
            raise ValueError(f"Expected `space` auto, pixels or zca, got {self.space!r}.")

    @property
    def spec(self) -> str:
        """Name and options."""
        return "gift" + ("" if self.space == "auto" else f":space={self.space}")

    def recognizes(self, path: Path) -> bool:
        """See `Reader.recognizes`."""
        return is_there(path, _DATA)

    def read(self, path: Path, *, ipc: int | None, progress: Progress) -> DistilledDataset:
        """See `Reader.read`; ``ipc`` may be smaller for SRe2L, CDA, and RDED of factor 1."""
        file = _find(path)
        name, images, stored = _contents(file)
        labels, soft = _labels(stored, len(images), file)
        num_classes = int(labels.max()) + 1
        published = _Published.of(file)
        published.check(name, len(labels) // num_classes, file)
        encoded, space = self._encode(images, file, soft is not None or published.method == "datm", progress)
        factor = _RDED_FACTORS.get(_canonical(name)) if published.method == "rded" else None
        dataset = DistilledDataset(
            encoded=encoded,
            labels=labels,
            num_classes=num_classes,
            soft_labels=soft,
            factor=factor or 1,
            space=space,
            provenance=Provenance(
                method=published.method + (f":factor={factor}" if factor else ""),
                source=name,
                teacher=published.model,
                teacher_classes=() if soft is None else tuple(range(num_classes)),
                hashes={file.name: sha256_of_file(file)},
            ),
        )
        return shorten(dataset, ipc, where=file)

    def _encode(
        self, images: Tensor, file: Path, may_be_whitened: bool, progress: Progress
    ) -> tuple[EncodedImages, Space]:
        space = self._space(images, file, may_be_whitened)
        levels = _grey_levels(images, progress) if space == "pixels" else None
        if levels is not None:
            return Raw().encode(levels), space
        values = as_float32(images, "images", file)
        progress(len(values), len(values))
        return Float32().encode(values.clamp(0, 1) if space == "pixels" else values), space

    def _space(self, images: Tensor, file: Path, may_be_whitened: bool) -> Space:
        low, high = (0.0, 1.0) if images.dtype == torch.uint8 else require_finite(images, "images", file)
        if self.space != "zca" and low >= -_TOLERANCE and high <= 1 + _TOLERANCE:
            return "pixels"
        if low < 0 and (self.space == "zca" or (self.space == "auto" and may_be_whitened)):
            values = images.float()
            if abs(float(values.mean())) < float(values.std()):
                return "zca"
        expected = "whitened images, around 0," if self.space == "zca" else "pixels in [0, 1]"
        cure = (
            "If they are normalised (twice, if they reach far beyond 3), undo it (data * std + mean) and "
            "save them again; if they are whitened, read them with the option `space=zca`."
        )
        if low >= 0:
            cure = "If they reach to 255, divide by 255, or save them as uint8."
            cure = "Leave out `space=zca`." if self.space == "zca" else cure
        raise LayoutError(f"Expected {expected} in `{file}`, got values from {low:.3g} to {high:.3g}. {cure}")


def _find(path: Path) -> Path:
    found = [path] if os.path.isfile(path) else files_below(path, _DATA)
    if len(found) != 1:
        raise LayoutError(
            f"Expected one data.pt below `{path}`, got {len(found)}. Give one of them"
            + (f": {listed([str(file) for file in found])}." if found else ", as {method}/.../data.pt.")
        )
    return found[0]


def _contents(file: Path) -> tuple[str, Tensor, Tensor]:
    """Name of the data set, images and labels."""
    contents = load_torch(file)
    if not isinstance(contents, Mapping) or any(key not in contents for key in _KEYS):
        raise LayoutError(
            f"Expected a dictionary of dataset, data and label in `{file}`, got {_describe(contents)}. Save "
            "it as GIFT reads it."
        )
    name, stored = contents["dataset"], contents["label"]
    if not isinstance(name, str) or len(name) > _LONGEST_NAME:
        raise LayoutError(f"Expected the name of a data set as `dataset` in `{file}`, got something else.")
    images = require_images(contents["data"], file)
    if not isinstance(stored, Tensor) or stored.ndim == 0 or len(stored) != len(images):
        raise LayoutError(
            f"Expected `label` in `{file}` as a tensor of {len(images)} rows, one for each image, got "
            f"{tuple(stored.shape) if isinstance(stored, Tensor) else type(stored).__name__}."
        )
    return name, images, stored


def _describe(contents: object) -> str:
    if isinstance(contents, Mapping):
        return "one of " + (listed([str(key) for key in contents]) or "nothing")
    return type(contents).__name__


def _labels(stored: Tensor, num_images: int, file: Path) -> tuple[Tensor, SoftLabels | None]:
    """Hard labels of equally many images of each class, and soft ones if there are any."""
    if stored.is_floating_point():
        logits = require_logits(stored, num_images, file)
        labels = class_major_labels(logits, file)
        return labels, one_view(logits, labels)
    if stored.shape not in ((num_images,), (num_images, 1)) or stored.dtype == torch.bool:
        raise LayoutError(
            f"Expected `label` in `{file}` as whole numbers (N,) or (N, 1), or logits (N, C), got "
            f"{tuple(stored.shape)} of {stored.dtype}."
        )
    labels = stored.flatten().to(torch.int64)
    counts = count_labels(labels)
    expected = range(max(counts) + 1) if min(counts) >= 0 else range(0)
    if missing := [str(c) for c, _ in zip(expected, range(num_images + 1), strict=False) if c not in counts]:
        raise LayoutError(
            f"Expected every class from 0 to {max(counts)} in `{file}`, got no image of {listed(missing)}. "
            "Number the classes from 0, or complete the data set."
        )
    if not expected:
        raise LayoutError(f"Expected classes of at least 0 in `{file}`, got {min(counts)}.")
    if len(set(counts.values())) > 1:
        fewest, most = min(counts.values()), max(counts.values())
        unequal = [f"class {c}: {n}" for c, n in counts.items() if n != most]
        raise LayoutError(
            f"Expected equally many images of each class in `{file}`, got {fewest} to {most} "
            f"({listed(unequal)}). Complete the data set."
        )
    return labels, None


def _grey_levels(images: Tensor, progress: Progress) -> Tensor | None:
    """The images as uint8, if they are that, or every pixel is at a grey level k/255."""
    if images.dtype != torch.uint8 and not images.is_floating_point():
        return None
    levels = torch.empty(images.shape, dtype=torch.uint8)
    progress(0, len(images))
    for start in range(0, len(images), _CHUNK):
        part = images[start : start + _CHUNK]
        if part.dtype != torch.uint8:
            scaled = part.double() * 255
            part = scaled.round()
            if bool((scaled - part).abs().max() > 255 * _TOLERANCE):
                return None
        levels[start : start + _CHUNK] = part.clamp(0, 255).to(torch.uint8)
        progress(min(start + _CHUNK, len(images)), len(images))
    return levels


class _Published(NamedTuple):
    """What the path of a file says, if it is GIFT's."""

    method: str = "unknown"
    dataset: str | None = None
    model: str = "none"
    ipc: str | None = None

    @classmethod
    def of(cls, file: Path) -> _Published:
        *_, method, folder, ipc, _ = ("",) * 4 + Path(os.path.abspath(file)).parts
        match = _FOLDER.fullmatch(folder)
        if method not in _METHODS or not match or not re.fullmatch(r"ipc\d+", ipc):
            return cls()
        return cls(method, match["dataset"], match["model"], ipc)

    def check(self, name: str, ipc: int, file: Path) -> None:
        """Raise ``LayoutError`` if the file says otherwise."""
        if self.dataset is not None and _canonical(self.dataset) != _canonical(name):
            raise LayoutError(
                f"Expected the data set `{self.dataset}` in `{file}`, as its path says, got `{name}`. Check "
                "which of them is right, and rename the folder if it is the file."
            )
        if self.ipc is not None and self.ipc != f"ipc{ipc}":
            raise LayoutError(
                f"Expected {self.ipc[3:]} images of each class in `{file}`, as its path says, got {ipc}. "
                "Check which of them is right, and rename the folder if it is the file."
            )


def _canonical(name: str) -> str:
    letters = re.sub("[^a-z0-9]", "", name.lower())
    return _SPELLINGS.get(letters, letters)
