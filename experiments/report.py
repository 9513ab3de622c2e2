"""A report of class-incremental runs, as a page and as a table: `python -m experiments.report RUNS...`.

The page is one file, `report.html`, with its figures inside; the figures lie beside it as PNGs.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.arms import make_arms
from experiments.report_page import write_page
from experiments.report_text import cells, flags
from experiments.rows import Row, final_rows, group_by_benchmark, read_rows

_COLUMNS = {
    "final\naccuracy": "accuracy",
    "n": "n",
    "forgetting": "forgetting",
    "bytes": "bytes",
    "of\nbudget": "of_budget",
    "exemplars": "exemplars",
    "seconds": "mean_seconds",
}


def write_report(folders: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Path:
    """Write ``report.html`` and its figures.

    Args:
        folders: Folders of runs, or their ``rows.jsonl``.
        out: Folder of the page; made if missing.

    Returns:
        Path of the page.

    Raises:
        FileNotFoundError: If a folder holds no rows.
        ValueError: If no run is finished, or a file holds other things than rows.
        OSError: If ``out`` cannot be written.
    """
    rows, notes = _read(folders)
    write_page(rows, notes, Path(out))
    return Path(out, "report.html")


def print_table(rows: Sequence[Row], console: Console | None = None) -> None:
    """Print a table of the arms for each benchmark: mean ± sample standard deviation over runs."""
    console = console or Console()
    for benchmark, own in group_by_benchmark(rows).items():
        title = Text(f"{benchmark}: accuracy and forgetting in %, mean ± sd over n runs")
        table = Table(title=title, title_justify="left", box=SIMPLE, padding=0)
        table.add_column("arm", overflow="fold", min_width=12)
        for head in _COLUMNS:
            table.add_column(head, justify="right", no_wrap=True)
        for arm in make_arms(own):
            texts = cells(arm)
            table.add_row(Text(arm.label), *(texts[name] for name in _COLUMNS.values()))
        console.print(table)
        for flag in flags(own):
            console.print(Text(flag, style="yellow"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit code is 2 when there is nothing to report or nowhere to write it."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.report",
        description="Make a page of class-incremental runs: a table of all arms (mean ± sample standard "
        "deviation over seeds), accuracy after each experience, accuracy against bytes, confusion, "
        "forgetting, bytes by part, and a picture of a memory. Runs that differ in anything but "
        "their seeds are different arms. The page needs no other file and no network.",
        epilog="example: python -m experiments.report runs/class_incremental --out page",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUNS",
        help="folders that experiments.class_incremental wrote (its --out), or their rows.jsonl",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder of report.html and its PNGs (default: the folder `report` beside the first rows)",
    )
    options = parser.parse_args(arguments)
    try:
        rows, notes = _read(options.runs)
        out = Path(options.out or Path(rows[0]["folder"], "report"))
        notes = write_page(rows, notes, out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    print_table(rows)
    print(f"report in {out / 'report.html'}")
    return 0


def _read(folders: Sequence[str | os.PathLike[str]]) -> tuple[list[Row], list[str]]:
    """Rows, with at least one finished run, and what there is to say about how they were read."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = read_rows(folders)
    if not final_rows(rows):
        raise ValueError(
            "Expected a finished run, but none reached its last experience. Let a run of "
            "`python -m experiments.class_incremental` end first."
        )
    return rows, list(dict.fromkeys(str(warning.message) for warning in caught))


if __name__ == "__main__":
    sys.exit(main())
