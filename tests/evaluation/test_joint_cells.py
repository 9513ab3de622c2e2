from collections.abc import Sequence
from typing import Any

import pytest
from tiny_grids import fake_row, tiny_cells

from gift_cl.evaluation import joint_cells
from gift_cl.evaluation.cell import Cell
from gift_cl.evaluation.joint_cells import announced, follow
from gift_cl.evaluation.processes import OtherProcessError, Processes
from gift_cl.evaluation.rows import Row
from gift_cl.progress import Progress, silent


class Scripted(Processes):
    """Hears what the first process of a test says, and notes what is told."""

    def __init__(self, said: Sequence[Any] = ()) -> None:
        super().__init__()
        self.said, self.told = list(said), list[Any]()

    def tell(self, value: Any = None) -> Any:
        self.told.append(value)
        return self.said.pop(0) if self.said else value


class Runs:
    """Does cells, and remembers their seeds."""

    def __init__(self, error: Exception | None = None) -> None:
        self.seeds: list[int] = []
        self.error = error

    def __call__(self, cell: Cell, *, progress: Progress = silent) -> Row:
        self.seeds.append(cell.recipe.seed)
        if self.error is not None:
            raise self.error
        return fake_row(cell)


@pytest.fixture
def cells() -> list[Cell]:
    return tiny_cells(3)


def hear(monkeypatch: pytest.MonkeyPatch, *said: Any) -> Scripted:
    processes = Scripted(said)
    monkeypatch.setattr(joint_cells, "current", lambda: processes)
    return processes


def test_announced_cells_are_done_in_the_order_of_the_first_process_until_it_tells_the_rows(
    cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    hear(monkeypatch, cells[2].cell_id, cells[0].cell_id, [{"status": "done"}])
    runs = Runs()
    assert follow(cells, runs) == [{"status": "done"}]
    assert runs.seeds == [2, 0]


@pytest.mark.parametrize("error", [ValueError(), FloatingPointError(), RuntimeError(), MemoryError()])
def test_what_ends_a_cell_in_all_processes_is_left_to_the_first_one(
    cells: list[Cell], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    hear(monkeypatch, cells[0].cell_id, cells[1].cell_id, [])
    runs = Runs(error)
    assert follow(cells, runs) == []
    assert runs.seeds == [0, 1]


def test_the_failure_of_another_process_ends_all_cells(
    cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    hear(monkeypatch, cells[0].cell_id, cells[1].cell_id, [])
    runs = Runs(OtherProcessError("gone"))
    with pytest.raises(OtherProcessError, match="gone"):
        follow(cells, runs)
    assert runs.seeds == [0]


def test_a_cell_of_other_data_is_not_done(cells: list[Cell], monkeypatch: pytest.MonkeyPatch) -> None:
    hear(monkeypatch, "another", [])
    runs = Runs()
    assert follow(cells, runs) == []
    assert runs.seeds == []


def test_a_cell_is_announced_before_it_is_done(cells: list[Cell], monkeypatch: pytest.MonkeyPatch) -> None:
    processes = hear(monkeypatch)
    calls: list[tuple[int, int]] = []

    def run(cell: Cell, *, progress: Progress = silent) -> Row:
        assert processes.told == [cell.cell_id]
        progress(1, 2)
        return fake_row(cell)

    row = announced(run)(cells[1], progress=lambda done, total: calls.append((done, total)))
    assert row == fake_row(cells[1])
    assert calls == [(1, 2)]
