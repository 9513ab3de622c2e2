"""Cells that several processes do together: the first one chooses them and writes them down, all train."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from gift_cl.evaluation.cell import Cell
from gift_cl.evaluation.processes import current
from gift_cl.evaluation.rows import Row
from gift_cl.progress import Progress, silent

if TYPE_CHECKING:
    from gift_cl.evaluation.run import RunCell

CELL_ERRORS = (ValueError, ArithmeticError, RuntimeError, MemoryError)
"""What ends a cell and not its grid: its parts do not fit, or a computation fails."""


def announced(run: RunCell) -> RunCell:
    """What does a cell together with the processes that `follow`; the same as ``run`` if there are none."""

    def run_announced(cell: Cell, *, progress: Progress = silent) -> Row:
        processes = current()
        processes.tell(cell.cell_id)
        with processes.together():
            return run(cell, progress=progress)

    return run_announced


def follow(cells: Sequence[Cell], run: RunCell) -> list[Row]:
    """Do the cells that the first process announces, until it tells the rows of the grid.

    Raises:
        OtherProcessError: If the first process has failed.
    """
    processes, by_id = current(), {cell.cell_id: cell for cell in cells}
    while isinstance(told := processes.tell(), str):
        with suppress(*CELL_ERRORS), processes.together():  # the first process writes down what went wrong
            if told not in by_id:
                raise ValueError("The images, teachers or settings of the processes are not the same.")
            run(by_id[told], progress=silent)
    rows: list[Row] = told
    return rows
