"""The training of a student on a distilled data set."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from gift_cl.dataset import DistilledDataset
from gift_cl.evaluation.accuracy import Accuracy
from gift_cl.evaluation.batch_norms import SharedBatchNorms
from gift_cl.evaluation.labelling import Batch, DrawnBatches, Stream, TeacherLabels, seeded
from gift_cl.evaluation.memory_formats import memory_format_for
from gift_cl.evaluation.processes import current
from gift_cl.evaluation.recipe import Recipe
from gift_cl.evaluation.schedules import build_schedule
from gift_cl.evaluation.step import Step
from gift_cl.normalization import build_normalization
from gift_cl.progress import Progress, silent
from gift_cl.teacher import Teacher


class DivergedError(FloatingPointError):
    """The loss became NaN or infinite.

    Args:
        epoch: The epoch in which it did, counted from 1.
    """

    def __init__(self, epoch: int) -> None:
        super().__init__(
            f"The loss was NaN or infinite in epoch {epoch}. Lower the learning rate, and check the images "
            "and the soft labels."
        )
        self.epoch = epoch


@dataclass(kw_only=True)
class History:
    """What happened in a training.

    Args:
        curve: Epochs done and accuracy then, for each measurement.
        train_loss_last: Mean loss of the last epoch; NaN before the end of the first.
        seconds: Of training, without set-up and measurements.
        num_images: Images that the student was trained on, each as often as it was seen.
        microbatches: Pieces into which a batch was cut to fit the memory; 1 if none was.
    """

    curve: list[tuple[int, Accuracy]] = field(default_factory=list)
    train_loss_last: float = math.nan
    seconds: float = 0.0
    num_images: int = 0
    microbatches: int = 1

    @property
    def images_per_second(self) -> float:
        """Speed of the training; 0 before the end of the first epoch."""
        return self.num_images / self.seconds if self.seconds else 0.0


def train(
    student: nn.Module,
    exemplars: DistilledDataset,
    recipe: Recipe,
    *,
    teacher: Teacher | None = None,
    stream: Stream | None = None,
    device: torch.device | str = "cpu",
    measure: Callable[[nn.Module], Accuracy] | None = None,
    progress: Progress = silent,
    history: History | None = None,
) -> History:
    """Train ``student``, in place, on a distilled data set.

    In a step, exemplars are drawn and augmented once; the teacher, if there is one, answers to the views that
    the student sees. Nothing waits for the device within an epoch.

    A last batch of a single image is left out if the student has batch norms, which learn nothing good
    from it. If the memory runs out, batches are cut into pieces whose gradients are summed, weighted
    by their images: that is the gradient of the whole batch, but for batch norms, which see pieces, and which
    also saw what was computed before the memory ran out.

    The processes of `gift_cl.evaluation.processes.joined` share the rows of each batch, and end with the same
    student as one process would, but for rounding; only dropout draws for each of them anew. All of them draw
    whole batches and their views.

    The same seed gives the same curve, to the last bit on a CPU with as many threads and processes, and on
    CUDA as far as its kernels are deterministic. Global random states are restored.

    Args:
        student: Moved to the device in the fastest memory format; left in training mode. The same in all
            processes.
        exemplars: At least one; what they are labelled with follows from ``recipe.labels``.
        recipe: All numbers.
        teacher: For ``online`` labels, and for these alone.
        stream: For a ``stream`` of labels, and for this alone; it has the exemplars already.
        device: Where everything is computed.
        measure: The accuracy of a student; called ``recipe.evaluations`` times.
        progress: Called each step with the images done and all images.
        history: Filled as the training goes, so it is there after a failure; a new one by default.

    Returns:
        The history.

    Raises:
        ValueError: If exemplars, teacher or stream are missing or do not fit; see `DrawnBatches` and
            `TeacherLabels` for their own errors.
        DivergedError: At the end of an epoch in which the loss was not finite.
        TooLargeError: If not even a single image fits the memory.
        OtherProcessError: If a step fails in another process, or that process is gone.

    Warns:
        UserWarning: Each time batches are cut into more pieces.
    """
    device = torch.device(device)
    history = History() if history is None else history
    _check_parts(exemplars, recipe, teacher, stream)
    answers = None
    if teacher is not None:
        answers = TeacherLabels(
            teacher,
            exemplars,
            normalization=build_normalization(recipe.normalization),
            device=device,
            precision=recipe.precision,
            is_compiled=recipe.compile,
        )
    batches, num_images = _batches(exemplars, recipe, stream, student, device)
    schedule, measured = build_schedule(recipe.schedule), recipe.evaluation_epochs()
    memory_format = memory_format_for(device, is_compiled=recipe.compile)
    student.to(device).to(memory_format=memory_format).train()
    processes = current()
    with _repeatable(recipe.seed, device), SharedBatchNorms(student, processes) as norms:
        step = Step(student, recipe, answers, history, norms, device)
        for epoch in range(recipe.epochs):
            step.set_rate(recipe.lr * schedule(epoch, recipe.epochs))
            start, before, losses = time.perf_counter(), history.num_images, []
            for batch in batches(epoch):
                losses.append(step(batch) * len(batch.inputs))
                history.num_images += len(batch.inputs)
                progress(history.num_images, recipe.epochs * num_images)
            # The only place where the device is waited for.
            loss = float(processes.sum(torch.stack(losses).sum())) / (history.num_images - before)
            history.seconds += time.perf_counter() - start
            history.train_loss_last = loss
            if not math.isfinite(loss):
                raise DivergedError(epoch + 1)
            if measure is not None and epoch + 1 in measured:
                history.curve.append((epoch + 1, measure(student)))
    return history


def _check_parts(
    exemplars: DistilledDataset, recipe: Recipe, teacher: Teacher | None, stream: Stream | None
) -> None:
    if not len(exemplars):
        raise ValueError("Expected at least one exemplar, got none.")
    for name, part, labels in (("teacher", teacher, "online"), ("stream", stream, "stream")):
        if (part is None) == (recipe.labels == labels):
            state = "none" if part is None else "one"
            raise ValueError(
                f"Expected a {name} for `labels` {labels} and for these alone, got {state} for `labels` "
                f"{recipe.labels}. Give a {name}, or choose other labels."
            )


def _batches(
    exemplars: DistilledDataset,
    recipe: Recipe,
    stream: Stream | None,
    student: nn.Module,
    device: torch.device,
) -> tuple[Callable[[int], Iterator[Batch]], int]:
    """The batches by epoch, and the images in each."""
    if stream is not None:
        memory_format = memory_format_for(device, is_compiled=recipe.compile)
        return partial(stream.batches, device=device, memory_format=memory_format), len(exemplars)
    has_batch_norm = any(isinstance(module, _BatchNorm) for module in student.modules())
    drawn = DrawnBatches(exemplars, recipe, device=device, keep_single=not has_batch_norm)
    return drawn.batches, len(drawn)


@contextmanager
def _repeatable(seed: int, device: torch.device) -> Iterator[None]:
    """Global random states that follow from seed and process (dropout draws from them), and are restored."""
    on_cuda = device.type == "cuda"
    was_deterministic = torch.backends.cudnn.deterministic
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        rank = current().rank
        state = seeded(f"layers {rank}" if rank else "layers", seed).initial_seed()
        torch.default_generator.manual_seed(state)
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(state)
        torch.backends.cudnn.deterministic = True
        try:
            yield
        finally:
            torch.backends.cudnn.deterministic = was_deterministic
