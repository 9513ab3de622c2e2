"""The grids and the rows of docs/reproduction.md."""

from pathlib import Path

import pytest

from gift_cl.cli.evaluate import parse
from gift_cl.evaluation.grid import expand
from gift_cl.evaluation.report import format_report
from gift_cl.evaluation.rows import read_rows

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "reproduction"
DOCUMENT = (ROOT / "docs" / "reproduction.md").read_text()


def table(file: Path) -> list[dict[str, str]]:
    """The report of the finished cells."""
    rows = [row for row in read_rows([file]) if row["status"] == "done"]
    lines = [line for line in format_report(rows).splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(cells[0], line, strict=True)) for line in cells[2:]]


@pytest.mark.parametrize(
    ("file", "cells"), [("adamw", 12), ("random", 6), ("sgd_rates", 28), ("sgd", 3), ("own", 1)], ids=str
)
def test_every_grid_can_be_read(file: str, cells: int) -> None:
    assert len(list(expand(parse(["--config", str(FOLDER / f"{file}.yaml")])))) == cells


@pytest.mark.parametrize(("file", "count"), [("rows", 10), ("own", 1)])
def test_the_document_says_what_its_rows_say(file: str, count: int) -> None:
    found = table(FOLDER / f"{file}.jsonl")
    assert len(found) == count
    for row in found:
        cells = "| {method} | {loss} | {optimizer} | {lr} | {n} | {last (%)} | {best (%)} | {top-5 (%)} |"
        assert cells.format_map(row) in DOCUMENT


def test_rates_of_sgd_are_those_that_held_out_images_chose() -> None:
    best: dict[str, tuple[float, str]] = {}
    for row in table(FOLDER / "rates.jsonl"):
        best[row["loss"]] = max(best.get(row["loss"], (0.0, "")), (float(row["last (%)"]), row["lr"]))
    chosen = {row["loss"]: row["lr"] for row in table(FOLDER / "rows.jsonl") if row["optimizer"] == "SGD"}
    assert chosen
    assert {loss: best[loss][1] for loss in chosen} == chosen
