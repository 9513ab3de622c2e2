"""One cell of an evaluation: a student trained on a distilled data set, measured, and written down."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gift_cl.dataset import DistilledDataset
from gift_cl.evaluation.accuracy import Accuracy, measure
from gift_cl.evaluation.cost import forward_flops
from gift_cl.evaluation.digests import dataset_digest, teacher_digest, text_digest
from gift_cl.evaluation.labelling import ClassCountError, Stream, seeded
from gift_cl.evaluation.memory_limits import is_out_of_memory
from gift_cl.evaluation.recipe import Recipe
from gift_cl.evaluation.surroundings import PeakMemory, commit, hardware, versions
from gift_cl.evaluation.training import DivergedError, History, train
from gift_cl.models import build_model
from gift_cl.normalization import build_normalization
from gift_cl.progress import Progress, silent
from gift_cl.teacher import Teacher
from gift_cl.whitening import ZCA

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """What is trained on what, and measured on what.

    Args:
        recipe: All numbers of the training.
        exemplars: The distilled data set.
        test: Real images that accuracies are measured on.
        evaluated_on: What ``test`` is: the test images, or images held out of the training images.
        validation: Images held out of the training images that the student is measured on too, at the end.
        teacher: For ``online`` labels, and for these alone.
        stream: For a ``stream`` of labels, and for this alone.
        whitening: What real images go through where the exemplars are whitened (DATM), and there alone.
        method: What distilled the images, for the row.
        dataset: Name of the real data, for the row.
        data: Path or origin of the exemplars, for the row.
        model: Network that the images were distilled with.
        tar_model: Spec of the student; None is the same as ``model``.
        preset: Where the recipe comes from, for the row.
        device: Where everything is computed.

    Raises:
        ValueError: If images are of other shapes, or there is a whitening without whitened images or the
            other way round.
        ClassCountError: If the data sets differ in their number of classes.
    """

    recipe: Recipe
    exemplars: DistilledDataset
    test: DistilledDataset
    evaluated_on: Literal["test", "validation"] = "test"
    validation: DistilledDataset | None = None
    teacher: Teacher | None = None
    stream: Stream | None = None
    whitening: ZCA | None = None
    method: str
    dataset: str
    data: str
    model: str
    tar_model: str | None = None
    preset: str
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, other in (("test", self.test), ("validation", self.validation)):
            if other is None:
                continue
            if other.num_classes != self.exemplars.num_classes:
                raise ClassCountError(
                    f"Expected the exemplars and the {name} images to have as many classes, got "
                    f"{self.exemplars.num_classes} and {other.num_classes}. Use images of the same data set."
                )
            shapes = self.exemplars.encoded.image_shape, other.encoded.image_shape
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"Expected {name} images of the shape of the exemplars {shapes[0]}, got {shapes[1]}. "
                    "Resize them."
                )
        if (self.whitening is None) == (self.exemplars.space == "zca"):
            raise ValueError(
                "Expected a whitening of the real images if the exemplars are whitened, and only then; the "
                f"exemplars are `{self.exemplars.space}`. Fit one to the training images with `cached_zca`."
            )

    @property
    def student(self) -> str:
        """Spec of the student."""
        return self.tar_model or self.model

    @cached_property
    def cell_id(self) -> str:
        """Digest of everything that determines the result, but for machine and versions."""
        whitening = self.whitening
        return text_digest(
            {
                "recipe": self.recipe.as_dict(),
                "student": self.student,
                "exemplars": dataset_digest(self.exemplars),
                "test": dataset_digest(self.test),
                "evaluated_on": self.evaluated_on,
                "validation": None if self.validation is None else dataset_digest(self.validation),
                "teacher": self.teacher and teacher_digest(self.teacher),
                "stream": self.stream and self.stream.digest,
                "whitening": whitening and (whitening.source_sha256, whitening.eps),
                "names": (self.method, self.dataset, self.model),
            }
        )


def run_cell(cell: Cell, *, progress: Progress = silent) -> Row:
    """Train and measure a student.

    A training that diverges or does not fit the memory ends in a row that says so; everything else that goes
    wrong is raised.

    Args:
        cell: What to do.
        progress: Called with images trained on, so far and in all.

    Returns:
        A row for JSON; accuracies are fractions. ``accuracy_last`` and ``top5_last`` are of the last
        measurement, ``accuracy_best`` is the best of ``curve``, chosen on the very images it is
        measured on. ``bytes`` are what this training needs: soft labels only if they are stored, the
        teacher only if it labels on line. ``flops_per_image`` are of a forward pass. ``peak_memory_bytes`` is
        null where it could not be told.

    Raises:
        ValueError: If the parts do not fit; see `train`.
    """
    started, device = datetime.now(UTC), torch.device(cell.device)
    peak, history = PeakMemory(device), History()
    reason = teacher_accuracy = validation_accuracy = None
    student = fresh_student(cell)
    num_parameters = sum(parameter.numel() for parameter in student.parameters())
    flops = {"student": _flops(student, cell), "teacher": cell.teacher and _flops(cell.teacher.model, cell)}
    try:
        if cell.teacher is not None:
            teacher_accuracy = _teacher_accuracy(cell, cell.teacher)
        train(
            student,
            cell.exemplars,
            cell.recipe,
            teacher=cell.teacher,
            stream=cell.stream,
            device=device,
            measure=_measurement(cell, cell.test),
            progress=progress,
            history=history,
        )
        if cell.validation is not None:
            validation_accuracy = _measurement(cell, cell.validation)(student).top1
    except (DivergedError, RuntimeError, MemoryError) as error:
        if not (isinstance(error, DivergedError) or is_out_of_memory(error)):
            raise
        reason = str(error)
    return {
        **_what(cell),
        "status": "done" if reason is None else "failed",
        "reason": reason,
        **_results(history, is_done=reason is None),
        "validation_accuracy": validation_accuracy,
        "teacher_accuracy": teacher_accuracy,
        "flops_per_image": flops,
        "peak_memory_bytes": peak.nbytes,
        "bytes": _bytes(cell),
        "num_parameters": num_parameters,
        "versions": versions(),
        "commit": commit(),
        "hardware": hardware(device),
        "started": started.isoformat(timespec="seconds"),
        "settings": cell.recipe.as_dict(),
    }


def fresh_student(cell: Cell) -> nn.Module:
    """The untrained student of a cell; its weights follow from the seed, and no global state changes.

    Raises:
        ValueError: If the images are not square, or the network cannot be built for them.
    """
    channels, height, width = cell.test.encoded.image_shape
    if height != width:
        raise ValueError(f"Expected square images, got {height} x {width} pixels. Crop or resize them.")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeded("weights", cell.recipe.seed).initial_seed())
        return build_model(
            cell.student, in_channels=channels, image_size=height, num_classes=cell.exemplars.num_classes
        )


def _measurement(cell: Cell, data: DistilledDataset) -> Callable[[nn.Module], Accuracy]:
    """What measures a student on real images."""
    return partial(
        measure,
        images=data.images,
        labels=data.labels,
        normalization=build_normalization(cell.recipe.normalization),
        preprocess=_preprocess(cell),
        device=cell.device,
        precision=cell.recipe.precision,
    )


def _teacher_accuracy(cell: Cell, teacher: Teacher) -> float:
    """Of the teacher on the images of the cell, in float32; measured once for the same teacher and images."""
    known = _TEACHER_ACCURACIES.setdefault(teacher, {})
    digest = dataset_digest(cell.test)
    if digest not in known:
        known[digest] = measure(
            copy.deepcopy(teacher.model).to(cell.device),
            cell.test.images,
            cell.test.labels,
            normalization=teacher.normalization,
            preprocess=_preprocess(cell),
            device=cell.device,
        ).top1
    return known[digest]


_TEACHER_ACCURACIES: WeakKeyDictionary[Teacher, dict[str, float]] = WeakKeyDictionary()


def _preprocess(cell: Cell) -> Callable[[Tensor], Tensor] | None:
    return None if cell.whitening is None else cell.whitening.to(cell.device).apply


def _flops(model: nn.Module, cell: Cell) -> int:
    return forward_flops(model, cell.test.encoded.image_shape)


def _what(cell: Cell) -> Row:
    """The part of a row that is known before the training."""
    num_images, settings = len(cell.exemplars), cell.recipe.as_dict()
    return {
        "cell_id": cell.cell_id,
        "method": cell.method,
        "dataset": cell.dataset,
        "data": cell.data,
        "ipc": max(cell.exemplars.images_per_class.values(), default=0),
        "num_images": num_images,
        "model": cell.model,
        "tar_model": cell.student,
        "preset": cell.preset,
        **{name: settings[name] for name in _SHOWN},
        "batch_size": None if cell.stream else cell.recipe.batch_size_for(num_images),
        "device": cell.device,
        "evaluated_on": cell.evaluated_on,
    }


_SHOWN = (
    *("loss", "labels", "optimizer", "lr", "weight_decay", "schedule", "epochs", "view", "mix"),
    *("normalization", "precision", "seed"),
)  # settings of a recipe that rows have as keys of their own; all of them are in `settings`


def _results(history: History, *, is_done: bool) -> Row:
    """The part of a row that the training tells; a failed one has no accuracies but those of its curve."""
    last = history.curve[-1][1] if is_done else None
    best_epoch, best = max(history.curve, key=lambda point: point[1].top1) if is_done else (None, None)
    return {
        "accuracy_last": last and last.top1,
        "accuracy_best": best and best.top1,
        "top5_last": last and last.top5,
        "best_epoch": best_epoch,
        "curve": [[epoch, accuracy.top1] for epoch, accuracy in history.curve],
        "train_loss_last": history.train_loss_last if math.isfinite(history.train_loss_last) else None,
        "seconds": history.seconds,
        "images_per_second": history.images_per_second,
        "microbatches": history.microbatches,
    }


def _bytes(cell: Cell) -> dict[str, int]:
    """Bytes that this training needs, by part."""
    labels, exemplars = cell.recipe.labels, cell.exemplars
    if labels != "stored":
        exemplars = replace(exemplars, soft_labels=None)
    ledger = exemplars.ledger(teacher_bytes=cell.teacher.nbytes if cell.teacher else 0)
    if cell.stream:
        ledger = replace(ledger, soft_labels=cell.stream.nbytes)
    return ledger.by_part() | {"total": ledger.total}
