"""What `gift-cl distill` works with: images, a measured teacher, a device, a place to write to."""

from __future__ import annotations

import argparse
import math
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gift_cl.cli.progress_bar import progress_bar
from gift_cl.codecs import build_codec
from gift_cl.distillers import Distiller
from gift_cl.evaluation.accuracy import Accuracy
from gift_cl.evaluation.lookup import find_teacher
from gift_cl.evaluation.parts import find_device
from gift_cl.evaluation.processes import current
from gift_cl.evaluation.teacher_recipe import measure_teacher
from gift_cl.models import find_architecture, find_card
from gift_cl.real_data import HOLD_OUT_SEED, RealData, data_root, hold_out, load_real_data
from gift_cl.teacher_file import LoadedTeacher, is_teacher_file, load_teacher


@dataclass(frozen=True)
class MeasuredTeacher:
    """A teacher, and how it did on the test images.

    Args:
        path: Its file.
        loaded: On the device.
        accuracy: Of all test images.
    """

    path: Path
    loaded: LoadedTeacher
    accuracy: Accuracy

    @property
    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return {"path": str(self.path), "model": self.loaded.model, "test": asdict(self.accuracy)}


@dataclass(frozen=True)
class Inputs:
    """What is distilled, by whose help, and where.

    Args:
        data: Real images.
        teacher: None without one.
        device: Where everything is computed.
    """

    data: RealData
    teacher: MeasuredTeacher | None
    device: str


def rank_and_world_size() -> tuple[int, int]:
    """Which process this is, and of how many, as the environment says; 0 of 1 without."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def load_inputs(options: argparse.Namespace, distiller: Distiller) -> Inputs:
    """Images and teacher as the options of the command name them.

    Raises:
        FileNotFoundError: If one is missing; the message says where it was looked for.
        ValueError: If they do not fit together.
        TeacherMismatchError: If the teacher is far less accurate than its file or its card says.
    """
    device = find_device(options.device)
    path, loaded = _find_teacher(options, distiller), None
    if path is None and options.normalization is not None:
        raise ValueError(
            f"Expected `--normalization` with weights of a teacher, got {options.normalization} without. "
            "Leave it out, or say with `--teacher` where they are."
        )
    card = None if options.model is None else find_card(options.dataset, options.model)
    size = options.image_size or (None if card is None else card.image_size)
    if path is not None and (not path.is_file() or is_teacher_file(path)):  # without one, an error
        loaded = load_teacher(path, device=device, normalization=options.normalization)
        _check_model(options.model, loaded.model, path)
        size = options.image_size or loaded.image_shape[-1]
    with current().first_ahead(), progress_bar("reading") as progress:
        data = load_real_data(options.dataset, root=options.root, image_size=size, progress=progress)
    if path is not None and loaded is None:
        loaded = load_teacher(
            path,
            device=device,
            model=options.model,
            normalization=options.normalization or (None if card is None else card.normalizations[0]),
            num_classes=data.num_classes,
            image_shape=data.image_shape,
        )
    teacher = None
    if path is not None and loaded is not None:
        teacher = MeasuredTeacher(path, loaded, measure_teacher(loaded, data.test, card=card))
    if options.hold_out is not None:
        data = replace(hold_out(data, options.hold_out, seed=HOLD_OUT_SEED), test=data.test)
    return Inputs(data, teacher, device)


def check_codec(codec: str, inputs: Inputs, distiller: Distiller) -> None:
    """Before anything is made: whether a codec can store it, and is the one that the method makes it for.

    Raises:
        ValueError: If it cannot, or is not.
    """
    if distiller.codec not in (None, "float32", build_codec(codec).spec):
        raise ValueError(
            f"Expected `codec` {distiller.codec} for `{distiller.spec}`, whose exemplars are made for it, "
            f"got `{codec}`. Leave it out."
        )
    dtype = torch.float32 if distiller.codec == "float32" else torch.uint8
    try:
        build_codec(codec).encode(torch.zeros(1, *inputs.data.image_shape, dtype=dtype))
    except TypeError:
        what = str(dtype).removeprefix("torch.")
        raise ValueError(
            f"Expected a `codec` for the {what} images of `{distiller.spec}`, got `{codec}`. Leave it out."
        ) from None


def check_space(out: Path, parts: Path, inputs: Inputs, distiller: Distiller, *, ipc: int) -> None:
    """Before anything is made: whether parts and file fit the disk, without compression.

    Raises:
        OSError: If they do not.
    """
    value_bytes = 4 if distiller.codec == "float32" else 1
    needed = 2 * ipc * inputs.data.num_classes * math.prod(inputs.data.image_shape) * value_bytes
    if parts.is_dir():
        needed -= sum(file.stat().st_size for file in parts.glob("*.safetensors"))
    free = shutil.disk_usage(out.parent).free
    if free < needed:
        raise OSError(
            f"Expected {needed:,} bytes free in `{out.parent}` for {ipc} exemplars of each of "
            f"{inputs.data.num_classes:,} classes, got {free:,}. Make space, or choose another folder."
        )


def _find_teacher(options: argparse.Namespace, distiller: Distiller) -> Path | None:
    """Its file. One that would only judge the exemplars may be missing, unless its file is named."""
    path: Path | None = options.teacher
    if options.model is not None:
        find_architecture(options.model)  # it refuses what no network is called
    if path is not None or (options.model is None and not distiller.needs_teacher):
        return path
    if options.model is None:
        raise ValueError(
            f"Expected `--teacher` or `--model` for `{options.method}`, which needs a teacher: its file, or "
            "the network by whose name it is found."
        )
    try:
        return find_teacher(
            root=data_root(options.root),
            dataset=options.dataset,
            model=options.model,
            cure="say where they are with `--teacher`, or train one with `gift-cl teacher train`",
        )
    except FileNotFoundError:
        if distiller.needs_teacher:
            raise
        return None


def _check_model(asked: str | None, found: str, path: Path) -> None:
    if asked is not None and asked.partition(":")[0] != found.partition(":")[0]:
        raise ValueError(f"Expected `--model` {found}, which `{path}` says, got {asked}. Leave it out.")
