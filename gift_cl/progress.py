"""How long work tells how far it is, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called now and then with the number of items that are done, and of all."""


def silent(done: int, total: int) -> None:
    """Nobody listens."""
    del done, total
