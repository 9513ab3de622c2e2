"""What a teacher says of a data set: how often it agrees, and whether the classes are in another order."""

from __future__ import annotations

from gift_cl.class_order import ClassOrder, find_class_order, teacher_predictions
from gift_cl.dataset import DistilledDataset
from gift_cl.facts import Facts
from gift_cl.teacher import Teacher


def ask_teacher(teacher: Teacher, dataset: DistilledDataset) -> tuple[ClassOrder, Facts]:
    """The order of classes that fits the predictions, and what to say about it."""
    predictions = teacher_predictions(teacher, dataset.images)
    order = find_class_order(predictions, dataset.labels, num_classes=dataset.num_classes)
    facts = {
        "agreement": order.accuracy,
        "agreement_reordered": order.matched_accuracy,
        "moved": {str(label): c for label, c in order.moved.items()},
        "is_chance": order.is_chance,
        "text": order.describe(dataset.class_names),
    }
    return order, facts
