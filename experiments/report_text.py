"""What a report says: sentences about runs, and the cells of an arm in a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.arm_settings import shared_settings
from experiments.arms import PARTS, Arm
from experiments.rows import Row, final_rows, run_key


def facts(rows: Sequence[Row]) -> str:
    """How many finished runs there are, and what they ran on."""
    finals = final_rows(rows)
    versions = [row.get("versions") or {} for row in finals]
    known: dict[str, list[Any]] = {
        "commit": [row.get("commit") for row in finals],
        "hardware": [row.get("hardware") for row in finals],
        "versions": [", ".join(f"{name} {number}" for name, number in v.items()) for v in versions],
    }
    words = [f"{_runs(len(finals))}, mean ± sample standard deviation over the runs of an arm"]
    for name, values in known.items():
        different = dict.fromkeys(str(value) for value in values if value)
        words.append(f"{name}: {' | '.join(different) or 'unknown'}")
    return ". ".join(words) + "."


def settings(rows: Sequence[Row]) -> str:
    """The settings that no label shows."""
    hidden = ("strategy", "benchmark", "oracle")
    shared = {name: value for name, value in shared_settings(rows).items() if name not in hidden}
    words = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shared.items())
    return f"The same in all arms that have it: {words}." if words else ""


def flags(rows: Sequence[Row]) -> list[str]:
    """What a reader has to know before the numbers."""
    finals = final_rows(rows)
    found = []
    validated = [row for row in finals if row.get("evaluated_on", "test") != "test"]
    if validated:
        found.append(
            f"{_share(validated, finals)} evaluated on validation: images held out of the training "
            "images. Such numbers choose settings; they are no test results."
        )
    oracles = [row for row in finals if row.get("oracle")]
    if oracles:
        found.append(
            f"{_share(oracles, finals)} with an oracle teacher: leaky. It had seen classes that its "
            "student had not met yet."
        )
    return found


def unfinished(rows: Sequence[Row]) -> str:
    """How many runs are left out because they did not reach their end; empty if none."""
    number = len({run_key(row) for row in rows}) - len(final_rows(rows))
    if not number:
        return ""
    if number == 1:
        return "1 run did not reach its last experience and is left out."
    return f"{number} runs did not reach their last experience and are left out."


def count_runs(arms: Sequence[Arm]) -> str:
    """``n = 5 runs of each arm``; a range when they have different numbers."""
    counts = [arm.accuracy.n for arm in arms]
    least, most = min(counts), max(counts)
    number = _runs(most) if least == most else f"{least} to {_runs(most)}"
    return f"n = {number}" + (" of each arm" if len(arms) > 1 else "")


def cells(arm: Arm) -> dict[str, str]:
    """The cells of an arm, by the names of their columns."""
    parts = {part: "-" if arm.is_reference else f"{arm.part_bytes(part):,.0f}" for part in PARTS}
    budget, size = arm.budget_bytes, arm.memory_bytes.mean
    return {
        "arm": arm.label,
        "n": str(arm.accuracy.n),
        "accuracy": arm.accuracy.text(scale=100),
        "forgetting": arm.final("forgetting").text(scale=100),
        "bytes": "all data" if arm.strategy == "joint" else f"{size:,.0f}",
        **parts,
        "of_budget": f"{size / budget * 100:.0f} %" if budget else "-",
        "exemplars": "-" if arm.is_reference else f"{arm.final('num_exemplars').mean:,.0f}",
        "seconds": arm.seconds.text(),
        "mean_seconds": f"{arm.seconds.mean:.1f}",
    }


def _runs(number: int) -> str:
    return f"{number} {'run' if number == 1 else 'runs'}"


def _share(some: Sequence[Row], rows: Sequence[Row]) -> str:
    return "All runs" if len(some) == len(rows) else f"{len(some)} of {len(rows)} runs"
