"""What a teacher says of a data set: how often it agrees, and whether the classes are in another order."""

from __future__ import annotations

import torch

from gift_cl.class_order import ClassOrder, find_class_order, teacher_predictions
from gift_cl.dataset import DistilledDataset
from gift_cl.facts import Facts
from gift_cl.progress import Progress, silent
from gift_cl.teacher import Teacher

_CHUNK = 256  # images that are decoded at a time


def ask_teacher(
    teacher: Teacher, dataset: DistilledDataset, *, progress: Progress = silent
) -> tuple[ClassOrder, Facts]:
    """The order of classes that fits the predictions, and what to say about it."""
    parts = [torch.zeros(0, dtype=torch.int64)]
    for chunk in torch.arange(len(dataset)).split(_CHUNK):
        parts.append(teacher_predictions(teacher, dataset.encoded.select(chunk).decode()).cpu())
        progress(int(chunk[-1]) + 1, len(dataset))
    predictions = torch.cat(parts)
    order = find_class_order(predictions, dataset.labels, num_classes=dataset.num_classes)
    facts = {
        "agreement": order.accuracy,
        "agreement_reordered": order.matched_accuracy,
        "moved": {str(label): c for label, c in order.moved.items()},
        "is_chance": order.is_chance,
        "text": order.describe(dataset.class_names),
    }
    return order, facts
