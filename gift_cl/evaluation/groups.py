"""Groups of rows that differ in their seeds alone: what means are taken over."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from gift_cl.evaluation.rows import Row
from gift_cl.statistic import Statistic, mean_sd

T = TypeVar("T")
Settings = dict[str, Any]

COLUMNS = (
    "method",
    "dataset",
    "data",
    "ipc",
    "num_images",
    "exemplars_sha256",
    "teacher_sha256",
    "preset",
    "loss",
    "labels",
    "optimizer",
    "lr",
    "model",
    "tar_model",
    "weight_decay",
    "schedule",
    "epochs",
    "batch_size",
    "view",
    "mix",
    "normalization",
    "precision",
    "evaluated_on",
)
"""Columns of a row that are settings, less the seed."""

_CLUTTER = ("exemplars_sha256", "teacher_sha256", "data", "num_images", "batch_size", "normalization")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Finished cells that differ in their seeds alone.

    Args:
        settings: All that they share.
        rows: One a seed, at least one.
    """

    settings: Settings
    rows: tuple[Row, ...]

    def statistic(self, name: str) -> Statistic:
        """A column: mean and sample standard deviation over the seeds."""
        return mean_sd(row.get(name) for row in self.rows)

    def mean_bytes(self) -> dict[str, float]:
        """Bytes by part, and in all."""
        parts = [row.get("bytes") or {} for row in self.rows]
        names = dict.fromkeys(name for part in parts for name in part)
        return {name: mean_sd(part.get(name) for part in parts).mean for name in names}

    def curve(self) -> dict[int, Statistic]:
        """Accuracy at each epoch that was measured."""
        points: dict[int, list[float | None]] = {}
        for row in self.rows:
            for epoch, accuracy in row.get("curve") or ():
                points.setdefault(epoch, []).append(accuracy)
        return {epoch: mean_sd(points[epoch]) for epoch in sorted(points)}


def settings_of(row: Row) -> Settings:
    """All that determines a row but its seed: its columns, then what else its recipe holds."""
    others = {name: value for name, value in (row.get("settings") or {}).items() if name not in row}
    return {name: row.get(name) for name in COLUMNS} | dict(sorted(others.items()))


def group_rows(rows: Iterable[Row]) -> list[Group]:
    """The groups of the finished rows, in the order of their first ones."""
    done = [row for row in rows if row["status"] == "done"]
    parts = partition(done, settings_of)
    return [Group(settings=settings_of(part[0]), rows=tuple(part)) for part in parts]


def partition(items: Iterable[T], key: Callable[[T], Settings]) -> list[list[T]]:
    """Items of equal settings together, in the order of the first ones."""
    parts: dict[str, list[T]] = {}
    for item in items:
        parts.setdefault(json.dumps(key(item), sort_keys=True), []).append(item)
    return list(parts.values())


def varying(settings: Sequence[Settings]) -> list[str]:
    """Names of the settings that are not the same everywhere, in their order.

    Paths, counts and digests are left out where the other settings tell all apart.
    """

    def count(*names: str) -> int:
        return len({json.dumps([one.get(name) for name in names], sort_keys=True) for one in settings})

    found = [name for name in dict.fromkeys(name for one in settings for name in one) if count(name) > 1]
    num_different = count(*found)
    for name in _CLUTTER:
        others = [other for other in found if other != name]
        if count(*others) == num_different:
            found = others
    return found


def always_shown(settings: Sequence[Settings]) -> list[str]:
    """Names of the settings that are shown even where they are the same; a student that is not the model."""
    names = ["method", "loss", "optimizer", "lr", "model"]
    if any(one.get("tar_model") not in (None, one.get("model")) for one in settings):
        names.append("tar_model")
    return names


def short_name(row: Row) -> str:
    """A row in a line, with its seed: ``rded · gift · AdamW · lr=0.001 · conv3 · seed=0``."""
    settings = settings_of(row)
    return f"{label(settings, always_shown([settings]))} · seed={row['seed']}"


def label(settings: Settings, names: Collection[str]) -> str:
    """The named settings in a line: ``gift · AdamW · lr=0.001``."""
    plain = ("method", "dataset", "loss", "optimizer", "model", "preset", "tar_model")
    return " · ".join(
        text(value) if name in plain else f"{name.replace('_', ' ')}={text(value)}"
        for name, value in settings.items()
        if name in names
    )


def text(value: Any) -> str:
    """A setting as a table shows it."""
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
