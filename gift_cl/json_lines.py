"""Files of JSON lines that grow while runs end: what is appended is on the disk, and nothing is rewritten."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def append_json_lines(file: str | os.PathLike[str], values: Iterable[Any]) -> None:
    """Append values, a line each, in a single write; they are on the disk when this returns.

    Several processes may append to one file. A line that a killed process left unfinished is closed first,
    so that nothing is glued to it. Missing folders are made.

    Raises:
        OSError: If the file cannot be written, or the disk is full; with the number of the system's error.
    """
    content = "".join(json.dumps(value) + "\n" for value in values).encode()
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Unbuffered: lines of several processes must not mix.
    with path.open("ab+", buffering=0) as handle:
        size = handle.tell()
        is_torn = size > 0 and os.pread(handle.fileno(), 1, size - 1) != b"\n"
        unwritten = b"\n" + content if is_torn else content
        while unwritten:
            unwritten = unwritten[handle.write(unwritten) :]
        os.fsync(handle)


def read_json_lines(file: str | os.PathLike[str], *, stacklevel: int = 2) -> list[tuple[int, Any]]:
    """The values of a file with the numbers of their lines, from 1; blank lines are none.

    Lines that are no JSON, as a killed process leaves them, are skipped with a warning.

    Args:
        file: What `append_json_lines` wrote.
        stacklevel: Whose line the warning names, as for `warnings.warn`.

    Raises:
        OSError: If the file cannot be read.
    """
    values, skipped = [], []
    for number, line in enumerate(Path(file).read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values.append((number, json.loads(line)))
        except ValueError:
            skipped.append(str(number))
    if skipped:
        warnings.warn(
            f"Skipped what is no whole row in `{file}`: line {', '.join(skipped)}. A run was stopped there.",
            stacklevel=stacklevel,
        )
    return values
