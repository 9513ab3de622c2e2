"""Grids of cells that take milliseconds, for tests of what happens around the cells."""

import os
import time
from pathlib import Path
from typing import Any

import torch

from gift_cl.dataset import DistilledDataset, Provenance
from gift_cl.evaluation.cell import Cell, run_cell
from gift_cl.evaluation.recipe import Recipe
from gift_cl.evaluation.run import RunCell, run_grid
from gift_cl.progress import Progress, silent


def tiny_images(num_images: int = 4, *, num_classes: int = 2, seed: int = 0) -> DistilledDataset:
    generator = torch.Generator().manual_seed(seed)
    return DistilledDataset.from_images(
        torch.randint(0, 256, (num_images, 1, 4, 4), dtype=torch.uint8, generator=generator),
        torch.arange(num_images) % num_classes,
        num_classes=num_classes,
        provenance=Provenance(method="tiny", source="a generator"),
    )


def tiny_cells(number: int) -> list[Cell]:
    images, test = tiny_images(), tiny_images(6, seed=1)
    recipe = Recipe(epochs=2, loss="ce", labels="hard", view="none", normalization="none", evaluations=1)
    return [
        Cell(
            recipe=recipe.override(seed=seed),
            exemplars=images,
            test=test,
            method="tiny",
            dataset="generated",
            data="memory",
            model="mlp:hidden=4",
            preset="gift",
        )
        for seed in range(number)
    ]


def fake_row(cell: Cell, **more: Any) -> dict[str, Any]:
    """A row as `run_cell` makes it, as far as it matters here; all numbers follow from the seed."""
    recipe = cell.recipe
    row: dict[str, Any] = {"cell_id": cell.cell_id, "method": cell.method, "dataset": cell.dataset}
    row |= {"model": cell.model, "tar_model": cell.student, "loss": recipe.loss, "lr": recipe.lr}
    row |= {"optimizer": recipe.optimizer, "seed": recipe.seed, "evaluated_on": cell.evaluated_on}
    row |= {"status": "done", "reason": None, "accuracy_last": recipe.seed / 100, "accuracy_best": 0.5}
    row |= {"curve": [[1, 0.25], [2, recipe.seed / 100]], "bytes": {"pixels": 64, "total": 64}}
    row |= {"settings": recipe.as_dict(), "seconds": 0.5}
    return row | more


def fake_run(cell: Cell, *, progress: Progress = silent) -> dict[str, Any]:
    for done in (4, 8):
        progress(done, 8)
    return fake_row(cell)


def slow_run(cell: Cell, *, progress: Progress = silent) -> dict[str, Any]:
    time.sleep(0.02)
    return fake_row(cell, process=os.getpid(), filler="x" * 20_000)


def stuck_run(cell: Cell, *, progress: Progress = silent) -> dict[str, Any]:
    time.sleep(600)
    return fake_row(cell)


RUNS: dict[str, RunCell] = {"slow": slow_run, "stuck": stuck_run, "real": run_cell}


def run_in_process(out: Path, number: int, kind: str) -> None:
    """What the processes of the tests do; it can be sent to them."""
    torch.set_num_threads(1)
    run_grid(tiny_cells(number), out=out, run=RUNS[kind])
