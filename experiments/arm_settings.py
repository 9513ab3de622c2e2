"""Settings of arms: keys that tell arms apart, and short labels that show how they differ.

An arm is everything that was chosen; runs of an arm differ in their seeds alone. Two runs that differ
in any other setting, a learning rate for example, are never averaged.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from experiments.rows import Row

Settings = dict[str, Any]
ArmKey = tuple[tuple[str, Any], ...]

_MEMORY_AXES = ("exemplars", "codec", "labels", "loss")
_COMMON_AXES = ("benchmark", "num_experiences", "model", "head", "budget_bytes", "evaluated_on")
_AXES = ("strategy", *_MEMORY_AXES, "protocol", *_COMMON_AXES, "oracle")
# Settings that any strategy has: a label shows them where they differ between any two arms.
_SHARED = (
    *_COMMON_AXES,
    "optimizer",
    "lr",
    "momentum",
    "weight_decay",
    "epochs",
    "batch_size",
    "augmentation",
)
# Parts of a configuration that columns of a row already say, or that are no setting of an arm.
_SAID_BY_COLUMNS = (*_AXES, "data", "classes", "images_per_class", "experiences", "evaluate_on")
_NO_SETTINGS = ("seed", "class_order_seed", "device", "tracking", "root", "out")


def arm_key(row: Row) -> ArmKey:
    """All settings of a row except its seeds, in the order in which labels name them."""
    config = row.get("config") or {}
    axes = {name: row.get(name) for name in _AXES}
    others = sorted(set(config) - {*_SAID_BY_COLUMNS, *_NO_SETTINGS})
    return tuple((axes | {name: config[name] for name in others}).items())


def group_by_arm(rows: Iterable[Row]) -> dict[ArmKey, list[Row]]:
    """The rows of each arm, arms in the order of their first rows."""
    groups: dict[ArmKey, list[Row]] = {}
    for row in rows:
        groups.setdefault(arm_key(row), []).append(row)
    return groups


def is_ours(strategy: str) -> bool:
    """Whether a strategy rehearses distilled exemplars: gift and gift_dumb."""
    return strategy.startswith("gift")


def arm_labels(rows: Iterable[Row], *, ignore: Collection[str] = ()) -> dict[ArmKey, str]:
    """A short name for each arm, without the settings that do not tell any two of them apart.

    Args:
        rows: Rows of all arms that will stand beside one another.
        ignore: Settings to leave out all the same; arms that differ in them alone share a name.
    """
    arms = {key: dict(key) for key in group_by_arm(rows)}
    ours = [arm for arm in arms.values() if is_ours(arm["strategy"])]
    differing = {name for name in _SHARED if len(_values(name, arms.values()) - {None}) > 1}
    labels = {}
    for key, arm in arms.items():
        twins = [other for other in arms.values() if other["strategy"] == arm["strategy"]]
        shown = {name for name in arm if len(_values(name, twins)) > 1}
        shown |= {name for name in differing if arm.get(name) is not None}
        if is_ours(arm["strategy"]):
            shown |= {name for name in _MEMORY_AXES if len(_values(name, ours)) > 1}
        labels[key] = _label(arm, shown - set(ignore))
    return labels


def shared_settings(rows: Sequence[Row]) -> Settings:
    """Settings that are the same in all rows that have them (the axes of a memory: in ours)."""
    arms = [dict(key) for key in group_by_arm(rows)]
    ours = [arm for arm in arms if is_ours(arm["strategy"])]
    shared = {}
    for name in dict.fromkeys(name for arm in arms for name in arm):
        values = _values(name, ours if name in _MEMORY_AXES else arms) - {None, "-"}
        if len(values) == 1:
            shared[name] = values.pop()
    return shared


def _values(name: str, arms: Iterable[Settings]) -> set[Any]:
    return {arm.get(name) for arm in arms}


def _label(arm: Settings, shown: Collection[str]) -> str:
    named = [name for name in arm if name in shown and name not in ("strategy", "oracle")]
    words = [arm["strategy"], *(_word(name, arm[name]) for name in named)]
    if arm["oracle"]:
        words.append("oracle teacher")
    return " · ".join(words)


def _word(name: str, value: Any) -> str:
    if name == "budget_bytes":
        return "no budget" if value is None else f"{value:,} B"
    if name == "num_experiences":
        return f"{value} experiences"
    if name == "evaluated_on":
        return f"on {value}"
    if name in (*_MEMORY_AXES, "benchmark", "protocol", "model") and value:
        return str(value)
    return f"{name}={value}"
