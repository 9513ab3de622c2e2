"""Single runs as a table for spreadsheets and other programs."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from gift_cl.files import replacing


def write_csv(file: Path, lines: Sequence[Mapping[str, object]]) -> None:
    """Write a table with a head; no file if there are no lines.

    Args:
        file: Replaced if it is there, or removed.
        lines: Values by column, with the same columns in each.

    Raises:
        OSError: If the file cannot be written.
    """
    if not lines:
        file.unlink(missing_ok=True)
        return
    with replacing(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
