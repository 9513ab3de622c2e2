"""Which learning rate to take: the one that is best on validation images, never on test images."""

from __future__ import annotations

from collections.abc import Sequence

from gift_cl.evaluation.groups import Group, Settings, group_rows, partition
from gift_cl.evaluation.rows import Row
from gift_cl.statistic import Statistic, mean_sd


def best_by_validation(rows: Sequence[Row]) -> list[Row]:
    """Of rows that differ in their learning rates and seeds, those of the best learning rate.

    Rows are compared within equal settings otherwise: method, loss, optimizer, model and all others. The
    best learning rate has the highest mean validation accuracy over its seeds, at the end of training;
    of equal ones the smallest. One that has fewer finished seeds than another, as when some of its runs
    diverged, is not chosen.

    Args:
        rows: Rows of cells; failed ones are left out.

    Returns:
        Rows of one learning rate for each setting, in their order.

    Raises:
        ValueError: If a finished row has no validation accuracy.
    """
    chosen = [_best(groups) for groups in partition(group_rows(rows), _without_lr)]
    kept = {row["cell_id"] for group in chosen for row in group.rows}
    return [row for row in rows if row["cell_id"] in kept]


def validation_accuracy(row: Row) -> float:
    """Accuracy on images held out of the training images, in [0, 1].

    Raises:
        ValueError: If it was not measured.
    """
    measured = row.get("validation_accuracy")
    if measured is None and row.get("evaluated_on") == "validation":
        measured = row.get("accuracy_last")
    if measured is None:
        raise ValueError(
            f"Expected a validation accuracy in every row to choose a learning rate by, got none for cell "
            f"{row['cell_id']}: the test accuracy must not choose. Evaluate with `evaluate_on: validation`."
        )
    return float(measured)


def _best(groups: Sequence[Group]) -> Group:
    statistics: list[tuple[Group, Statistic]] = [
        (group, mean_sd(validation_accuracy(row) for row in group.rows)) for group in groups
    ]
    most = max(statistic.n for _, statistic in statistics)
    eligible = [(group, statistic) for group, statistic in statistics if statistic.n == most]
    return max(eligible, key=lambda pair: (pair[1].mean, -float(pair[0].settings["lr"])))[0]


def _without_lr(group: Group) -> Settings:
    return {name: value for name, value in group.settings.items() if name != "lr"}
