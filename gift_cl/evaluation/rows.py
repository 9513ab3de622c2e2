"""Rows of an evaluation: JSON lines on disk, one a cell."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gift_cl.json_lines import append_json_lines, read_json_lines

Row = dict[str, Any]

FILE_NAME = "rows.jsonl"

_NEEDED = ("cell_id", "method", "dataset", "model", "loss", "optimizer", "lr", "seed", "status")
_CURE = "Write some with `gift-cl evaluate`."


class DiskFullError(OSError):
    """There is no space left for results; those that are on the disk are whole."""


def append_row(folder: str | os.PathLike[str], row: Row) -> None:
    """Append a row to the rows of a folder; it is on the disk when this returns.

    Numbers that are not finite become null: JSON has none.

    Raises:
        DiskFullError: If there is no space left.
        OSError: If the folder cannot be written; the message names it.
    """
    try:
        append_json_lines(Path(folder, FILE_NAME), [_finite(row)])
    except OSError as error:
        raise write_error(error, folder) from error


def read_rows(paths: Iterable[str | os.PathLike[str]]) -> list[Row]:
    """The rows of all ``paths``, one a cell, in the order in which cells were first done.

    A cell that was done again counts as it was last, but for a failure after a success. A line that a
    killed process left unfinished is skipped with a warning.

    Args:
        paths: Folders of evaluations, or their ``rows.jsonl``.

    Raises:
        FileNotFoundError: If there are no rows at a path.
        ValueError: If a file holds other things than rows of evaluations.
    """
    rows = []
    for file in dict.fromkeys(_rows_file(path).resolve() for path in paths):
        if not file.is_file():
            raise FileNotFoundError(f"No rows at `{file}`. {_CURE}")
        own = _read_file(file)
        if not own:
            raise ValueError(f"Expected rows in `{file}`, found none. {_CURE}")
        rows += own
    return latest_rows(rows)


def read_all_rows(folder: str | os.PathLike[str]) -> list[Row]:
    """Every row of a folder as it was appended, failures that were tried again too; none without a file."""
    file = Path(folder, FILE_NAME)
    return _read_file(file) if file.is_file() else []


def latest_rows(rows: Iterable[Row]) -> list[Row]:
    """One row a cell: the last one, but for a failure after a success; in the order of first ones."""
    found: dict[str, Row] = {}
    for row in rows:
        earlier = found.get(row["cell_id"])
        if earlier is None or row["status"] == "done" or earlier["status"] != "done":
            found[row["cell_id"]] = row
    return list(found.values())


def write_error(error: OSError, folder: str | os.PathLike[str]) -> OSError:
    """The same error, in words that name the folder and the cure."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(
            f"The disk of `{os.fspath(folder)}` is full. What is finished is kept: free some space, and "
            "start the same command again."
        )
    return OSError(
        f"Cannot write rows into `{os.fspath(folder)}`: {error.strerror}. "
        "Choose a folder that you may write to."
    )


def _rows_file(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    return path if path.suffix == ".jsonl" else path / FILE_NAME


def _read_file(file: Path) -> list[Row]:
    rows = []
    for number, row in read_json_lines(file, stacklevel=4):
        if missing := [name for name in _NEEDED if not isinstance(row, dict) or name not in row]:
            raise ValueError(
                f"Expected rows of evaluations in `{file}`; line {number} has no {', '.join(missing)}. "
                f"{_CURE}"
            )
        rows.append(row)
    return rows


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
