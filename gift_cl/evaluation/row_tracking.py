"""A row as a run of Weights & Biases."""

from __future__ import annotations

from pathlib import Path

from gift_cl.evaluation.groups import short_name
from gift_cl.evaluation.rows import Row
from gift_cl.tracking import Mode, make_tracker

_NUMBERS = (
    "accuracy_last",
    "accuracy_best",
    "best_epoch",
    "top5_last",
    "validation_accuracy",
    "teacher_accuracy",
    "train_loss_last",
    "seconds",
    "images_per_second",
    "peak_memory_bytes",
    "microbatches",
    "num_parameters",
)


def track_row(row: Row, mode: Mode, *, group: str, folder: Path) -> None:
    """Report the settings of a row, its curve, and its numbers.

    Args:
        row: Of `gift_cl.evaluation.cell.run_cell`.
        mode: See `make_tracker`.
        group: Runs that belong together.
        folder: Where files of the run go.
    """
    config = {key: value for key, value in row.items() if key not in (*_NUMBERS, "curve", "bytes")}
    tracker = make_tracker(mode, config=config, name=short_name(row), group=group, folder=folder)
    for epoch, accuracy in row.get("curve") or ():
        tracker.log({"accuracy": accuracy}, step=epoch)
    numbers = {key: row[key] for key in _NUMBERS if row.get(key) is not None}
    tracker.finish(numbers | {f"bytes/{part}": size for part, size in (row.get("bytes") or {}).items()})
