"""Figures of an evaluation: losses by optimizers, bars with their spread, learning curves."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gift_cl.evaluation.groups import Group, Settings, group_rows, label, partition, text, varying
from gift_cl.evaluation.rows import Row
from gift_cl.pictures.canvas import CHAR_WIDTH, WIDTH, new_figure, plain, save_figure, set_title

_CROSSED = ("loss", "optimizer", "lr")
_MAX_CURVES = 10

# Okabe and Ito's colors, less the yellow that is too pale for a line on white.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LINES = ("-", "--", "-.", ":")


def write_figures(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write a heat map, bars and learning curves for each setting of all but loss, optimizer and lr.

    Args:
        rows: Rows of cells; failed ones are left out.
        folder: Where to; made if missing.

    Returns:
        The PNGs that were written.

    Raises:
        OSError: If the folder cannot be written.
    """
    panels = partition(group_rows(rows), _uncrossed)
    names = ["method", "dataset", "ipc", "model", *varying([_uncrossed(panel[0]) for panel in panels])]
    written = []
    for number, panel in enumerate(panels, start=1):
        title = label(_uncrossed(panel[0]), names)
        for kind, draw in (("heat_map", heat_map), ("bars", accuracy_bars), ("curves", learning_curves)):
            path = folder / (f"{kind}.png" if len(panels) == 1 else f"{kind}-{number}.png")
            save_figure(draw(panel, title), path)
            written.append(path)
    return written


def heat_map(groups: Sequence[Group], title: str = "") -> Figure:
    """Mean last accuracy (± 1 sd) of each loss with each optimizer at each learning rate.

    Args:
        groups: At least one; they differ in loss, optimizer and learning rate alone.
        title: What they share.
    """
    losses = list(dict.fromkeys(group.settings["loss"] for group in groups))
    optimizers = list(dict.fromkeys(_optimizer(group) for group in groups))
    means = np.full((len(losses), len(optimizers)), np.nan)
    words = {}
    for group in groups:
        place = losses.index(group.settings["loss"]), optimizers.index(_optimizer(group))
        accuracy = group.statistic("accuracy_last")
        means[place] = accuracy.mean * 100
        words[place] = accuracy.text(scale=100)
    margin = 1.5 + CHAR_WIDTH * max(map(len, losses))
    figure, axes = new_figure(1.7 + 0.42 * len(losses), width=max(5.0, margin + 0.95 * len(optimizers)))
    image = axes.imshow(means, cmap="viridis", aspect="auto", interpolation="nearest")
    figure.colorbar(image, ax=axes, label="Last accuracy (%)").outline.set_visible(False)
    middle = float(np.nanmin(means) + np.nanmax(means)) / 2
    for (row, column), mean in np.ndenumerate(means):
        color = "#888888" if math.isnan(mean) else "white" if mean < middle else "black"
        axes.text(column, row, words.get((row, column), "-"), ha="center", va="center", color=color, size=8)
    axes.set_xticks(range(len(optimizers)), map(plain, optimizers), fontsize=8, rotation=30, ha="right")
    axes.set_yticks(range(len(losses)), map(plain, losses), fontsize=9)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    _title(axes, groups, title)
    return figure


def accuracy_bars(groups: Sequence[Group], title: str = "") -> Figure:
    """Mean last accuracy of each group, ± 1 sd, a dot for each seed; ticks are the means of the best."""
    names = _names(groups)
    figure, axes = new_figure(1.3 + 0.34 * len(groups))
    losses = list(dict.fromkeys(group.settings["loss"] for group in groups))
    for place, group in enumerate(groups):
        accuracy = group.statistic("accuracy_last")
        axes.barh(
            place,
            accuracy.mean * 100,
            xerr=None if math.isnan(accuracy.sd) else accuracy.sd * 100,
            height=0.62,
            color=_COLORS[losses.index(group.settings["loss"]) % len(_COLORS)],
            error_kw={"ecolor": "#222222", "elinewidth": 1.2, "capsize": 3},
        )
        dots = [row["accuracy_last"] * 100 for row in group.rows]
        axes.plot(dots, [place] * len(dots), "o", color="white", markeredgecolor="#222222", markersize=3.5)
        axes.plot(group.statistic("accuracy_best").mean * 100, place, "|", color="#222222", markersize=13)
    axes.set_yticks(range(len(groups)), [plain(textwrap.fill(name, 48)) for name in names], fontsize=9)
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.set_xlabel("Last accuracy (%); the tick is the best of the run")
    _title(axes, groups, title)
    return figure


def learning_curves(groups: Sequence[Group], title: str = "") -> Figure:
    """Accuracy at the epochs that were measured: mean, and a band of ± 1 sd; at most the ten best."""
    order = sorted(groups, key=lambda group: -group.statistic("accuracy_last").mean)
    drawn = [group for group in groups if group in order[:_MAX_CURVES]]
    names = _names(drawn)
    figure, axes = new_figure(3.9)
    for place, (group, name) in enumerate(zip(drawn, names, strict=True)):
        curve = group.curve()
        means = np.array([point.mean for point in curve.values()]) * 100
        spread = np.nan_to_num([point.sd for point in curve.values()]) * 100
        color = _COLORS[place % len(_COLORS)]
        line = _LINES[place // len(_COLORS) % len(_LINES)]
        marker = "o" if len(curve) < 20 else ""
        last = f" ({means[-1]:.1f})" if len(means) else ""
        look = {"linestyle": line, "marker": marker, "markersize": 4, "linewidth": 1.8}
        axes.plot(list(curve), means, label=plain(name + last), color=color, **look)
        if spread.any():
            band = (means - spread, means + spread)
            axes.fill_between(list(curve), *band, color=color, alpha=0.13, linewidth=0)
    axes.set(xlabel="Epochs", ylabel="Accuracy (%)")
    _legend(figure, axes)
    some = "" if len(drawn) == len(groups) else f"the best {len(drawn)} of {len(groups)}"
    _title(axes, groups, " · ".join(filter(None, (title, some))))
    return figure


def _uncrossed(group: Group) -> Settings:
    return {name: value for name, value in group.settings.items() if name not in _CROSSED}


def _optimizer(group: Group) -> str:
    return f"{group.settings['optimizer']} {text(group.settings['lr'])}"


def _names(groups: Sequence[Group]) -> list[str]:
    """How each group differs from the others."""
    names = varying([group.settings for group in groups]) or ["loss", "optimizer", "lr"]
    return [label(group.settings, names) for group in groups]


def _title(axes: Any, groups: Sequence[Group], title: str) -> None:
    counts = sorted({len(group.rows) for group in groups})
    seeds = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    where = sorted({str(group.settings.get("evaluated_on")) for group in groups})
    set_title(axes, " · ".join(filter(None, (title, f"on {' and '.join(where)} images, {seeds}"))), width=80)


def _legend(figure: Figure, axes: Any) -> None:
    """Names below the axes, in as many columns as fit; the figure grows by their height."""
    handles, names = axes.get_legend_handles_labels()
    longest = max(len(name) for name in names)
    columns = max(1, min(4, int(WIDTH / (CHAR_WIDTH * longest + 0.6))))
    lines = math.ceil(len(names) / columns)
    figure.set_size_inches(WIDTH, figure.get_figheight() + 0.2 * lines + 0.1)
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
