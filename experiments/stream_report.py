"""What a comparison of memories in streams found: a table with paired differences, and a picture."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from scipy import stats

from experiments.csv_file import write_csv
from experiments.plots import COLORS, legend_below
from experiments.rows import Row
from experiments.stream_settings import MemoryChoice, StreamsConfig
from gift_cl.files import replacing
from gift_cl.pictures.canvas import new_figure, plain, save_figure, set_title
from gift_cl.statistic import Statistic, mean_sd

_HEADS = (
    *("IPC", "memory", "last accuracy (%)", "n", "over the best real memory", "over its real twin"),
    *("bytes", "of them teacher", "exemplars", "run (s)", "distilling (s)"),
)
_MARKERS = "os^DvPX"
_LONGEST = 70  # characters of a name in a legend


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished run: its last row, and the place in the comparison."""

    memory: MemoryChoice
    ipc: float
    row: Row


@dataclass(frozen=True)
class Group:
    """The finished runs of one memory at one size, one a class order."""

    memory: MemoryChoice
    ipc: float
    rows: tuple[Row, ...]

    @property
    def accuracy(self) -> Statistic:
        """On all classes after the last experience, in [0, 1]."""
        return self.mean("accuracy_seen")

    def mean(self, name: str) -> Statistic:
        """A column."""
        return mean_sd(row[name] for row in self.rows)


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences, with the half width of its 95 % interval (Student's t); nan for n < 2."""

    mean: float
    half_width: float
    n: int

    def text(self) -> str:
        """In points: ``+2.1 [+0.4, +3.8]``."""
        mean = f"{self.mean * 100:+.1f}"
        if math.isnan(self.half_width):
            return mean
        low, high = self.mean - self.half_width, self.mean + self.half_width
        return f"{mean} [{low * 100:+.1f}, {high * 100:+.1f}]"


def paired(ours: Iterable[Row], theirs: Iterable[Row]) -> Difference | None:
    """Difference of final accuracies over the class orders that both have; None if there is none.

    Example:
        >>> rows = [{"seed": 0, "accuracy_seen": 0.5}]
        >>> paired(rows, rows).mean
        0.0
    """
    other = {row["seed"]: row["accuracy_seen"] for row in theirs}
    gaps = [row["accuracy_seen"] - other[row["seed"]] for row in ours if row["seed"] in other]
    if not gaps:
        return None
    half_width = math.nan
    if (n := len(gaps)) > 1:
        half_width = float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(gaps) / math.sqrt(n)
    return Difference(statistics.fmean(gaps), half_width, n)


def write_report(comparison: StreamsConfig, results: Sequence[Result], out: Path) -> None:
    """Write ``table.md``, ``accuracy.png``, and ``runs.csv`` with a line for each run.

    Raises:
        OSError: If the folder cannot be written.
    """
    groups = group_results(comparison, results)
    write_csv(out / "runs.csv", [_line(result) for result in results])
    with replacing(out / "table.md") as temporary:
        temporary.write_text(format_table(comparison, groups), encoding="utf-8")
    if groups:
        save_figure(accuracy_by_size(comparison, groups), out / "accuracy.png")
    else:
        (out / "accuracy.png").unlink(missing_ok=True)  # that of another comparison


def _line(result: Result) -> dict[str, object]:
    """A run as a line of a spreadsheet."""
    row = result.row
    return {
        "ipc": f"{result.ipc:g}",
        **asdict(result.memory),
        "class_order": row["seed"],
        "accuracy": row["accuracy_seen"],
        "bytes": row["memory_bytes"],
        "num_exemplars": row["num_exemplars"],
        "run_s": round(row["run_seconds"], 3),
        "distilling_s": round(row["run_distillation_seconds"], 3),
        "commit": row["commit"],
    }


def sentence(result: Result) -> str:
    """What a result says, for whoever watches."""
    row = result.row
    return (
        f"IPC {result.ipc:g}, {result.memory.name}, class order {row['seed']}: {row['accuracy_seen']:.1%} "
        f"with {row['memory_bytes']:,} bytes"
    )


def group_results(comparison: StreamsConfig, results: Sequence[Result]) -> list[Group]:
    """Finished runs by size and memory, in the order of the comparison."""
    found: dict[tuple[float, MemoryChoice], list[Row]] = {}
    for result in results:
        found.setdefault((result.ipc, result.memory), []).append(result.row)
    keys = ((ipc, memory) for ipc in comparison.ipc for memory in comparison.memories)
    return [Group(key[1], key[0], tuple(found[key])) for key in keys if key in found]


def format_table(comparison: StreamsConfig, groups: Sequence[Group]) -> str:
    """The table in Markdown, with what to know before it."""
    if not groups:
        return "Nothing is finished yet.\n"
    stream, first = comparison.stream, groups[0].rows[0]
    hardware = " | ".join(dict.fromkeys(row["hardware"] for group in groups for row in group.rows))
    commits = " | ".join(dict.fromkeys(row["commit"] for group in groups for row in group.rows))
    facts = (
        f"{first['benchmark']} ({stream.strategy}, {first['protocol']}), {stream.model}, {stream.optimizer} "
        f"{stream.lr:g}, {stream.epochs} epochs an experience, augmentation {stream.augmentation}, measured "
        f"on {stream.evaluate_on} images after the last experience. Mean ± sample standard deviation over n "
        "class orders; differences in points over the same class orders, with 95 % intervals. A real twin "
        f"has the same codec, labels and loss. Hardware: {hardware}. Commit: {commits}."
    )
    lines = [_HEADS, ("---:", "---", *["---:"] * 9)]
    lines += [_cells(group, [g for g in groups if g.ipc == group.ipc]) for group in groups]
    return facts + "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cells(group: Group, rivals: Sequence[Group]) -> tuple[str, ...]:
    parts = [row["memory_bytes_by_part"] for row in group.rows]
    real = [rival for rival in rivals if rival.memory.is_real]
    twins = [rival for rival in real if rival.memory.is_real_twin(group.memory)]
    return (
        f"{group.ipc:g}",
        group.memory.name,
        group.accuracy.text(scale=100),
        str(len(group.rows)),
        _over_best(group, real),
        _over_best(group, twins),
        f"{group.mean('memory_bytes').mean:,.0f}",
        f"{statistics.fmean(part.get('teacher', 0) for part in parts):,.0f}",
        f"{group.mean('num_exemplars').mean:,.0f}",
        group.mean("run_seconds").text(),
        group.mean("run_distillation_seconds").text(),
    )


def _over_best(group: Group, real: Sequence[Group]) -> str:
    """Over the real memory with the best mean of the same class orders, or of most of them."""
    orders = {row["seed"] for row in group.rows}
    shared = [[row for row in rival.rows if row["seed"] in orders] for rival in real]
    most = max(map(len, shared), default=0)
    if group.memory.is_real or not most:
        return "-"
    complete = [rows for rows in shared if len(rows) == most]
    best = max(complete, key=lambda rows: mean_sd(row["accuracy_seen"] for row in rows).mean)
    difference = paired(group.rows, best)
    assert difference is not None
    return difference.text() + (f" (n = {most})" if most < len(orders) else "")


def short_names(memories: Sequence[MemoryChoice]) -> dict[MemoryChoice, str]:
    """Names without options, where those tell them apart; whole ones, cut off, otherwise."""
    names = {
        memory: " · ".join(
            spec.partition(":")[0] if axis != "codec" else spec
            for axis, spec in (
                ("exemplars", memory.exemplars),
                ("codec", memory.codec),
                ("labels", memory.labels),
                ("loss", memory.loss),
            )
        )
        for memory in memories
    }
    counts = Counter(names.values())
    return {m: short if counts[short] == 1 else m.name[:_LONGEST] for m, short in names.items()}


def accuracy_by_size(comparison: StreamsConfig, groups: Sequence[Group]) -> Figure:
    """Last accuracy, mean ± 1 sd, against IPC; real memories are dashed."""
    figure, axes = new_figure(3.9)
    memories = [memory for memory in comparison.memories if any(g.memory == memory for g in groups)]
    labels = short_names(memories)
    for number, memory in enumerate(memories):
        own = [group for group in groups if group.memory == memory]
        axes.errorbar(
            [group.ipc for group in own],
            [group.accuracy.mean * 100 for group in own],
            yerr=np.nan_to_num([group.accuracy.sd for group in own]) * 100,
            label=plain(labels[memory]),
            color=COLORS[number % len(COLORS)],
            marker=_MARKERS[number // len(COLORS) % len(_MARKERS)],
            linestyle="--" if memory.is_real else "-",
            linewidth=1.2 if memory.is_real else 2.2,
            capsize=3,
            elinewidth=1.2,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted(comparison.ipc)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="Bytes, in raw images a class", ylabel="Last accuracy (%)")
    legend_below(figure, axes)
    counts = sorted({len(group.rows) for group in groups})
    orders = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    title = f"{groups[0].rows[0]['benchmark']}, {comparison.stream.model}, {orders}, ± 1 standard deviation"
    set_title(axes, title, width=95)
    return figure
