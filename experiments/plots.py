"""Charts of class-incremental runs. Each function returns a matplotlib `Figure`; `save_figure` writes it.

Arms come from `experiments.arms.make_arms`. Colors tell apart for colour-blind readers, and markers and
line styles say the same again.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, PercentFormatter
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from experiments.arm_settings import arm_labels
from experiments.arms import PARTS, Arm
from gift_cl.pictures.canvas import CHAR_WIDTH, WIDTH, class_ticks, new_figure, plain, set_title

# Okabe and Ito's colors, less the yellow that is too pale for a line on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", "-.", ":")
_REFERENCES = {"joint": ("#000000", "--"), "naive": ("#767676", ":")}
_PARTS = {"pixels": "#0072B2", "labels": "#E69F00", "soft_labels": "#009E73", "teacher": "#CC79A7"}


def accuracy_curves(arms: Sequence[Arm]) -> Figure:
    """Accuracy on the classes seen so far after each experience: mean, and a band of ± 1 sd.

    The legend has the final means. The axes follow the arms that have a memory, if more than two have
    one; `curves_below` says which curves then run out of them.
    """
    figure, axes = new_figure(3.9)
    lows = []
    for arm, style in zip(arms, _styles(arms), strict=True):
        curve = arm.curve()
        steps = [experience + 1 for experience in curve]
        means = np.array([s.mean for s in curve.values()]) * 100
        spread = np.nan_to_num([s.sd for s in curve.values()]) * 100
        axes.plot(steps, means, label=f"{plain(arm.label)} ({means[-1]:.1f})", **style)
        if spread.any():
            band = (means - spread, means + spread)
            axes.fill_between(steps, *band, color=style["color"], alpha=0.13, linewidth=0)
        if not arm.is_reference:
            lows.append(float((means - spread).min()))
    if len(lows) > 2:
        axes.set_ylim(bottom=max(axes.get_ylim()[0], min(lows) - 5))
    axes.set(xlabel="Experiences learned", ylabel="Accuracy on classes seen (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12, min_n_ticks=1))
    _limit_percent(axes)
    legend_below(figure, axes)
    return figure


def curves_below(figure: Figure, arms: Sequence[Arm]) -> list[Arm]:
    """The arms whose curve runs out of the axes of their `accuracy_curves` below."""
    bottom = figure.axes[0].get_ylim()[0]
    return [arm for arm in arms if any(point.mean * 100 < bottom for point in arm.curve().values())]


def accuracy_against_bytes(arms: Sequence[Arm]) -> Figure:
    """Final accuracy (mean ± 1 sd) against the bytes of the memory; lines join budgets of one arm.

    Arms without a memory, and joint training, are horizontal lines; at least one arm has to have one.
    Arms are set apart sideways by a few points, so that none hides another at the same bytes.
    """
    figure, axes = new_figure(3.9)
    stored = [arm for arm in arms if not arm.is_reference and arm.memory_bytes.mean > 0]
    labels = arm_labels([arm.rows[0] for arm in arms], ignore=("budget_bytes",))
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
            label=plain(labels[group[0].key]),
            capsize=3,
            elinewidth=1.2,
            transform=axes.transData + ScaledTranslation(offset, 0, figure.dpi_scale_trans),
            **(style | {"markersize": 6, "linewidth": 1.4}),
        )
    axes.set(xlabel="Bytes of the memory (log scale)", ylabel="Final accuracy (%)")
    _byte_axis(axes, [arm.memory_bytes.mean for arm in stored])
    _reference_lines(axes, [arm for arm in arms if arm not in stored], stored)
    _limit_percent(axes)
    legend_below(figure, axes)
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
    figure, axes = new_figure(6.4, width=7.2)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, shrink=0.8, format=PercentFormatter(1, decimals=0))
    bar.outline.set_visible(False)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    _name_classes(axes, class_ticks(kept[0].get("class_names"), num_classes))
    if num_classes <= 15:
        for (true, guess), share in np.ndenumerate(shares):
            color = "white" if share > 0.5 else "#222222" if share >= 0.005 else "#BBBBBB"
            axes.text(guess, true, f"{share * 100:.0f}", ha="center", va="center", color=color, size=8)
    set_title(axes, f"{arm.label}: % of each true class, n = {len(kept)}", width=80)
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


def format_bytes(count: float) -> str:
    """``331 B``, ``5.25 kB``, ``1.2 MB`` (1 kB is 1,000 bytes)."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"


def _bars(arms: Sequence[Arm], measure: str) -> tuple[Figure, Any]:
    """Room for a horizontal bar for each arm, the first at the top."""
    figure, axes = new_figure(1.3 + 0.34 * len(arms))
    names = [plain(textwrap.fill(arm.label, 48)) for arm in arms]
    axes.set_yticks(range(len(arms)), names, fontsize=9)
    axes.set_ylim(len(arms) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.set_xlabel(measure)
    return figure, axes


def _name_classes(axes: Any, names: Sequence[str]) -> None:
    """Names at both axes of a confusion matrix, as long as there is room for them."""
    if len(names) > 30:
        axes.set(xlabel="Predicted class (number)", ylabel="True class (number)")
        return
    is_short = max(len(name) for name in names) <= 3
    slant = {} if is_short else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    size = 9 if len(names) <= 15 else 7
    axes.set_xticks(range(len(names)), names, fontsize=size, **slant)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.set(xlabel="Predicted class", ylabel="True class")


def _styles(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """How to draw each arm; the references are black and grey and take no color from the others."""
    styles = []
    places = itertools.count()
    for arm in arms:
        if arm.is_reference:
            color, line = _REFERENCES[arm.strategy]
            marker = ""
        else:
            place = next(places)
            color = COLORS[place % len(COLORS)]
            line = _LINES[place // len(COLORS) % len(_LINES)]
            marker = _MARKERS[place % len(_MARKERS)]
        look: dict[str, Any] = {"color": color, "linestyle": line, "marker": marker}
        styles.append(look | {"linewidth": 1.8, "markersize": 5})
    return styles


def legend_below(figure: Figure, axes: Any) -> None:
    """Names below the axes, in as many columns as fit; the figure grows by their height."""
    handles, names = axes.get_legend_handles_labels()
    longest = max(len(name) for name in names)
    columns = max(1, min(4, int(WIDTH / (CHAR_WIDTH * longest + 0.6))))
    lines = math.ceil(len(names) / columns)
    figure.set_size_inches(WIDTH, figure.get_figheight() + 0.2 * lines + 0.1)
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def _reference_lines(axes: Any, references: Sequence[Arm], others: Sequence[Arm]) -> None:
    """A horizontal line for each; one far below the others would squeeze them and is named only."""
    means = [arm.accuracy.mean * 100 for arm in references]
    centers = np.array([arm.accuracy.mean for arm in others]) * 100
    spreads = np.nan_to_num([arm.accuracy.sd for arm in others]) * 100
    top, low = max([*(centers + spreads), *means]), min(centers - spreads)
    floor = low - max(10, 0.6 * (top - low)) if len(others) > 2 else 0
    for arm, mean, style in zip(references, means, _styles(references), strict=True):
        is_below = mean < floor
        name = plain(f"{arm.label} ({mean:.1f}{', below these axes' if is_below else ''})")
        look = {"color": style["color"], "linestyle": style["linestyle"], "label": name}
        if is_below:
            axes.plot([], [], **look)
        else:
            axes.axhline(mean, linewidth=1.4, **look)
            low = min(low, mean)
    pad = 0.06 * (top - low) + 1
    axes.set_ylim(low - pad, top + pad)


def _limit_percent(axes: Any) -> None:
    low, high = axes.get_ylim()
    axes.set_ylim(max(0, low), min(101, high))


def _byte_axis(axes: Any, counts: Sequence[float]) -> None:
    """A log axis of bytes with round numbers as ticks, however close the counts are."""
    axes.set_xscale("log")
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
