"""What a strategy knows after an experience."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments.benchmark import Stream
from gift_cl.teacher import as_float


@dataclass(frozen=True)
class Knowledge:
    """Accuracy on the classes seen so far.

    Args:
        seen: Mean over the test images of all classes seen, 0 to 1.
        by_experience: The same for the classes of each experience so far.
        confusion: Counts, true class by predicted class, (C, C), of the classes seen.
    """

    seen: float
    by_experience: list[float]
    confusion: Tensor


@torch.no_grad()
def evaluate(strategy: Any, stream: Stream, experience: int) -> Knowledge:
    """Evaluate on the test images of all experiences up to ``experience``.

    No task label helps the model, and its whole head competes.
    """
    model = getattr(strategy, "student", None) or strategy.model
    was_training = model.training
    model.eval()
    test, num_classes = stream.data.test, stream.data.num_classes
    seen = [c for classes in stream.classes[: experience + 1] for c in classes]
    chosen = torch.isin(test.labels, torch.tensor(seen)).nonzero().flatten()
    images = test.images
    guesses = torch.cat(
        [
            model(stream.normalization.apply(as_float(images[i].to(strategy.device)))).argmax(1).cpu()
            for i in chosen.split(512)
        ]
    )
    model.train(was_training)
    labels = test.labels[chosen]
    pairs = labels * num_classes + guesses.clamp(max=num_classes - 1)
    confusion = torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)
    right, total = confusion.diagonal(), confusion.sum(1)
    by_experience = [
        float(right[classes].sum() / total[classes].sum()) for classes in stream.classes[: experience + 1]
    ]
    return Knowledge(float(right.sum() / total.sum()), by_experience, confusion)


def forgetting(history: list[list[float]]) -> float:
    """Mean drop from the best earlier accuracy on each past experience to the present one.

    Args:
        history: ``history[t][i]`` is the accuracy on experience ``i`` after experience ``t``.

    Returns:
        In [-1, 1]; 0 after the first experience.

    Source:
        Chaudhry et al., Riemannian Walk, ECCV 2018.
    """
    now = history[-1]
    if len(now) < 2:
        return 0.0
    drops = [max(row[i] for row in history[:-1] if len(row) > i) - now[i] for i in range(len(now) - 1)]
    return sum(drops) / len(drops)
