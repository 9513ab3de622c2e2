"""What a memory costs: every byte that has to be kept between experiences, by part."""

from __future__ import annotations

from dataclasses import asdict, dataclass


class BudgetError(ValueError):
    """A memory does not fit its budget."""


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Bytes of a memory by part.

    Args:
        pixels: Images as stored, after the codec, with what they share (headers, tables) once.
        labels: Hard labels.
        soft_labels: Stored teacher logits, the views they belong to, and which classes they cover.
        teacher: Weights of a teacher that has to be kept to label on line.
    """

    pixels: int = 0
    labels: int = 0
    soft_labels: int = 0
    teacher: int = 0

    @property
    def total(self) -> int:
        """Sum of all parts, in bytes."""
        return self.pixels + self.labels + self.soft_labels + self.teacher

    def by_part(self) -> dict[str, int]:
        """Bytes by part, for rows and loggers."""
        return asdict(self)

    def require_within(self, budget_bytes: int) -> None:
        """Check the budget.

        Raises:
            BudgetError: If the total exceeds it; the message lists the parts.
        """
        if self.total > budget_bytes:
            raise BudgetError(
                f"The memory takes {self.total} bytes {self.by_part()}, over `budget_bytes` = {budget_bytes}."
            )


def label_nbytes(num_classes: int) -> int:
    """Bytes of one hard label among ``num_classes``: 1 up to 256 classes, 2 up to 65,536, else 4."""
    if num_classes <= 1 << 8:
        return 1
    return 2 if num_classes <= 1 << 16 else 4
