"""Arms of an experiment: their finished runs, and means over these."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.arm_settings import ArmKey, arm_labels, group_by_arm, is_ours
from experiments.rows import Row, final_rows, run_key
from gift_cl.statistic import Statistic, mean_sd

PARTS = ("pixels", "labels", "soft_labels", "teacher")


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
        return is_ours(self.strategy)

    @property
    def is_reference(self) -> bool:
        """Whether it bounds the others instead of keeping a memory: naive and joint."""
        return self.strategy in ("naive", "joint")

    @property
    def has_oracle(self) -> bool:
        """Whether its teacher had seen classes that its student had not met yet."""
        return bool(self.rows[0].get("oracle"))

    @property
    def finals(self) -> list[Row]:
        """One row a run."""
        return final_rows(self.rows)

    @property
    def budget_bytes(self) -> int | None:
        """What the memory may cost."""
        budget: int | None = self.rows[0].get("budget_bytes")
        return budget

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
        totals: dict[tuple[str, str], float] = {}
        for row in self.rows:
            totals[run_key(row)] = totals.get(run_key(row), 0.0) + (row.get("seconds") or 0.0)
        return mean_sd(totals.values())

    def final(self, name: str) -> Statistic:
        """A column after the last experience."""
        return mean_sd(row.get(name) for row in self.finals)

    def part_bytes(self, part: str) -> float:
        """Mean bytes of one part of the memory at the end."""
        return mean_sd((row.get("memory_bytes_by_part") or {}).get(part, 0) for row in self.finals).mean

    def curve(self) -> dict[int, Statistic]:
        """Accuracy on the classes seen so far, after each experience (0-based)."""
        experiences = sorted({row["experience"] for row in self.rows})
        return {
            e: mean_sd(row["accuracy_seen"] for row in self.rows if row["experience"] == e)
            for e in experiences
        }


def make_arms(rows: Sequence[Row]) -> list[Arm]:
    """The arms of ``rows``, best final accuracy first; runs that did not finish are left out."""
    finished = {run_key(row) for row in final_rows(rows)}
    kept = [row for row in rows if run_key(row) in finished]
    labels = arm_labels(kept)
    arms = [Arm(key=key, label=labels[key], rows=tuple(group)) for key, group in group_by_arm(kept).items()]
    return sorted(arms, key=lambda arm: (math.isnan(arm.accuracy.mean), -arm.accuracy.mean))
