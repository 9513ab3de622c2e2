"""DATM: whitened images, learned logits and a learned learning rate, in three files."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from gift_cl.codecs import Float32
from gift_cl.dataset import DistilledDataset, Provenance
from gift_cl.errors import DamagedFileError, LayoutError
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
from gift_cl.torch_files import load_torch

_IMAGES = re.compile(r"images_(?P<undone>zca_)?(?P<tag>best|\d+)\.pt")


@dataclass(frozen=True)
class DATMReader:
    """Reads ``images_best.pt``, ``labels_best.pt`` and ``lr_best.pt`` of one folder.

    Args:
        iteration: Read ``images_{iteration}.pt`` and its companions instead.
        space: ``zca``, or ``pixels`` in [0, 1] if the configuration had no ZCA.

    Raises:
        ValueError: If an option is neither.

    Source:
        Guo et al., DATM, ICLR 2024; files that NUS-HPC-AI-Lab/DATM@97ae510 writes: images (C·ipc, 3, H, W)
        and raw logits (C·ipc, C), both float32 and class after class, and a learning rate. The class of
        a row is row // ipc, since the logits were optimised after they had been set.
    """

    iteration: int | None = None
    space: Literal["zca", "pixels"] = "zca"

    def __post_init__(self) -> None:
        if self.iteration is not None and (type(self.iteration) is not int or self.iteration < 0):
            raise ValueError(f"Expected `iteration` as a number of at least 0, got {self.iteration!r}.")
        if self.space not in ("zca", "pixels"):
            raise ValueError(f"Expected `space` zca or pixels, got {self.space!r}.")

    @property
    def spec(self) -> str:
        """Name and options."""
        options = [] if self.iteration is None else [f"iteration={self.iteration}"]
        options += [] if self.space == "zca" else [f"space={self.space}"]
        return "datm" + (":" + ",".join(options) if options else "")

    def recognizes(self, path: Path) -> bool:
        """See `Reader.recognizes`."""
        return is_there(path, _IMAGES)

    def read(self, path: Path, *, ipc: int | None, progress: Progress) -> DistilledDataset:
        """See `Reader.read`. A smaller ``ipc`` is refused: the images were optimised together."""
        images_file = self._find(path)
        files = {kind: _companion(images_file, kind) for kind in ("images", "labels", "lr")}
        images = require_images(load_torch(files["images"]), files["images"])
        progress(0, len(images))
        low, high = require_finite(images, "images", files["images"])
        self._check_space(low, high, files["images"])
        logits = require_logits(load_torch(files["labels"]), len(images), files["labels"])
        labels = class_major_labels(logits, files["labels"])
        dataset = DistilledDataset(
            encoded=Float32().encode(as_float32(images, "images", files["images"])),
            labels=labels,
            num_classes=logits.shape[1],
            soft_labels=one_view(logits, labels),
            space=self.space,
            learned_lr=_learned_lr(files["lr"]),
            provenance=_provenance(files, len(images) // logits.shape[1], logits.shape[1]),
        )
        progress(len(images), len(images))
        return shorten(dataset, ipc, where=path)

    def _find(self, path: Path) -> Path:
        is_file = os.path.isfile(path)
        found = [path] if is_file else files_below(path, _IMAGES)
        matches = {file: match for file in found if (match := _IMAGES.fullmatch(file.name))}
        tags = {file: match["tag"] for file, match in matches.items() if not match["undone"]}
        if matches and not tags:
            raise LayoutError(
                f"The file `{next(iter(matches))}` holds images as they look, with the whitening undone; the "
                "labels and the learning rate belong to the whitened ones. Give images_best.pt, or "
                "images_{iteration}.pt of the same iteration."
            )
        wanted = "best" if self.iteration is None else str(self.iteration)
        chosen = [file for file, tag in tags.items() if tag == wanted or (is_file and self.iteration is None)]
        if not chosen:
            others = f", got {listed([file.name for file in tags])}. Choose by `iteration`." if tags else "."
            raise LayoutError(f"Expected `images_{wanted}.pt` of DATM in `{path}`{others}")
        if len(chosen) > 1:
            raise LayoutError(
                f"Expected one distilled data set below `{path}`, got {len(chosen)}: "
                f"{listed([str(file) for file in chosen])}. Give the folder of one of them."
            )
        return chosen[0]

    def _check_space(self, low: float, high: float, where: Path) -> None:
        values = f"values from {low:.3g} to {high:.3g}"
        if self.space == "zca" and low >= 0:
            raise LayoutError(
                f"Expected whitened images in `{where}`, which have negative values, got {values}. If the "
                "configuration had `zca: False`, read them with the option `space=pixels`; if the whitening "
                "was undone, use the file from before."
            )
        if self.space == "pixels" and not 0 <= low <= high <= 1:
            raise LayoutError(
                f"Expected pixels in [0, 1] in `{where}`, got {values}. If they are whitened, leave out "
                "`space=pixels`; if they are normalised, undo it (images * std + mean) and save them again."
            )


def _companion(images_file: Path, kind: str) -> Path:
    file = images_file.with_name(images_file.name.replace("images", kind))
    if not os.path.isfile(file):
        raise LayoutError(
            f"Expected `{file.name}` beside `{images_file}`, got none. Images, labels and learning rate of a "
            "run belong together: get all three."
        )
    return file


def _learned_lr(file: Path) -> float:
    lr = load_torch(file)
    if not isinstance(lr, Tensor) or lr.numel() != 1 or lr.dtype == torch.bool:
        got = tuple(lr.shape) if isinstance(lr, Tensor) else type(lr).__name__
        raise LayoutError(
            f"Expected one learning rate in `{file}`, got {got}. Save it as a tensor of one number."
        )
    rate = float(lr.detach())
    if not 0 < rate < math.inf:
        raise DamagedFileError(
            f"Expected a positive learning rate in `{file}`, got {rate}. Its distillation may have "
            "diverged: get the file again, or that of an earlier iteration."
        )
    return rate


def _provenance(files: dict[str, Path], ipc: int, num_classes: int) -> Provenance:
    """What is known of every run, and what the folder says: {data}/{ipc}/{model}/{run}/Normal."""
    *_, data, images_per_class, model, _, last = ("",) * 5 + Path(os.path.abspath(files["lr"].parent)).parts
    is_published = last == "Normal" and images_per_class == str(ipc)
    return Provenance(
        method="datm",
        source=data if is_published else "unknown",
        teacher="expert trajectories" + (f" of {model}" if is_published else ""),
        teacher_classes=tuple(range(num_classes)),
        hashes={file.name: sha256_of_file(file) for file in files.values()},
    )
