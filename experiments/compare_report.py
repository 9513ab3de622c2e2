"""What a comparison of distillers found: a table, bars, and pictures of the exemplars."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.compare_settings import CompareConfig
from experiments.csv_file import write_csv
from experiments.plots import COLORS, legend_below
from gift_cl.dataset_file import load_dataset
from gift_cl.files import replacing
from gift_cl.pictures.canvas import new_figure, plain, save_figure, set_title
from gift_cl.pictures.contact_sheet import contact_sheet
from gift_cl.statistic import Statistic, mean_sd

Row = dict[str, Any]

_HATCHES = ("", "//", "..", "xx")
_HEADS = (
    *("distiller", "IPC", "exemplars", "loss", "last (%)", "best (%)", "n"),
    *("images (bytes)", "labels", "teacher", "distilling (s)", "images/s"),
)


@dataclass(frozen=True)
class Group:
    """The rows of a distiller, an IPC and a loss, one a seed."""

    distiller: str
    ipc: int
    loss: str
    rows: tuple[Row, ...]

    def statistic(self, name: str) -> Statistic:
        """Mean and spread of a column."""
        return mean_sd(row[name] for row in self.rows)

    def mean_bytes(self, part: str) -> str:
        """Mean bytes of a part; a dash for none."""
        mean = mean_sd(row["bytes"][part] for row in self.rows).mean
        return f"{mean:,.0f}" if mean else "-"


def write_report(config: CompareConfig, rows: Sequence[Row], out: Path) -> dict[str, Path]:
    """Write ``table.md``, ``cells.csv``, ``accuracy.png``, and a picture of the exemplars of each distiller.

    Args:
        config: What was compared.
        rows: Of this configuration, those of failures too.
        out: Folder; exemplars that it holds are drawn, of the largest IPC and the first seed.

    Returns:
        The pictures by name.

    Raises:
        OSError: If the folder cannot be written.
    """
    with replacing(out / "table.md") as temporary:
        temporary.write_text(format_table(config, rows), encoding="utf-8")
    write_csv(out / "cells.csv", [_line(row) for row in rows if row["status"] == "done"])
    pictures = {}
    if groups := group_rows(config, rows):
        pictures["accuracy"] = out / "accuracy.png"
        save_figure(accuracy_bars(groups, config, rows[0]["teacher_accuracy"]), pictures["accuracy"])
    else:
        (out / "accuracy.png").unlink(missing_ok=True)  # that of another comparison
    for row in _drawn(config, rows):
        name = row["distiller"]
        if (file := exemplars_file(out, row, row["exemplars_sha256"])).is_file():
            pictures[f"exemplars/{name}"] = out / f"exemplars-{_slug(name)}.png"
            save_figure(contact_sheet(load_dataset(file)), pictures[f"exemplars/{name}"])
    return pictures


def _line(row: Row) -> dict[str, object]:
    """A finished cell as a line of a spreadsheet."""
    speed = row["distillation_images_per_second"]
    return {
        "distiller": row["distiller"],
        "stored_as": row["stored_as"],
        "ipc": row["ipc"],
        "loss": row["loss"],
        "seed": row["seed"],
        "accuracy_last": row["accuracy_last"],
        "accuracy_best": row["accuracy_best"],
        "num_exemplars": row["num_exemplars"],
        **{f"bytes_{part}": row["bytes"][part] for part in ("pixels", "labels", "teacher")},
        "distilling_s": round(row["distillation_seconds"], 3),
        "images_per_s": None if speed is None else round(speed),
        "commit": row["commit"],
    }


def _drawn(config: CompareConfig, rows: Sequence[Row]) -> list[Row]:
    """A row of each distiller, whose exemplars show what it makes."""
    largest = {"status": "done", "ipc": max(config.ipc), "seed": config.seeds[0]}
    return list({row["distiller"]: row for row in rows if largest.items() <= row.items()}.values())


def exemplars_file(out: Path, cell: Mapping[str, Any], sha256: str) -> Path:
    """Where exemplars are kept, by what made them and by themselves.

    Args:
        out: Folder of the comparison.
        cell: Its ``distiller``, ``ipc`` and ``seed``.
        sha256: The first 16 digits of that of the exemplars.
    """
    name = f"{_slug(cell['distiller'])}-ipc{cell['ipc']}-seed{cell['seed']}-{sha256}"
    return out / "exemplars" / f"{name}.safetensors"


def sentence(row: Row) -> str:
    """What a row says, for whoever watches."""
    name = f"{row['distiller']}, IPC {row['ipc']}, seed {row['seed']}, {row['loss']}"
    if row["status"] != "done":
        return f"{name}: failed. {row['reason']}"
    return (
        f"{name}: {row['accuracy_last']:.1%}, best {row['accuracy_best']:.1%}; distilled in "
        f"{row['distillation_seconds']:.1f} s, trained in {row['training_seconds']:.1f} s"
    )


def group_rows(config: CompareConfig, rows: Sequence[Row]) -> list[Group]:
    """Finished rows by loss, IPC and distiller, in the order of the configuration."""
    found: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        if row["status"] == "done":
            found.setdefault((row["distiller"], row["ipc"], row["loss"]), []).append(row)
    keys = ((d, ipc, loss) for loss in config.losses for ipc in config.ipc for d in config.distillers)
    return [Group(*key, tuple(found[key])) for key in keys if key in found]


def format_table(config: CompareConfig, rows: Sequence[Row]) -> str:
    """The table in Markdown, with what to know before it and failures after it."""
    parts = [_facts(config, rows)] if rows else ["Nothing is finished yet."]
    if config.evaluate_on == "validation":
        parts.append(
            "**Measured on validation images**, which are held out of the training images. Such numbers "
            "choose settings; they are no test results."
        )
    if groups := group_rows(config, rows):
        lines = [_HEADS, ("---", "---:", "---:", "---", *["---:"] * 8), *map(_cells, groups)]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    if failed := [row for row in rows if row["status"] != "done"]:
        counts = Counter((row["distiller"], row["reason"]) for row in failed)
        parts.append(
            "Failed (cells):\n\n" + "\n".join(f"- {d} ({n}): {why}" for (d, why), n in counts.items())
        )
    return "\n\n".join(parts) + "\n"


def _facts(config: CompareConfig, rows: Sequence[Row]) -> str:
    first = rows[0]
    done = sum(row["status"] == "done" for row in rows)
    cells = len(config.distillers) * len(config.ipc) * len(config.losses) * len(config.seeds)
    hardware = " | ".join(dict.fromkeys(row["hardware"] for row in rows))
    commits = " | ".join(dict.fromkeys(row["commit"] for row in rows))
    return (
        f"{done} of {cells} cells finished: {config.model} on {first['dataset']}, measured on "
        f"{first['num_test_images']:,} {config.evaluate_on} images, of which the teacher gets "
        f"{first['teacher_accuracy']:.1%}. Students: {config.steps} steps of {config.batch_size} images, "
        f"{config.optimizer} {config.lr:g}, {config.schedule} schedule, view {config.view}. Mean ± sample "
        f"standard deviation over n seeds; best is the best of {config.rounds} measurements, chosen on the "
        f"images that it is measured on. Hardware: {hardware}. Commit: {commits}."
    )


def _cells(group: Group) -> tuple[str, ...]:
    speed = group.statistic("distillation_images_per_second")
    return (
        group.distiller,
        str(group.ipc),
        f"{group.statistic('num_exemplars').mean:,.0f}",
        group.loss,
        group.statistic("accuracy_last").text(scale=100),
        group.statistic("accuracy_best").text(scale=100),
        str(len(group.rows)),
        *(group.mean_bytes(part) for part in ("pixels", "labels", "teacher")),
        group.statistic("distillation_seconds").text(),
        f"{speed.mean:,.0f}" if speed.n else "-",
    )


def accuracy_bars(groups: Sequence[Group], config: CompareConfig, teacher_accuracy: float | None) -> Figure:
    """Last accuracy, mean ± 1 sd, of each distiller side by side, by loss and IPC; the teacher is a line."""
    figure, axes = new_figure(3.9)
    places = list(dict.fromkeys((group.loss, group.ipc) for group in groups))
    distillers = [name for name in config.distillers if any(group.distiller == name for group in groups)]
    width = 0.84 / len(distillers)
    for number, name in enumerate(distillers):
        own = [group for group in groups if group.distiller == name]
        accuracies = [group.statistic("accuracy_last") for group in own]
        offset = (number - (len(distillers) - 1) / 2) * width
        axes.bar(
            [places.index((group.loss, group.ipc)) + offset for group in own],
            [accuracy.mean * 100 for accuracy in accuracies],
            width=width * 0.94,
            yerr=[0 if math.isnan(accuracy.sd) else accuracy.sd * 100 for accuracy in accuracies],
            color=COLORS[number % len(COLORS)],
            hatch=_HATCHES[number // len(COLORS) % len(_HATCHES)],
            edgecolor="white",
            linewidth=0,
            error_kw={"ecolor": "#222222", "elinewidth": 1},
            label=plain(name),
        )
    if teacher_accuracy is not None:
        look = {"color": "#000000", "linestyle": "--", "linewidth": 1.2}
        axes.axhline(teacher_accuracy * 100, label=f"teacher ({teacher_accuracy:.1%})", **look)
    axes.set_xticks(range(len(places)), [plain(f"IPC {ipc}\n{loss}") for loss, ipc in places])
    axes.set_ylabel("Last accuracy (%)")
    axes.grid(False, axis="x")
    legend_below(figure, axes)
    counts = sorted({len(group.rows) for group in groups})
    seeds = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    dataset = groups[0].rows[0]["dataset"]
    title = f"{config.model} on {dataset}, {config.evaluate_on} images, {seeds}, ± 1 standard deviation"
    set_title(axes, title, width=95)
    return figure


def _slug(distiller: str) -> str:
    return re.sub(r"[^\w.=-]+", "-", distiller)
