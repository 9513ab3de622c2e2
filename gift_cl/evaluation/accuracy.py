"""How often a model is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gift_cl.evaluation.memory_limits import TooLargeError, is_out_of_memory, release_memory
from gift_cl.evaluation.precision import Precision, autocast
from gift_cl.evaluation.processes import current
from gift_cl.memory_format import images_at_once
from gift_cl.normalization import IDENTITY, Normalization
from gift_cl.teacher import as_float
from gift_cl.transfer import sent


@dataclass(frozen=True)
class Accuracy:
    """Shares of images whose label is among the best guesses.

    Args:
        top1: The label is the best guess, in [0, 1].
        top5: The label is among the best five guesses; 1 where there are five classes or fewer.
        n: Images.
    """

    top1: float
    top5: float
    n: int


@torch.no_grad()
def measure(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    normalization: Normalization = IDENTITY,
    preprocess: Callable[[Tensor], Tensor] | None = None,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    precision: Precision = "float32",
) -> Accuracy:
    """The accuracy of a model in evaluation mode; every module has the mode it had afterwards.

    Of several processes each measures its share of the images, and all have the same result.

    Args:
        model: On ``device``, the same in all processes.
        images: (N, C, H, W): uint8, or float in [0, 1]; on any device.
        labels: int64 (N,).
        normalization: What the model expects.
        preprocess: Comes before the normalisation, and gets the images of a batch as they are: the
            whitening of DATM. None turns them into float in [0, 1].
        batch_size: Images in one forward pass, None for as many as are fast; halved while they do not fit the
            memory.
        device: Where the model is.
        precision: Of the forward passes.

    Raises:
        ValueError: If there are no images, or not one label for each.
        TooLargeError: If not even a single image fits the memory.
    """
    if not len(images) or len(images) != len(labels):
        raise ValueError(
            f"Expected one label for each of at least one image, got {len(images)} images and "
            f"{len(labels)} labels."
        )
    device = torch.device(device)
    batch_size = batch_size or images_at_once(images, device)
    processes = current()
    own = processes.share(len(images))
    with processes.together(), evaluating(model):
        right = torch.zeros(2, dtype=torch.int64, device=device)
        done = own.start
        while done < own.stop:
            part = slice(done, min(done + batch_size, own.stop))
            try:
                pixels = sent(images[part], device)
                inputs = normalization.apply((preprocess or as_float)(pixels))
                with autocast(device, precision):
                    logits = model(inputs.contiguous(memory_format=torch.channels_last))
                right += _hits(logits.float(), sent(labels[part], device))
                done += len(pixels)
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if batch_size == 1:
                    raise TooLargeError("A single image does not fit the memory of a measurement.") from error
            batch_size //= 2
            release_memory(device)
    top1, top5 = (processes.sum(right).double() / len(images)).tolist()
    return Accuracy(top1, top5, len(images))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A model in evaluation mode; every module has the mode it had afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, was_training in modes:
            module.training = was_training


def _hits(logits: Tensor, labels: Tensor) -> Tensor:
    """How many labels are the best guess, and how many are among the best five."""
    guesses = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = guesses == labels[:, None]
    return torch.stack([hits[:, 0].sum(), hits.sum()])
