"""`gift-cl report`: a table and figures of what `gift-cl evaluate` found."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from textwrap import fill
from typing import Any

_PROGRAM = (
    "Make a table of evaluations: mean ± sample standard deviation over seeds of the last and of the best "
    "accuracy, and bytes. Rows that differ in anything but their seeds are never averaged; settings that are "
    "the same everywhere are left out of the table. Failed cells are listed with their reasons. Accuracies "
    "of images held out for validation are marked as such."
)
_EXAMPLES = """examples:
  gift-cl report runs/evaluation
  gift-cl report runs/sgd runs/adamw --format csv > table.csv
  gift-cl report runs/evaluation --figures figures
  gift-cl report runs/validation --best-lr
"""


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "report",
        help="make a table and figures of evaluations",
        description=fill(_PROGRAM, 100),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "out",
        metavar="OUT",
        nargs="+",
        help="folders that gift-cl evaluate wrote (its --out), or a rows.jsonl",
    )
    parser.add_argument(
        "--format", choices=("markdown", "csv"), default="markdown", help="of the table (default: markdown)"
    )
    parser.add_argument(
        "--figures",
        metavar="DIR",
        type=Path,
        help="write PNGs: a heat map of losses by optimizers, bars with their spread, learning curves",
    )
    parser.add_argument(
        "--best-lr",
        action="store_true",
        help="of rows that differ in their learning rate, only those of the one with the highest mean "
        "accuracy on validation images, never on test images",
    )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON for other programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the report of ``options.out``."""
    from gift_cl.evaluation.choice import best_by_validation
    from gift_cl.evaluation.report import format_report
    from gift_cl.evaluation.rows import read_rows

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = read_rows(options.out)
    for warning in caught:
        print(f"note: {warning.message}", file=sys.stderr)
    if options.best_lr:
        rows = best_by_validation(rows)
    print(json.dumps(rows, indent=2) if options.json else format_report(rows, options.format).rstrip())
    if options.figures is not None:
        from gift_cl.evaluation.report_figures import write_figures

        for path in write_figures(rows, options.figures):
            print(f"wrote {path}", file=sys.stderr)
