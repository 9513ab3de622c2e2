"""Rows of experiments: JSON lines on disk, the arms they belong to, and means over seeds.

An arm is everything that was chosen; runs of an arm differ in their seeds alone. Two runs that differ
in any other setting, a learning rate for example, are never averaged.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]
ArmKey = tuple[tuple[str, Any], ...]

FILE_NAME = "rows.jsonl"
PARTS = ("pixels", "labels", "soft_labels", "teacher")
MEMORY_AXES = ("exemplars", "codec", "labels", "loss")

# Settings that any strategy has: a label shows them where they differ between any two rows.
_COMMON_AXES = ("benchmark", "num_experiences", "model", "head", "budget_bytes", "evaluated_on")
_TRAINING = ("optimizer", "lr", "momentum", "weight_decay", "epochs", "batch_size", "augmentation")
_AXES = ("strategy", *MEMORY_AXES, "protocol", *_COMMON_AXES, "oracle")
# Parts of a configuration that columns of a row already say, or that are no setting of an arm.
_NOT_IN_KEY = {*_AXES, "seed", "class_order_seed", "data", "experiences", "evaluate_on"} | {
    "device",
    "tracking",
    "out",
}
_NEEDED = {"run_id", "benchmark", "strategy", "seed", "experience", "num_experiences"} | {"accuracy_seen"}


def append_rows(path: str | os.PathLike[str], rows: Sequence[Row]) -> None:
    """Append rows as JSON lines; they are on the disk when this returns.

    Args:
        path: A folder, or a file that ends in ``.jsonl``. Missing folders are made.
        rows: What to append, in a single write.

    Raises:
        OSError: If the folder cannot be written; the message names it.
    """
    file = _rows_file(path)
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            size = os.fstat(handle).st_size
            is_torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            _write(handle, b"\n" + content if is_torn else content)
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise OSError(
            f"Cannot write rows into `{file.parent}`: {error.strerror}. "
            "Choose a folder that you may write to and that has space left."
        ) from error


def read_rows(paths: Iterable[str | os.PathLike[str]]) -> list[Row]:
    """The rows of all ``paths``, each with the ``folder`` that it came from.

    A line that a killed run left unfinished is skipped with a warning. A run that was started again
    counts once, with its last row for each experience.

    Args:
        paths: Folders of runs, or their ``rows.jsonl``.

    Raises:
        FileNotFoundError: If there are no rows at a path.
        ValueError: If a file holds other things than rows of class-incremental runs.
    """
    found: dict[tuple[ArmKey, Any, Any, Any, Any], Row] = {}
    for file in dict.fromkeys(_rows_file(path).resolve() for path in paths):
        for row in _read_file(file):
            run = (row["run_id"], row["seed"], row.get("class_order_seed"))
            identity = (arm_key(row), *run, row["experience"])
            other = found.pop(identity, None)
            if other is not None and other["folder"] != row["folder"] and _is_final(row):
                warnings.warn(
                    f"The run {row['run_id']} is in `{other['folder']}` and in `{row['folder']}`; "
                    "it counts once, as the latter says.",
                    stacklevel=2,
                )
            found[identity] = row
    return list(found.values())


def final_rows(rows: Iterable[Row]) -> list[Row]:
    """The rows of last experiences: one for each finished run."""
    return [row for row in rows if _is_final(row)]


def arm_key(row: Row) -> ArmKey:
    """All settings of a row except its seeds, as something that can be a key."""
    return tuple(_settings(row).items())


def group_by_arm(rows: Iterable[Row]) -> dict[ArmKey, list[Row]]:
    """The rows of each arm, arms in the order of their first rows."""
    groups: dict[ArmKey, list[Row]] = {}
    for row in rows:
        groups.setdefault(arm_key(row), []).append(row)
    return groups


def label(row: Row) -> str:
    """The strategy of a row and, where it keeps distilled exemplars, their axes: ``gift · rded · …``."""
    shown = set(MEMORY_AXES) if _family(row["strategy"]) == "gift" else set()
    return _label(_settings(row), shown)


def arm_labels(rows: Sequence[Row], *, ignore: Collection[str] = ()) -> dict[ArmKey, str]:
    """A short name for each arm, without the axes that do not tell any two of ``rows`` apart.

    Args:
        rows: Rows of all arms that will stand beside one another.
        ignore: Axes to leave out all the same; arms that differ in them alone share a name.
    """
    groups = group_by_arm(rows)
    settings = {key: dict(key) for key in groups}
    labels = {}
    for key, own in settings.items():
        strategy = own["strategy"]
        twins = [s for s in settings.values() if s["strategy"] == strategy]
        family = [s for s in settings.values() if _family(s["strategy"]) == _family(strategy)]
        shown = {name for name in own if _differs(name, twins)}
        shown |= {name for name in MEMORY_AXES if _differs(name, family)}
        for name in (*_COMMON_AXES, *_TRAINING):
            if _differs(name, settings.values(), (None, "-")) and own.get(name) is not None:
                shown.add(name)
        labels[key] = _label(own, shown - set(ignore))
    return labels


def shared_settings(rows: Sequence[Row]) -> dict[str, Any]:
    """Settings that are the same in all rows that have them (the axes of a memory: in ours)."""
    settings = [dict(key) for key in group_by_arm(rows)]
    ours = [s for s in settings if _family(s["strategy"]) == "gift"]
    shared = {}
    for name in dict.fromkeys(name for s in settings for name in s):
        scope = ours if name in MEMORY_AXES else settings
        values = {s.get(name) for s in scope} - {None, "-"}
        if len(values) == 1:
            shared[name] = values.pop()
    return shared


@dataclass(frozen=True)
class Statistic:
    """Mean and sample standard deviation of ``n`` values; nan where they do not exist."""

    mean: float
    sd: float
    n: int

    def text(self, *, scale: float = 1.0, digits: int = 1) -> str:
        """``61.5 ± 1.2``; without a deviation when there is one value, ``-`` when there is none."""
        if self.n == 0:
            return "-"
        mean = f"{self.mean * scale:.{digits}f}"
        return mean if math.isnan(self.sd) else f"{mean} ± {self.sd * scale:.{digits}f}"


def mean_sd(values: Iterable[float | None]) -> Statistic:
    """Mean and sample standard deviation (ddof = 1) of the values that are there.

    Example:
        >>> mean_sd([1.0, 2.0, None, 6.0])
        Statistic(mean=3.0, sd=2.6457513110645907, n=3)
    """
    present = [float(value) for value in values if value is not None]
    mean = statistics.fmean(present) if present else math.nan
    return Statistic(mean, statistics.stdev(present) if len(present) > 1 else math.nan, len(present))


@dataclass(frozen=True, kw_only=True)
class Arm:
    """The finished runs of one arm.

    Args:
        key: Its settings.
        label: Its name beside the other arms.
        rows: Rows of all experiences of these runs.
    """

    key: ArmKey
    label: str
    rows: tuple[Row, ...]

    @property
    def strategy(self) -> str:
        """Name of the strategy."""
        return str(self.rows[0]["strategy"])

    @property
    def is_ours(self) -> bool:
        """Whether it rehearses distilled exemplars."""
        return _family(self.strategy) == "gift"

    @property
    def is_reference(self) -> bool:
        """Whether it bounds the others instead of keeping a memory: naive and joint."""
        return self.strategy in ("naive", "joint")

    @property
    def finals(self) -> list[Row]:
        """One row a run."""
        return final_rows(self.rows)

    @property
    def budget_bytes(self) -> int | None:
        """What the memory may cost."""
        budget = self.rows[0].get("budget_bytes")
        return None if budget is None else int(budget)

    @property
    def accuracy(self) -> Statistic:
        """Final accuracy on all classes, in [0, 1]."""
        return self.final("accuracy_seen")

    @property
    def memory_bytes(self) -> Statistic:
        """What the memory costs at the end."""
        return self.final("memory_bytes")

    @property
    def seconds(self) -> Statistic:
        """Training time of a whole run, distillation included."""
        totals: dict[tuple[Any, Any], float] = {}
        for row in self.rows:
            run = (row["run_id"], row.get("class_order_seed"))
            totals[run] = totals.get(run, 0.0) + (row.get("seconds") or 0.0)
        return mean_sd(totals.values())

    def final(self, name: str) -> Statistic:
        """A column after the last experience."""
        return mean_sd(row.get(name) for row in self.finals)

    def part_bytes(self, part: str) -> float:
        """Mean bytes of one part of the memory at the end."""
        return mean_sd((r.get("memory_bytes_by_part") or {}).get(part, 0) for r in self.finals).mean

    def curve(self) -> dict[int, Statistic]:
        """Accuracy on the classes seen so far, after each experience (0-based)."""
        experiences = sorted({row["experience"] for row in self.rows})
        return {
            e: mean_sd(row["accuracy_seen"] for row in self.rows if row["experience"] == e)
            for e in experiences
        }


def make_arms(rows: Sequence[Row]) -> list[Arm]:
    """The arms of ``rows``, best final accuracy first; runs that did not finish are left out."""
    finished = {_run(row) for row in final_rows(rows)}
    kept = [row for row in rows if _run(row) in finished]
    labels = arm_labels(kept)
    groups = group_by_arm(kept)
    arms = [Arm(key=key, label=labels[key], rows=tuple(group)) for key, group in groups.items()]
    return sorted(arms, key=lambda arm: (math.isnan(arm.accuracy.mean), -arm.accuracy.mean))


def format_bytes(count: float) -> str:
    """``331 B``, ``5.25 kB``, ``1.2 MB`` (1 kB is 1,000 bytes)."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"


def _rows_file(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    return path if path.suffix == ".jsonl" else path / FILE_NAME


def _write(handle: int, content: bytes) -> None:
    while content:
        content = content[os.write(handle, content) :]


def _read_file(file: Path) -> list[Row]:
    cure = "Write some with `python -m experiments.class_incremental`."
    if not file.is_file():
        raise FileNotFoundError(f"No rows at `{file}`. {cure}")
    rows: list[Row] = []
    skipped = []
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            skipped.append(number)
            continue
        if missing := sorted(_NEEDED - set(row) if isinstance(row, dict) else _NEEDED):
            raise ValueError(
                f"Expected rows of class-incremental runs in `{file}`; line {number} has no "
                f"{', '.join(missing)}. {cure}"
            )
        rows.append(row | {"folder": str(file.parent)})
    if not rows:
        raise ValueError(f"Expected rows in `{file}`, found none. {cure}")
    if skipped:
        numbers = ", ".join(str(number) for number in skipped)
        warnings.warn(
            f"Skipped what is no whole row in `{file}`: line {numbers}. A run was stopped there.",
            stacklevel=3,
        )
    return rows


def _is_final(row: Row) -> bool:
    return bool(row["experience"] == row["num_experiences"] - 1)


def _run(row: Row) -> tuple[ArmKey, Any, Any, Any]:
    return arm_key(row), row["run_id"], row["seed"], row.get("class_order_seed")


def _settings(row: Row) -> dict[str, Any]:
    """What was chosen, in the order in which labels name it."""
    config = row.get("config") or {}
    axes = {name: row.get(name) for name in _AXES}
    extras = {name: config[name] for name in sorted(config) if name not in _NOT_IN_KEY}
    return {
        name: json.dumps(value) if isinstance(value, list | dict) else value
        for name, value in (axes | extras).items()
    }


def _family(strategy: str) -> str:
    """Strategies whose memories have the same axes; each of Avalanche's stands alone."""
    return "gift" if strategy.startswith("gift") else strategy


def _differs(name: str, settings: Iterable[dict[str, Any]], besides: Collection[Any] = ()) -> bool:
    return len({s.get(name) for s in settings} - set(besides)) > 1


def _label(settings: dict[str, Any], shown: Collection[str]) -> str:
    words = [settings["strategy"]]
    named = [name for name in settings if name in shown and name not in ("strategy", "oracle")]
    words += [_word(name, settings[name]) for name in named]
    if settings["oracle"]:
        words.append("oracle teacher")
    return " · ".join(words)


def _word(name: str, value: Any) -> str:
    if name == "budget_bytes":
        return "no budget" if value is None else f"{value:,} B"
    if name == "num_experiences":
        return f"{value} experiences"
    if name == "evaluated_on":
        return f"on {value}"
    if name in (*MEMORY_AXES, "benchmark", "protocol", "model") and value:
        return str(value)
    return f"{name}={value}"
