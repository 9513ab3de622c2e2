"""What all figures share: size, fonts, names that matplotlib takes literally, and PNGs."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gift_cl.files import replacing

WIDTH = 8.5  # inches
CHAR_WIDTH = 0.075  # inches of a character of a legend, about

_DPI = 150


def new_figure(height: float, *, width: float = WIDTH) -> tuple[Figure, Any]:
    """A figure of a size in inches, and its axes: a light grid behind what will be drawn."""
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, color="#888888")
    return figure, axes


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as a PNG; an existing file is replaced only when the new one is complete.

    Raises:
        OSError: If the file cannot be written, as on a full disk; the message names it.
    """
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def set_title(axes: Any, text: str, *, width: int) -> None:
    """Put ``text`` above the axes, in lines of at most ``width`` characters."""
    axes.set_title(plain(textwrap.fill(text, width)), fontsize=10)


def class_ticks(names: Sequence[str] | None, num_classes: int) -> list[str]:
    """A name for each class, short enough for a tick; its number where it has none."""
    given = list(names or [])
    given += [str(number) for number in range(len(given), num_classes)]
    return [plain(textwrap.shorten(name, 24, placeholder="…")) for name in given[:num_classes]]


def plain(text: str) -> str:
    """``text`` in which matplotlib finds no formulas."""
    return text.replace("$", r"\$")
