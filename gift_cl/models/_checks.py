"""The one check that every architecture makes on its sizes."""

from __future__ import annotations

import numbers


def check_count(name: str, value: object) -> None:
    """Raise ``ValueError`` unless the value is an integer of at least 1 (a bool is none)."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < 1:
        raise ValueError(f"Expected `{name}` as an integer of at least 1, got {value!r}.")
