"""Figures of class-incremental runs. Each function returns a matplotlib `Figure`; `save_figure` writes it.

Arms come from `experiments.rows.make_arms`. Colors tell apart for colour-blind readers, and markers and
line styles say the same again.
"""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, PercentFormatter
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from experiments.rows import PARTS, Arm, arm_labels, format_bytes
from gift_cl.dataset_file import load_dataset
from gift_cl.files import replacing

_WIDTH = 8.5  # inches
_DPI = 150
_CHAR = 0.075  # inches of a character of a legend, about
# Okabe and Ito's colors, less the yellow that is too pale for a line on white.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", "-.", ":")
_REFERENCES = {"joint": ("#000000", "--"), "naive": ("#767676", ":")}
_PARTS = {"pixels": "#0072B2", "labels": "#E69F00", "soft_labels": "#009E73", "teacher": "#CC79A7"}


def accuracy_curves(arms: Sequence[Arm]) -> Figure:
    """Accuracy on the classes seen so far after each experience: mean, and a band of ± 1 sd."""
    figure, axes = _figure(3.9)
    for arm, style in zip(arms, _styles(arms), strict=True):
        curve = arm.curve()
        steps = [experience + 1 for experience in curve]
        means = np.array([s.mean for s in curve.values()]) * 100
        spread = np.nan_to_num([s.sd for s in curve.values()]) * 100
        axes.plot(steps, means, label=_plain(arm.label), **style)
        if spread.any():
            band = (means - spread, means + spread)
            axes.fill_between(steps, *band, color=style["color"], alpha=0.13, linewidth=0)
    axes.set(xlabel="Experiences learned", ylabel="Accuracy on classes seen (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12, min_n_ticks=1))
    _limit_percent(axes)
    _legend(figure, axes)
    return figure


def accuracy_against_bytes(arms: Sequence[Arm]) -> Figure:
    """Final accuracy (mean ± 1 sd) against the bytes of the memory; lines join budgets of one arm.

    Arms without a memory, and joint training, are horizontal lines. Arms are set apart sideways by
    a few points, so that none hides another at the same bytes.
    """
    figure, axes = _figure(3.9)
    stored = [arm for arm in arms if not arm.is_reference and arm.memory_bytes.mean > 0]
    first_rows = [arm.rows[0] for arm in arms]
    labels = arm_labels(first_rows, ignore=("budget_bytes",))
    groups: dict[Any, list[Arm]] = {}
    for arm in stored:
        settings = tuple(item for item in arm.key if item[0] != "budget_bytes")
        groups.setdefault(settings, []).append(arm)
    styles = _styles([group[0] for group in groups.values()])
    for place, (group, style) in enumerate(zip(groups.values(), styles, strict=True)):
        group.sort(key=lambda arm: arm.memory_bytes.mean)
        offset = (place - (len(groups) - 1) / 2) * min(5, 40 / len(groups)) / 72  # inches
        axes.errorbar(
            [arm.memory_bytes.mean for arm in group],
            [arm.accuracy.mean * 100 for arm in group],
            yerr=np.nan_to_num([arm.accuracy.sd for arm in group]) * 100,
            label=_plain(labels[group[0].key]),
            capsize=3,
            elinewidth=1.2,
            transform=axes.transData + ScaledTranslation(offset, 0, figure.dpi_scale_trans),
            **(style | {"markersize": 6, "linewidth": 1.4}),
        )
    axes.set(xlabel="Bytes of the memory (log scale)", ylabel="Final accuracy (%)")
    _byte_axis(axes, [arm.memory_bytes.mean for arm in stored])
    _reference_lines(axes, [arm for arm in arms if arm not in stored], stored)
    _limit_percent(axes)
    _legend(figure, axes)
    return figure


def confusion_matrix(arm: Arm) -> Figure:
    """Shares of predicted classes for each true class, averaged over the runs of an arm.

    Raises:
        ValueError: If no run of the arm kept its confusion matrix.
    """
    kept = [row for row in arm.finals if row.get("confusion")]
    if not kept:
        raise ValueError(f"Expected a confusion matrix in the rows of {arm.label}, got none.")
    shares = np.mean([_row_shares(row["confusion"]) for row in kept], axis=0)
    num_classes = len(shares)
    names = _class_names(kept[0].get("class_names"), num_classes)
    figure, axes = _figure(6.4, width=7.2)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, shrink=0.8, format=PercentFormatter(1, decimals=0))
    bar.outline.set_visible(False)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    if num_classes <= 30:
        size = 9 if num_classes <= 15 else 7
        slant: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        is_short = max(len(name) for name in names) <= 3
        axes.set_xticks(range(num_classes), names, fontsize=size, **({} if is_short else slant))
        axes.set_yticks(range(num_classes), names, fontsize=size)
        axes.set(xlabel="Predicted class", ylabel="True class")
    else:
        axes.set(xlabel="Predicted class (number)", ylabel="True class (number)")
    if num_classes <= 15:
        for (true, guess), share in np.ndenumerate(shares):
            color = "white" if share > 0.5 else "#222222" if share >= 0.005 else "#BBBBBB"
            axes.text(guess, true, f"{share * 100:.0f}", ha="center", va="center", color=color, size=8)
    _title(axes, f"{arm.label}: % of each true class, n = {len(kept)}", width=80)
    return figure


def forgetting_bars(arms: Sequence[Arm]) -> Figure:
    """Forgetting after the last experience, mean ± 1 sd."""
    figure, axes = _bars(arms, "Forgetting (percentage points; lower is better)")
    for place, (arm, style) in enumerate(zip(arms, _styles(arms), strict=True)):
        forgetting = arm.final("forgetting")
        spread = None if math.isnan(forgetting.sd) else forgetting.sd * 100
        axes.barh(
            place,
            forgetting.mean * 100,
            xerr=spread,
            height=0.62,
            color="#A0A0A0" if arm.is_reference else style["color"],
            error_kw={"ecolor": "#222222", "elinewidth": 1.2, "capsize": 3},
        )
    axes.axvline(0, color="#222222", linewidth=0.8)
    return figure


def memory_bytes_bars(arms: Sequence[Arm]) -> Figure:
    """Bytes of the memory by part at the end, and the budget as a tick; references are left out."""
    arms = [arm for arm in arms if not arm.is_reference]
    figure, axes = _bars(arms, "Bytes of the memory")
    starts = np.zeros(len(arms))
    places = np.arange(len(arms))
    for part in PARTS:
        widths = np.array([arm.part_bytes(part) for arm in arms])
        if widths.any():
            name = part.replace("_", " ")
            axes.barh(places, widths, left=starts, height=0.62, color=_PARTS[part], label=name)
        starts += widths
    budgets = [(arm.budget_bytes, i) for i, arm in enumerate(arms) if arm.budget_bytes is not None]
    if budgets:
        tick = {"color": "#222222", "marker": "|", "markersize": 22, "markeredgewidth": 1.6}
        axes.plot(*zip(*budgets, strict=True), linestyle="none", label="budget", **tick)
    largest = max([*starts, *(budget for budget, _ in budgets), 1])
    axes.set_xlim(0, largest * 1.03)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: format_bytes(count)))
    below = {"loc": "outside lower center", "ncols": 5, "frameon": False, "fontsize": 9}
    figure.legend(*axes.get_legend_handles_labels(), markerscale=0.5, **below)
    return figure


def memory_sheet(
    path: str | os.PathLike[str],
    class_names: Sequence[str] | None = None,
    *,
    columns: int = 10,
    max_classes: int = 20,
) -> Figure:
    """A contact sheet of a memory: a row for each class, its first exemplars as a student sees them.

    Args:
        path: A file that `gift_cl.dataset_file.save_dataset` wrote.
        class_names: Name of each class; numbers without.
        columns: Exemplars of a class to show.
        max_classes: Classes to show.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedFileError: If it cannot be read.
    """
    dataset = load_dataset(path)
    images, labels = dataset.images.numpy(), dataset.labels.numpy()
    names = _class_names(class_names, dataset.num_classes)
    shown = dataset.classes[:max_classes]
    chosen = [np.flatnonzero(labels == label)[:columns] for label in shown]
    what = f"{len(dataset)} exemplars ({dataset.provenance.method}, {dataset.encoded.codec})"
    num_columns = max((len(indices) for indices in chosen), default=1)
    height, width = images.shape[2:]
    side = 0.56  # inches of an image and its gap
    margin = 0.5 + 1.5 * _CHAR * max((len(names[label]) for label in shown), default=0)
    figure, axes = _figure(
        max(1, len(shown)) * side * height / width + 0.5,
        width=max(6.0, num_columns * side + margin),
    )
    axes.set_axis_off()
    if shown:
        axes.set_axis_on()
        sheet = _sheet(images, chosen, num_columns)
        pitch = sheet.shape[0] / len(shown)
        axes.imshow(sheet, interpolation="nearest", aspect="equal")
        middles = [(row + 0.5) * pitch - 0.5 for row in range(len(shown))]
        axes.set_yticks(middles, [names[label] for label in shown])
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.grid(False)
        axes.spines[:].set_visible(False)
    if len(shown) < len(dataset.classes):
        what += f", {len(shown)} of {len(dataset.classes)} classes"
    if num_columns < max(dataset.images_per_class.values(), default=0):
        what += f", the first {num_columns} of each class"
    _title(axes, what, width=100)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as a PNG; an existing file is replaced only when the new one is complete."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _figure(height: float, *, width: float = _WIDTH) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, color="#888888")
    return figure, axes


def _bars(arms: Sequence[Arm], measure: str) -> tuple[Figure, Any]:
    """Room for a horizontal bar for each arm, the first at the top."""
    figure, axes = _figure(1.3 + 0.34 * len(arms))
    names = [_plain(textwrap.fill(arm.label, 48)) for arm in arms]
    axes.set_yticks(range(len(arms)), names, fontsize=9)
    axes.set_ylim(len(arms) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.set_xlabel(measure)
    return figure, axes


def _styles(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """How to draw each arm; the references are black and grey and take no color from the others."""
    styles: list[dict[str, Any]] = []
    place = 0
    for arm in arms:
        style: dict[str, Any] = {"linewidth": 1.8, "markersize": 5}
        if arm.is_reference:
            color, line = _REFERENCES[arm.strategy]
            style |= {"color": color, "linestyle": line, "marker": ""}
        else:
            color = _COLORS[place % len(_COLORS)]
            line = _LINES[place // len(_COLORS) % len(_LINES)]
            marker = _MARKERS[place % len(_MARKERS)]
            style |= {"color": color, "linestyle": line, "marker": marker}
            place += 1
        styles.append(style)
    return styles


def _legend(figure: Figure, axes: Any) -> None:
    """Names below the axes, in as many columns as fit; the figure grows by their height."""
    handles, names = axes.get_legend_handles_labels()
    longest = max(len(name) for name in names)
    columns = max(1, min(4, int(_WIDTH / (_CHAR * longest + 0.6))))
    lines = math.ceil(len(names) / columns)
    figure.set_size_inches(_WIDTH, figure.get_figheight() + 0.2 * lines + 0.1)
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def _reference_lines(axes: Any, references: Sequence[Arm], others: Sequence[Arm]) -> None:
    """A horizontal line for each; one far below the others would squeeze them and is named only."""
    spreads = [(arm.accuracy.mean * 100, np.nan_to_num(arm.accuracy.sd) * 100) for arm in others]
    means = [arm.accuracy.mean * 100 for arm in references]
    top = max([*(mean + sd for mean, sd in spreads), *means])
    low = min((mean - sd for mean, sd in spreads), default=min(means, default=0.0))
    floor = low - max(10, 0.6 * (top - low)) if len(others) > 2 else 0
    for arm, mean, style in zip(references, means, _styles(references), strict=True):
        name = f"{arm.label} ({mean:.1f}{', below these axes' if mean < floor else ''})"
        line = {"color": style["color"], "linestyle": style["linestyle"], "label": _plain(name)}
        if mean < floor:
            axes.plot([], [], **line)
        else:
            axes.axhline(mean, linewidth=1.4, **line)
    low = min([low, *(mean for mean in means if mean >= floor)])
    pad = 0.06 * (top - low) + 1
    axes.set_ylim(low - pad, top + pad)


def _limit_percent(axes: Any) -> None:
    low, high = axes.get_ylim()
    axes.set_ylim(max(0, low), min(101, high))


def _byte_axis(axes: Any, counts: Sequence[float]) -> None:
    """A log axis of bytes with round numbers as ticks, however close the counts are."""
    axes.set_xscale("log")
    if not counts:
        axes.set_xticks([])
        return
    low, high = min(counts) / 1.2, max(counts) * 1.2
    axes.set_xlim(low, high)
    if high / low < 8:
        ticks = list(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
    else:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        factors = (1, 2, 5) if high / low < 1000 else (1,)
        ticks = [factor * 10.0**power for power in powers for factor in factors]
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: format_bytes(count)))


def _row_shares(counts: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    matrix = np.asarray(counts, dtype=np.float64)
    shares: NDArray[np.float64] = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    return shares


def _class_names(names: Sequence[str] | None, num_classes: int) -> list[str]:
    """A name for each class, short enough for a tick; its number where it has none."""
    given = list(names or [])
    wanted = [given[i] if i < len(given) else str(i) for i in range(num_classes)]
    return [_plain(textwrap.shorten(str(name), 24, placeholder="…")) for name in wanted]


def _sheet(images: NDArray[Any], chosen: Sequence[NDArray[Any]], columns: int) -> NDArray[np.uint8]:
    """The chosen images side by side on white, uint8 (rows, columns, 3)."""
    height, width = images.shape[2:]
    gap = max(1, height // 12)
    sheet = np.full((len(chosen) * (height + gap), columns * (width + gap), 3), 255, np.uint8)
    for row, indices in enumerate(chosen):
        for column, index in enumerate(indices):
            image = images[index] if images.shape[1] == 3 else images[index][:1].repeat(3, axis=0)
            top, left = row * (height + gap) + gap // 2, column * (width + gap) + gap // 2
            sheet[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return sheet


def _title(axes: Any, text: str, *, width: int) -> None:
    axes.set_title(_plain(textwrap.fill(text, width)), fontsize=10)


def _plain(text: str) -> str:
    """``text`` in which matplotlib finds no formulas."""
    return text.replace("$", r"\$")
