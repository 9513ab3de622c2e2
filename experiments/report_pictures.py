"""Figures of a report and their captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from experiments import plots
from experiments.arms import Arm
from experiments.report_text import count_runs
from experiments.rows import Row
from gift_cl.dataset_file import load_dataset
from gift_cl.pictures.contact_sheet import contact_sheet

_MAX_CURVES = 10


@dataclass(frozen=True)
class Picture:
    """A figure, the name of its file, and what it shows."""

    name: str
    figure: Figure
    caption: str


def make_pictures(arms: Sequence[Arm]) -> tuple[list[Picture], list[str]]:
    """Pictures of the arms of a benchmark, best arm first, and notes on those that cannot be made."""
    if not arms:
        return [], []
    best = _best(arms)
    pictures = [_accuracy(arms), _bytes(arms), _confusion(best), _forgetting(arms), _memory_bytes(arms)]
    notes = []
    row = next((row for row in best.finals if row.get("memory_file")), None)
    if row is not None:
        try:
            pictures.append(_memory(best, row))
        except (ValueError, OSError) as error:
            notes.append(f"no picture of the memory of {row['run_id']}. {error}")
    return [picture for picture in pictures if picture is not None], notes


def _accuracy(arms: Sequence[Arm]) -> Picture:
    leading = [arm for arm in arms if not arm.is_reference][:_MAX_CURVES]
    drawn = [arm for arm in arms if arm.is_reference or arm in leading]
    figure = plots.accuracy_curves(drawn)
    is_validation = any(row.get("evaluated_on") == "validation" for arm in arms for row in arm.finals)
    images = "images held out for validation" if is_validation else "test images"
    some = "" if len(drawn) == len(arms) else f" (the best {len(leading)} and the references)"
    caption = (
        f"Accuracy on the {images} of all classes seen so far after each experience{some}: mean over "
        f"{count_runs(arms)}; {_deviation(arms, 'the band is')}."
    )
    if below := plots.curves_below(figure, drawn):
        names = " and of ".join(arm.label for arm in below)
        caption += f" The curve of {names} leaves the axes below; the legend has the final accuracies."
    return Picture("accuracy", figure, caption)


def _bytes(arms: Sequence[Arm]) -> Picture | None:
    if not _has_memory(arms):
        return None
    return Picture(
        "bytes",
        plots.accuracy_against_bytes(arms),
        "Final accuracy against the bytes of all that is kept between experiences: mean over "
        f"{count_runs(arms)}; {_deviation(arms)}; points are set a little apart sideways so that none hides "
        "another, and naive (no memory) and joint (all data) training are lines.",
    )


def _confusion(arm: Arm) -> Picture | None:
    if not any(row.get("confusion") for row in arm.finals):
        return None
    return Picture(
        "confusion",
        plots.confusion_matrix(arm),
        f"Confusion of {arm.label} after the last experience: share of each true class, mean over "
        f"{count_runs([arm])}.",
    )


def _forgetting(arms: Sequence[Arm]) -> Picture:
    return Picture(
        "forgetting",
        plots.forgetting_bars(arms),
        "Forgetting, the mean drop of past experiences from their best accuracy to the final one: mean "
        f"over {count_runs(arms)}; {_deviation(arms)}.",
    )


def _memory_bytes(arms: Sequence[Arm]) -> Picture | None:
    if not _has_memory(arms):
        return None
    return Picture(
        "memory_bytes",
        plots.memory_bytes_bars(arms),
        f"What the memory costs after the last experience, by part: mean over {count_runs(arms)}; the tick "
        "is the budget.",
    )


def _memory(arm: Arm, row: Row) -> Picture:
    return Picture(
        "memory",
        contact_sheet(load_dataset(Path(row["folder"], row["memory_file"])), row.get("class_names")),
        f"The memory of {arm.label} after the last experience (n = 1 run, seed {row['seed']}): exemplars "
        "as the student sees them, decoded; a row for each class.",
    )


def _best(arms: Sequence[Arm]) -> Arm:
    """The best of our arms without an oracle; without one, the best that there is."""
    ours = [arm for arm in arms if arm.is_ours]
    honest = [arm for arm in ours if not arm.has_oracle]
    others = [arm for arm in arms if not arm.is_reference]
    return (honest or ours or others or arms)[0]


def _has_memory(arms: Sequence[Arm]) -> bool:
    return any(arm.memory_bytes.mean > 0 for arm in arms if not arm.is_reference)


def _deviation(arms: Sequence[Arm], mark: str = "bars are") -> str:
    """What the bars of a figure are."""
    has_spread = any(arm.accuracy.n > 1 for arm in arms)
    return f"{mark} ± 1 sample standard deviation" if has_spread else "one run has no deviation"
