"""The demo: `make demo` compares GIFT rehearsal with Avalanche's strategies at the same bytes.

Split digits (5 experiences of 2 classes), five seeds with five class orders, every memory within the bytes
that Avalanche's DER uses for 50 images: 50 x (64 pixels + 10 logits of 4 bytes + 1 label) = 5,250.
About two minutes on two cores. Ends with a table, and a page with pictures.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.class_incremental import run
from experiments.config import Config
from experiments.report import print_table, write_report
from gift_cl.real_data import load_real_data

BUDGET = 50 * (64 + 10 * 4 + 1)
ARMS = (
    Config(strategy="naive"),
    Config(strategy="replay"),
    Config(strategy="der"),
    Config(strategy="er_ace"),
    Config(strategy="gdumb"),
    Config(strategy="gift", exemplars="random"),
    Config(strategy="gift", exemplars="herding"),
    Config(strategy="gift", exemplars="rded"),
    Config(strategy="joint"),
)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=5, help="seeds, each with its class order (default: 5)")
    parser.add_argument("--out", default=None, help="folder (default: runs/demo-DATE-TIME)")
    parser.add_argument(
        "--tracking",
        default="offline",
        choices=("offline", "online", "disabled"),
        help="Weights & Biases (default: offline)",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)  # the networks are too small for more
    out = Path(options.out or time.strftime("runs/demo-%Y%m%d-%H%M%S"))
    console = Console()
    data = load_real_data("digits")
    jobs = [(arm, seed) for arm in ARMS for seed in range(options.seeds)]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    rows = []
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("runs", total=len(jobs))
        for arm, seed in jobs:
            name = arm.strategy + (f", {arm.exemplars}" if arm.is_gift else "")
            progress.update(task, description=f"{name}, seed {seed}")
            config = replace(
                arm,
                seed=seed,
                class_order_seed=seed,
                budget_bytes=BUDGET,
                tracking=options.tracking,
                out=str(out),
            )
            rows += run(config, data)
            progress.advance(task)
    console.print()
    print_table(rows, console)
    page = write_report([out], out)
    console.print(f"Report: {page.resolve()}", soft_wrap=True)


if __name__ == "__main__":
    main()
