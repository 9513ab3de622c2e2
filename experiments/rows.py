"""Rows of class-incremental runs: JSON lines on disk, one an experience."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gift_cl.json_lines import append_json_lines, read_json_lines

Row = dict[str, Any]

FILE_NAME = "rows.jsonl"

_NEEDED = {"run_id", "benchmark", "strategy", "seed", "experience", "num_experiences", "accuracy_seen"}
_CURE = "Write some with `python -m experiments.class_incremental`."


def append_rows(path: str | os.PathLike[str], rows: Sequence[Row]) -> None:
    """Append rows as JSON lines; they are on the disk when this returns.

    Args:
        path: A folder, or a file that ends in ``.jsonl``. Missing folders are made.
        rows: What to append, in a single write.

    Raises:
        OSError: If the folder cannot be written; the message names it.
    """
    file = _rows_file(path)
    try:
        append_json_lines(file, rows)
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
    found: dict[tuple[Any, ...], Row] = {}
    for file in dict.fromkeys(_rows_file(path).resolve() for path in paths):
        for row in _read_file(file):
            identity = (*run_key(row), row["experience"])
            other = found.pop(identity, None)
            if other is not None and other["folder"] != row["folder"] and final_rows([row]):
                warnings.warn(
                    f"The run {row['run_id']} is in `{other['folder']}` and in `{row['folder']}`; "
                    "it counts once, as the latter says.",
                    stacklevel=2,
                )
            found[identity] = row
    return list(found.values())


def run_key(row: Row) -> tuple[str, str]:
    """Which run a row belongs to: the ``run_id`` stands for all of its settings and seeds."""
    return row["benchmark"], row["run_id"]


def final_rows(rows: Iterable[Row]) -> list[Row]:
    """The rows of last experiences: one for each finished run."""
    return [row for row in rows if row["experience"] == row["num_experiences"] - 1]


def group_by_benchmark(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each benchmark, in the order of their first rows."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["benchmark"], []).append(row)
    return groups


def _rows_file(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    return path if path.suffix == ".jsonl" else path / FILE_NAME


def _read_file(file: Path) -> list[Row]:
    if not file.is_file():
        raise FileNotFoundError(f"No rows at `{file}`. {_CURE}")
    rows: list[Row] = []
    for number, row in read_json_lines(file, stacklevel=4):
        if missing := sorted(_NEEDED - set(row) if isinstance(row, dict) else _NEEDED):
            raise ValueError(
                f"Expected rows of class-incremental runs in `{file}`; line {number} has no "
                f"{', '.join(missing)}. {_CURE}"
            )
        rows.append(row | {"folder": str(file.parent)})
    if not rows:
        raise ValueError(f"Expected rows in `{file}`, found none. {_CURE}")
    return rows
