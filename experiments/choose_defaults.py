"""How the defaults on the digits were chosen: a grid on a validation split, never on the test images.

`python -m experiments.choose_defaults` takes about five minutes on two cores: codec x labels x weight of
the hard label x weight of the memory loss, herded exemplars, five seeds. It prints the best cells and
appends all rows to OUT/rows.jsonl.
"""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from experiments.class_incremental import run
from experiments.config import Config
from gift_cl.real_data import load_real_data

CODECS = ("raw", "quantize:4", "quantize:3", "quantize:2")
LABELS = ("hard", "stored", "stored:refresh=true")
WEIGHTS = ("0.0909", "0.5", "0.8")  # of the hard label; 1/11 is the paper's
MEMORY_WEIGHTS = (3.0, 10.0, 30.0)


def cells(base: Config) -> Iterator[Config]:
    """All configurations of the grid."""
    for codec, labels, weight, memory_weight in itertools.product(CODECS, LABELS, WEIGHTS, MEMORY_WEIGHTS):
        loss = f"gift:weight={weight}"
        yield replace(base, codec=codec, labels=labels, loss=loss, memory_weight=memory_weight)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.choose_defaults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=5, help="seeds of a cell (default: 5)")
    parser.add_argument("--show", type=int, default=15, help="cells to print (default: 15)")
    parser.add_argument("--out", default="runs/choose_defaults", help="folder of the rows")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the networks are too small for more
    base = Config(evaluate_on="validation", tracking="disabled", out=options.out)
    data = load_real_data("digits")
    results: dict[Config, list[float]] = defaultdict(list)
    jobs = [(cell, seed) for cell in cells(base) for seed in range(options.seeds)]
    for cell, seed in track(jobs, description="validation grid"):
        rows = run(replace(cell, seed=seed, class_order_seed=seed), data)
        results[cell].append(rows[-1]["accuracy_seen"])
    ranked = sorted(results.items(), key=lambda item: -sum(item[1]))
    table = Table(title=f"validation accuracy after the last experience, n = {options.seeds}")
    for column in ("codec", "labels", "loss", "memory weight", "mean", "sd"):
        table.add_column(column)
    for cell, accuracies in ranked[: options.show]:
        values = torch.tensor(accuracies)
        table.add_row(
            cell.codec,
            cell.labels,
            cell.loss,
            f"{cell.memory_weight:g}",
            f"{float(values.mean()):.4f}",
            f"{float(values.std()):.4f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
